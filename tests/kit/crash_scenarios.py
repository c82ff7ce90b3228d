"""The sagas of the crash points: scripted steps against a vendor, and how each saga must end, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from connect.eaas.core.responses import BackgroundResponse
from crashpoints import Called, Life, Saved
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Engine, Saga, current_context
from transactions import BackgroundTransaction, Probe, RetryPolicy, Suspend

__all__ = ["SCENARIOS", "Scenario", "Script", "saga_for"]


@dataclass(frozen=True)
class Script:
    """What one step does.

    Attributes:
        execute, compensate: what each call does; the last one repeats. `late` means: after it took effect.
        probe: None (has none), "truth" (asks the vendor) or "unknown".
        attempts, undo_attempts: how many attempts its policies allow; an attempt that a crash interrupts counts.
    """

    name: str
    execute: tuple[str, ...] = ("done",)
    compensate: tuple[str, ...] = ("done",)
    probe: str | None = None
    is_wanted: bool = True
    attempts: int = 1
    undo_attempts: int = 1
    on_unknown: str = "rerun"
    saves: bool = False


@dataclass(frozen=True)
class Scenario:
    """One saga and its ends.

    Attributes:
        end, undone, live: without a crash: the end, the steps whose undo is journaled, in that order, and the
            steps of which a thing is left at the vendor.
        ends: every end that a crash may lead to.
        is_forked: a crash may also lead to that end with something else undone and left.
        points_min: points that the run without a crash passes at least.
    """

    name: str
    scripts: tuple[Script, ...]
    end: str
    undone: str
    live: str
    points_min: int
    ends: tuple[str, ...] = ()
    is_forked: bool = False
    mode: str = "chain"
    park_policy: str = "stop"
    meanwhile: Callable[[Engine, str], None] | None = None


class VendorDown(Exception):
    """The vendor did not answer."""


_EXECUTED: dict[str, Callable[[], Any]] = {
    "done": BackgroundResponse.done,
    "fail": lambda: BackgroundResponse.fail("refused"),
    "skip": lambda: BackgroundResponse.skip("not wanted"),
    "reschedule": lambda: BackgroundResponse.reschedule(60),
    "suspend": lambda: Suspend(BackgroundResponse.done()),
    "await signal": lambda: Suspend(BackgroundResponse.done(), signal="go"),
}
_WITH_EFFECT = ("done", "late raise", "reschedule", "suspend", "await signal")


@lru_cache
def _policy(attempts: int) -> RetryPolicy:
    return RetryPolicy(stop=stop_after_attempt(attempts), wait=wait_fixed(5))


class ScriptedStep(BackgroundTransaction):
    """Does what its script says, at the vendor, in one life."""

    def __init__(self, script: Script, life: Life) -> None:
        self.script = script
        self.life = life
        self.on_unknown = script.on_unknown
        self.retry = _policy(script.attempts)
        self.compensation_retry = _policy(script.undo_attempts)

    def name(self) -> str:
        return self.script.name

    def should_execute(self, request: dict[str, Any]) -> Any:
        with self.life.around(f"should_execute {self.script.name}"):
            self.called("should_execute")
            return self.script.is_wanted

    def execute(self, request: dict[str, Any]) -> Any:
        with self.life.around(f"execute {self.script.name}"):
            act = self.act()
            if self.script.saves:
                with self.life.around("save "):
                    current_context().save()
                self.saved()
            return self.outcome(act)

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        with self.life.around(f"compensate {self.script.name}"):
            return self.undo(e)

    def called(self, operation: str) -> int:
        """Note the call; give how many of its kind came before it, in all lives."""
        world, context = self.life.world, current_context()
        key = "" if operation == "should_execute" else context.idempotency_key
        world.log.append(Called(self.life.number, operation, self.script.name, key, dict(context.state)))
        world.calls[operation, self.script.name] += 1
        count = world.calls[operation, self.script.name]
        if operation != "should_execute":
            context.state[f"{operation} {self.script.name}"] = count
        return count - 1

    def saved(self) -> None:
        """Note that the state is saved."""
        self.life.world.log.append(Saved(self.life.number, self.script.name))

    def act(self) -> str:
        """Take effect at the vendor, or not; give what this call does."""
        script, context = self.script.execute, current_context()
        act = script[min(self.called("execute"), len(script) - 1)]
        if act in _WITH_EFFECT:
            self.life.world.vendor.create(context.idempotency_key, self.script.name)
            context.state[self.script.name] = context.idempotency_key
        return act

    def outcome(self, act: str) -> Any:
        """Answer, or raise."""
        if act.endswith("raise"):
            raise VendorDown(f"{self.script.name} timed out")
        return _EXECUTED[act]()

    def undo(self, e: Exception) -> Any:
        """Undo at the vendor, or not, and answer or raise."""
        script, context = self.script.compensate, current_context()
        act = script[min(self.called("compensate"), len(script) - 1)]
        if act in ("done", "late raise", "late fail"):
            self.life.world.vendor.delete(context.idempotency_key, context.execute_key)
        if act == "reraise":
            raise e
        return self.outcome(act.removeprefix("late ") if act == "late fail" else act)


class ProbedStep(ScriptedStep):
    """The same, with a probe."""

    def probe(self, request: dict[str, Any]) -> Any:
        with self.life.around(f"probe {self.script.name}"):
            self.called("probe")
            context = current_context()
            if self.script.probe == "unknown":
                return Probe.UNKNOWN
            if not self.life.world.vendor.has(context.execute_key):
                return Probe.NOT_DONE
            context.state[self.script.name] = context.execute_key
            return Probe.DONE


class AsyncStep(ScriptedStep):
    """The same, native to an event loop."""

    async def should_execute(self, request: dict[str, Any]) -> Any:
        return super().should_execute(request)

    async def execute(self, request: dict[str, Any]) -> Any:
        with self.life.around(f"execute {self.script.name}"):
            act = self.act()
            if self.script.saves:
                with self.life.around("save "):
                    await current_context().asave()
                self.saved()
            return self.outcome(act)

    async def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        return super().compensate(request, e)


class AsyncProbedStep(AsyncStep, ProbedStep):
    """The same, with a probe."""

    async def probe(self, request: dict[str, Any]) -> Any:
        return ProbedStep.probe(self, request)


def saga_for(scenario: Scenario, life: Life, is_async: bool = False) -> type[Saga]:
    """Declare the scenario's saga, whose steps live and die with this life."""

    class Scripted(Saga):
        mode: ClassVar[str] = scenario.mode
        park_policy: ClassVar[str] = scenario.park_policy

        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [_step(script, life, is_async) for script in scenario.scripts]

    return Scripted


def _step(script: Script, life: Life, is_async: bool) -> ScriptedStep:
    if is_async:
        return AsyncProbedStep(script, life) if script.probe else AsyncStep(script, life)
    return ProbedStep(script, life) if script.probe else ScriptedStep(script, life)


# --- the scenarios ------------------------------------------------------------------------------------------------

A, B, C, D = (Script(name) for name in "abcd")


def _fails_by_exception(at: str, undone: str, points_min: int) -> Scenario:
    scripts = tuple(Script(name, execute=("late raise",)) if name == at else Script(name) for name in "abcd")
    return Scenario(f"failure at {at} by exception", scripts, "COMPENSATED", undone, "", points_min)


def _fails_by_fail(at: str, undone: str, points_min: int) -> Scenario:
    scripts = tuple(Script(name, execute=("fail",)) if name == at else Script(name) for name in "abcd")
    return Scenario(f"failure at {at} by fail", scripts, "COMPENSATED", undone, "", points_min)


def _cancel(engine: Engine, saga_id: str) -> None:
    """Cancel it; that it was cancelled before is as good."""
    if not engine.get(saga_id).status.is_ended:
        engine.cancel(saga_id, "changed my mind")


def _signal(engine: Engine, saga_id: str) -> None:
    if not engine.get(saga_id).status.is_ended:
        engine.signal(saga_id, "go", {"by": "operator"})


_FAILING = Script("d", execute=("fail",))

SCENARIOS = (
    Scenario("success", (A, B, C, D), "COMPLETED", "", "abcd", 26),
    _fails_by_exception("a", "a", 12),
    _fails_by_exception("b", "ba", 20),
    _fails_by_exception("c", "cba", 28),
    _fails_by_exception("d", "dcba", 36),
    _fails_by_fail("a", "", 8),
    _fails_by_fail("b", "a", 16),
    _fails_by_fail("c", "ba", 24),
    _fails_by_fail("d", "cba", 32),
    Scenario(
        "retried until it works",
        (A, B, Script("c", execute=("raise", "late raise", "done"), attempts=5), D),
        "COMPLETED", "", "abcd", 36,
    ),
    Scenario(
        "retried and given up",
        (A, B, Script("c", execute=("raise", "late raise"), attempts=2), D),
        "COMPENSATED", "cba", "", 32,
    ),
    Scenario(
        "probe says done",
        (A, B, Script("c", execute=("late raise",), probe="truth"), D),
        "COMPLETED", "", "abcd", 30,
    ),
    Scenario(
        "probe says done, then failure",
        (A, Script("b", execute=("late raise",), probe="truth"), Script("c", execute=("fail",))),
        "COMPENSATED", "ba", "", 30,
    ),
    Scenario(
        "probe says not done, retried",
        (A, B, Script("c", execute=("raise", "done"), probe="truth", attempts=4), D),
        "COMPLETED", "", "abcd", 32,
    ),
    Scenario(
        "probe says not done, given up",
        (A, B, Script("c", execute=("raise",), probe="truth"), D),
        "COMPENSATED", "ba", "", 26,
    ),
    Scenario(
        "probe says unknown",
        (A, B, Script("c", execute=("late raise",), probe="unknown"), D),
        "COMPENSATED", "cba", "", 30,
    ),
    Scenario(
        "an interrupted step is compensated",
        (A, Script("b", on_unknown="compensate"), C),
        "COMPLETED", "", "abc", 20, ends=("COMPLETED", "COMPENSATED"),
    ),
    Scenario(
        "an interrupted step parks",
        (A, Script("b", on_unknown="park"), Script("c", probe="unknown", on_unknown="park")),
        "COMPLETED", "", "abc", 20, ends=("COMPLETED", "PARKED"),
    ),
    Scenario(
        "undo retried",
        (A, Script("b", compensate=("raise", "late raise", "done"), undo_attempts=3), C, _FAILING),
        "COMPENSATED", "cba", "", 40,
    ),
    Scenario(
        "undo refused, retried",
        (A, Script("b", compensate=("fail", "done"), undo_attempts=2), _FAILING),
        "COMPENSATED", "ba", "", 28,
    ),
    Scenario(
        "undo parked, stop",
        (A, Script("b", compensate=("raise",), undo_attempts=2), C, _FAILING),
        "PARKED", "c", "ab", 32,
    ),
    Scenario(
        "undo parked, continue",
        (A, Script("b", compensate=("raise",), undo_attempts=2), C, _FAILING),
        "PARKED", "ca", "b", 36, park_policy="continue",
    ),
    Scenario(
        "no undo", (A, Script("b", compensate=("reraise",)), C, _FAILING), "PARKED", "c", "ab", 28,
    ),
    Scenario(
        "the failing step has nothing to undo",
        (A, B, Script("c", execute=("raise",), compensate=("reraise",))),
        "COMPENSATED", "ba", "", 26,
    ),
    Scenario(
        "undo rescheduled",
        (A, Script("b", compensate=("reschedule", "done")), C, _FAILING),
        "COMPENSATED", "cba", "", 36,
    ),
    Scenario(
        "not lost yet",
        (A, Script("b", execute=("raise", "done"), compensate=("reschedule",)), C),
        "COMPLETED", "", "abc", 28,
    ),
    Scenario(
        "rescheduled in the middle",
        (A, Script("b", execute=("reschedule", "reschedule", "done")), C),
        "COMPLETED", "", "abc", 32,
    ),
    Scenario("suspended", (A, Script("b", execute=("suspend", "done")), C), "COMPLETED", "", "abc", 24),
    Scenario(
        "rescheduled, then failed",
        (A, Script("b", execute=("reschedule", "late raise")), C),
        "COMPENSATED", "ba", "", 26,
    ),
    Scenario(
        "signalled",
        (A, Script("b", execute=("await signal", "done")), C),
        "COMPLETED", "", "abc", 26, meanwhile=_signal,
    ),
    Scenario(
        "cancelled",
        (A, Script("b", execute=("suspend",)), C),
        "CANCELLED", "ba", "", 22, meanwhile=_cancel,
    ),
    Scenario("skip at the start", (Script("a", execute=("skip",)), B), "SKIPPED", "", "", 8, ends=("COMPLETED",)),
    Scenario("skip in the middle", (A, B, Script("c", execute=("skip",)), D), "COMPLETED", "", "ab", 20),
    Scenario(
        "steps that are not wanted",
        (Script("a", is_wanted=False), B, Script("c", is_wanted=False), D),
        "COMPLETED", "", "bd", 18,
    ),
    Scenario(
        "state saved in the middle",
        (A, Script("b", saves=True), Script("c", execute=("late raise",), saves=True)),
        "COMPENSATED", "cba", "", 36,
    ),
    Scenario(
        "select",
        (Script("a", is_wanted=False), B, C),
        "COMPLETED", "", "b", 10, mode="select",
    ),
    Scenario(
        "select, failing",
        (Script("a", is_wanted=False), Script("b", execute=("late raise",), compensate=("late fail",)), C),
        "COMPENSATED", "b", "", 14, mode="select",
    ),
    Scenario(
        "select, retried",
        (Script("a", execute=("raise", "reschedule", "done"), attempts=5), B),
        "COMPLETED", "", "a", 20, mode="select",
    ),
    Scenario(
        "select, undone",
        (Script("a", is_wanted=False), Script("b", execute=("late raise", "done")), C),
        "COMPLETED", "b", "", 14, mode="select", is_forked=True,
    ),
)  # fmt: skip
