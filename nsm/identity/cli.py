"""The commands of ``nsm-identity``: make an authority, replace it, give another host its own, serve identities."""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from nsm.identity.authority import (
    NODE_TTL,
    ROOT_TTL,
    Authority,
    create_authority,
    fingerprint,
    load_authority,
    save_authority,
)
from nsm.identity.durations import seconds
from nsm.identity.errors import IdentityError
from nsm.identity.files import write_private
from nsm.identity.registration import load_registration
from nsm.identity.replacement import STEPS, replace_root
from nsm.identity.service import IdentityService, Places

CONFIG: Final = "/etc/nsm/identity.yaml"
AUTHORITY: Final = "/var/lib/nsm/identity/authority.pem"
DIRECTORY: Final = "/run/nsm/identity"
LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "PANIC")

_DESCRIPTION: Final = """\
Workload identities (SPIFFE X.509-SVIDs) without a SPIRE: one authority per trust domain,
one Workload API socket per identity. Daemons use it when SPIFFE_ENDPOINT_SOCKET is unset."""

_EPILOG: Final = """\
one host:
  nsm-identity init --trust-domain example.org
  nsm-identity serve --config /etc/nsm/identity.yaml

the registration file (every key but entries is optional):
  directory: /run/nsm/identity      # where sockets without a path of their own go
  svid_ttl: 1h                      # SVIDs are replaced after half of it
  federation:                       # other trust domains: PEM file of their authorities
    other.org: /etc/nsm/other.org.pem
  entries:
    - spiffe_id: spiffe://example.org/manager/node-1
      socket: /run/nsm/identity/node-1.sock   # default: <directory>/<last part of the id>.sock
      uid: root                     # who may connect (the kernel says who it is); default: our own uid
      gid: 0                        # optional

  Edit it at any time: the running service notices. So it does for federation files and the authority.

a second host of the same trust domain:
  first$  nsm-identity sign node-2 --output node-2.pem
  first$  scp -p node-2.pem second:/var/lib/nsm/identity/authority.pem && rm node-2.pem
  second$ nsm-identity serve

a new root, while everything runs (in time, as the old one expires; or at once, as its key is known to others):
  first$  nsm-identity rotate-ca prepare     # everybody trusts the new root too, the old one signs
  first$  nsm-identity rotate-ca activate    # the new one signs, the old one is still trusted
  first$  nsm-identity rotate-ca finish      # the old one is trusted no more
  After each step every other host gets a file by `sign`, and every federated trust domain one by `show --bundle`;
  wait after each until all have it, and before finish until all SVIDs are new (svid_ttl).

another trust domain:
  nsm-identity show --bundle > example.org.pem    # the other side names this file under federation

environment: NSM_IDENTITY_CONFIG, NSM_IDENTITY_AUTHORITY, NSM_IDENTITY_DIR, NSM_SVID_TTL, NSM_LOG_LEVEL,
  NSM_LOG_FORMAT (json or console)"""


@dataclass(frozen=True, slots=True)
class Shell:
    """What the commands get from outside; nothing here reads the environment later."""

    start_logs: Callable[[str], None]
    """Configures logs and level signals for a level's name."""
    tell_inventory: Callable[[], None]
    """Logs what the process has in hand."""


def run(argv: Sequence[str] | None, shell: Shell) -> int:
    """Run one command; the exit status: 0, 1 = it failed (reason on stderr), 2 = wrong arguments."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        status: int = options.run(options, shell)
    except IdentityError as error:
        print(f"nsm-identity {options.command}: {error}", file=sys.stderr)
        return 1
    return status


def init(options: argparse.Namespace, _shell: Shell) -> int:
    """Make the root authority; nothing happens if it is there already."""
    path = options.authority
    if path.exists():
        found = load_authority(path)
        if found.trust_domain != options.trust_domain:
            raise IdentityError(
                f"{path}: holds the authority of {found.trust_domain}, not of {options.trust_domain};"
                " move it away or name another file with --authority"
            )
        print(f"{path}: the authority of {found.trust_domain} is there already, valid until {_date(found)}")
        return 0
    authority = create_authority(options.trust_domain, options.ttl)
    save_authority(path, authority)
    print(
        f"{path}: authority of {authority.trust_domain}, valid until {_date(authority)}; keep this file secret"
    )
    return 0


def sign(options: argparse.Namespace, _shell: Shell) -> int:
    """Write the authority file of another host."""
    output: Path = options.output or Path(f"{options.node}.pem")
    if output.exists():
        raise IdentityError(f"{output}: exists already; remove it or choose another --output")
    authority = load_authority(options.authority).sign_node(options.node, options.ttl, time.time())
    write_private(output, authority.pem())
    print(
        f"{output}: authority of {authority.node} in {authority.trust_domain}, valid until {_date(authority)}\n"
        f"move it there (it holds a private key), then: nsm-identity serve --authority FILE"
    )
    return 0


def rotate_ca(options: argparse.Namespace, _shell: Shell) -> int:
    """One step of replacing the root."""
    authority = replace_root(options.authority, options.step, ttl=options.ttl, now=time.time())
    print(f"{options.authority}: {STEPS[options.step]}")
    for at, root in enumerate(authority.roots):
        print(f"  {'trusted' if at else 'signs'} {fingerprint(root)}")
    return 0


def show(options: argparse.Namespace, _shell: Shell) -> int:
    """What the authority is and what is registered; never a key."""
    authority = load_authority(options.authority)
    if options.bundle:
        sys.stdout.write(authority.bundle_pem().decode())
        return 0
    facts = _facts(authority, options)
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    print(f"trust domain  {facts['trust_domain']}")
    print(f"authority     {facts['node']} ({options.authority})")
    for certificate in facts["chain"]:
        print(
            f"  {certificate['name']:<12}valid until {certificate['not_after']}  sha256 {certificate['sha256']}"
        )
    for root in facts["other_roots"]:
        print(f"  trusted too: another root, sha256 {root}")
    for domain, file in facts["federation"].items():
        print(f"federation    {domain}  {file}")
    for entry in facts["entries"]:
        owner = f"uid {entry['uid']}" + ("" if entry["gid"] is None else f" gid {entry['gid']}")
        state = "open" if entry["is_open"] else "no socket"
        print(f"identity      {entry['spiffe_id']}  {entry['socket']}  {owner}  {state}")
    return 0


def serve(options: argparse.Namespace, shell: Shell) -> int:
    """Serve until SIGTERM or SIGINT."""
    shell.start_logs(options.log_level)
    places = Places(options.config, options.authority, options.directory)
    asyncio.run(_serve(IdentityService(places, svid_ttl=options.svid_ttl), shell))
    return 0


async def _serve(service: IdentityService, shell: Shell) -> None:
    log = structlog.get_logger("nsm.identity")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    loop.add_signal_handler(signal.SIGQUIT, shell.tell_inventory)
    await service.start()
    try:
        log.info("ready", trust_domain=service.trust_domain, entries=len(service.entries))
        await stopping.wait()
    finally:
        await service.stop()
    log.info("stopped")


def _facts(authority: Authority, options: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "trust_domain": authority.trust_domain,
        "node": authority.node,
        "chain": [
            {
                "name": str(certificate.subject.rfc4514_string().partition(",")[0]).removeprefix("CN="),
                "not_after": certificate.not_valid_after_utc.isoformat(),
                "sha256": fingerprint(certificate),
            }
            for certificate in authority.chain
        ],
        "other_roots": [fingerprint(root) for root in authority.other_roots],
        "federation": {},
        "entries": [],
    }
    if options.config.exists():
        registration = load_registration(options.config, authority.trust_domain, options.directory)
        facts["federation"] = {domain: str(file) for domain, file in registration.federation.items()}
        facts["entries"] = [
            {
                "spiffe_id": entry.spiffe_id,
                "socket": str(entry.socket),
                "uid": entry.uid,
                "gid": entry.gid,
                "is_open": entry.socket.is_socket(),
            }
            for entry in registration.entries
        ]
    return facts


def _parser() -> argparse.ArgumentParser:
    environment = os.environ
    parser = argparse.ArgumentParser(
        "nsm-identity",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--authority",
        type=Path,
        metavar="FILE",
        default=Path(environment.get("NSM_IDENTITY_AUTHORITY") or AUTHORITY),
        help="the authority's key and certificates, mode 0600 (%(default)s)",
    )
    registered = argparse.ArgumentParser(add_help=False)
    registered.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(environment.get("NSM_IDENTITY_CONFIG") or CONFIG),
        help="the registration file (%(default)s)",
    )
    registered.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        default=Path(environment.get("NSM_IDENTITY_DIR") or DIRECTORY),
        help="where sockets go unless the registration file says otherwise (%(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_making(commands, common)
    _add_serving(commands, common, registered)
    return parser


def _add_making(commands: Any, common: argparse.ArgumentParser) -> None:
    """``init``, ``sign`` and ``rotate-ca``."""
    command = commands.add_parser("init", parents=[common], help="make the authority of a new trust domain")
    command.add_argument("--trust-domain", required=True, metavar="NAME", help="such as example.org")
    command.add_argument("--ttl", type=_duration, default=ROOT_TTL, help="lifetime (10y)")
    command.set_defaults(run=init)
    command = commands.add_parser("sign", parents=[common], help="make an authority for another host")
    command.add_argument("node", metavar="NODE", help="the other host's name")
    command.add_argument("--output", type=Path, metavar="FILE", help="the file for that host (NODE.pem)")
    command.add_argument("--ttl", type=_duration, default=NODE_TTL, help="lifetime (365d)")
    command.set_defaults(run=sign)
    command = commands.add_parser(
        "rotate-ca", parents=[common], help="replace the root, step by step, while everything runs"
    )
    command.add_argument("step", choices=tuple(STEPS), help="one after the other, on the host where init ran")
    command.add_argument("--ttl", type=_duration, default=ROOT_TTL, help="lifetime of the new root (10y)")
    command.set_defaults(run=rotate_ca)


def _add_serving(commands: Any, common: argparse.ArgumentParser, registered: argparse.ArgumentParser) -> None:
    """``serve`` and ``show``."""
    command = commands.add_parser(
        "serve", parents=[common, registered], help="serve the registered identities"
    )
    command.add_argument(
        "--svid-ttl",
        type=_duration,
        default=os.environ.get("NSM_SVID_TTL") or None,
        help="lifetime of SVIDs, such as 1h (svid_ttl of the registration file)",
    )
    command.add_argument(
        "--log-level", type=_level, default=os.environ.get("NSM_LOG_LEVEL") or "INFO", help="%(default)s"
    )
    command.set_defaults(run=serve)
    command = commands.add_parser(
        "show", parents=[common, registered], help="show the authority and the registered identities"
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--bundle", action="store_true", help="the PEM that other trust domains federate with")
    command.set_defaults(run=show)


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except IdentityError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _level(text: str) -> str:
    level = {"WARNING": "WARN"}.get(text.upper(), text.upper())
    if level not in LEVELS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(LEVELS)}, got {text!r}")
    return level


def _date(authority: Authority) -> str:
    return datetime.fromtimestamp(authority.not_after, UTC).strftime("%Y-%m-%d")
