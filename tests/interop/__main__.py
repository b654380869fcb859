"""Run the interop suite, what takes minutes included, and print its table: ``make interop``."""

import os
import sys
from pathlib import Path

import pytest

from .matrix import Matrix


def main() -> int:
    """Exit code of pytest; arguments are pytest's."""
    os.environ["NSM_SLOW"] = "1"
    matrix = Matrix()
    code = pytest.main([str(Path(__file__).parent), *sys.argv[1:]], plugins=[matrix])
    sys.stdout.write("\n" + "".join(f"{line}\n" for line in matrix.lines()))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
