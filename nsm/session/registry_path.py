"""The path of a registry call: one token a hop, as JSON in the gRPC metadata ``path`` (reference §3.13; traps 26, 27).

The object on the wire is ``{"Index": 1, "PathSegments": [{"token": "..."}]}``, the names spelled exactly so.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from nsm.model.errors import invalid
from nsm.session.path import MAX_SEGMENTS, MAX_TOKEN_BYTES

PATH_KEY: Final = "path"
_FIELD: Final = "metadata path"


@dataclass(frozen=True, slots=True)
class RegistryPath:
    """The hops a Register or Unregister has passed; ``index`` is the hop that sends it, first caller 0."""

    index: int = 0
    tokens: tuple[str, ...] = field(default=(), repr=False)


def read_path(metadata: Iterable[tuple[str, str]]) -> RegistryPath | None:
    """The path a caller or an answer carries, ``None`` if none; of several the last counts.

    Raises:
        NsmError: INVALID_ARGUMENT for anything but the JSON object above, for more than ``MAX_SEGMENTS`` hops
            or a token of more than ``MAX_TOKEN_BYTES`` bytes.
    """
    texts = [value for key, value in metadata if key == PATH_KEY]
    if not texts:
        return None
    try:
        content = json.loads(texts[-1])
    except (ValueError, RecursionError) as error:
        raise invalid(_FIELD, "a JSON object of Index and PathSegments", _short(texts[-1])) from error
    if not isinstance(content, dict):
        raise invalid(_FIELD, "a JSON object of Index and PathSegments", type(content).__name__)
    index, segments = content.get("Index", 0), content.get("PathSegments") or []
    if not isinstance(segments, list) or len(segments) > MAX_SEGMENTS:
        raise invalid(f"{_FIELD}.PathSegments", f"a list of at most {MAX_SEGMENTS} segments", _size(segments))
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < max(len(segments), 1):
        raise invalid(f"{_FIELD}.Index", f"an index of one of the {len(segments)} segments", index)
    return RegistryPath(index, tuple(_token(number, segment) for number, segment in enumerate(segments)))


def path_metadata(path: RegistryPath) -> tuple[tuple[str, str], ...]:
    """The metadata pair that carries ``path``."""
    segments = [{"token": token} for token in path.tokens]
    content = {"Index": path.index, "PathSegments": segments or None}
    return ((PATH_KEY, json.dumps(content, separators=(",", ":"))),)


def arrive(path: RegistryPath, caller: str, own: str) -> RegistryPath:
    """The path as a server sees it: the caller's token in the caller's segment, ours in the next, index on ours.

    Raises:
        NsmError: INVALID_ARGUMENT when the path would grow past ``MAX_SEGMENTS``.
    """
    if not path.tokens:
        return RegistryPath(1, (caller, own))
    index = path.index + 1
    if index >= MAX_SEGMENTS:
        raise invalid(f"{_FIELD}.PathSegments", f"fewer than {MAX_SEGMENTS} hops", len(path.tokens))
    return RegistryPath(index, (*path.tokens[: path.index], caller, own, *path.tokens[index + 1 :]))


def leave(path: RegistryPath) -> RegistryPath:
    """The path as its caller gets it back: the index on the caller's segment again."""
    return RegistryPath(max(path.index - 1, 0), path.tokens)


def put_path_ids(path_ids: tuple[str, ...], index: int, caller: str, own: str) -> tuple[str, ...]:
    """``path_ids`` of an object after we, at ``index``, took it from ``caller`` (SPIFFE IDs)."""
    before = (*path_ids[: index - 1], caller)
    return (*before, own, *path_ids[len(before) + 1 :])


def _token(number: int, segment: Any) -> str:
    token = segment.get("token", "") if isinstance(segment, dict) else None
    where = f"{_FIELD}.PathSegments[{number}]"
    if not isinstance(token, str):
        raise invalid(where, "an object with the text member token", type(segment).__name__)
    size = len(token.encode(errors="replace"))
    if size > MAX_TOKEN_BYTES:
        raise invalid(f"{where}.token", f"at most {MAX_TOKEN_BYTES} bytes", size)
    return token


def _size(segments: Any) -> object:
    return len(segments) if isinstance(segments, list) else type(segments).__name__


def _short(text: str) -> str:
    return f"{len(text)} characters that are not JSON"
