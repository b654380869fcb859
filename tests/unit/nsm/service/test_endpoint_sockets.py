"""Sockets of endpoints that came as descriptors: kept while somebody listens, and no number soon used again."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nsm.model.errors import Code, NsmError
from nsm.service import sockets
from nsm.service.sockets import Sockets, fd_url, is_deserted


class FakeChannel:
    """``connected`` as a channel tells it; the registry's own gives a descriptor of each path in ``paths``."""

    def __init__(self, paths: dict[str, Path] | None = None) -> None:
        self.connected: object = None
        self._paths = paths or {}

    async def receive_fd(self, url: str, timeout: float) -> int:  # noqa: ASYNC109 - the channel's signature
        return os.open(self._paths[url], os.O_PATH | os.O_CLOEXEC)


class FakeChannels:
    def __init__(self) -> None:
        self.channels: dict[str, FakeChannel] = {}

    def get(self, url: str) -> FakeChannel:
        return self.channels.setdefault(url, FakeChannel())

    async def drop(self, url: str) -> None:
        self.channels.pop(url, None)


class Scene:
    """Endpoints ``a`` to ``e`` that listen."""

    def __init__(self, folder: Path) -> None:
        self.listening: dict[str, socket.socket] = {}
        for name in "abcde":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(folder / name))
            listener.listen()
            self.listening[name] = listener
        self.registry: Any = FakeChannel({name: folder / name for name in "abcde"})
        self.channels = FakeChannels()
        channels: Any = self.channels
        self.kept = Sockets(channels)

    async def url(self, name: str) -> str:
        return await self.kept.url(self.registry, name, 1.0)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with ExitStack() as stack:
        for listener in made.listening.values():
            stack.enter_context(listener)
        yield made


def number(url: str) -> int:
    return int(url.rpartition("/")[2])


def is_open(url: str) -> bool:
    return Path(url.removeprefix("unix://")).is_symlink()


async def test_the_same_socket_has_the_same_url_and_can_be_dialled(scene: Scene) -> None:
    url = await scene.url("a")
    assert url == await scene.url("a")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(url.removeprefix("unix://"))
    await scene.kept.close()
    assert not is_open(url)


async def test_a_socket_that_nobody_listens_at_is_let_go_of_when_another_comes(scene: Scene) -> None:
    first, second = await scene.url("a"), await scene.url("b")
    scene.listening["a"].close()
    await scene.url("c")
    assert not is_open(first)
    assert first not in scene.channels.channels
    assert is_open(second)
    assert len(scene.kept) == 2
    await scene.kept.close()


async def test_one_that_is_connected_is_not_asked_and_kept(scene: Scene) -> None:
    first = await scene.url("a")
    scene.channels.get(first).connected = object()
    scene.listening["a"].close()
    await scene.url("b")
    assert is_open(first)
    await scene.kept.close()


async def test_an_endpoint_with_a_full_queue_is_not_deserted(scene: Scene) -> None:
    scene.listening["a"].listen(0)
    url = await scene.url("a")
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(url.removeprefix("unix://"))
        assert not is_deserted(number(url))
    await scene.kept.close()


async def test_a_number_is_not_used_again_soon(scene: Scene) -> None:
    urls = []
    for name in "abcde":
        urls.append(await scene.url(name))
        scene.listening[name].close()
    assert len(scene.kept) == 1, "each goes when the next one comes"
    assert len({*urls}) == 5
    await scene.kept.close()


async def test_the_numbers_begin_anew_after_the_last_one(scene: Scene) -> None:
    highest = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], sockets.HIGHEST)
    scene.kept._next = highest - 1
    assert number(await scene.url("a")) == highest - 1
    assert number(await scene.url("b")) == highest // 2
    await scene.kept.close()


async def test_the_one_longest_unused_goes_when_there_are_too_many(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MAX_SOCKETS", 2)
    first, second = await scene.url("a"), await scene.url("b")
    await scene.url("a")
    await scene.url("c")
    assert is_open(first)
    assert not is_open(second)
    await scene.kept.close()


async def test_a_descriptor_that_does_not_come_leaves_nothing(scene: Scene) -> None:
    async def none(_url: str, _patience: float) -> int:
        raise NsmError(Code.DEADLINE_EXCEEDED, "no descriptor")

    scene.registry.receive_fd = none
    with pytest.raises(NsmError, match="no descriptor"):
        await scene.url("a")
    assert len(scene.kept) == 0


def test_a_file_that_is_no_socket_is_deserted(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    fd = os.open(tmp_path / "plain", os.O_PATH)
    try:
        assert is_deserted(fd)
        assert fd_url(fd) == f"unix:///proc/self/fd/{fd}"
    finally:
        os.close(fd)
