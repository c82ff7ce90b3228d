"""JSON in and out: what may be journaled, and how big it may be."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import msgspec
from msgspec import Raw

from saga_engine.errors import LimitReached, NotJSON

__all__ = ["decode_json", "encode_json"]

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_DEPTH_MAX = 100

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def decode_json(raw: Raw) -> Any:
    """Decode JSON text into new objects."""
    return _decoder.decode(raw)


def encode_json(value: Any, what: str, bytes_max: int, known: Raw | None = None) -> Raw:
    """Encode a value as JSON text.

    Args:
        value: dicts with str keys, lists, str, int, finite float, bool, None.
        what: how to name the value in an error, for example "request" or "context.state".
        bytes_max: the limit `payload_bytes_max`, in bytes of JSON text.
        known: the text the value had before; given back as it is when nothing changed.

    Raises:
        NotJSON: it holds something else; the message names its path.
        LimitReached: it is too big.
    """
    try:
        encoded = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        _refuse(value, what)
        raise NotJSON(f"{what} cannot be journaled as JSON: {error}") from error
    if known is not None and encoded == bytes(known):
        return known
    _refuse(value, what)
    if len(encoded) > bytes_max:
        raise LimitReached(
            f"{what} is {len(encoded)} bytes of JSON, payload_bytes_max is {bytes_max}: "
            "keep large data elsewhere and its id here, or set payload_bytes_max on the saga"
        )
    return Raw(encoded)


def _refuse(value: Any, what: str) -> None:
    """Raise for the first part of the value that is not JSON; msgspec alone would let dates and NaN through."""
    for path, problem in _problems(value, what):
        raise NotJSON(f"{path} {problem}")


def _problems(root: Any, what: str) -> Iterator[tuple[str, str]]:
    stack: list[tuple[str, Any, int]] = [(what, root, 0)]
    while stack:
        path, value, depth = stack.pop()
        kind = type(value)
        if kind is str or kind is bool or value is None:
            continue
        if depth > _DEPTH_MAX:
            yield path[:200], f"is nested deeper than {_DEPTH_MAX} levels"
        elif isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    yield path, f"has the key {key!r}, which is not a str: JSON objects have str keys"
                else:
                    stack.append((f"{path}[{key!r}]", item, depth + 1))
        elif isinstance(value, list):
            stack.extend((f"{path}[{i}]", item, depth + 1) for i, item in enumerate(value))
        else:
            problem = _scalar_problem(value)
            if problem:
                yield path, problem


def _scalar_problem(value: Any) -> str | None:
    if isinstance(value, (str, bool)):
        return None
    if isinstance(value, int):
        return None if _INT_MIN <= value <= _INT_MAX else "is an int beyond 64 bits: store it as str"
    if isinstance(value, float):
        return None if isfinite(value) else f"is {value!r}, which JSON does not have: use None or a str"
    hint = "use a list" if isinstance(value, (tuple, set, frozenset)) else "store it as str or number"
    return f"is a {type(value).__name__}, which is not JSON: {hint}"
