import pytest

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Token
from nsm.session.path import MAX_TOKEN_BYTES
from nsm.session.tokens import (
    EXPIRES_KEY,
    TOKEN_KEY,
    format_rfc3339,
    parse_rfc3339,
    read_token_metadata,
    token_metadata,
)

NOON = "2026-01-02T12:00:00Z"


def test_what_is_written_can_be_read() -> None:
    token = Token("text", 1_767_355_200_123_456_789)
    assert read_token_metadata(token_metadata(token)) == token


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(TOKEN_KEY, "a")],
        [(EXPIRES_KEY, NOON)],
        [(TOKEN_KEY, "a"), (TOKEN_KEY, "a"), (EXPIRES_KEY, NOON)],
        [(TOKEN_KEY, "a"), (EXPIRES_KEY, NOON), (EXPIRES_KEY, NOON)],
        [(TOKEN_KEY, "a"), (EXPIRES_KEY, "2026-01-02T12:00:00")],
        [(TOKEN_KEY, ""), (EXPIRES_KEY, NOON)],
    ],
)
def test_anything_but_one_of_each_counts_as_no_token(pairs: list[tuple[str, str]]) -> None:
    assert read_token_metadata(pairs) is None


def test_an_oversized_token_is_refused_by_name() -> None:
    with pytest.raises(NsmError) as caught:
        read_token_metadata([(TOKEN_KEY, "a" * (MAX_TOKEN_BYTES + 1)), (EXPIRES_KEY, NOON)])
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, f"metadata {TOKEN_KEY}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T01:00:00.5+01:00", 500_000_000),
        ("1969-12-31T23:30:00-00:30", 0),
        ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
        ("1970-01-01t00:00:00z", 0),
        ("1970-13-01T00:00:00Z", None),
        ("1970-01-01T00:00:00+25:00", None),
        ("1970-01-01 00:00:00Z", None),
        ("", None),
    ],
)
def test_rfc3339_with_zone_and_nothing_else(text: str, expected: int | None) -> None:
    assert parse_rfc3339(text) == expected


def test_the_fraction_is_as_long_as_needed() -> None:
    assert format_rfc3339(1_500_000_000) == "1970-01-01T00:00:01.5Z"
    assert format_rfc3339(0) == "1970-01-01T00:00:00Z"
