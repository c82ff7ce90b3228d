"""The world around simulated executions: a vendor with a ledger, steps whose behaviour the seed draws, and a log.

The log is all that the oracle sees: which calls the vendor's clients made with which keys, which commits became
durable (as plain data), who was answered what, who said what, and who died when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from msgspec import Struct
from simulation_script import Branches, Child, Dice, Leaf, Script, Tree
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Exclusive, Parallel, Saga, SagaContext, WaitFor, current_context
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy, Suspend

__all__ = [
    "Answered",
    "ByHand",
    "Called",
    "Commanded",
    "Died",
    "Event",
    "Late",
    "Previewed",
    "Vendor",
    "World",
    "Written",
    "saga_of_script",
]

DONE = BackgroundResponse.done()
# --- the log ------------------------------------------------------------------------------------------------------


class Called(Struct, frozen=True):
    """A step was called. `state` is what it found, `delivery` the number of the request that it saw.

    `is_late`: its attempt had been given up, or its drive overtaken.
    """

    execution: int
    operation: str
    step: str
    key: str
    execute_key: str
    attempt: int
    state: dict[str, Any]
    delivery: int
    is_late: bool


class Gave(Struct, frozen=True):
    """A step is about to answer; `is_there`: its effect is at the vendor."""

    execution: int
    operation: str
    step: str
    answer: str
    is_there: bool


class Written(Struct, frozen=True):
    """A commit became durable."""

    execution: int
    drive: str
    entries: list[dict[str, Any]]
    is_release: bool


class Answered(Struct, frozen=True):
    """Who delivered was answered; `began` is where in the log the delivery began, `drive` is "" if nothing was."""

    execution: int
    status: str
    output: str | None
    began: int
    drive: str


class Commanded(Struct, frozen=True):
    """Somebody said something to an execution; `refusal` is why it was refused, "" if it was taken."""

    execution: int
    command: str
    step: str
    is_forced: bool
    refusal: str


class Previewed(Struct, frozen=True):
    """The engine told what it would undo if the execution failed now."""

    execution: int
    undos: list[str]


class ByHand(Struct, frozen=True):
    """A person set the vendor right for a step."""

    execution: int
    step: str
    is_there: bool


class Late(Struct, frozen=True):
    """An attempt that had been given up came to its end; `is_reported`: its engine lived to tell."""

    execution: int
    step: str
    is_reported: bool


class Died(Struct, frozen=True):
    """A process died; `where` names what it was about."""

    process: int
    where: str


class LeaseTaken(Struct, frozen=True):
    """A drive lost its lease without knowing it, as one does that was paused for too long."""

    execution: int


class Interrupted(Struct, frozen=True):
    """A drive was cancelled and gave its lease back."""

    execution: int


Event = Called | Gave | Written | Answered | Commanded | Previewed | ByHand | Late | Died | LeaseTaken | Interrupted


# --- the vendor ---------------------------------------------------------------------------------------------------


class Vendor:
    """The other side: creates and deletes things, and honours idempotency keys as a good API does.

    Attributes:
        created: execute key -> (execution, step), once for each thing that ever came to be.
        gone: execute keys of the things that are there no more.
        unreported: execute keys of things that nobody told the engine of; for good, if whoever made them died first.
    """

    def __init__(self) -> None:
        self.created: dict[str, tuple[int, str]] = {}
        self.gone: set[str] = set()
        self.unreported: set[str] = set()
        self._undo_keys: set[str] = set()

    def create(self, key: str, execution: int, step: str, is_unheard: bool) -> None:
        """Create a thing; asked again with the same key, it is the same thing.

        `is_unheard`: who asks was given up, so that somebody has yet to report it.
        """
        if key not in self.created:
            self.created[key] = (execution, step)
            if is_unheard:
                self.unreported.add(key)
        elif not is_unheard:
            self.unreported.discard(key)

    def report(self, execution: int, step: str) -> None:
        """Note that the engine was told of what a given up attempt of the step did."""
        self.unreported -= {key for key in self.unreported if self.created[key] == (execution, step)}

    def delete(self, undo_key: str, key: str) -> None:
        """Delete a thing if it is there; asked again with the same undo key, nothing happens."""
        if undo_key not in self._undo_keys:
            self._undo_keys.add(undo_key)
            if key in self.created:
                self.gone.add(key)

    def has_seen(self, undo_key: str) -> bool:
        """Tell whether somebody asked to delete with this key."""
        return undo_key in self._undo_keys

    def has(self, key: str) -> bool:
        """Tell whether the thing is there."""
        return key in self.created and key not in self.gone

    def live(self, execution: int) -> Counter[str]:
        """Count the things of an execution that are there, by step; without those that nobody could know of."""
        there = self.created.items()
        return Counter(
            step
            for key, (owner, step) in there
            if owner == execution and key not in self.gone and key not in self.unreported
        )

    def set_by_hand(self, execution: int, step: str, is_there: bool) -> None:
        """Let a person make, or remove, what the step is for."""
        keys = [key for key, made in self.created.items() if made == (execution, step) and key not in self.gone]
        if is_there and not keys:
            self.created[f"by hand {execution} {step}"] = (execution, step)
        elif not is_there:
            self.gone.update(keys)


# --- the world ----------------------------------------------------------------------------------------------------


class World:
    """What outlives every process: the vendor, the time in seconds, the log.

    Attributes:
        is_stormy: things fail; in calm weather everything that is asked of the vendor works at once.
        is_late: who is called now was given up before, or dies just now.
        is_unheard: who is called now has yet to tell what it does.
        trouble: how likely a call fails in a storm.
        mess: how likely a step writes a key that other branches write as well.
    """

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.vendor = Vendor()
        self.now = 1_700_000_000.0
        self.log: list[Event] = []
        self.is_stormy = True
        self.is_late = self.is_unheard = False
        self.trouble = dice.pick((0.1, 0.3, 0.6))
        self.mess = dice.pick((0.0, 0.0, 0.5))
        self.calls: Counter[tuple[int, str]] = Counter()


#: How often one seed's engine may ask for the time: a drive that goes round in circles asks for ever.
READINGS_MAX = 20_000


class WorldClock:
    """The world's time, as engines see it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._readings = 0

    def now(self) -> float:
        """Give the world's time."""
        self._readings += 1
        assert self._readings <= READINGS_MAX, "the engine goes round in circles"
        return self._world.now

    monotonic = now


_EXECUTED = (
    ("raise before",) * 4 + ("raise after",) * 5 + ("fail",) * 3 + ("reschedule", "reschedule after") * 3
    + ("suspend", "await signal", "await signal shortly", "skip", "skip", "skip", "nonsense")
)  # fmt: skip
_COMPENSATED = ("raise before", "raise after", "fail", "reschedule", "decline", "decline", "nonsense")


class SimulatedStep(BackgroundTransaction):
    """A step whose every call does what the dice say. One object serves all drives: it stands for what is outside."""

    def __init__(self, world: World, execution: int, leaf: Leaf) -> None:
        self._world, self._execution, self._leaf = world, execution, leaf
        self.kind, self.on_unknown = leaf.kind, leaf.on_unknown
        self.timeout_s, self.is_idempotent = leaf.timeout_s, leaf.is_idempotent
        if leaf.attempts is not None:
            self.retry = RetryPolicy(stop=stop_after_attempt(leaf.attempts), wait=wait_fixed(leaf.retry_s))
        for operation, is_there in (
            ("compensate", leaf.has_undo),
            ("probe", leaf.is_probed),
            ("should_execute", leaf.is_asked),
        ):
            if is_there:
                setattr(self, operation, getattr(self, f"_{operation}"))

    def name(self) -> str:
        return self._leaf.name

    def execute(self, request: dict[str, Any]) -> Any:
        context = self._called("execute", request)
        self._write(context, request)
        world, key = self._world, context.idempotency_key
        way = world.dice.pick(_EXECUTED) if world.is_stormy and world.dice.chance(world.trouble) else "done"
        if way in ("fail", "skip") and world.vendor.has(key):
            way = "done"  # the step is honest: an earlier attempt of it has taken effect
        if way in ("done", "raise after", "reschedule after") and self.kind is not Kind.READ_ONLY:
            world.vendor.create(key, self._execution, self._leaf.path, world.is_unheard)
        if world.is_stormy and world.dice.chance(0.08):
            context.save()
        self._gives("execute", way, key)
        return self._executed(way)

    def _executed(self, way: str) -> Any:
        if way.startswith("raise"):
            raise ConnectionError(f"{self._leaf.path}: {way}")
        if way == "nonsense":
            return None
        if way.startswith("await"):
            timeout_s = 100.0 if way == "await signal shortly" else None
            return Suspend(DONE, signal=f"wake {self._leaf.path}", timeout_s=timeout_s)
        answers: dict[str, Callable[[], Any]] = {
            "done": lambda: DONE,
            "fail": lambda: BackgroundResponse.fail(f"{self._leaf.path} failed"),
            "reschedule": lambda: BackgroundResponse.reschedule(60),
            "reschedule after": lambda: BackgroundResponse.reschedule(600),
            "suspend": lambda: Suspend(DONE),
            "skip": lambda: BackgroundResponse.skip(f"{self._leaf.path} skipped"),
        }
        return answers[way]()

    def _compensate(self, request: dict[str, Any], e: Exception) -> Any:
        context = self._called("compensate", request)
        world, key = self._world, context.execute_key
        way = world.dice.pick(_COMPENSATED) if world.is_stormy and world.dice.chance(world.trouble) else "done"
        is_asked_before = world.vendor.has_seen(context.idempotency_key)
        if (way == "decline" and world.vendor.has(key)) or (way == "reschedule" and is_asked_before):
            way = "done"  # the step is honest: there is something to undo, or it may be undone already
        if way in ("done", "raise after", "fail"):
            world.vendor.delete(context.idempotency_key, key)
        self._gives("compensate", way, key)
        if way == "decline":
            raise e
        return self._executed(way)

    def _probe(self, request: dict[str, Any]) -> Any:
        context = self._called("probe", request)
        world, key = self._world, context.execute_key
        if world.is_stormy and world.dice.chance(world.trouble * 0.5):
            self._gives("probe", "unknown", key)
            if world.dice.chance(0.2):
                raise ConnectionError("nobody answers")
            return Probe.UNKNOWN
        is_done = world.vendor.has(key)
        if is_done:
            world.vendor.unreported.discard(key)
            self._write(context, request)
        self._gives("probe", "done" if is_done else "not_done", key)
        return Probe.DONE if is_done else Probe.NOT_DONE

    def _should_execute(self, request: dict[str, Any]) -> Any:
        self._called("should_execute", request)
        world = self._world
        if world.is_stormy and world.dice.chance(world.trouble * 0.1):
            raise ConnectionError("nobody can tell")
        return not (world.is_stormy and world.dice.chance(0.12))

    def _called(self, operation: str, request: dict[str, Any]) -> SagaContext:
        context, world = current_context(), self._world
        world.log.append(
            Called(
                self._execution, operation, self._leaf.path, context.idempotency_key, context.execute_key,
                context.attempt, dict(context.state), request["delivery"], world.is_late,
            )
        )  # fmt: skip
        return context

    def _write(self, context: SagaContext, request: dict[str, Any]) -> None:
        """Leave traces in both documents; now and then one that every branch writes."""
        world, path = self._world, self._leaf.path
        world.calls[self._execution, path] += 1
        context.state[f"did {path}"] = world.calls[self._execution, path]
        if world.is_stormy and world.dice.chance(world.mess):
            context.state["everybody's"] = path
        if world.dice.chance(0.1):
            request[f"by {path}"] = world.calls[self._execution, path]

    def _gives(self, operation: str, answer: str, key: str) -> None:
        world = self._world
        world.log.append(Gave(self._execution, operation, self._leaf.path, answer, world.vendor.has(key)))


# --- sagas --------------------------------------------------------------------------------------------------------


def saga_of_script(world: World, execution: int, script: Script) -> type[Saga]:
    """Make the saga that the script describes."""
    made: dict[int, Any] = {}  # one object for each step, however often the list is asked for
    entries = [_entry(world, execution, tree, made) for tree in script.chain]
    right, body = script.exclusive, _body(entries)
    return type(
        script.name,
        (Saga,),
        {
            **body,
            "deadline_s": script.deadline_s,
            "compensation_deadline_s": script.compensation_deadline_s,
            "park_policy": script.park_policy,
            "recoveries_max": script.recoveries_max,
            "reschedules_max": script.reschedules_max,
            "attempts_max": script.attempts_max,
            "compensation_retry": RetryPolicy(stop=stop_after_attempt(script.undo_attempts), wait=wait_fixed(5)),
            "exclusive": None if right is None else Exclusive(lambda request: "the asset", right[0], right[1]),
        },
    )


def _body(entries: list[Any]) -> dict[str, Any]:
    return {"transactions": lambda self, request: entries, "__module__": __name__, "mode": "chain"}


def _entry(world: World, execution: int, tree: Tree, made: dict[int, Any]) -> Any:
    if isinstance(tree, Branches):
        branches = [[_entry(world, execution, each, made) for each in branch] for branch in tree.branches]
        return Parallel(*(Chain(*branch) if len(branch) > 1 else branch[0] for branch in branches))
    if isinstance(tree, Child):
        entries = [_entry(world, execution, each, made) for each in tree.chain]
        return type(tree.name, (Saga,), {**_body(entries), "deadline_s": tree.deadline_s})
    if tree.signal is not None:
        return WaitFor(tree.signal, timeout_s=tree.signal_timeout_s, name=tree.name)
    return SimulatedStep(world, execution, tree)
