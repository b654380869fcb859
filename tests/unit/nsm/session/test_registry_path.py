"""The path of registry calls, against the JSON the Go components exchange (reference §3.13)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm.model.errors import Code, NsmError
from nsm.session.path import MAX_SEGMENTS
from nsm.session.registry_path import RegistryPath, arrive, leave, path_metadata, put_path_ids, read_path


def test_names_on_the_wire_are_those_of_go() -> None:
    (pair,) = path_metadata(RegistryPath(1, ("t0", "t1")))
    assert pair == ("path", '{"Index":1,"PathSegments":[{"token":"t0"},{"token":"t1"}]}')
    assert path_metadata(RegistryPath()) == (("path", '{"Index":0,"PathSegments":null}'),)


@given(
    st.lists(st.text(), max_size=5).flatmap(
        lambda tokens: st.tuples(st.integers(0, max(len(tokens) - 1, 0)), st.just(tuple(tokens)))
    )
)
def test_what_is_written_is_read(content: tuple[int, tuple[str, ...]]) -> None:
    path = RegistryPath(*content)
    assert read_path(path_metadata(path)) == path


def test_the_last_of_several_counts_and_none_is_none() -> None:
    pairs = (*path_metadata(RegistryPath(0, ("a",))), *path_metadata(RegistryPath(0, ("b",))))
    assert read_path(pairs) == RegistryPath(0, ("b",))
    assert read_path((("other", "x"),)) is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "metadata path"),
        ("[]", "metadata path"),
        ("{", "metadata path"),
        ('{"Index":1}', "metadata path.Index"),
        ('{"Index":-1,"PathSegments":[{"token":"a"}]}', "metadata path.Index"),
        ('{"Index":"0","PathSegments":[]}', "metadata path.Index"),
        ('{"Index":true,"PathSegments":[{},{}]}', "metadata path.Index"),
        ('{"Index":0,"PathSegments":{"a":1}}', "metadata path.PathSegments"),
        ('{"Index":0,"PathSegments":["a"]}', "metadata path.PathSegments[0]"),
        ('{"Index":0,"PathSegments":[{"token":1}]}', "metadata path.PathSegments[0]"),
        ('{"Index":0,"PathSegments":[' + ",".join(["{}"] * 65) + "]}", "metadata path.PathSegments"),
        (
            '{"Index":0,"PathSegments":[{"token":"' + "x" * 16385 + '"}]}',
            "metadata path.PathSegments[0].token",
        ),
        ("[" * 100_000, "metadata path"),
    ],
)
def test_malformed_paths_are_refused_by_field(text: str, field: str) -> None:
    with pytest.raises(NsmError) as caught:
        read_path((("path", text),))
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, field)


def test_a_first_call_and_the_next_hop() -> None:
    at_manager = arrive(RegistryPath(), "nse", "manager")
    assert at_manager == RegistryPath(1, ("nse", "manager"))
    at_registry = arrive(at_manager, "manager2", "registry")
    assert at_registry == RegistryPath(2, ("nse", "manager2", "registry"))
    assert leave(leave(at_registry)) == RegistryPath(0, ("nse", "manager2", "registry"))


def test_a_refresh_overwrites_and_keeps_what_follows() -> None:
    assert arrive(RegistryPath(0, ("a", "b", "c")), "A", "B") == RegistryPath(1, ("A", "B", "c"))


def test_a_loop_of_hops_ends() -> None:
    with pytest.raises(NsmError, match="fewer than"):
        arrive(RegistryPath(MAX_SEGMENTS - 1, ("t",) * MAX_SEGMENTS), "a", "b")


def test_path_ids_name_every_hop() -> None:
    first = put_path_ids((), 1, "nse", "manager")
    assert first == ("nse", "manager")
    assert put_path_ids(first, 2, "manager", "registry") == ("nse", "manager", "registry")
    assert put_path_ids(("x", "y", "z"), 1, "nse", "manager") == ("nse", "manager", "z")
