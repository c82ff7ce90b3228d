"""A state machine drives the plugin manager in any order, beside a model that knows nothing of how it works (SEEDS d).

The plugins themselves watch the order: whoever starts looks whether its dependencies run, whoever stops looks whether
somebody that depends on it still does. The model tells what must be there after each operation, and in which state.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup, TaskStatus
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from saga_engine.extensions import (
    Host,
    Ledger,
    Plugin,
    PluginError,
    PluginLoadError,
    PluginManager,
    PluginResolutionError,
    PluginStartError,
    PluginState,
    PluginStateError,
    PluginStopError,
    PluginUnit,
)

LOADED, STARTED, STOPPED, FAILED = PluginState.LOADED, PluginState.STARTED, PluginState.STOPPED, PluginState.FAILED
DEADLINE_S = 20
IDS = "abcde"
HOOKS = ("contribute", "init", "start", "stop", "unload")

ids = st.sampled_from(IDS)
seldom_broken = st.just(set[str]()) | st.sets(st.sampled_from(HOOKS), max_size=2)


class Watched(PluginUnit):
    """A plugin that tells what happens to it, and objects to what must not."""

    def __init__(
        self, world: World, plugin_id: str, depends_on: Iterable[str], priority: int, broken: set[str]
    ) -> None:
        self.plugin = Plugin(plugin_id, "1", depends_on=tuple(depends_on))
        self.world = world
        self.priority = priority
        self.broken = broken
        self.crash = False

    @contextmanager
    def watched(self, hook: str) -> Iterator[None]:
        world, own = self.world, self.plugin
        world.events.append((hook, own.id))
        if hook in ("init", "start") and not world.running.issuperset(own.depends_on):
            world.violations.append(f"{hook} of {own.id} before its dependencies have started")
        if hook in ("stop", "unload") and any(own.id in world.needs[other] for other in world.running - {own.id}):
            world.violations.append(f"{hook} of {own.id} while somebody that depends on it is started")
        if world.in_hook:
            world.violations.append(f"{hook} of {own.id} while {world.in_hook} is in a hook")
        world.in_hook = own.id
        try:
            yield
            if hook in self.broken:
                raise ZeroDivisionError(hook)
        finally:
            world.in_hook = ""

    def contribute(self, host: Host, ledger: Ledger) -> None:
        self.world.events.append(("contribute", self.plugin.id))
        host.declare(ledger, f"point of {self.plugin.id}")
        host.contribute(ledger, "things", self.plugin.id, self.priority)
        if "contribute" in self.broken:
            raise ZeroDivisionError("contribute")
        self.world.needs[self.plugin.id] = set(self.plugin.depends_on)

    async def init(self, task_group: TaskGroup) -> None:
        with self.watched("init"):
            await task_group.start(self.work)

    async def start(self, task_group: TaskGroup) -> None:
        with self.watched("start"):
            await checkpoint()
        self.world.running.add(self.plugin.id)

    async def stop(self) -> None:
        with self.watched("stop"):
            self.world.running.discard(self.plugin.id)
            await checkpoint()

    async def unload(self) -> None:
        with self.watched("unload"):
            await checkpoint()

    async def work(self, *, task_status: TaskStatus[None]) -> None:
        """Work in the background until cancelled, or told to crash."""
        self.world.working.append(self.plugin.id)
        task_status.started()
        try:
            while not self.crash:
                await self.world.bell.wait()
            self.world.running.discard(self.plugin.id)
            raise ZeroDivisionError("crash")
        finally:
            self.world.working.remove(self.plugin.id)


class World:
    """What the plugins of one run tell."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.violations: list[str] = []
        self.needs: dict[str, set[str]] = {}
        self.running: set[str] = set()
        self.working: list[str] = []
        self.in_hook = ""
        self.bell: anyio.Event


@dataclass
class Known:
    """What the model knows of one plugin."""

    unit: Watched
    rank: int
    state: PluginState = LOADED
    is_unload_due: bool = True
    was_started: bool = False
    needs: frozenset[str] = field(default_factory=frozenset)


class ManagerMachine(RuleBasedStateMachine):
    """Operations in any order, on one event loop in a thread of its own."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.portal = self.stack.enter_context(start_blocking_portal(self.backend))
        self.world = World()
        self.world.bell = self.portal.call(self._event)
        self.manager = PluginManager()
        self.model: dict[str, Known] = {}

    @staticmethod
    async def _event() -> anyio.Event:
        return anyio.Event()

    def teardown(self) -> None:
        try:
            self.call(self.manager.unload_all)
            assert (self.world.working, self.manager.plugins(), self.manager.points.get("things")) == ([], [], [])
        finally:
            self.stack.close()

    def call(self, operation: Callable[..., Awaitable[Any]], *args: Any) -> tuple[list[tuple[str, str]], Any]:
        """Run an operation; give what happened meanwhile, and its answer or one of our errors."""

        async def bounded() -> Any:
            with anyio.fail_after(DEADLINE_S):
                return await operation(*args)

        self.world.events.clear()
        try:
            answer = self.portal.call(bounded)
        except PluginError as error:
            answer = error
        return list(self.world.events), answer

    # --- the model's own view of the graph ---

    def above(self, plugin_id: str) -> set[str]:
        """Give all that depend on a plugin, directly or not."""
        direct = {other for other, known in self.model.items() if plugin_id in known.needs}
        return self._closed(direct, lambda one: {other for other, known in self.model.items() if one in known.needs})

    def below(self, wanted: Iterable[str]) -> set[str]:
        """Give plugins and all that they depend on, whether it is there or not."""
        return self._closed(set(wanted), lambda one: set(self.model[one].needs) if one in self.model else set())

    @staticmethod
    def _closed(found: set[str], step: Callable[[str], set[str]]) -> set[str]:
        while True:
            more = found.union(*map(step, found))
            if more == found:
                return found
            found = more

    def is_startable(self, needed: set[str]) -> bool:
        """Tell whether none of these is missing, or depends on itself."""
        return all(one in self.model and one not in self.below(self.model[one].needs) for one in needed)

    def fails(self, plugin_id: str, *hooks: str) -> bool:
        return not self.model[plugin_id].unit.broken.isdisjoint(hooks)

    # --- adding ---

    @initialize(data=st.data())
    def begin_with_a_graph(self, data: st.DataObject) -> None:
        """Most graphs that are drawn at random have a circle or a hole, and nothing of them would ever start."""
        for plugin_id in data.draw(st.permutations(IDS)):
            earlier = [one for one in IDS if one < plugin_id]
            depends_on = data.draw(st.sets(st.sampled_from(earlier), max_size=2)) if earlier else set()
            self.add(plugin_id, depends_on, data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2)), set())

    @rule(
        plugin_id=ids,
        depends_on=st.sets(ids, max_size=2),
        rank=st.integers(0, 2),
        priority=st.integers(0, 2),
        broken=seldom_broken,
    )
    def add(self, plugin_id: str, depends_on: set[str], rank: int, priority: int, broken: set[str]) -> None:
        unit = Watched(self.world, plugin_id, sorted(depends_on), priority, broken)
        if plugin_id in self.model:
            with pytest.raises(PluginLoadError):
                self.manager.attach(unit, rank=rank)
        elif "contribute" in broken:
            with pytest.raises(ZeroDivisionError):
                self.manager.attach(unit, rank=rank)
        else:
            self.manager.attach(unit, rank=rank)
            self.model[plugin_id] = Known(unit, rank, needs=frozenset(depends_on))

    @rule(plugin_id=ids)
    def detach(self, plugin_id: str) -> None:
        known = self.model.get(plugin_id)
        if known is None or known.was_started:
            with pytest.raises(PluginStateError):
                self.manager.detach(plugin_id)
        else:
            self.manager.detach(plugin_id)
            del self.model[plugin_id]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), broken=seldom_broken)
    def break_or_mend(self, data: st.DataObject, broken: set[str]) -> None:
        plugin_id = data.draw(st.sampled_from(sorted(self.model)))
        self.model[plugin_id].unit.broken = broken

    # --- starting ---

    @rule()
    def start_all(self) -> None:
        self.check_start(self.below(self.model), *self.call(self.manager.start_all))

    @rule(plugin_id=ids)
    def start_plugin(self, plugin_id: str) -> None:
        events, answer = self.call(self.manager.start_plugin, plugin_id)
        if plugin_id in self.model:
            self.check_start(self.below([plugin_id]), events, answer)
        else:
            assert isinstance(answer, PluginStateError)

    def check_start(self, needed: set[str], events: list[tuple[str, str]], answer: Any) -> None:
        """Any order will do that the plugins do not object to; the first that fails must be the last that is tried."""
        if not self.is_startable(needed):
            assert isinstance(answer, PluginResolutionError)
            assert events == []
            return
        to_start = {one for one in needed if self.model[one].state is not STARTED}
        tried = [plugin_id for hook, plugin_id in events if hook == "init"]
        failed = [one for one in tried if self.fails(one, "init", "start")]
        assert len(set(tried)) == len(tried)
        assert failed == tried[-1:] if failed else set(tried) == to_start
        assert set(tried) <= to_start
        assert isinstance(answer, PluginStartError) if failed else answer is None
        for one in tried:
            self.note_start(one)

    def note_start(self, plugin_id: str) -> None:
        known = self.model[plugin_id]
        known.state = FAILED if self.fails(plugin_id, "init", "start") else STARTED
        known.is_unload_due = known.was_started = True

    # --- stopping ---

    @rule(plugin_id=ids)
    def stop_plugin(self, plugin_id: str) -> None:
        events, answer = self.call(self.manager.stop_plugin, plugin_id)
        if plugin_id in self.model:
            self.check_ends(events, answer, self.stopped({plugin_id} | self.above(plugin_id)), set())
        else:
            assert isinstance(answer, PluginStateError)

    @rule()
    def stop_all(self) -> None:
        events, answer = self.call(self.manager.stop_all)
        started = {one for one, known in self.model.items() if known.was_started}
        self.check_ends(events, answer, self.stopped(set(self.model)), self.due(started))

    @rule(plugin_id=ids)
    def crash(self, plugin_id: str) -> None:
        """Let a background task raise; what the manager does then by itself is over when its next operation is."""
        if plugin_id not in self.model or self.model[plugin_id].state is not STARTED:
            return
        self.model[plugin_id].unit.crash = True
        events, answer = self.call(self._ring_and_wait, plugin_id)
        self.model[plugin_id].unit.crash = False
        stopped = self.stopped({plugin_id} | self.above(plugin_id))
        self.check_ends(events, answer, stopped, set(), is_crash=True)
        self.model[plugin_id].state = FAILED

    async def _ring_and_wait(self, plugin_id: str) -> None:
        bell, self.world.bell = self.world.bell, anyio.Event()
        bell.set()
        while (await self.manager.get_plugin(plugin_id)).state is not FAILED:  # type: ignore[union-attr]  # it is there
            await checkpoint()
        await self.manager.remove("nobody")

    def stopped(self, concerned: set[str]) -> set[str]:
        return {one for one in concerned if self.model[one].state is STARTED}

    def due(self, concerned: set[str]) -> set[str]:
        return {one for one in concerned if self.model[one].is_unload_due}

    def check_ends(
        self, events: list[tuple[str, str]], answer: Any, stopped: set[str], unloaded: set[str], is_crash: bool = False
    ) -> None:
        """Each hook is called once, whatever the others raise; then one error tells of all."""
        expected = [("stop", one) for one in stopped] + [("unload", one) for one in unloaded]
        assert sorted(events) == sorted(expected)
        failed = {(hook, one) for hook, one in expected if self.fails(one, hook)}
        if failed and not is_crash:
            assert isinstance(answer, PluginStopError)
            assert len(answer.others) == len(failed) - 1
        else:
            assert not isinstance(answer, Exception)
        for one in stopped:
            self.model[one].state = STOPPED
        for one in unloaded:
            self.model[one].is_unload_due = False
        for _, one in failed:
            self.model[one].state = FAILED

    # --- removing ---

    @rule(plugin_id=ids)
    def remove(self, plugin_id: str) -> None:
        events, answer = self.call(self.manager.remove, plugin_id)
        if plugin_id in self.model:
            stopped = self.stopped({plugin_id} | self.above(plugin_id))
            self.check_ends(events, answer, stopped, self.due({plugin_id}))
            del self.model[plugin_id]
        else:
            assert answer is False

    @rule()
    def unload_all(self) -> None:
        events, answer = self.call(self.manager.unload_all)
        self.check_ends(events, answer, self.stopped(set(self.model)), self.due(set(self.model)))
        self.model.clear()

    @rule(plugin_id=ids)
    def reload(self, plugin_id: str) -> None:
        if plugin_id not in self.model:
            assert isinstance(self.call(self.manager.reload, plugin_id)[1], PluginStateError)
            return
        family = {plugin_id} | self.above(plugin_id)
        stopped, unloaded = self.stopped(family), self.due(family)
        events, answer = self.call(self.manager.reload, plugin_id)
        seen = {hook: [one for name, one in events if name == hook] for hook in HOOKS}
        assert (sorted(seen["stop"]), sorted(seen["unload"])) == (sorted(stopped), sorted(unloaded))
        assert sorted(seen["contribute"]) == sorted(family)
        is_clean = not any(self.fails(one, "stop") for one in stopped)
        is_clean = is_clean and not any(self.fails(one, "unload") for one in unloaded)
        assert sorted(seen["init"]) == sorted(self.note_reload(family, stopped))
        is_restored = self.stopped(self.model.keys() & family) == stopped and family <= self.model.keys()
        assert (answer is None) == (is_clean and is_restored)

    def note_reload(self, family: set[str], started: set[str]) -> set[str]:
        """What cannot be added again is gone; what was started is again, unless what it depends on is not."""
        for one in family:
            known = self.model.pop(one)
            if "contribute" not in known.unit.broken:
                self.model[one] = Known(known.unit, known.rank, needs=known.needs)
        tried: set[str] = set()
        while ready := [one for one in started & self.model.keys() if self._may_restart(one)]:
            tried.update(ready)
            for one in ready:
                self.note_start(one)
        return tried

    def _may_restart(self, plugin_id: str) -> bool:
        known = self.model[plugin_id]
        is_ready = all(other in self.model and self.model[other].state is STARTED for other in known.needs)
        return known.state is LOADED and is_ready

    # --- everything at once ---

    @rule(chosen=st.lists(st.sampled_from(["start_all", "stop_all", "remove", "reload", "stop_plugin"]), max_size=4))
    def at_once(self, chosen: list[str]) -> None:
        """Let operations run into each other. Only the plugins judge that; then all of them are removed."""

        async def attempt(name: str, *args: str) -> None:
            with suppress(PluginError):
                await getattr(self.manager, name)(*args)

        async def all_of_them() -> None:
            async with anyio.create_task_group() as tasks:
                for number, name in enumerate(chosen):
                    tasks.start_soon(attempt, name, *([] if name.endswith("all") else [IDS[number]]))
            await attempt("unload_all")

        self.call(all_of_them)
        self.model.clear()

    # --- what always holds ---

    @invariant()
    def the_plugins_have_nothing_to_object(self) -> None:
        assert self.world.violations == []

    @invariant()
    def states_are_those_of_the_model(self) -> None:
        assert {one.plugin.id: one.state for one in self.manager.plugins()} == {
            one: known.state for one, known in self.model.items()
        }
        assert all((one.failed_reason is not None) == (one.state is FAILED) for one in self.manager.plugins())

    @invariant()
    def exactly_what_is_started_runs(self) -> None:
        started = {one for one, known in self.model.items() if known.state is STARTED}
        assert sorted(self.world.working) == sorted(started)
        assert self.world.running == started

    @invariant()
    def exactly_what_is_there_is_registered(self) -> None:
        things = self.manager.points.contributions("things")
        assert sorted(one.instance for one in things) == sorted(self.model)
        assert sorted(self.manager.points.ids()) == sorted(f"point of {one}" for one in self.model)
        places = [(-self.model[one.instance].unit.priority, self.model[one.instance].rank) for one in things]
        assert places == sorted(places)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_d4_whatever_is_done_in_whatever_order_dependencies_are_kept_and_nothing_leaks(backend: str) -> None:
    class Machine(ManagerMachine):
        pass

    Machine.backend = backend
    logging.getLogger("saga_engine.plugins").disabled = True  # of crashes, of which there are many
    try:
        run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=25))
    finally:
        logging.getLogger("saga_engine.plugins").disabled = False
