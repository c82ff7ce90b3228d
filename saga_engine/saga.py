"""Saga: the declaration of a workflow, and the two lines that run it in a handler."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from connect.eaas.core.responses import BackgroundResponse
from tenacity import stop_after_attempt, wait_exponential_jitter

from saga_engine.errors import BadDefinition, BadRequest
from saga_engine.exclusive import Exclusive
from saga_engine.services import ServiceProvider, provide_cache
from saga_engine.services.cache import Cache
from transactions import RetryPolicy

if TYPE_CHECKING:
    from saga_engine.engine import Engine
    from saga_engine.record import SagaRecord

__all__ = ["Saga", "Services", "check_definition"]

TSaga = TypeVar("TSaga", bound="Saga")


class Services:
    """What an execution is driven with: `config`, `client` and `logger`, each optional."""

    __slots__ = ("client", "config", "logger")

    def __init__(self, config: Mapping[str, Any] | None = None, client: Any = None, logger: Any = None) -> None:
        if config is not None and not isinstance(config, Mapping):
            raise BadDefinition(f"config is a {type(config).__name__}: give a dict of names and values, or None")
        self.config = config
        self.client = client
        self.logger = logger

    @property
    def are_given(self) -> bool:
        """Tell whether there is anything that steps could be built with."""
        return self.config is not None or self.client is not None or self.logger is not None


class CacheProvider(ServiceProvider):
    """The cache that steps get as `cache` unless the saga provides another one.

    One cache serves all drives of a process that have the same `CACHE_*` variables.
    """

    _caches: ClassVar[dict[tuple[Any, ...], Cache]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def provide_cache(self, config: Mapping[str, Any], logger: Any) -> Cache:
        """Open the configured cache; SQLite by default."""
        variables = sorted((k, str(v)) for k, v in config.items() if str(k).upper().startswith("CACHE_"))
        key = (os.getpid(), *variables)
        with self._lock:
            if key not in self._caches:
                self._caches[key] = provide_cache(config, logger)
            return self._caches[key]


class Saga(ABC):
    """A workflow: the transactions that one request goes through, in order.

    Class attributes (times in seconds):
        mode: "chain" runs all transactions in order; "select" runs, at each delivery, the first one whose
            `should_execute` is true, as the seed framework did.
        compensation_retry: how failed undos are repeated (default: 5 attempts, exponential with jitter).
        deadline_s: after this time the execution gives up and compensates; None: never.
        compensation_deadline_s: after this time a compensation that does not come to an end parks (7 days).
        park_policy: when an undo parks, "stop" there, or "continue" with the earlier steps.
        reschedules_max, recoveries_max, attempts_max, entries_max, payload_bytes_max: limits of one execution;
            reaching one parks it. `recoveries_max` counts takeovers without progress, `attempts_max` failed
            attempts of one step, `payload_bytes_max` bytes of JSON of the request and of the state.
        providers: service providers by key, beside the default `cache`.
        exclusive: the right that only one execution at a time has, see `Exclusive`; None: there is none.
        undoes: the saga whose completed execution this one undoes, as its first step (`Undo <its name>`), before its
            own transactions: the saga of a cancel order undoes the purchase. That execution is found by `undoes_key`.

    A saga can be a step of another one, by its class. Its steps then have their own `context.state` and request, as
    in a branch of `Parallel`; its middlewares wrap them inside the outer saga's; its `compensation_retry`, `deadline_s`
    and `providers` apply to them, its `park_policy`, `compensation_deadline_s` and limits do not: those are the outer
    saga's.
    """

    mode: ClassVar[str] = "chain"
    compensation_retry: ClassVar[RetryPolicy] = RetryPolicy(
        stop=stop_after_attempt(5), wait=wait_exponential_jitter(max=60)
    )
    deadline_s: ClassVar[float | None] = None
    compensation_deadline_s: ClassVar[float] = 604_800.0
    park_policy: ClassVar[str] = "stop"
    reschedules_max: ClassVar[int] = 10_000
    recoveries_max: ClassVar[int] = 5
    attempts_max: ClassVar[int] = 1_000
    entries_max: ClassVar[int] = 100_000
    payload_bytes_max: ClassVar[int] = 4_194_304
    providers: ClassVar[Mapping[str, ServiceProvider | type[ServiceProvider]]] = {}
    exclusive: ClassVar[Exclusive | None] = None
    undoes: ClassVar[type[Saga] | None] = None

    _services: Services = Services()
    _request: dict[str, Any] | None = None
    _engine: Engine | None = None

    @abstractmethod
    def transactions(self, request: dict[str, Any]) -> Sequence[Any]:
        """List the transactions of this request: classes, instances, tuples, decorated functions.

        An entry may also be a `Parallel` or `Chain` of entries, or the class of another saga.
        Falsy entries are dropped. Called with the request of the start whenever an execution is taken up, so the
        list must depend on nothing but the request.
        """

    def middlewares(self, request: dict[str, Any]) -> Sequence[Any]:
        """List what wraps `execute` of every step, outermost first: callables, or classes to build.

        Called with the request of the start, as `transactions` is. A class is built anew for each branch of a
        `Parallel`. The middlewares of a saga that is a step are inside those of the saga around it.
        """
        return []

    def key(self, request: dict[str, Any]) -> str:
        """Name the execution that the request belongs to; by default the request's `id`."""
        try:
            return request["id"]  # type: ignore[no-any-return]  # checked by saga_id
        except KeyError:
            raise BadRequest(
                f"the request has no 'id': deliver one that has, or override {type(self).__name__}.key(request)"
            ) from None

    def undoes_key(self, request: dict[str, Any]) -> str:
        """Name the execution of the saga in `undoes` that the request undoes; by default, by that saga's own `key`.

        So a purchase that is named by its asset is found by the cancel order's asset.
        """
        if self.undoes is None:
            raise BadDefinition(f"{type(self).__name__} undoes no saga: set its `undoes`")
        own = self._services
        return self.undoes.make(own.config, own.client, own.logger).key(request)

    def restarts(self, request: dict[str, Any], previous: SagaRecord) -> bool:
        """Tell whether a delivery for an ended execution starts a new generation of it; by default, it does not."""
        return False

    def parked_response(self, record: SagaRecord) -> BackgroundResponse | None:
        """Give what to answer for a parked execution; None: a `fail` that says where and why it parked."""
        return None

    @classmethod
    def services(cls, record: SagaRecord) -> Mapping[str, Any] | None:
        """Give `config`, `client` and `logger` for an execution that is taken up without a handler's.

        Used by `Engine.recover` and the command line when the engine itself has none. None: there are none.
        """
        return None

    @classmethod
    def make(
        cls: type[TSaga],
        config: Mapping[str, Any] | None = None,
        client: Any = None,
        logger: Any = None,
        request: dict[str, Any] | None = None,
        *,
        engine: Engine | None = None,
    ) -> TSaga:
        """Make the saga ready to resolve requests.

        Args:
            config: the extension's variables, by name.
            client: the client of the Connect API.
            logger: a logger or LoggerAdapter (or a structlog logger) for the steps.
            request: the request that `resolve()` takes when it is given none.
            engine: what runs it; by default the engine of this process, see `saga_engine.default_engine`.
        """
        saga = cls()
        saga._services = Services(config, client, logger)
        saga._request = request
        saga._engine = engine
        return saga

    def resolve(self, request: dict[str, Any] | None = None) -> BackgroundResponse:
        """Carry the request's execution on in this thread, as far as it goes now.

        Returns:
            What to answer Connect: done, fail, skip, or reschedule.

        Raises:
            SagaError: the request or the saga cannot be used, or the journal cannot be written.
        """
        return self.engine.resolve(self, self._given(request), self._services)

    async def aresolve(self, request: dict[str, Any] | None = None) -> BackgroundResponse:
        """Do what `resolve` does in an event loop: async steps natively, plain ones in threads."""
        return await self.engine.aresolve(self, self._given(request), self._services)

    @property
    def engine(self) -> Engine:
        """What resolves the saga's requests; by default the engine of this process."""
        if self._engine is not None:
            return self._engine
        from saga_engine.engine import default_engine  # here, because the engine knows sagas

        return default_engine(self._services.config)

    def _make_child(self, kind: type[Saga], services: Services) -> Saga:
        """Make a saga that is a step of this one."""
        return kind.make(services.config, services.client, services.logger, engine=self._engine)

    def _given(self, request: dict[str, Any] | None) -> dict[str, Any]:
        given = self._request if request is None else request
        if given is None:
            raise BadRequest(f"{type(self).__name__}: no request was given: call resolve(request)")
        return given


_CHOICES = {"mode": ("chain", "select"), "park_policy": ("stop", "continue")}
_POSITIVE_NUMBERS = ("compensation_deadline_s",)
_POSITIVE_INTS = ("reschedules_max", "recoveries_max", "attempts_max", "entries_max", "payload_bytes_max")


def check_definition(saga: type[Saga]) -> None:
    """Check the class attributes of a saga.

    Raises:
        BadDefinition: one has a value that cannot be meant; the text names it and says what to write.
    """
    if not (isinstance(saga, type) and issubclass(saga, Saga)):
        raise BadDefinition(f"{saga!r} is no saga: give a subclass of Saga")
    for name, choices in _CHOICES.items():
        if getattr(saga, name) not in choices:
            raise BadDefinition(f"{saga.__name__}.{name} is {getattr(saga, name)!r}: choose one of {choices}")
    for name in _POSITIVE_NUMBERS:
        _check_number(saga, name)
    if saga.deadline_s is not None:
        _check_number(saga, "deadline_s")
        if saga.mode == "select":
            raise BadDefinition(f"{saga.__name__}.deadline_s: a saga of mode 'select' has no deadline: remove it")
    for name in _POSITIVE_INTS:
        _check_int(saga, name)
    for name, wanted, told in (("compensation_retry", RetryPolicy, "RetryPolicy"), ("providers", Mapping, "dict")):
        if not isinstance(getattr(saga, name), wanted):
            raise BadDefinition(f"{saga.__name__}.{name} is {getattr(saga, name)!r}: give a {told}")
    _check_exclusive(saga)
    _check_undoes(saga)


def _check_int(saga: type[Saga], name: str) -> None:
    value = getattr(saga, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadDefinition(f"{saga.__name__}.{name} is {value!r}: give an int of at least 1")


def refuse_namesake(one: type[Saga], other: type[Saga]) -> None:
    """Refuse two sagas of one name: their executions would have the same ids.

    Raises:
        BadDefinition: they are two, and have one name.
    """
    if one is not other and one.__name__ == other.__name__:
        raise BadDefinition(
            f"{one.__module__}.{one.__qualname__} and {other.__module__}.{other.__qualname__} are two sagas of one "
            "name, and an execution is named after its saga: rename one of them"
        )


def _check_exclusive(saga: type[Saga]) -> None:
    if saga.exclusive is None:
        return
    if not isinstance(saga.exclusive, Exclusive):
        raise BadDefinition(f"{saga.__name__}.exclusive is {saga.exclusive!r}: give Exclusive(key=...)")
    if saga.mode == "select":
        raise BadDefinition(f"{saga.__name__}.exclusive: a saga of mode 'select' has no exclusive right: remove it")


def _check_undoes(saga: type[Saga]) -> None:
    undone: Any = saga.undoes
    if undone is None:
        return
    if not (isinstance(undone, type) and issubclass(undone, Saga)):
        raise BadDefinition(f"{saga.__name__}.undoes is {undone!r}: give a subclass of Saga")
    if undone is saga:
        raise BadDefinition(f"{saga.__name__}.undoes is the saga itself: give the saga that it undoes")
    if saga.mode == "select":
        raise BadDefinition(f"{saga.__name__}.undoes: a saga of mode 'select' undoes none: make its mode 'chain'")


def _check_number(saga: type[Saga], name: str) -> None:
    value = getattr(saga, name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise BadDefinition(f"{saga.__name__}.{name} is {value!r}: give a number of seconds above 0")
