"""Makes ``nsm/wire/generated`` from ``nsm/wire/proto``: ``python -m nsm.wire.generate [--check]``.

Needs grpcio-tools (extra ``dev``). The .proto files import each other by bare file name, as peers ask for
``connection.proto`` in server reflection; so protoc also takes the modules to be top level and writes
``import connection_pb2``. Only these module names are rewritten here, the descriptors keep their bare names.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from grpc_tools import protoc

HERE: Final = Path(__file__).resolve().parent
PROTO: Final = HERE / "proto"
GENERATED: Final = HERE / "generated"
PACKAGE: Final = "nsm.wire.generated"


class GenerateError(Exception):
    """protoc refused the .proto files; its own complaint is on stderr."""


def move_into_package(text: str, modules: Iterable[str]) -> str:
    """Puts the given modules into our package: in imports and in the ``__module__`` of the classes."""
    names = "|".join(sorted(map(re.escape, modules)))
    text = re.sub(rf"^import ({names}) as ", rf"from {PACKAGE} import \1 as ", text, flags=re.MULTILINE)
    return re.sub(rf"(DESCRIPTOR, )'({names})'(, _globals)", rf"\1'{PACKAGE}.\2'\3", text)


def generate(proto: Path = PROTO) -> dict[str, bytes]:
    """The files protoc makes of all ``*.proto`` in that directory, by file name. Raises GenerateError."""
    names = sorted(path.name for path in proto.glob("*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    with TemporaryDirectory() as out:
        arguments = [
            "protoc",
            f"-I{proto}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            *names,
        ]
        if protoc.main(arguments) != 0:
            raise GenerateError(f"protoc failed on {', '.join(names)}")
        modules = [f"{name.removesuffix('.proto')}_pb2" for name in names]
        return {
            path.name: move_into_package(path.read_text("utf-8"), modules).encode()
            for path in sorted(Path(out).iterdir())
        }


def differing(expected: Mapping[str, bytes], directory: Path = GENERATED) -> list[str]:
    """The files that are missing from the directory, too many in it, or not byte for byte as expected."""
    found = {path.name: path.read_bytes() for path in directory.glob("*_pb2*.py*") if path.is_file()}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def write(expected: Mapping[str, bytes], directory: Path = GENERATED) -> list[str]:
    """Makes the directory as expected; the result names the files that changed."""
    changed = differing(expected, directory)
    for name in changed:
        if name in expected:
            (directory / name).write_bytes(expected[name])
        else:
            (directory / name).unlink()
    return changed


def main(arguments: list[str] | None = None, directory: Path = GENERATED) -> int:
    """The command: 0 = done or nothing differs, 1 = ``--check`` found differing files or protoc failed."""
    parser = argparse.ArgumentParser(prog="python -m nsm.wire.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name what differs")
    options = parser.parse_args(arguments)
    try:
        expected = generate()
    except GenerateError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    changed = differing(expected, directory) if options.check else write(expected, directory)
    sys.stdout.writelines(f"{name}\n" for name in changed)
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
