"""The DNS configurations of all connections as one ``resolv.conf``, given back at the end.

There is no local DNS server (``NSM_LOCAL_DNS_SERVER_ENABLED`` only says whether DNS is applied at all): the name
servers of the connections come first, those that were there before after them, as far as resolvers read (three).
The file is written in place, because it may be bind-mounted into running processes.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from nsm.model.context import DnsConfig

HEADER: Final = "# written by nsm-client; the former content comes back when it ends\n"
NETNS_CONFIG: Final = Path("/etc/netns")
HOST_FILE: Final = Path("/etc/resolv.conf")
MAX_SERVERS: Final = 3
"""Name servers a resolver reads (MAXNS of resolv.conf(5))."""

_SAVED: Final = ".nsm-saved"
_MADE: Final = "# made for it: "


def default_path(netns: str) -> Path | None:
    """``/etc/netns/NAME/resolv.conf``, which ``ip netns exec`` shows its programs; ``None`` for no name."""
    named = netns and not netns.isdigit() and not netns.startswith("/")
    return NETNS_CONFIG / netns / "resolv.conf" if named else None


def check_path(path: Path) -> None:
    """ValueError ``expected ...`` for the host's own resolv.conf, unless our mount namespace is not the host's."""
    same = path.resolve() == HOST_FILE.resolve() or path.absolute() == HOST_FILE
    if same and not _own_mounts():
        raise ValueError(
            f"expected a resolv.conf of the workload (or a client in a mount namespace of its own), got {path}"
        )


def _own_mounts() -> bool:
    try:
        return os.stat("/proc/self/ns/mnt").st_ino != os.stat("/proc/1/ns/mnt").st_ino  # noqa: PTH116 - inode
    except OSError:
        return False


def render(configs: Iterable[DnsConfig], former: str = "") -> str:
    """The text of a resolv.conf: ours, then what ``former`` had. Malformed servers and domains are left out."""
    servers: list[str] = []
    domains: list[str] = []
    for config in configs:
        servers += [text for text in config.dns_server_ips if _is_address(text)]
        domains += [text for text in config.search_domains if _is_domain(text)]
    kept = []
    for line in former.splitlines():
        words = line.split()
        match words[:1]:
            case ["nameserver"]:
                servers += words[1:2]
            case ["search" | "domain"]:
                domains += words[1:]
            case ["options" | "sortlist"]:
                kept.append(line)
            case _:
                pass
    lines = [f"nameserver {server}" for server in list(dict.fromkeys(servers))[:MAX_SERVERS]]
    if domains:
        lines.append(f"search {' '.join(dict.fromkeys(domains))}")
    return HEADER + "\n".join([*lines, *kept]) + "\n"


@dataclass(slots=True)
class ResolvConf:
    """One file: its former content is kept beside it, so that it comes back even after a crash."""

    path: Path
    _made: tuple[Path, ...] = ()
    _applied: bool = False

    @property
    def _saved(self) -> Path:
        return self.path.with_name(self.path.name + _SAVED)

    def apply(self, configs: Sequence[DnsConfig]) -> None:
        """Write these configurations; none of them = as it was before. OSError if that is impossible."""
        if not configs:
            self.restore()
            return
        if not self._applied:
            self._prepare()
        former = self._saved.read_text(encoding="utf-8") if self._saved.exists() else ""
        text = render(configs, former)
        made = "".join(f"{_MADE}{directory}\n" for directory in self._made)
        self.path.write_text(HEADER + made + text.removeprefix(HEADER), encoding="utf-8")

    def restore(self) -> None:
        """Give back the former content, or remove the file that was not there before."""
        if not self._applied:
            if not self._ours():
                return
            self._made = self._recorded()
        if self._saved.exists():
            self.path.write_text(self._saved.read_text(encoding="utf-8"), encoding="utf-8")
            self._saved.unlink()
        else:
            self.path.unlink(missing_ok=True)
        for directory in reversed(self._made):
            with suppress(OSError):  # somebody else has put something there
                directory.rmdir()
        self._applied, self._made = False, ()

    def _prepare(self) -> None:
        """Keep what is there, once; a file of ours is what a crashed client left, not what was there."""
        self._made = self._recorded() if self._ours() else ()
        for directory in reversed(self.path.parents):
            if not directory.exists():
                directory.mkdir()
                self._made = (*self._made, directory)
        if self.path.exists() and not self._ours() and not self._saved.exists():
            self._saved.write_text(self.path.read_text(encoding="utf-8"), encoding="utf-8")
        self._applied = True

    def _recorded(self) -> tuple[Path, ...]:
        """The directories that were made for a file of ours, by a client that crashed too."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return tuple(Path(line.removeprefix(_MADE)) for line in lines if line.startswith(_MADE))

    def _ours(self) -> bool:
        try:
            with self.path.open(encoding="utf-8") as file:
                return file.read(len(HEADER)) == HEADER
        except (OSError, UnicodeDecodeError):
            return False


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_domain(text: str) -> bool:
    """Whether it is safe in a line of the file: a peer sent it."""
    return (
        0 < len(text) < 254
        and text.isprintable()
        and not any(char.isspace() or char in "#;" for char in text)
    )
