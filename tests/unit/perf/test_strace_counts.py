"""The counting of messages from strace's text."""

from perf.control.counts import Counts, count

PING = "\\x00" * 8 + "\\x00\\x00\\x00\\x0a" + "\\x00" * 4 + "\\x00" * 10
VPP = "<UNIX-STREAM:[1->2]>"
NETLINK = "<NETLINK:[ROUTE:7]>"


def counts(*lines: str) -> Counts:
    found = Counts()
    count("\n".join(lines), found)
    return found


def test_frames_of_one_write_are_messages_of_one_round_trip() -> None:
    found = counts(
        f'100 sendto(9{VPP}, "{PING}{PING}", 52, 0, NULL, 0) = 52',
        f'100 sendto(9{VPP}, "{PING}", 26, 0, NULL, 0) = 26',
        f'100 recvfrom(9{VPP}, "\\x00", 65536, 0, NULL, NULL) = 1',
        f'100 sendto(9{VPP}, "{PING}", 26, 0, NULL, 0) = 26',
    )
    assert (found.vpp_messages, found.vpp_round_trips) == (4, 2)


def test_other_bytes_are_no_messages() -> None:
    found = counts(
        f'100 sendto(8{VPP}, "\\x17\\x03\\x03\\x00\\x05\\x01\\x02\\x03\\x04\\x05", 10, 0, NULL, 0) = 10',
        '100 write(7<pipe:[3]>, "\\x00", 1) = 1',
        f'100 sendto(8{VPP}, "{PING[:-4]}", 25, 0, NULL, 0) = 25',
    )
    assert found == Counts()


def test_netlink_writes_and_reads_are_told_apart_by_name_and_by_number() -> None:
    found = counts(
        f"100 sendto(5{NETLINK}, [{{nlmsg_len=32, nlmsg_type=RTM_NEWLINK, nlmsg_flags=NLM_F_REQUEST}}], 32) = 32",
        f"100 sendto(5{NETLINK}, [[{{nlmsg_len=32, nlmsg_type=0x10}}], [{{nlmsg_len=32, nlmsg_type=0x12}}]], 64) = 64",
        f"100 recvmsg(5{NETLINK}, {{msg_iov=[{{iov_base=[{{nlmsg_len=36, nlmsg_type=NLMSG_ERROR}}]}}]}}, 0) = 36",
    )
    assert (found.netlink_writes, found.netlink_reads) == (2, 1)


def test_processes_and_syncs() -> None:
    found = counts('101 execve("/usr/bin/true", ["true"], 0x0) = 0', "101 fdatasync(4</run/x>) = 0")
    assert (found.processes, found.syncs) == (1, 1)
    assert found.each(2)["processes | disk syncs"] == (0.5, 0.5)
