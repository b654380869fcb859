"""``nsmctl``: the operator's tool. The verbs are in ``commands/``; this file only puts them together."""

import sys
from typing import Annotated

import typer

from nsmctl.commands import demo, get, lab, run, workload
from nsmctl.errors import LabError

app = typer.Typer(
    name="nsmctl",
    help="Operate a Network Service Mesh: a lab on this machine, workloads, and what runs.",
    epilog="Start with: nsmctl demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(lab.app, name="lab")
app.command("demo")(demo.demo)
app.command("endpoint")(workload.endpoint)
app.command("connect")(workload.connect)
app.command("disconnect")(workload.disconnect)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("get")(get.get)


@app.callback()
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version and end.", is_eager=True)] = False,
) -> None:
    """Operate a Network Service Mesh: a lab on this machine, workloads, and what runs."""
    if show:
        from importlib.metadata import version as installed  # noqa: PLC0415 - only this option needs it

        typer.echo(installed("nsm-vpp"))
        raise typer.Exit


def main() -> None:
    """Run the command; a LabError becomes its sentence and exit status 1."""
    try:
        app()
    except LabError as error:
        sys.stderr.write(f"nsmctl: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
