"""What a peer leaves out because it is the default, and what that means."""

import pytest

from nsm.session.registry_path import RegistryPath, read_path
from nsm.wire.codec import CONNECTION


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"PathSegments":[{"token":"t"}]}', RegistryPath(0, ("t",))),
        ('{"Index":0,"PathSegments":null}', RegistryPath()),
        ("{}", RegistryPath()),
    ],
)
def test_an_index_that_is_left_out_is_0(text: str, path: RegistryPath) -> None:
    assert read_path([("path", text)]) == path


def test_a_path_without_index_stands_on_its_first_segment() -> None:
    only_segment = b"\x0a\x01c" + b"\x32\x08" + b"\x12\x06" + b"\x0a\x01n" + b"\x12\x01c"
    connection = CONNECTION.decode(only_segment)
    assert (connection.route.index, connection.route.current) == (0, connection.route.segments[0])
    assert CONNECTION.encode(connection) == only_segment
