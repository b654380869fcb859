"""The connection itself: liveness, version, CLI."""

from forwarder_vpp.dataplane.contract.vpp import Call
from forwarder_vpp.dataplane.vpp.codec import reply, request
from forwarder_vpp.dataplane.vpp.fields import i32, last_text, text32, text256, u32


@reply(0xF6B0B8CA)
class ControlPingReply:
    """``vpe_pid`` is VPP's process id."""

    retval: i32
    client_index: u32
    vpe_pid: u32


@request("control_ping", 0x51077D14, reads=True)
class ControlPing(Call[ControlPingReply]):
    """Answered when everything sent before has been carried out."""


@reply(0xC919BDE1)
class ShowVersionReply:
    """Texts, e.g. ``26.06-release``."""

    retval: i32
    program: text32
    version: text32
    build_date: text32
    build_directory: text256


@request("show_version", 0x51077D14, reads=True)
class ShowVersion(Call[ShowVersionReply]):
    """What runs there."""


@reply(0x05879051)
class CliReply:
    """The printed text."""

    retval: i32
    reply: last_text


@request("cli_inband", 0xF8377302)
class Cli(Call[CliReply]):
    """For people and tests: the agent itself sends no CLI."""

    cmd: last_text


MESSAGES = (ControlPing, ShowVersion, Cli)
