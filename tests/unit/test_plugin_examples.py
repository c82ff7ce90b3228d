"""The examples of the document that plugins come from, run as they are but for their import lines (SEEDS d)."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest

from saga_engine.extensions import PluginManager, PluginState, PluginStateError, plugin


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test here runs on both."""
    return str(request.param)


pytestmark = pytest.mark.anyio

DEFINING_A_PLUGIN = """
    from saga_engine.extensions import plugin, extension, extension_point, PluginManager

    @extension_point(id="formatters")
    class _FormatterPoint: ...

    @plugin(id="json-formatter", version="1.0.0")
    class JsonFormatterPlugin:
        @extension(point="formatters", priority=10)
        class JsonFormatter:
            name = "json"

        async def start(self) -> None: ...
        async def stop(self) -> None: ...
"""

DRIVING_LIFECYCLE = """
    manager = PluginManager()
    await manager.add(JsonFormatterPlugin)
    await manager.start_all()
    formatters = await manager.registry.get("formatters")
    await manager.stop_all()
"""

STATE_AND_DESCRIPTOR = """
    from saga_engine.extensions import PluginDescriptor, PluginState

    desc: PluginDescriptor = await manager.get_plugin("my-plugin")
    print(desc.state)              # PluginState.STARTED
    print(desc.loaded_at)          # datetime of add()
    print(desc.last_state_change)  # datetime of last transition
    print(desc.failed_reason)      # str if FAILED, else None
"""

OPTIONAL_METADATA = """
    @plugin(id="auth", version="1.0.0", name="Auth Plugin", author="security-team")
    class AuthPlugin:
        ...
"""

START_PLUGIN = """
    # Assuming C depends on B which depends on A:
    await manager.start_plugin("c")
    # → starts A, then B, then C
"""

STOP_PLUGIN = """
    await manager.stop_plugin("a")
    # → stops C, then B, then A
"""

ERRORS = """
    from saga_engine.extensions import PluginStartError, PluginStateError
"""

GET_EXTENSION = """
    processor = await registry.get_extension("processors")
    # raises ValueError if the point is unknown or has no extensions
"""


async def run(example: str, **names: Any) -> dict[str, Any]:
    """Run an example, with `await` wherever it stands, and give the names that it leaves."""
    code = compile(textwrap.dedent(example), "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names["__name__"] = "example"
    answer = eval(code, names)
    if inspect.iscoroutine(answer):
        await answer
    return names


async def test_d1_the_example_of_a_plugin_runs_and_gives_its_formatter() -> None:
    names = await run(DRIVING_LIFECYCLE, **await run(DEFINING_A_PLUGIN))
    assert [formatter.name for formatter in names["formatters"]] == ["json"]
    descriptor = await names["manager"].get_plugin("json-formatter")
    assert descriptor.state is PluginState.STOPPED


async def test_d6_the_example_of_a_descriptor_prints_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    @plugin(id="my-plugin", version="1.0.0")
    class Mine: ...

    manager = PluginManager()
    await manager.add(Mine)
    await manager.start_all()
    names = await run(STATE_AND_DESCRIPTOR, manager=manager)
    desc = names["desc"]
    printed = ["PluginState.STARTED", str(desc.loaded_at), str(desc.last_state_change), "None"]
    assert capsys.readouterr().out.split("\n") == [*printed, ""]
    await manager.stop_all()


async def test_d1_the_example_of_the_metadata_gives_name_and_author() -> None:
    names = await run(OPTIONAL_METADATA, plugin=plugin)
    manager = PluginManager()
    await manager.add(names["AuthPlugin"])
    descriptor = await manager.get_plugin("auth")
    assert descriptor is not None
    assert (descriptor.plugin.name, descriptor.plugin.author) == ("Auth Plugin", "security-team")


async def test_d5_the_examples_of_starting_and_stopping_one_plugin_do_what_their_comments_say() -> None:
    log: list[str] = []

    def letter(name: str, *depends_on: str) -> type:
        @plugin(id=name, version="1", depends_on=depends_on)
        class Letter:
            def start(self) -> None:
                log.append(f"starts {name}")

            def stop(self) -> None:
                log.append(f"stops {name}")

        return Letter

    manager = PluginManager()
    for cls in (letter("c", "b"), letter("b", "a"), letter("a")):
        await manager.add(cls)
    await run(START_PLUGIN, manager=manager)
    assert log == ["starts a", "starts b", "starts c"]
    log.clear()
    await run(STOP_PLUGIN, manager=manager)
    assert log == ["stops c", "stops b", "stops a"]


async def test_d7_the_errors_are_imported_as_in_the_example() -> None:
    names = await run(ERRORS)
    assert names["PluginStateError"] is PluginStateError


async def test_d2_the_example_of_the_one_extension_gives_the_highest_or_raises_value_error() -> None:
    registry = PluginManager().registry
    with pytest.raises(ValueError, match="processors"):
        await run(GET_EXTENSION, registry=registry)
    await registry.register("processors", "low", priority=1)
    await registry.register("processors", "high", priority=2)
    assert (await run(GET_EXTENSION, registry=registry))["processor"] == "high"
