"""The limit on inotify instances is raised, never lowered."""

from pathlib import Path

import pytest

from forwarder_vpp.dataplane.linux import inotify_room


@pytest.mark.parametrize(("before", "after"), [("128\n", 8192), ("8192\n", 8192), ("65536\n", 65536)])
def test_it_is_raised_and_never_lowered(tmp_path: Path, before: str, after: int) -> None:
    limit = tmp_path / "limit"
    limit.write_text(before)
    inotify_room.make(limit)
    assert int(limit.read_text()) == after


def test_where_it_cannot_be_read_all_goes_on(tmp_path: Path) -> None:
    inotify_room.make(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
