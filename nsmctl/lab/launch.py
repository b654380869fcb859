"""Start a program inside a network namespace: ``launch.py NETNS PROGRAM ARGUMENT...``.

Run by path with ``python -I -S`` so that it costs 10 ms: it may import the standard library only. The process id
does not change, so whoever spawned this file knows the program's.
"""

import ctypes
import os
import sys

CLONE_NEWNET = 0x40000000


def main(netns: str, program: str, *arguments: str) -> None:
    """Enter ``netns``, become ``program``; exit status 127 with a line on stderr if that fails."""
    try:
        target = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(target, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), netns)
        os.execvp(program, [program, *arguments])  # noqa: S606 - the program is the argument
    except OSError as error:
        sys.stderr.write(f"could not start {program} in {netns}: {error}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(*sys.argv[1:])
