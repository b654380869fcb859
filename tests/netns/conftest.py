"""Namespaces for tests: unique names, gone afterwards."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import namespaces


@pytest.fixture
def make_netns() -> Iterator[Callable[[str], Path]]:
    """``make_netns("a")`` makes a namespace and gives its file; all are removed at the end."""
    made: list[str] = []

    def make(label: str) -> Path:
        name = f"t{os.getpid()}{uuid.uuid4().hex[:4]}{label}"
        try:
            path = namespaces.create(name)
        except LabError as error:
            pytest.skip(f"NO NAMESPACES: {error}")
        made.append(name)
        return path

    yield make
    for name in made:
        namespaces.delete(name)
