"""Every answer to a trap of the wire is taken out of a copy of the project, and its test must fail there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.traps.answers import ANSWERS, Answer

ROOT: Final = Path(__file__).parents[2]
NOT_COPIED: Final = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
PASSED, FAILED = 0, 1
"""What pytest leaves with; another status means that nothing was tried."""

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in a directory of its own, in which every answer's test passes."""
    directory = tmp_path_factory.mktemp("answers") / "project"
    shutil.copytree(ROOT, directory, ignore=NOT_COPIED, symlinks=True)
    status, said = run(directory, sorted({answer.test for answer in ANSWERS}))
    assert status == PASSED, said
    return directory


def run(directory: Path, tests: Sequence[str]) -> tuple[int, str]:
    """The status pytest leaves with, and what it said."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--tb=line", *tests]
    env = {**os.environ, "PYTHONPATH": str(directory)}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{answer.trap}-{answer.module}")
def test_without_the_answer_its_test_fails(copy: Path, answer: Answer) -> None:
    module = copy / answer.module
    content = module.read_text()
    assert content.count(answer.text) == 1, f"{answer.module} has another text now: {answer.text!r}"
    module.write_text(content.replace(answer.text, answer.without))
    try:
        status, said = run(copy, [answer.test])
    finally:
        module.write_text(content)
    assert status == FAILED, said
