"""Logs: structured through structlog, bound to execution, step and attempt, with secrets masked."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping, Sequence
from enum import Enum
from typing import Any, ClassVar

import structlog

from saga_engine.context import SagaContext
from saga_engine.journal import (
    CompensationBegun,
    CompensationFailed,
    Entry,
    LateEffectFound,
    SagaParked,
    SignalMissed,
    StepFailed,
    StepParked,
    TakenOver,
    UndoOrdered,
)

__all__ = ["OnceLogger", "StepLogger", "engine_logger", "log_entries", "mask", "mask_secrets", "step_logger"]

_SECRET = re.compile(
    r"passw(or)?d|passphrase|pwd|secret|token|(api|private)[-_ ]?key|access[-_ ]?key\b|authorization|credential|cookie",
    re.IGNORECASE,
)
_MASK = "***"
_DEPTH_MAX = 20


def mask(value: Any, depth: int = 0) -> Any:
    """Give a copy of a value in which what stands under a secret's key is `***`.

    Args:
        value: anything; dicts and lists are copied, a dict `{"id": "api_key", "type": "password", "value": ...}`, as
            Connect writes parameters, is masked by its id, its name or its type.
    """
    if depth > _DEPTH_MAX:
        return _MASK
    if isinstance(value, Mapping):
        is_named = any(isinstance(value.get(k), str) and _SECRET.search(value[k]) for k in ("id", "name", "type"))
        return {
            key: _MASK if _is_secret(key) or (is_named and key in _VALUES) else mask(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        masked = [mask(item, depth + 1) for item in value]
        if hasattr(value, "_make"):
            return value._make(masked)  # of a named tuple
        return type(value)(masked) if type(value) in (list, tuple) else value
    return value


_VALUES = ("value", "structured_value")


def _is_secret(key: Any) -> bool:
    return isinstance(key, str) and _SECRET.search(key) is not None


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask secrets in a log event; a structlog processor."""
    return {key: _MASK if _is_secret(key) else mask(value) for key, value in event.items()}


class StepLogger(logging.LoggerAdapter):  # type: ignore[type-arg]  # not generic at run time before Python 3.11
    """A logger or LoggerAdapter as a step gets it: with `saga_id`, `step` and `attempt` in `extra`, secrets masked.

    What the wrapped adapter does with a message and with its own `extra` stays as it is.
    """

    def __init__(self, logger: Any, context: SagaContext | None = None) -> None:
        super().__init__(logger, dict(getattr(logger, "extra", None) or {}))
        self._context = context

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields to what the caller gave as `extra`."""
        extra = {**mask({**(self.extra or {}), **(kwargs.get("extra") or {})}), **self._fields()}
        return msg, {**kwargs, "extra": extra}

    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log with masked arguments."""
        if not self.isEnabledFor(level):
            return
        msg, kwargs = self.process(msg, kwargs)  # type: ignore[assignment]  # a dict goes in and comes out
        msg, kwargs = self._through_adapters(msg, kwargs)
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the caller's line, not this one
        base = _base(self.logger)
        base.log(level, mask(msg) if isinstance(msg, Mapping) else msg, *(mask(a) for a in args), **kwargs)

    def _through_adapters(self, msg: Any, kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Let the wrapped adapters have their say, but keep our fields, which most adapters overwrite."""
        adapter, processed = self.logger, dict(kwargs)
        while isinstance(adapter, logging.LoggerAdapter):
            msg, processed = adapter.process(msg, processed)  # type: ignore[assignment]  # a dict goes in and comes out
            adapter = adapter.logger
        return msg, {**processed, "extra": {**mask(processed.get("extra") or {}), **kwargs["extra"]}}

    def _fields(self) -> dict[str, Any]:
        context = self._context
        if context is None:
            return {}
        return {"saga_id": context.saga_id, "step": context.step, "attempt": context.attempt}


def _base(logger: Any) -> Any:
    """Find the logger below all adapters."""
    while isinstance(logger, logging.LoggerAdapter):
        logger = logger.logger
    return logger


def step_logger(logger: Any, context: SagaContext | None = None) -> Any:
    """Give the logger that a step has injected.

    Args:
        logger: a `logging.Logger`, a `LoggerAdapter`, a structlog logger, any object with the methods of a
            logger (which is passed on as it is), or None for the product's own.
        context: the step's; its `attempt` may change after this call.
    """
    if logger is None:
        logger = logging.getLogger("saga_engine.steps")
    if isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        return StepLogger(logger, context)
    if context is not None and hasattr(logger, "bind"):
        return logger.bind(saga_id=context.saga_id, step=context.step)
    return logger


_LEVEL_OF_METHOD = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}


def _drop_below_level(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # structlog's own filter_by_level reads `disabled`, which a LoggerAdapter does not have.
    if not logger.isEnabledFor(_LEVEL_OF_METHOD[method]):
        raise structlog.DropEvent
    return event


_render_fields = structlog.processors.KeyValueRenderer(key_order=["saga_id", "step"], drop_missing=True)


def _render(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    text, traceback = event.pop("event"), event.pop("exception", None)
    line = f"{text}: {_render_fields(logger, method, event)}" if event else str(text)
    return f"{line}\n{traceback}" if traceback else line


class OnceLogger:
    """Warns once per process about one and the same thing; for what would be warned about at every delivery."""

    _warned: ClassVar[set[tuple[Any, ...]]] = set()

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def warning(self, message: str, *args: Any) -> None:
        """Log a warning, unless the same one was logged before."""
        if (message, *args) not in self._warned:
            self._warned.add((message, *args))
            self._logger.warning(message, *args)


def engine_logger(logger: Any = None) -> Any:
    """Give the structlog logger that the engine writes its own events to.

    Events are rendered as `step failed: saga_id=... step=...` and handed to the given standard logger or adapter
    (default: the logger `saga_engine`, silent until the application configures logging), so that they show up
    wherever the application's own lines do.
    """
    if logger is not None and not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        return logger if hasattr(logger, "bind") else engine_logger()
    return structlog.wrap_logger(
        logger or logging.getLogger("saga_engine"),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            _drop_below_level,
            structlog.contextvars.merge_contextvars,
            mask_secrets,
            structlog.processors.format_exc_info,
            _render,
        ],
    ).bind()  # once: structlog would do it anew for each event


_LEVELS: dict[type[Entry], int] = {
    StepFailed: logging.WARNING,
    CompensationFailed: logging.WARNING,
    CompensationBegun: logging.WARNING,
    LateEffectFound: logging.WARNING,
    SignalMissed: logging.WARNING,
    TakenOver: logging.WARNING,
    UndoOrdered: logging.WARNING,
    StepParked: logging.ERROR,
    SagaParked: logging.ERROR,
}
_FIELDS = (
    "step",
    "attempt",
    "cause",
    "due_at",
    "retry_at",
    "status",
    "answer",
    "outcome",
    "reason",
    "note",
    "who",
    "is_forced",
    "is_abandoned",
    "by",
    "died",
    "name",
)
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


def log_entries(logger: Any, saga_id: str, entries: Sequence[Entry]) -> None:
    """Write one event for each entry of a durable commit, named after it: `step completed`, `saga ended`."""
    is_enabled = getattr(logger, "isEnabledFor", _always)
    is_info = is_enabled(logging.INFO)
    for entry in entries:
        level = _LEVELS.get(type(entry), logging.INFO)
        if is_info or (level > logging.INFO and is_enabled(level)):
            logger.log(level, _WORDS.sub(" ", type(entry).__name__).lower(), saga_id=saga_id, **_fields(entry))


def _always(_level: int) -> bool:
    """Stand in for `isEnabledFor`, which not all of structlog's loggers have: they filter by themselves."""
    return True


def _fields(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in _FIELDS:
        value = getattr(entry, name, None)
        if value is not None and value is not False and value != "":  # what an entry says by default is no news
            fields["signal" if name == "name" else name] = value.value if isinstance(value, Enum) else value
    error = getattr(entry, "error", None)
    if error is not None:
        fields["error"] = f"{error.type}: {error.message}"
    return fields


logging.getLogger("saga_engine").addHandler(logging.NullHandler())
