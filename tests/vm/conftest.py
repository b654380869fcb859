"""One guest for all tests of this suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import guest


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[guest.Guest]:
    """A guest that has booted; skipped where there is nothing to boot."""
    reason = guest.missing()
    if reason:
        pytest.skip(reason)
    kernel = guest.find_kernel()
    assert kernel is not None
    with guest.Guest(Path(tmp_path_factory.mktemp("guest")), kernel) as booted:
        yield booted
