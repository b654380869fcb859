"""The record of a soak: kept where it is wanted, or refused before the run."""

from pathlib import Path

from perf.soak.__main__ import homeless, keep, recorded
from perf.soak.held import Held
from perf.soak.verdict import Checkpoint

RUN = [
    Checkpoint(60.0, 200, {"n1/forwarder": Held({"socket": 9}, 4, 50_000, {"main": 1})}, ["a link is left"])
]


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    file = tmp_path / "results" / "soak.json"
    assert homeless(file) == ""
    keep(RUN, file)
    assert recorded(file) == RUN


def test_the_record_of_the_former_run_is_there_until_there_is_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    keep(RUN, file)
    assert homeless(file) == ""
    assert recorded(file) == RUN


def test_what_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert f"Is a directory: {tmp_path}" in homeless(tmp_path)
    assert f"File exists: {in_the_way}" in homeless(in_the_way / "soak.json")
