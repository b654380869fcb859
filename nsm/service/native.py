"""The C library's heap, of which Python and gRPC hold parts."""

import ctypes
from contextlib import suppress


def trim() -> None:
    """Give pages of which all is free back to the kernel (``malloc_trim(3)``); nothing where the C library has no such.

    A heap that was busy keeps them, here and there: resident memory then tells of the busiest moment.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
