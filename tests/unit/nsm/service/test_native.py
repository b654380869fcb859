"""What the C library's heap has free does not count as held when a daemon has told what it holds."""

import ctypes
import subprocess
import sys
from pathlib import Path

from nsm.service.native import heap_in_use

ROOT = Path(__file__).parents[4]
TORN = """
import asyncio, ctypes
from pathlib import Path
from nsm.service.inventory import tell

async def telling():
    tell()

heap = ctypes.CDLL(None)
heap.malloc.restype = ctypes.c_void_p
heap.free.argtypes = [ctypes.c_void_p]
BLOCK, BLOCKS = 64 * 1024, 600

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))

blocks = [heap.malloc(BLOCK) for _ in range(2 * BLOCKS)]
for block in blocks:
    ctypes.memset(block, 1, BLOCK)
full = anonymous()
for block in blocks[::2]:  # what is left between them is of the same size, so that no hole from before takes it
    heap.free(block)
torn = anonymous()
asyncio.run(telling())
print(full - torn, full - anonymous(), BLOCK * BLOCKS // 1024)
"""


def test_what_is_free_between_what_is_held_goes_back_to_the_kernel() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TORN], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    untrimmed, trimmed, freed = (int(word) for word in done.stdout.splitlines()[-1].split())
    assert untrimmed < freed / 4, "the heap gives it back of itself: nothing is shown"
    assert trimmed > freed * 3 / 4


def test_the_heap_in_use_is_what_is_held_of_it() -> None:
    before = heap_in_use()
    held = [ctypes.create_string_buffer(1 << 20) for _ in range(30)]
    during = heap_in_use()
    assert 30 << 20 <= during - before < 31 << 20
    del held
    assert abs(heap_in_use() - before) < 1 << 20
