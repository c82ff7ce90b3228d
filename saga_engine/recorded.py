"""Exceptions as journaled data, and back."""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from msgspec import Raw

from saga_engine.codec import decode_json, encode_json
from saga_engine.errors import LimitReached, NotJSON, RecordedError
from saga_engine.journal import ABSENT, ErrorRecord

__all__ = ["as_text", "record_error", "rebuild_error"]

_MESSAGE_CHARS_MAX = 4_000
_TRACEBACK_CHARS_MAX = 16_000
_ARGUMENTS_BYTES_MAX = 16_384


def record_error(error: BaseException) -> ErrorRecord:
    """Describe an exception by type, message, traceback and those arguments and attributes that are JSON (S29)."""
    kind = type(error)
    text = "".join(traceback.format_exception(kind, error, error.__traceback__))
    return ErrorRecord(
        type=f"{kind.__module__}.{kind.__qualname__}",
        message=as_text(_message(error), _MESSAGE_CHARS_MAX),
        traceback=as_text(text[-_TRACEBACK_CHARS_MAX:], _TRACEBACK_CHARS_MAX),
        args=_json_or_absent(list(error.args)),
        attributes=_json_or_absent(_json_attributes(error)),
    )


def _json_attributes(error: BaseException) -> dict[str, Any]:
    """Keep each attribute that is JSON: a response object beside it must not cost us the status."""
    attributes = getattr(error, "__dict__", {})
    return {name: value for name, value in attributes.items() if bytes(_json_or_absent(value))}


def as_text(text: str, chars_max: int) -> str:
    """Cut a text, and replace what is no Unicode (a file name with stray bytes) and could not be journaled."""
    return text[:chars_max].encode("utf-8", "replace").decode("utf-8")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # a user's __str__ must not cost us the record of the failure
        return f"(its __str__ raised {type(broken).__name__})"


def _json_or_absent(value: Any) -> Raw:
    try:
        return encode_json(value, "error", _ARGUMENTS_BYTES_MAX)
    except (NotJSON, LimitReached):
        return ABSENT


def rebuild_error(record: ErrorRecord) -> Exception:
    """Make the exception again without calling its `__init__`; a `RecordedError` if its class cannot be had."""
    kind = _find(record.type)
    if kind is None:
        return RecordedError(record.message, record.type, record.traceback)
    # Handlers tell errors by their class and text: both outlive arguments that were not JSON.
    arguments = decode_json(record.args) if bytes(record.args) else [record.message]
    try:
        error = kind.__new__(kind, *arguments)
        error.args = tuple(arguments)
        if bytes(record.attributes):
            error.__dict__.update(decode_json(record.attributes))
    except Exception:  # a __new__ with a will of its own, which may raise anything
        return RecordedError(record.message, record.type, record.traceback)
    return error


def _find(type_name: str) -> type[Exception] | None:
    """Import the class, however deep it is nested in its module."""
    module_name, _, qualified = type_name.rpartition(".")
    tail = [qualified]
    while module_name:
        try:
            found: Any = importlib.import_module(module_name)
        except Exception:  # whatever a foreign module raises at import: its class cannot be had
            module_name, _, outer = module_name.rpartition(".")
            tail.insert(0, outer)
            continue
        for name in tail:
            found = getattr(found, name, None)
        return found if isinstance(found, type) and issubclass(found, Exception) else None
    return None
