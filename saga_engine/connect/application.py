"""Sagas as the handlers of an extension: one line of a class body for each event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connect.eaas.core.decorators import event, schedulable
from connect.eaas.core.extension import EventsApplicationBase
from connect.eaas.core.responses import BackgroundResponse, ScheduledExecutionResponse

from saga_engine.connect.sweeper import for_handler, sweep
from saga_engine.errors import BadDefinition
from saga_engine.saga import Saga, check_definition

__all__ = ["SagaEventsApplication", "on"]

#: What is processed as long as nobody decided otherwise.
_STATUSES = ("pending",)
_INTERACTIVE = ("product_action_execution", "product_custom_event_processing")
_SAGAS = "_sagas_by_event"


@dataclass(frozen=True)
class _Handled:
    """What `on` gives: a saga with how its events are delivered."""

    saga: type[Saga]
    statuses: tuple[str, ...] | None
    is_async: bool


def on(saga: type[Saga], *, statuses: Sequence[str] | None = None, is_async: bool = False) -> Any:
    """Say more of a saga that handles an event; for the class body of a `SagaEventsApplication`.

    Args:
        saga: the saga.
        statuses: the statuses of a request in which it is delivered; None: `pending`, for requests of assets and tier
            configurations.
        is_async: the handler is a coroutine: steps get an `AsyncConnectClient` as `client`, async ones run on the
            runner's event loop, plain ones in threads. Otherwise it runs in a thread, with a `ConnectClient`.

    Raises:
        BadDefinition: the saga or its statuses cannot be used.
    """
    check_definition(saga)
    if statuses is not None and (isinstance(statuses, str) or not all(isinstance(each, str) for each in statuses)):
        raise BadDefinition(f"on({saga.__name__}): statuses is {statuses!r}: give a list of names")
    if statuses is not None and not statuses:
        raise BadDefinition(f"on({saga.__name__}): statuses is empty, so nothing would be delivered: name at least one")
    return _Handled(saga, None if statuses is None else tuple(statuses), is_async)


def _is_saga(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Saga)


def _is_handler(value: Any) -> bool:
    return isinstance(value, _Handled) or _is_saga(value)


def _handles(name: str, value: Any, body: Mapping[str, Any]) -> bool:
    """Tell whether the attribute handles an event; a saga that is defined in the class body does not, by that alone."""
    return _is_handler(value) and not (_is_saga(value) and value.__qualname__ == f"{body['__qualname__']}.{name}")


def _handled(value: Any) -> _Handled:
    handled: _Handled = value if isinstance(value, _Handled) else on(value)
    return handled


def _handler(event_type: str, handled: _Handled, body: Mapping[str, Any]) -> Any:
    """Make what the runner demands of a handler: a method of this name, with the marks of `@event`."""
    if event_type.endswith("_validation") or event_type in _INTERACTIVE:
        raise BadDefinition(
            f"{event_type} is interactive: its caller waits for the answer, which a saga gives in its own time; write "
            "a method with @event"
        )
    handle = _async_handle(handled.saga) if handled.is_async else _handle(handled.saga)
    handle.__name__, handle.__module__ = event_type, body["__module__"]
    handle.__qualname__ = f"{body['__qualname__']}.{event_type}"
    handle.__doc__ = f"Carry {handled.saga.__name__} on for a request."
    return event(event_type, statuses=list(_statuses_of(event_type, handled)))(handle)


def _statuses_of(event_type: str, handled: _Handled) -> tuple[str, ...]:
    if handled.statuses is not None:
        return handled.statuses
    if event_type.startswith(("asset_", "tier_config_")):
        return _STATUSES
    name = handled.saga.__name__
    raise BadDefinition(f"{event_type}: say in which statuses {name} handles it: on({name}, statuses=[...])")


def _handle(saga: type[Saga]) -> Any:
    def handle(self: SagaEventsApplication, request: dict[str, Any]) -> BackgroundResponse:
        return self.make_saga(saga).resolve(request)

    return handle


def _async_handle(saga: type[Saga]) -> Any:
    async def handle(self: SagaEventsApplication, request: dict[str, Any]) -> BackgroundResponse:
        return await self.make_saga(saga).aresolve(request)

    return handle


class _Body(dict[str, Any]):
    """The class body while it is read: refuses what Python would replace without a word."""

    def __setitem__(self, name: str, value: Any) -> None:
        before = self.get(name)
        if before is not None and (_is_handler(before) or _is_handler(value)):
            raise BadDefinition(f"{name} is set twice: one saga handles an event; put what both do into one saga")
        super().__setitem__(name, value)


class _Application(type):
    """Makes handlers of the sagas in a class body, and sees to it that each event has one."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **options: Any) -> dict[str, Any]:
        return _Body()

    def __new__(mcs, name: str, bases: tuple[type, ...], body: Mapping[str, Any], **options: Any) -> _Application:
        handled = {
            event_type: _handled(value) for event_type, value in body.items() if _handles(event_type, value, body)
        }
        handlers = {event_type: _handler(event_type, found, body) for event_type, found in handled.items()}
        return super().__new__(mcs, name, bases, {**body, **handlers, _SAGAS: handled}, **options)

    def __init__(cls, name: str, bases: tuple[type, ...], body: Mapping[str, Any], **options: Any) -> None:
        super().__init__(name, bases, dict(body), **options)
        methods: dict[str, str] = {}
        for info in cls.get_events():  # type: ignore[attr-defined]  # every application has it
            other = methods.setdefault(info["event_type"], info["method"])
            if other != info["method"]:
                raise BadDefinition(
                    f"{name} handles {info['event_type']} twice, by {other} and by {info['method']}, of which the "
                    "runner would take one only: remove the other"
                )


class SagaEventsApplication(EventsApplicationBase, metaclass=_Application):  # type: ignore[misc]  # connect has no types
    """An events application whose class body names the saga of each event.

        class Extension(SagaEventsApplication):
            asset_purchase_request_processing = PurchaseSaga
            asset_change_request_processing = on(ChangeSaga, statuses=["pending", "inquiring"])

    The name is the event's type; a handler of that name takes its place. Handlers may also be written as methods with
    `@event`. Two for one event are refused when the class is made. A handler that is inherited is replaced by an
    attribute of the same name; None takes it away.

    It brings along `resume_sagas`, to be put on a schedule: it carries on what no delivery carries on.
    """

    def make_saga(self, saga: type[Saga]) -> Saga:
        """Make a saga for a delivery; override it to give the steps other services, as `self.installation_client`."""
        return saga.make(self.config, self.client, self.logger)

    @schedulable(  # type: ignore[untyped-decorator]  # connect has no types
        "Resume sagas",
        "Carries on every order that is due, or whose worker died, without waiting for its next delivery.",
    )
    async def resume_sagas(self, schedule: dict[str, Any]) -> ScheduledExecutionResponse:
        """Carry on what is due, has mail, or was left by a dead process, of the sagas that this application handles."""
        handled = _sagas_of(type(self)).items()
        return await sweep(for_handler(self, is_async).make_saga(saga) for saga, is_async in handled)


def _sagas_of(application: type[SagaEventsApplication]) -> dict[type[Saga], bool]:
    """Tell which sagas the application handles, and of each whether its handler is async."""
    found: dict[type[Saga], bool] = {}
    for base in reversed(application.__mro__):
        for handled in vars(base).get(_SAGAS, {}).values():
            found[handled.saga] = handled.is_async
    return found
