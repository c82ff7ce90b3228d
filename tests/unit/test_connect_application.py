"""What a class body of sagas becomes, and what the Connect runner demands of handlers."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from connect.eaas.core.decorators import event, schedulable
from connect.eaas.core.extension import EventsApplicationBase
from sagas import World, saga_of

from saga_engine import Engine, Saga
from saga_engine.connect import SagaEventsApplication, on
from saga_engine.errors import BadDefinition

Purchase = saga_of(World().step("a"), name="Purchase")
Change = saga_of(World().step("b"), name="Change")


class Extension(SagaEventsApplication):
    """One of each kind."""

    asset_purchase_request_processing = Purchase
    asset_change_request_processing = on(Change, statuses=["pending", "inquiring"], is_async=True)
    tier_config_setup_request_processing = Purchase

    @event("asset_cancel_request_processing", statuses=["pending"])
    def cancel(self, request: dict[str, Any]) -> None:
        """Be an ordinary handler."""


def events(application: type[EventsApplicationBase]) -> dict[str, tuple[str, list[str]]]:
    """Give method and statuses of each event, as the runner finds them."""
    return {info["event_type"]: (info["method"], info["statuses"]) for info in application.get_events()}


def test_each_saga_in_the_class_body_handles_the_event_of_its_name() -> None:
    assert events(Extension) == {
        "asset_purchase_request_processing": ("asset_purchase_request_processing", ["pending"]),
        "asset_change_request_processing": ("asset_change_request_processing", ["pending", "inquiring"]),
        "tier_config_setup_request_processing": ("tier_config_setup_request_processing", ["pending"]),
        "asset_cancel_request_processing": ("cancel", ["pending"]),
    }


@pytest.mark.parametrize(
    ("name", "is_async"),
    [
        ("asset_purchase_request_processing", False),
        ("asset_change_request_processing", True),
        ("resume_sagas", True),
    ],
)
def test_a_handler_is_what_the_runner_demands(name: str, is_async: bool) -> None:
    handler = getattr(Extension, name)
    assert inspect.isfunction(handler)
    assert handler.__name__ == name
    assert inspect.iscoroutinefunction(handler) is is_async
    assert len(inspect.signature(handler).parameters) == 2


def test_a_plain_handler_resolves_the_request_with_what_the_runner_gave() -> None:
    with Engine("memory://") as engine:

        class Local(SagaEventsApplication):
            asset_purchase_request_processing = saga_of(World().step("a"), name="Resolved")

            def make_saga(self, saga: type[Saga]) -> Saga:
                return saga.make(self.config, self.client, self.logger, engine=engine)

        application = Local(client="client", logger=None, config={"A": "1"})
        assert application.asset_purchase_request_processing({"id": "PR-1"}).status == "success"
        assert engine.get("Resolved:PR-1").status.value == "COMPLETED"


@pytest.mark.anyio
async def test_an_async_handler_resolves_the_request_on_the_event_loop() -> None:
    with Engine("memory://") as engine:

        class Local(SagaEventsApplication):
            asset_purchase_request_processing = on(
                saga_of(World(is_native_async=True).step("a"), name="Resolved"), is_async=True
            )

            def make_saga(self, saga: type[Saga]) -> Saga:
                return saga.make(self.config, self.client, self.logger, engine=engine)

        application = Local(client="client", logger=None, config={})
        assert (await application.asset_purchase_request_processing({"id": "PR-1"})).status == "success"


def test_a_second_saga_for_an_event_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(BadDefinition, match="asset_purchase_request_processing is set twice"):

        class Twice(SagaEventsApplication):
            asset_purchase_request_processing = Purchase
            asset_purchase_request_processing = Change  # noqa: PIE794  # it is what is refused


def test_a_saga_for_an_event_that_a_method_handles_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(BadDefinition, match="handles asset_cancel_request_processing twice, by asset_cancel_req"):

        class Twice(Extension):
            asset_cancel_request_processing = Purchase


def test_a_subclass_replaces_a_handler_and_takes_one_away() -> None:
    class Other(Extension):
        asset_purchase_request_processing = on(Change, statuses=["approved"])
        asset_change_request_processing = None

    assert events(Other)["asset_purchase_request_processing"][1] == ["approved"]
    assert "asset_change_request_processing" not in events(Other)
    assert events(Extension)["asset_purchase_request_processing"][1] == ["pending"], "the parent's is as it was"


def test_a_saga_that_is_defined_in_the_class_body_handles_nothing_by_itself() -> None:
    class Whole(SagaEventsApplication):
        class Inner(Saga):
            def transactions(self, request: dict[str, Any]) -> list[Any]:
                return []

        asset_purchase_request_processing = Inner

    assert list(events(Whole)) == ["asset_purchase_request_processing"]


@pytest.mark.parametrize("event_type", ["asset_purchase_request_validation", "product_action_execution"])
def test_an_interactive_event_is_refused(event_type: str) -> None:
    with pytest.raises(BadDefinition, match=f"{event_type} is interactive"):
        type(SagaEventsApplication)("Bad", (SagaEventsApplication,), body(event_type, Purchase))


def test_an_event_of_something_else_must_say_its_statuses() -> None:
    with pytest.raises(BadDefinition, match=r"usage_file_processing: say in which statuses Purchase handles it"):
        type(SagaEventsApplication)("Bad", (SagaEventsApplication,), body("usage_file_processing", Purchase))
    found = type(SagaEventsApplication)(
        "Good", (SagaEventsApplication,), body("usage_file_processing", on(Purchase, statuses=["ready"]))
    )
    assert events(found)["usage_file_processing"][1] == ["ready"]


def body(name: str, value: Any) -> dict[str, Any]:
    """Give a class body with one attribute."""
    return {"__module__": __name__, "__qualname__": "Bad", name: value}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"statuses": "pending"}, "give a list of names"),
        ({"statuses": [1]}, "give a list of names"),
        ({"statuses": []}, "name at least one"),
    ],
)
def test_statuses_that_cannot_be_meant_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadDefinition, match=message):
        on(Purchase, **arguments)


def test_what_is_no_saga_is_refused() -> None:
    with pytest.raises(BadDefinition, match="is no saga"):
        on(int)  # type: ignore[arg-type]  # it is what is refused


def test_the_sweeper_is_schedulable_unless_it_is_taken_away() -> None:
    class Other(SagaEventsApplication):
        asset_purchase_request_processing = Purchase
        resume_sagas = None

        @schedulable("Own", "One of its own.")
        def own(self, schedule: dict[str, Any]) -> None:
            """Be scheduled."""

    assert [info["method"] for info in Extension.get_schedulables()] == ["resume_sagas"]
    assert [info["method"] for info in Other.get_schedulables()] == ["own"]
