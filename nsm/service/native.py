"""The C library's heap, of which Python and gRPC hold parts."""

import ctypes
from contextlib import suppress


def trim() -> None:
    """Give pages of which all is free back to the kernel (``malloc_trim(3)``); nothing where the C library has no such.

    A heap that was busy keeps them, here and there: resident memory then tells of the busiest moment.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def heap_in_use() -> int:
    """Bytes of the C library's heap that somebody holds (``mallinfo2(3)``); 0 where it does not tell."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    ask.restype = _Mallinfo2
    told = ask()
    return int(told.uordblks + told.hblkhd)


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )
