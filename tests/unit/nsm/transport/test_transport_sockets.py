"""URLs and listening."""

import socket
from pathlib import Path

import pytest

from nsm.model.errors import Code, NsmError
from nsm.transport.sockets import Address, listen, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/a.sock", Address(path="/run/a.sock")),
        ("unix:///proc/self/fd/7", Address(path="/proc/self/fd/7")),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
        ("tcp://10.0.0.1:5001", Address(host="10.0.0.1", port=5001)),
        ("tcp://[fd00::1]:5001", Address(host="fd00::1", port=5001)),
        ("tcp://:5001", Address(port=5001)),
    ],
)
def test_urls(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "unix://",
        "unix://a.sock",
        "tcp://host",
        "tcp://h:x",
        "tcp://h:99999",
        "http://h:1",
        "unix:///" + "a" * 120,
    ],
)
def test_what_is_no_url_says_what_is_expected(url: str) -> None:
    with pytest.raises(NsmError, match="expected") as caught:
        parse_url(url)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_stale_socket_is_replaced_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "s.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = await listen(f"unix://{path}")
    listener.close()
    assert not path.exists()


async def test_a_live_socket_or_another_file_is_not_replaced(tmp_path: Path) -> None:
    listener = await listen(f"unix://{tmp_path}/s.sock")
    (tmp_path / "file").write_text("mine")
    for name in ("s.sock", "file"):
        with pytest.raises(NsmError, match="cannot listen") as caught:
            await listen(f"unix://{tmp_path}/{name}")
        assert caught.value.code is Code.ALREADY_EXISTS
    assert (tmp_path / "file").read_text() == "mine"
    listener.close()


async def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    first = await listen(f"unix://{tmp_path}/s.sock")
    first.sock.close()
    second = await listen(f"unix://{tmp_path}/s.sock")
    first.close()
    assert (tmp_path / "s.sock").exists()
    second.close()


async def test_a_free_port_is_chosen_and_a_taken_one_refused() -> None:
    listener = await listen("tcp://127.0.0.1:0")
    assert listener.address.port
    with pytest.raises(NsmError) as caught:
        await listen(listener.address.url)
    assert caught.value.code is Code.ALREADY_EXISTS
    listener.close()


async def test_an_empty_host_is_all_of_them() -> None:
    listener = await listen("tcp://:0")
    with socket.create_connection(("127.0.0.1", listener.address.port)):
        pass
    listener.close()
