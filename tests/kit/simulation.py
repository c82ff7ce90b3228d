"""A simulation of the whole engine from one seed: no threads, no real time, and everything goes wrong.

The real `Engine` prepares drives on a real journal in memory; a simulated driver carries them out. Of all that could
happen next (a call returns, a commit is written, time passes, mail comes, somebody delivers, a process dies) the dice
pick one, again and again: first in a storm, then in calm weather, in which everything must come to rest in bounded
time. What happened is judged by `simulation_oracle`, from the world's log alone.

    run_seed(12345)
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from simulation_coverage import tell
from simulation_oracle import judge
from simulation_script import Dice, Script, draw_script
from simulation_world import (
    Answered,
    ByHand,
    Commanded,
    Died,
    Interrupted,
    Late,
    LeaseTaken,
    Previewed,
    World,
    WorldClock,
    Written,
    saga_of_script,
)

from saga_engine import Engine, Saga, SagaStatus
from saga_engine.calls import Call, Result
from saga_engine.decider import replay
from saga_engine.drive import Append, Drive, Perform, Sleep
from saga_engine.errors import EngineSignal, LeaseLost, LimitReached, NotAllowed, StepTimedOut, UnknownExecution
from saga_engine.journal import AppendResult, Commit, Committed, Entry, Response, encode_entries
from saga_engine.journals.memory import MemoryJournal

__all__ = ["Execution", "Simulation", "run_seed"]

#: How much happens in a storm, and within how many rounds all must be at rest after it.
STORM_TICKS_MAX = 100
ROUNDS_MAX = 120
TICKS_PER_ROUND_MAX = 2_000
#: How often executions look again for a right while nothing else happens, before that counts as rest.
LOOKS_MAX = 4
#: How often a person sends what may be awaited.
SIGNALS_MAX = 20
PROCESSES = 2

_silent = logging.getLogger("simulation")
_silent.setLevel(logging.CRITICAL + 1)


#: Names the key that two branches set differently.
_CONFLICT = re.compile(r"context\.state\[['\"](.+?)['\"]\] to different")


class Crash(BaseException):
    """The process died here. No `Exception`, so that nothing but the simulation can catch it."""


@dataclass(eq=False, slots=True)
class Execution:
    """One execution as the simulation knows it.

    Attributes:
        requests: how many different ones were delivered.
        helped: how often a person looked after it.
        is_in_line: it waits for an exclusive right.
        parked: its parked steps, with the causes.
    """

    number: int
    script: Script
    saga: type[Saga]
    saga_id: str
    requests: int = 1
    eid: int | None = None
    helped: int = 0
    is_ended: bool = False
    is_in_line: bool = False
    parked: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Flight:
    """A call in flight: it returns at `ends_at`; `result` is there once it did."""

    call: Call
    ends_at: float
    is_hanging: bool = False
    give_up_at: float | None = None
    result: Result | None = None


@dataclass(eq=False, slots=True)
class Live:
    """A drive under way in a process."""

    process: int
    execution: Execution
    drive: Drive
    steps: Generator[Any, Any, Response]
    effect: Any
    began: int
    is_delivery: bool
    flights: list[Flight] = field(default_factory=list)
    wakes_at: float = 0.0


@dataclass(eq=False, slots=True)
class Straggler:
    """A call that runs on although its attempt was given up, or its drive lost the lease."""

    process: int
    execution: Execution
    drive: Drive
    flight: Flight


class Simulation:
    """One seed, from the storm to rest.

    Attributes:
        seed: whatever happens follows from it.
        world: what is outside of the engine, with the log.
        executions: one to three of them.
    """

    def __init__(self, seed: int) -> None:
        random.seed(seed)  # the strategies of tenacity roll dice of their own
        self.seed = seed
        self.dice = dice = Dice(seed)
        self.world = World(dice)
        self.is_calm_seed = dice.chance(0.04)
        self.journal = SimulatedJournal(self)
        self.executions = self._draw_executions()
        self.engine = Engine(
            self.journal, config={}, logger=_silent, clock=WorldClock(self.world),
            sagas=[execution.saga for execution in self.executions],
            budget_s=240.0 if self.is_calm_seed or dice.chance(0.85) else 0.0,
        )  # fmt: skip
        self.engine._sync = _Driver(self)  # type: ignore[assignment]  # it takes drives in, one piece at a time
        self.crashes, self.losses = dice.pick((0.0, 0.02, 0.05, 0.1)), dice.pick((0.0, 0.03))
        self.lives: list[Live] = []
        self.stragglers: list[Straggler] = []
        self.process = 0
        self.acting: Live | None = None
        self.broken: Exception | None = None

    def _draw_executions(self) -> list[Execution]:
        dice = self.dice
        count = 1 if self.is_calm_seed else dice.pick((1, 1, 1, 2, 2, 3))
        right = (dice.pick(("wait", "wait", "refuse")), dice.pick(("hold", "release")))
        found = []
        for number in range(count):
            exclusive = right if count > 1 and dice.chance(0.8) else None
            script = draw_script(dice, f"S{number}", exclusive, self.is_calm_seed)
            saga = saga_of_script(self.world, number, script)
            found.append(Execution(number, script, saga, f"S{number}:{self.seed}"))
        return found

    @property
    def scripts(self) -> list[Script]:
        """What was drawn."""
        return [execution.script for execution in self.executions]

    def run(self) -> None:
        """Let the storm rage, then bring everything to rest.

        Raises:
            AssertionError: something does not come to rest.
        """
        self.world.is_stormy = not self.is_calm_seed
        if not self.is_calm_seed:
            for _ in range(20 + self.dice.below(STORM_TICKS_MAX)):
                self._storm()
                if self._is_over() and self.dice.chance(0.2):
                    break
        self.world.is_stormy = False
        self._come_to_rest(self._deliver_and_wait)
        self._come_to_rest(self._help)
        if self.dice.chance(0.2):
            for execution in self.executions:
                self._undo(execution)
            self._come_to_rest(self._help)
        for execution in self.executions * 2:
            self._deliver(execution)

    def _is_over(self) -> bool:
        """Tell whether there is little left that could happen."""
        return not self.lives and not self.stragglers and all(execution.is_ended for execution in self.executions)

    # --- the storm ---

    def _storm(self) -> None:
        """Let the next thing happen."""
        ready = [live for live in self.lives if self._is_ready(live)]
        if ready and self.dice.chance(0.85):
            self._advance(self.dice.pick(ready))
            return
        self.process = self.dice.below(PROCESSES)
        self.dice.pick(_WEATHER)(self)

    def _deliver_any(self) -> None:
        execution = self.dice.pick(self.executions)
        if self.dice.chance(0.15):
            execution.requests += 1
        self._deliver(execution)

    def _recover(self) -> None:
        self.engine.recover()

    def _let_time_pass(self) -> None:
        self.world.now += self.dice.pick((1.0, 5.0, 35.0, 65.0, 130.0, 700.0))

    def _send_something(self) -> None:
        execution = self.dice.pick(self.executions)
        if execution.is_ended:
            if self.dice.chance(0.3):
                self.dice.pick((*_COMMANDS, *(Simulation._undo,) * 6))(self, execution)
        elif execution.eid is not None:
            self.dice.pick(_COMMANDS)(self, execution)

    def _kill(self) -> None:
        if self.dice.chance(self.crashes * 5):
            self._die("outside")

    def _steal(self) -> None:
        """Let a live drive lose its lease without knowing it, as if it had been paused for too long."""
        held = [live for live in self.lives if live.drive.position.is_held]
        if held and self.dice.chance(self.losses * 10):
            live = self.dice.pick(held)
            position = live.drive.position
            self.world.log.append(LeaseTaken(live.execution.number))
            self.journal.abandon(position.eid or 0, position.epoch)

    def _interrupt(self) -> None:
        """Cancel a drive: it gives its lease back; what was in flight may have happened, or not (S30)."""
        if not self.lives or not self.dice.chance(self.losses * 10):
            return
        live = self.dice.pick(self.lives)
        self.process, self.acting = live.process, live
        self.lives.remove(live)
        live.steps.close()
        self.world.log.append(Interrupted(live.execution.number))
        try:
            self._give_back(live)
        except LeaseLost:
            self.lives.append(live)
            self._lose(live)
        except Crash as crash:
            self.lives.append(live)
            self._die(str(crash))

    def _give_back(self, live: Live) -> None:
        """Take in what returned, leave out what was cancelled in the middle, and give the lease back."""
        for flight in list(live.flights):
            if flight.result is None and self._can_end(flight) and self.dice.chance(0.5):
                self._return(live, flight)
            if flight.result is not None and isinstance(flight.result.error, _Overtaken):
                raise LeaseLost
            if flight.result is not None and self.dice.chance(0.5):
                live.flights.remove(flight)
                live.drive.absorb(flight.call, flight.result)
        steps = live.drive.interruption("CancelledError")
        effect = next(steps, None)
        while effect is not None:
            result = self._append(effect.commit)
            try:
                effect = steps.send(result)
            except StopIteration:
                return

    # --- drives ---

    def take_in(self, drive: Drive, began: int, is_delivery: bool) -> None:
        """Take a prepared drive in; it is carried out later, in small pieces."""
        execution = next(e for e in self.executions if e.script.name == drive.state.saga)
        steps = drive.run()
        live = Live(self.process, execution, drive, steps, None, began, is_delivery)
        self.lives.append(live)
        self._go_on(live, None)

    def _deliver(self, execution: Execution) -> None:
        request = {"id": str(self.seed), "delivery": execution.requests}
        began, engine = len(self.world.log), self.engine
        prepared = engine._prepare(execution.saga(), request, engine._services)
        if isinstance(prepared, Drive):
            self.take_in(prepared, began, True)
        else:
            self._answered(execution, str(prepared.status), prepared.output, began, "")

    def _answered(self, execution: Execution, status: str, output: str | None, began: int, drive: str) -> None:
        self.world.log.append(Answered(execution.number, status, output, began, drive))

    def _go_on(self, live: Live, value: Any) -> None:
        """Send a drive what its last effect gave, and take the next one."""
        self.acting = live
        try:
            live.effect = live.steps.send(value)
        except StopIteration as stop:
            self.lives.remove(live)
            assert not live.flights, f"the drive answered while {live.flights} is in flight"
            self._check_replay(live)
            if live.is_delivery:
                response = stop.value
                self._answered(live.execution, response.status, response.output, live.began, "driven")
        except LeaseLost:
            self._lose(live)
        except Exception as error:
            self.broken = error  # `recover` logs whatever a drive raises, and goes on
            raise
        else:
            self._begin(live)

    def _check_replay(self, live: Live) -> None:
        """Now and then, see that what is journaled, decoded and folded, is what the drive had in mind."""
        if self.dice.chance(0.2):
            replayed = replay(self.journal.load(live.drive.position.eid or 0).entries)
            assert replayed == live.drive.state, "the journal does not replay to the state of the drive"

    def _begin(self, live: Live) -> None:
        effect = live.effect
        if isinstance(effect, Perform):
            live.flights += [self._flight(call) for call in effect.calls]
        elif isinstance(effect, Sleep):
            live.wakes_at = self.world.now + effect.seconds

    def _flight(self, call: Call) -> Flight:
        dice, now, timeout_s = self.dice, self.world.now, call.timeout_s
        if not self.world.is_stormy or not dice.chance(0.2):
            return Flight(call, now)
        if timeout_s is None or dice.chance(0.3):
            return Flight(call, now + dice.pick((1.0, 10.0)))
        gives_up_at = now + timeout_s + call.abandon_s
        if dice.chance(0.3):
            return Flight(call, now + timeout_s + 1.0, is_hanging=True)
        return Flight(call, now + dice.pick((100.0, 500.0, 5_000.0)), is_hanging=True, give_up_at=gives_up_at)

    def _is_ready(self, live: Live) -> bool:
        effect, now = live.effect, self.world.now
        if isinstance(effect, Append):
            return True
        if isinstance(effect, Sleep):
            return now >= live.wakes_at
        is_timed_out = effect.until is not None and now >= effect.until
        return is_timed_out or any(self._can_end(flight) for flight in live.flights)

    def _can_end(self, flight: Flight) -> bool:
        return self.world.now >= (flight.ends_at if flight.give_up_at is None else flight.give_up_at)

    def _advance(self, live: Live) -> None:
        self.process, self.acting = live.process, live
        try:
            self._carry_out(live)
        except Crash as crash:
            self._die(str(crash))

    def _carry_out(self, live: Live) -> None:
        if isinstance(live.effect, Append):
            try:
                result = self._append(live.effect.commit)
            except LeaseLost:
                self._lose(live)
                return
            self._go_on(live, result)
        elif isinstance(live.effect, Sleep):
            self._maybe_die("after sleep", 4)
            self._go_on(live, None)
        else:
            try:
                self._fly(live)
            except LeaseLost:
                self._lose(live)

    def _append(self, commit: Commit) -> AppendResult:
        self._maybe_die("before append")
        result = self.journal.append(commit)
        self._maybe_die("after append")
        return result

    def _fly(self, live: Live) -> None:
        """Let one call in flight run, or give the drive what has returned."""
        for flight in self._shuffled(live.flights):
            if flight.result is None and self._can_end(flight):
                self._maybe_die(f"before {flight.call.operation}")
                self._return(live, flight)
                self._maybe_die(f"after {flight.call.operation}")
                break
        returned = [flight for flight in live.flights if flight.result is not None]
        if returned and self.world.is_stormy and len(live.flights) > 1 and self.dice.chance(0.5):
            returned = returned[:1]
        effect = live.effect
        if returned or (effect.until is not None and self.world.now >= effect.until):
            live.flights = [flight for flight in live.flights if flight not in returned]
            self._go_on(live, [(flight.call, flight.result) for flight in returned])

    def _shuffled(self, flights: list[Flight]) -> list[Flight]:
        if len(flights) < 2:
            return flights
        start = self.dice.below(len(flights))
        return flights[start:] + flights[:start]

    def _return(self, live: Live, flight: Flight) -> None:
        """Let a call run to its end, or give up the attempt and leave it behind (S24)."""
        if flight.give_up_at is not None:
            flight.result = Result(error=StepTimedOut(), is_abandoned=True)
            left = Flight(flight.call, flight.ends_at)
            self.stragglers.append(Straggler(live.process, live.execution, live.drive, left))
            return
        self.world.is_late = self.world.is_unheard = self._is_overtaken(live)
        flight.result = _called(flight.call)
        self.world.is_late = self.world.is_unheard = False
        if flight.is_hanging:
            flight.result = Result(error=StepTimedOut())
        if isinstance(flight.result.error, _Overtaken):
            raise LeaseLost

    def _is_overtaken(self, live: Live) -> bool:
        """Tell whether the drive has lost its lease, mostly without knowing it."""
        header = self.journal.header(live.execution.saga_id)
        return header is None or header.drive != live.drive.position.drive

    def _lose(self, live: Live) -> None:
        """End a drive that lost its lease; what its steps did, and still do, is told to whoever holds it now (J10)."""
        self.lives.remove(live)
        live.steps.close()
        for late in live.drive.late_effects():
            self._report(live.execution, late)
        for flight in live.flights:
            self.stragglers.append(Straggler(live.process, live.execution, live.drive, flight))
        if live.is_delivery:
            self._answered(live.execution, "reschedule", None, live.began, "lost")

    # --- what comes late ---

    def _straggle(self) -> None:
        ready = [s for s in self.stragglers if self.world.now >= s.flight.ends_at]
        if ready:
            self._end_straggler(self.dice.pick(ready))

    def _end_straggler(self, straggler: Straggler) -> None:
        self.stragglers.remove(straggler)
        self.process, self.acting = straggler.process, None
        flight = straggler.flight
        self.world.is_late = self.world.is_unheard = True
        result = flight.result or _called(flight.call)
        self.world.is_late = self.world.is_unheard = False
        late = straggler.drive.late_effect_of(flight.call, result)
        if late is None:
            return
        if self.world.is_stormy and self.crashes and self.dice.chance(0.25):
            self._forget(straggler)
            self._die("before reporting")
        else:
            self._report(straggler.execution, late)

    def _report(self, execution: Execution, late: Entry) -> None:
        step = getattr(late, "step", "")
        self.world.log.append(Late(execution.number, step, True))
        self.world.vendor.report(execution.number, step)
        if execution.eid is not None:
            self.journal.put(execution.eid, late)

    def _forget(self, straggler: Straggler) -> None:
        """Note that nobody will ever tell of what a straggler did."""
        self.world.log.append(Late(straggler.execution.number, straggler.flight.call.step.name, False))

    # --- dying ---

    def _maybe_die(self, where: str, weight: int = 1) -> None:
        if self.world.is_stormy and self.dice.chance(self.crashes * weight):
            raise Crash(where)

    def _die(self, where: str) -> None:
        """Let the present process die with all its drives; the operating system frees their leases."""
        self.world.log.append(Died(self.process, where))
        dead = [live for live in self.lives if live.process == self.process]
        self.lives = [live for live in self.lives if live.process != self.process]
        self.journal.is_dead = True
        for live in dead:
            live.steps.close()
            for flight in live.flights:
                if flight.result is None and self.dice.chance(0.5):
                    self._run_dying(flight, self._is_overtaken(live))
        self.journal.is_dead = False
        self._bury_stragglers()
        for live in dead:
            self._bury(live)

    def _run_dying(self, flight: Flight, is_unheard: bool) -> None:
        """Let a call get as far as its process still lives."""
        self.world.is_late, self.world.is_unheard = True, is_unheard
        try:
            _called(flight.call)
        except Crash:
            return
        finally:
            self.world.is_late = self.world.is_unheard = False

    def _bury_stragglers(self) -> None:
        dead = [s for s in self.stragglers if s.process == self.process]
        self.stragglers = [s for s in self.stragglers if s.process != self.process]
        for straggler in dead:
            if straggler.flight.result is None and self.dice.chance(0.5):
                self.journal.is_dead = True
                self._run_dying(straggler.flight, True)
                self.journal.is_dead = False
            self._forget(straggler)

    def _bury(self, live: Live) -> None:
        header = self.journal.header(live.execution.saga_id)
        if header is not None and header.drive == live.drive.position.drive:
            self.journal.abandon(header.eid, header.epoch)

    # --- rest ---

    def _come_to_rest(self, help_along: Callable[[Execution], bool]) -> None:
        """Let everything go on in calm weather until nothing does any more.

        Args:
            help_along: what to do about an execution that does not go on by itself; tells if that was anything.
        """
        in_line = 0
        for _ in range(ROUNDS_MAX):
            began = len(self.world.log)
            self._drain()
            taken = int(self.engine.recover())
            self._drain()
            in_line = in_line + 1 if self._is_only_waiting_in_line(began) else 0
            if taken and not in_line:
                continue
            helped = [execution for execution in self.executions if help_along(execution)]
            if self.lives or helped:
                continue
            if (in_line > LOOKS_MAX and not self._is_anything_due()) or not self._skip_time():
                return
        stands = [self.journal.header(execution.saga_id) for execution in self.executions]
        raise AssertionError(f"not at rest after {ROUNDS_MAX} rounds: {stands}")

    def _is_only_waiting_in_line(self, began: int) -> bool:
        """Tell whether nothing happened but that executions looked again for a right that another one holds."""
        written = [event for event in self.world.log[began:] if isinstance(event, Written)]
        return bool(written) and all(any(e["entry"] == "ExclusiveDenied" for e in w.entries) for w in written)

    def _drain(self) -> None:
        """Carry out all drives to their end."""
        for _ in range(TICKS_PER_ROUND_MAX):
            for straggler in [s for s in self.stragglers if self.world.now >= s.flight.ends_at]:
                self._end_straggler(straggler)
            if not self.lives:
                return
            ready = [live for live in self.lives if self._is_ready(live)]
            if ready:
                self._advance(self.dice.pick(ready))
            else:
                self.world.now = min(self._next_event(live) for live in self.lives)
        raise AssertionError(f"drives go on without an end: {self.lives}")

    def _next_event(self, live: Live) -> float:
        if isinstance(live.effect, Sleep):
            return live.wakes_at
        times = [flight.ends_at if flight.give_up_at is None else flight.give_up_at for flight in live.flights]
        assert times or live.effect.until is not None, "a drive waits for calls, and none is in flight"
        return min([*times, *([] if live.effect.until is None else [live.effect.until])])

    def _is_anything_due(self) -> bool:
        """Tell whether something is due that does not wait in line."""
        headers = [self.journal.header(execution.saga_id) for execution in self.executions if not execution.is_in_line]
        return bool(self.stragglers) or any(header is not None and header.due_at is not None for header in headers)

    def _skip_time(self) -> bool:
        """Go to the next time at which anything is due."""
        headers = [self.journal.header(execution.saga_id) for execution in self.executions]
        times = [header.due_at for header in headers if header is not None and header.due_at is not None]
        times += [straggler.flight.ends_at for straggler in self.stragglers]
        if not times:
            return False
        self.world.now = max(self.world.now, min(times))
        return True

    def _deliver_and_wait(self, execution: Execution) -> bool:
        """Deliver what waits for nothing else than that."""
        header = self.journal.header(execution.saga_id)
        if header is not None and (header.status.is_ended or header.status is SagaStatus.PARKED):
            return False
        if header is not None and header.due_at is not None:
            return False
        began = len(self.world.log)
        self._deliver(execution)
        return any(isinstance(event, Written) for event in self.world.log[began:]) or bool(self.lives)

    def _help(self, execution: Execution) -> bool:
        """Do what a person can: send what is awaited, and resolve what is parked."""
        header = self.journal.header(execution.saga_id)
        assert header is not None, "every execution was started"
        if header.status.is_ended:
            return False
        if header.status is SagaStatus.PARKED:
            for step, cause in sorted(execution.parked.items()):
                conflict = _CONFLICT.search(cause)
                if conflict is None:
                    self._resolve_parked(execution, step)
                else:
                    self._edit(execution, conflict[1])
                    self._resume(execution, step, True)
            return True
        execution.helped += 1
        if execution.helped <= SIGNALS_MAX:
            for name in {leaf.signal: None for leaf in execution.script.leaves.values() if leaf.signal}:
                self._signal(execution, name)
        return self._deliver_and_wait(execution)

    # --- what people say ---

    def _command(self, execution: Execution, command: str, step: str, is_forced: bool, say: Callable[[], Any]) -> bool:
        refusal = ""
        self.acting = None
        try:
            say()
        except (NotAllowed, LimitReached, UnknownExecution) as error:
            refusal = str(error)
        self.world.log.append(Commanded(execution.number, command, step, is_forced, refusal))
        return not refusal

    def _signal(self, execution: Execution, name: str) -> None:
        payload = {"sent": len(self.world.log)}
        self._command(execution, "signal", name, False, lambda: self.engine.signal(execution.saga_id, name, payload))

    def _signal_any(self, execution: Execution) -> None:
        leaves = list(execution.script.leaves.values())
        names = [leaf.signal or f"wake {leaf.path}" for leaf in leaves]
        awaited = [leaf.signal for leaf in leaves if leaf.signal]
        name = self.dice.pick([*names, *awaited, *awaited, "stray"])
        for _ in range(self.dice.pick((1, 1, 2))):
            self._signal(execution, name)

    def _cancel(self, execution: Execution) -> None:
        self._command(execution, "cancel", "", False, lambda: self.engine.cancel(execution.saga_id, "changed my mind"))

    def _resume_any(self, execution: Execution) -> None:
        step = self.dice.pick([None, None, None, *execution.parked, *execution.script.leaves])
        self._resume(execution, step, self.dice.chance(0.5))

    def _resume(self, execution: Execution, step: str | None, is_forced: bool) -> None:
        self._command(
            execution, "resume", step or "", is_forced,
            lambda: self.engine.resume(execution.saga_id, step, force=is_forced),
        )  # fmt: skip

    def _skip(self, execution: Execution) -> None:
        step = self.dice.pick([*sorted(execution.parked), *execution.script.leaves])
        is_forced, state = self.dice.chance(0.5), {f"instead of {step}": 1}
        self._command(
            execution, "skip", step, is_forced,
            lambda: self.engine.skip(execution.saga_id, step, state=state, force=is_forced),
        )  # fmt: skip

    def _resolve_any(self, execution: Execution) -> None:
        if execution.parked:
            self._resolve_parked(execution, self.dice.pick(sorted(execution.parked)))

    def _resolve_parked(self, execution: Execution, step: str) -> None:
        """Look at the vendor, set it right by hand, and say so."""
        is_there = self.world.vendor.live(execution.number)[step] > 0
        outcomes: list[str] = ["done", "undone"] if is_there else ["not_done", "undone"]
        if execution.script.leaves[step].signal is not None:
            outcomes = ["done", "undone"]
        elif self.dice.chance(0.5):
            outcomes.reverse()
        for outcome in outcomes:
            if self._resolve(execution, step, outcome):
                self.world.vendor.set_by_hand(execution.number, step, outcome == "done")
                self.world.log.append(ByHand(execution.number, step, outcome == "done"))
                return

    def _resolve(self, execution: Execution, step: str, outcome: Any) -> bool:
        """Say how a parked step stands; by the id of its child saga, or by its full name."""
        parent, _, name = step.rpartition("/") if self.dice.chance(0.5) else ("", "", step)
        where, name = (f"{execution.saga_id}/{parent}", name) if parent else (execution.saga_id, step)
        return self._command(
            execution, f"resolve {outcome}", step, False,
            lambda: self.engine.resolve_parked(where, name, note="seen to", outcome=outcome),
        )  # fmt: skip

    def _edit_any(self, execution: Execution) -> None:
        self._edit(execution, f"edit {len(self.world.log)}")

    def _edit(self, execution: Execution, key: str) -> None:
        self._command(
            execution, "edit_state", key, False, lambda: self.engine.edit_state(execution.saga_id, {key: True})
        )

    def _undo(self, execution: Execution) -> None:
        self._command(execution, "undo", "", False, lambda: self.engine.undo(execution.saga_id, note="later"))

    def _preview(self, execution: Execution) -> None:
        undos = [undo.step for undo in self.engine.preview(execution.saga_id).undos]
        self.world.log.append(Previewed(execution.number, undos))


# What the weather brings, each as likely as it is listed often.
_WEATHER: tuple[Callable[[Simulation], None], ...] = (
    *(Simulation._deliver_any,) * 4,
    *(Simulation._recover,) * 3,
    *(Simulation._let_time_pass,) * 4,
    *(Simulation._send_something,) * 4,
    Simulation._kill,
    Simulation._steal,
    Simulation._interrupt,
    *(Simulation._straggle,) * 6,
)
_COMMANDS: tuple[Callable[[Simulation, Execution], None], ...] = (
    *(Simulation._signal_any,) * 5,
    Simulation._cancel,
    *(Simulation._resume_any,) * 2,
    Simulation._skip,
    *(Simulation._resolve_any,) * 3,
    Simulation._edit_any,
    *(Simulation._preview,) * 3,
)


class _Driver:
    """Stands in for the engine's own driver: it takes a drive in and returns at once."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def run(self, drive: Drive) -> Response:
        """Take in a drive that nobody waits for."""
        self._simulation.take_in(drive, 0, False)
        return Response("reschedule", countdown_s=30.0)


class SimulatedJournal(MemoryJournal):
    """The real journal in memory; it tells the log what became durable, and refuses the dead."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self._simulation = simulation
        self.is_dead = False

    def append(self, commit: Commit) -> AppendResult:
        """Append, and tell; a commit of `context.save()` may be the last of its process."""
        if self.is_dead:
            raise Crash("dead already")
        result = super().append(commit)
        if isinstance(result, Committed):
            self._tell(commit, result)
        return result

    def _tell(self, commit: Commit, result: Committed) -> None:
        live = self._simulation.acting
        assert live is not None, "only drives append"
        execution, entries = live.execution, msgspec.json.decode(encode_entries(commit.entries))
        execution.eid = result.eid
        execution.is_in_line = any(entry["entry"] == "ExclusiveDenied" for entry in entries)
        execution.is_ended = entries[-1]["entry"] == "SagaEnded"
        for entry in entries:
            if entry["entry"] == "StepParked":
                execution.parked[entry["step"]] = entry["cause"]
            elif entry["entry"] in ("ParkedStepResolved", "StepResumed", "StepSkippedByHand"):
                execution.parked.pop(entry["step"], None)
        self._simulation.world.log.append(Written(execution.number, commit.drive, entries, commit.release is not None))


def _no_bridge(awaitable: Any) -> Any:
    raise AssertionError("no step of a simulation is async")


class _Overtaken(Exception):
    """The call learned from `context.save()` that it was given up, or that its drive lost the lease."""


def _called(call: Call) -> Result:
    """Make a call."""
    try:
        return call.run(_no_bridge)
    except EngineSignal as signal:
        return Result(error=_Overtaken(str(signal)))


def run_seed(seed: int, told_to: list[str] | None = None) -> Simulation:
    """Simulate a seed and judge it; its story goes to `told_to`.

    Raises:
        AssertionError: a rule does not hold; the text names the seed.
    """
    simulation = Simulation(seed)
    try:
        simulation.run()
        if simulation.broken is not None:
            raise simulation.broken
        judge(simulation.world.log, simulation.scripts, simulation.world.vendor)
    except Exception as error:
        cause = simulation.broken or error
        text = f"{type(cause).__name__}: {cause}; SAGA_SIMULATION_SEED={seed} replays it alone"
        raise AssertionError(f"seed {seed}: {text}") from cause
    finally:
        if told_to is not None:
            told_to += tell(simulation.world.log, simulation.scripts)
    return simulation
