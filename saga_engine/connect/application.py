"""SagaEventsApplication: an events application in whose body one line is a whole handler."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from connect.eaas.core.constants import EVENT_INFO_ATTR_NAME, SCHEDULABLE_INFO_ATTR_NAME
from connect.eaas.core.decorators import event, schedulable
from connect.eaas.core.enums import EventType
from connect.eaas.core.extension import EventsApplicationBase

from saga_engine.connect.sweeper import Sagas, asweep, sweep
from saga_engine.errors import BadDefinition
from saga_engine.saga import Saga, check_definition

__all__ = ["Handling", "SagaEventsApplication", "on"]

_SWEEPER = "resume_sagas"
#: What `SagaEventsApplication` itself gives a meaning, and that is no type of an event.
_OWN_NAMES = (_SWEEPER, "sagas", "async_sagas")
#: What the runner or the framework expects to find under these names, and that is no type of an event either.
_BASE_NAMES = frozenset(dir(EventsApplicationBase)) | {
    "client", "config", "context", "installation", "installation_client", "logger",
}  # fmt: skip
#: Marks a function that was made here, so that a subclass knows what it may make anew.
_MADE_OF = "_saga_made_of"
#: Whoever asks one of these waits for the answer itself, which is no BackgroundResponse.
_INTERACTIVE = ("product_action_execution", "product_custom_event_processing", "scheduled_execution")
#: The types of events that the framework knows; Connect has more.
_KNOWN_EVENTS = frozenset(value for name, value in vars(EventType).items() if name.isupper())
#: How much of a name, 0 to 1, must be that of a known event for it to be one that was mistyped: all but two letters.
_LIKENESS = 0.95


@dataclass(frozen=True)
class Handling:
    """How a saga handles an event; made by `on`."""

    saga: type[Saga]
    statuses: tuple[str, ...]
    is_async: bool


def on(saga: type[Saga], *, statuses: Sequence[str] = ("pending",), is_async: bool = False) -> Handling:
    """Say how a saga handles the event whose type it is assigned to in a `SagaEventsApplication`.

    Args:
        saga: the saga that resolves the requests.
        statuses: only requests that stand so are delivered.
        is_async: whether the handler is a coroutine: its steps get an `AsyncConnectClient`, and async steps run on the
            event loop of the runner.

    Raises:
        BadDefinition: the saga or an argument cannot be used.
    """
    check_definition(saga)
    if inspect.isabstract(saga):
        raise BadDefinition(f"{saga.__name__} has no transactions: define transactions(self, request)")
    if isinstance(statuses, str) or not statuses or not all(isinstance(one, str) and one.islower() for one in statuses):
        raise BadDefinition(f'on({saga.__name__}, statuses={statuses!r}): give a list such as ["pending"]')
    if not isinstance(is_async, bool):
        raise BadDefinition(f"on({saga.__name__}, is_async={is_async!r}): give True or False")
    return Handling(saga, tuple(statuses), is_async)


def _is_declaration(value: Any) -> bool:
    # An instance of a saga is meant to be one, and is refused as such.
    return isinstance(value, (Handling, Saga)) or (isinstance(value, type) and issubclass(value, Saga))


# --- reading a class ---


def _declarations(application: type) -> Iterator[tuple[str, Handling]]:
    """Find the sagas that are to become handlers: of the class itself, and of mixins that are plain classes."""
    for name, value in _effective(application).items():
        if not _is_declaration(value) or name.startswith("_"):
            continue
        if name.islower():
            yield name, _handling(application, name, value)
        elif isinstance(value, Handling):
            raise BadDefinition(f"{application.__name__}.{name}: on(...) is assigned to the type of an event")


def _handling(application: type, event_type: str, value: Any) -> Handling:
    if EVENT_INFO_ATTR_NAME in vars(value):
        meant = getattr(value, EVENT_INFO_ATTR_NAME)["event_type"]
        raise BadDefinition(
            f"{application.__name__}.{event_type}: @event is for methods: write {meant} = on({value.__name__}, ...)"
        )
    if event_type in _BASE_NAMES:
        raise BadDefinition(f"{application.__name__}.{event_type} is an application's own, and no type of an event")
    if event_type in _OWN_NAMES:
        raise BadDefinition(f"{application.__name__}.{event_type} is {value!r}: see SagaEventsApplication")
    if event_type.endswith("_validation") or event_type in _INTERACTIVE:
        raise BadDefinition(
            f"{application.__name__}.{event_type}: that event is answered at once, and not by a saga; "
            "write a method with @event"
        )
    meant = get_close_matches(event_type, _KNOWN_EVENTS, n=1, cutoff=_LIKENESS)
    if meant and event_type not in _KNOWN_EVENTS:
        raise BadDefinition(
            f"{application.__name__}.{event_type}: did you mean {meant[0]}? Nothing would ever be delivered to a name "
            "that was mistyped; if Connect has that event, write a method with @event"
        )
    return value if isinstance(value, Handling) else on(value)


def _effective(application: type) -> dict[str, Any]:
    """Give the attributes as they are found on the class, by name."""
    found: dict[str, Any] = {}
    for base in application.__mro__:
        for name, value in vars(base).items():
            found.setdefault(name, value)
    return found


def _event_of(name: str, value: Any) -> str | None:
    """Tell which event an attribute handles, or will handle."""
    if _is_declaration(value):
        return name if name.islower() and not name.startswith("_") else None
    function = _function(value)
    info = None if function is None else getattr(function, EVENT_INFO_ATTR_NAME, None)
    return None if info is None else str(info["event_type"])


def _function(value: Any) -> Any:
    """Give the function that the runner finds under an attribute; None if it finds none, as in a class method."""
    found = value.__func__ if isinstance(value, staticmethod) else value
    return found if inspect.isfunction(found) else None


def _is_handler(name: str, value: Any) -> bool:
    return _is_declaration(value) or _event_of(name, value) is not None


# --- refusing ---


def _refuse_second_handlers(application: type) -> None:
    handlers: dict[str, str] = {}
    for name, value in _effective(application).items():
        event_type = _event_of(name, value)
        if event_type is None:
            continue
        if event_type in handlers:
            raise BadDefinition(
                f"{application.__name__} handles {event_type} twice, by {handlers[event_type]} and by {name}: the "
                f"runner would use only one; remove one, or set it to None if a base has it"
            )
        handlers[event_type] = name


def _refuse_clashes_of_bases(application: type) -> None:
    """Refuse a handler that hides another one which it does not know of, as two mixins may have them."""
    own = vars(application)
    for name in _effective(application):
        bases = [base for base in application.__mro__[1:] if _event_of(name, vars(base).get(name)) is not None]
        if name in own or not bases:
            continue
        hidden = [base for base in bases if base not in bases[0].__mro__]
        if hidden:
            raise BadDefinition(
                f"{application.__name__} gets a handler for {name} from {bases[0].__name__} and another one from "
                f"{hidden[0].__name__}: say which, by a line {name} = ... of its own"
            )


def _refuse_lost_handlers(application: type) -> None:
    """Refuse a method that overrides a handler without being one: nobody would call it."""
    for name, value in _effective(application).items():
        if _function(value) is None or _event_of(name, value) is not None:
            continue
        bases = [base for base in application.__mro__[1:] if _event_of(name, vars(base).get(name)) is not None]
        if bases:
            raise BadDefinition(
                f"{application.__name__}.{name} overrides a handler of {bases[0].__name__} and would never be called: "
                f"decorate it with @event"
            )


def _refuse_what_handles_nothing(application: type) -> None:
    """Refuse what stands under the name of an event, or of the sweeper, and would not be called."""
    for name, value in _effective(application).items():
        if value is None or _is_declaration(value):
            continue
        if name in _KNOWN_EVENTS and _event_of(name, value) is None:
            raise BadDefinition(
                f"{application.__name__}.{name} is {value!r}, which handles nothing: assign a saga, on(...), or None, "
                "or decorate the method with @event"
            )
        if name == _SWEEPER and not hasattr(value, SCHEDULABLE_INFO_ATTR_NAME):
            raise BadDefinition(
                f"{application.__name__}.{name} would never be called: decorate the method with @schedulable, or "
                f"assign None to have no sweeper"
            )


def _refuse_handlers_out_of_reach(application: type) -> None:
    """Refuse a handler that the runner does not see, or cannot find again by the name that it notes down."""
    for name, value in _effective(application).items():
        if isinstance(value, classmethod) and hasattr(value.__func__, EVENT_INFO_ATTR_NAME):
            raise BadDefinition(f"{application.__name__}.{name} is a class method, which the runner never calls")
        if _is_declaration(value) or _event_of(name, value) is None:
            continue
        noted = getattr(_function(value), EVENT_INFO_ATTR_NAME)["method"]
        if noted != name and getattr(application, noted, None) is not getattr(application, name):
            raise BadDefinition(
                f"{application.__name__}.{name} is called {noted} inside, and so the runner would look for {noted}: "
                "let the decorator below @event use functools.wraps"
            )


# --- making ---


def _handler(application: type, event_type: str, handling: Handling) -> Callable[..., Any]:
    """Make the method that the runner calls: it looks at its name, its signature, and whether it is a coroutine's."""
    saga = handling.saga

    def handle(self: Any, request: dict[str, Any]) -> Any:
        return saga.make(self.config, self.client, self.logger).resolve(request)

    async def handle_async(self: Any, request: dict[str, Any]) -> Any:
        return await saga.make(self.config, self.client, self.logger).aresolve(request)

    method = handle_async if handling.is_async else handle
    _name(method, application, event_type, f"Carry the {saga.__name__} of a request on.")
    setattr(method, _MADE_OF, handling)
    made: Callable[..., Any] = event(event_type, statuses=list(handling.statuses))(method)
    return made


def _name(method: Callable[..., Any], application: type, name: str, doc: str) -> None:
    method.__name__ = name
    method.__qualname__ = f"{application.__qualname__}.{name}"
    method.__module__ = application.__module__
    method.__doc__ = doc


def _equip_with_sweeper(application: type) -> None:
    """Give an application that has sagas its sweeper, unless its author gave or refused one."""
    sagas = _sagas_to_sweep(application)
    is_given = hasattr(application, _SWEEPER) and not hasattr(getattr(application, _SWEEPER), _MADE_OF)
    if sagas and not is_given:
        setattr(application, _SWEEPER, _sweeper(application, sagas))


def _sagas_to_sweep(application: Any) -> Sagas:
    """Find the sagas of an application, with those that they undo, and which are async."""
    handlings = [on(saga) for saga in application.sagas]
    handlings += [on(saga, is_async=True) for saga in application.async_sagas]
    made_of = (getattr(value, _MADE_OF, None) for value in _effective(application).values())
    handlings += [handling for handling in made_of if isinstance(handling, Handling)]
    sagas: dict[type[Saga], bool] = {}
    for handling in handlings:
        sagas[handling.saga] = sagas.get(handling.saga, False) or handling.is_async
    for saga, is_async in list(sagas.items()):
        if saga.undoes is not None:
            sagas.setdefault(saga.undoes, is_async)
    return {saga: is_async for saga, is_async in sagas.items() if saga.mode != "select"}


def _sweeper(application: type, sagas: Sagas) -> Callable[..., Any]:
    def resume(self: Any, schedule: dict[str, Any]) -> Any:
        return sweep(self, sagas)

    async def resume_async(self: Any, schedule: dict[str, Any]) -> Any:
        return await asweep(self, sagas)

    method = resume_async if any(sagas.values()) else resume
    _name(method, application, _SWEEPER, "Carry on what is due, what a dead process left, and what is not delivered.")
    setattr(method, _MADE_OF, sagas)
    made: Callable[..., Any] = schedulable("Resume sagas", str(method.__doc__))(method)
    return made


# --- the application ---


class _Body(dict[str, Any]):
    """The names of a class body; one that has a handler is not given away, as its event would be handled by another."""

    def __init__(self, application: str) -> None:
        super().__init__()
        self._application = application

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and (_is_handler(name, self[name]) or _is_declaration(value)):
            raise BadDefinition(
                f"{self._application}.{name} is assigned twice: let one saga handle it, which may choose its "
                "transactions by the request, or give the two methods different names"
            )
        super().__setitem__(name, value)


class _SagaEvents(ABCMeta):
    """Makes handlers of the sagas in a class body, and refuses what would silently handle nothing."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **options: Any) -> _Body:
        return _Body(name)

    def __new__(
        metacls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **options: Any
    ) -> _SagaEvents:
        made = super().__new__(metacls, name, bases, dict(namespace), **options)
        _refuse_lost_handlers(made)
        _refuse_what_handles_nothing(made)
        _refuse_handlers_out_of_reach(made)
        _refuse_clashes_of_bases(made)
        for event_type, handling in list(_declarations(made)):
            setattr(made, event_type, _handler(made, event_type, handling))
        _refuse_second_handlers(made)
        _equip_with_sweeper(made)
        return made


class SagaEventsApplication(EventsApplicationBase, metaclass=_SagaEvents):  # type: ignore[misc]  # connect ships no types
    """An events application whose handlers are sagas.

    A line such as `asset_purchase_request_processing = PurchaseSaga` in the body of a subclass is a whole handler: the
    name is the type of the event, any background event of Connect. `on(PurchaseSaga, statuses=[...], is_async=True)`
    says more than the saga alone. A body may have `@event` methods beside them. In a subclass, a line replaces the
    inherited one of the same name, and `asset_purchase_request_processing = None` takes it away. Two handlers for one
    event are a `BadDefinition` at import.

    An application that has sagas also has the schedulable method `resume_sagas`, which carries on what is due, what
    a dead process left, and what nobody delivers again; `resume_sagas = None` takes it away.

    Attributes:
        sagas: sagas that `@event` methods resolve, for the sweeper to take up as well.
        async_sagas: those that async methods resolve.
    """

    sagas: ClassVar[Sequence[type[Saga]]] = ()
    async_sagas: ClassVar[Sequence[type[Saga]]] = ()
