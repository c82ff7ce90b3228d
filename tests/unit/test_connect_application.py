"""SagaEventsApplication: what a line in a class body becomes, what the runner finds of it, and what is refused."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from typing import Any

import pytest
from connect.client import AsyncConnectClient, ConnectClient
from connect.eaas.core.decorators import event, schedulable, variables
from connect.eaas.core.extension import EventsApplicationBase
from connect.eaas.core.responses import BackgroundResponse
from sagas import World, saga_of

from saga_engine import Saga
from saga_engine.connect import SagaEventsApplication, on
from saga_engine.errors import BadDefinition
from transactions import BackgroundTransaction

PURCHASE, CHANGE = "asset_purchase_request_processing", "asset_change_request_processing"


class NoStep(BackgroundTransaction):
    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()


class PurchaseSaga(Saga):
    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [NoStep]


class OtherSaga(PurchaseSaga):
    pass


class SelectSaga(PurchaseSaga):
    mode = "select"


def events_of(application: Any) -> dict[str, tuple[str, list[str]]]:
    """Read the events as the runner does: by type, the last one wins."""
    return {one["event_type"]: (one["method"], one["statuses"]) for one in application.get_events()}


def schedulables_of(application: Any) -> list[str]:
    return [one["method"] for one in application.get_schedulables()]


# --- a line is a handler ---


class Application(SagaEventsApplication):
    asset_purchase_request_processing = PurchaseSaga
    asset_change_request_processing = on(OtherSaga, statuses=["pending", "scheduled"], is_async=True)

    @event("asset_cancel_request_processing", statuses=["pending"])
    def cancel(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.skip("not sold")


def test_each_line_and_each_method_handles_its_event() -> None:
    assert events_of(Application) == {
        PURCHASE: (PURCHASE, ["pending"]),
        CHANGE: (CHANGE, ["pending", "scheduled"]),
        "asset_cancel_request_processing": ("cancel", ["pending"]),
    }


@pytest.mark.parametrize(("name", "is_async"), [(PURCHASE, False), (CHANGE, True)])
def test_a_handler_is_the_function_that_the_runner_demands(name: str, is_async: bool) -> None:
    handler = getattr(Application, name)
    assert inspect.isfunction(handler)
    assert (handler.__name__, handler.__qualname__) == (name, f"Application.{name}")
    assert handler.__module__ == __name__
    assert list(inspect.signature(handler).parameters) == ["self", "request"]
    assert inspect.iscoroutinefunction(handler) is is_async
    assert handler.__doc__


class Recorder:
    """Stands in for the engine: tells with what a saga was to be resolved."""

    def __init__(self) -> None:
        self.resolved: list[tuple[Any, ...]] = []

    def resolve(self, saga: Saga, request: dict[str, Any], services: Any) -> str:
        self.resolved.append((type(saga), request, services.config, services.client, services.logger))
        return "answered"

    async def aresolve(self, saga: Saga, request: dict[str, Any], services: Any) -> str:
        return self.resolve(saga, request, services)


@pytest.mark.anyio
async def test_a_handler_resolves_its_saga_with_what_the_runner_gave_the_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, logger, client = Recorder(), logging.getLogger("test"), object()
    monkeypatch.setattr("saga_engine.engine.default_engine", lambda config: engine)
    application = Application(client, logger, {"VARIABLE": "1"})
    assert application.asset_purchase_request_processing({"id": "PR-1"}) == "answered"
    assert await application.asset_change_request_processing({"id": "PR-2"}) == "answered"
    assert engine.resolved == [
        (PurchaseSaga, {"id": "PR-1"}, {"VARIABLE": "1"}, client, logger),
        (OtherSaga, {"id": "PR-2"}, {"VARIABLE": "1"}, client, logger),
    ]


def test_any_string_may_be_the_type_of_an_event() -> None:
    class App(SagaEventsApplication):
        some_event_of_tomorrow_processing = PurchaseSaga

    assert "some_event_of_tomorrow_processing" in events_of(App)


def test_decorators_of_connect_and_abstract_bases_are_as_usual() -> None:
    class Base(SagaEventsApplication, ABC):
        @abstractmethod
        def name(self) -> str: ...

    @variables([{"name": "TEMPLATE_ID", "initial_value": "?", "secure": False}])
    class App(Base):
        asset_purchase_request_processing = PurchaseSaga

        def name(self) -> str:
            return "an application"

    assert [one["name"] for one in App.get_variables()] == ["TEMPLATE_ID"]
    assert list(events_of(App)) == [PURCHASE]
    assert App(None, None, {}).name() == "an application"


def test_sagas_that_are_no_lines_of_events_are_left_alone() -> None:
    class App(SagaEventsApplication):
        class Inner(PurchaseSaga):
            pass

        Alias = PurchaseSaga
        _own = PurchaseSaga

    assert events_of(App) == {}
    assert (App.Alias, App._own, App.Inner.__base__) == (PurchaseSaga, PurchaseSaga, PurchaseSaga)


# --- subclasses and mixins ---


def test_a_subclass_inherits_replaces_and_takes_away() -> None:
    class App(Application):
        asset_purchase_request_processing = on(OtherSaga, statuses=["approved"])
        asset_change_request_processing = None

    assert events_of(App)[PURCHASE] == (PURCHASE, ["approved"])
    assert CHANGE not in events_of(App)
    assert "asset_cancel_request_processing" in events_of(App)
    assert events_of(Application)[PURCHASE] == (PURCHASE, ["pending"])


def test_a_mixin_may_be_a_plain_class() -> None:
    class Purchases:
        asset_purchase_request_processing = PurchaseSaga

    class App(Purchases, SagaEventsApplication):
        asset_change_request_processing = OtherSaga

    assert set(events_of(App)) == {PURCHASE, CHANGE}
    assert Purchases.asset_purchase_request_processing is PurchaseSaga


def test_two_mixins_with_one_event_are_refused_unless_the_class_chooses() -> None:
    class One:
        asset_purchase_request_processing = PurchaseSaga

    class Two:
        asset_purchase_request_processing = OtherSaga

    with pytest.raises(BadDefinition, match="from One and another one from Two"):

        class Clash(One, Two, SagaEventsApplication):
            pass

    class App(One, Two, SagaEventsApplication):
        asset_purchase_request_processing = Two.asset_purchase_request_processing

    assert events_of(App)[PURCHASE] == (PURCHASE, ["pending"])


def test_a_diamond_is_no_clash() -> None:
    class Left(Application):
        pass

    class Right(Application):
        asset_purchase_request_processing = OtherSaga

    class App(Left, Right):
        pass

    assert len(App.get_events()) == 3


# --- refusals, at import ---


def test_a_second_saga_for_one_name_in_one_body_is_refused() -> None:
    with pytest.raises(BadDefinition, match=r"App\.asset_purchase_request_processing is assigned twice"):

        class App(SagaEventsApplication):
            asset_purchase_request_processing = PurchaseSaga
            asset_purchase_request_processing = OtherSaga  # noqa: PIE794


@pytest.mark.parametrize("is_saga_first", [True, False])
def test_a_saga_and_a_method_of_one_name_in_one_body_are_refused(is_saga_first: bool) -> None:
    lines = [
        "    asset_purchase_request_processing = PurchaseSaga\n",
        f"    @event('{PURCHASE}', statuses=['pending'])\n    def {PURCHASE}(self, request): ...\n",
    ]
    body = "".join(lines if is_saga_first else reversed(lines))
    names = {"SagaEventsApplication": SagaEventsApplication, "PurchaseSaga": PurchaseSaga, "event": event}
    with pytest.raises(BadDefinition, match="assigned twice"):
        exec(f"class App(SagaEventsApplication):\n{body}", names)


def test_a_saga_and_a_method_for_one_event_are_refused() -> None:
    with pytest.raises(BadDefinition, match=f"handles {PURCHASE} twice, by {PURCHASE} and by purchase"):

        class App(SagaEventsApplication):
            asset_purchase_request_processing = PurchaseSaga

            @event(PURCHASE, statuses=["approved"])
            def purchase(self, request: dict[str, Any]) -> BackgroundResponse:
                return BackgroundResponse.done()


def test_a_saga_for_an_event_that_a_base_handles_under_another_name_is_refused() -> None:
    class Base(EventsApplicationBase):
        @event(PURCHASE, statuses=["pending"])
        def purchase(self, request: dict[str, Any]) -> BackgroundResponse:
            return BackgroundResponse.done()

    with pytest.raises(BadDefinition, match="set it to None"):

        class Clash(SagaEventsApplication, Base):
            asset_purchase_request_processing = PurchaseSaga

    class App(SagaEventsApplication, Base):
        asset_purchase_request_processing = PurchaseSaga
        purchase = None

    assert events_of(App) == {PURCHASE: (PURCHASE, ["pending"])}


def test_a_mixin_that_hides_a_handler_is_refused() -> None:
    class Mixin:
        def asset_purchase_request_processing(self, request: dict[str, Any]) -> None: ...

    class Base(SagaEventsApplication):
        asset_purchase_request_processing = PurchaseSaga

    with pytest.raises(BadDefinition, match=r"App\.asset_purchase_request_processing overrides a handler of Base"):
        type("App", (Mixin, Base), {})


def test_a_static_method_is_a_handler_too() -> None:
    with pytest.raises(BadDefinition, match=r"App handles asset_purchase_request_processing twice"):

        class App(SagaEventsApplication):
            asset_purchase_request_processing = PurchaseSaga

            @staticmethod
            @event(PURCHASE, statuses=["pending"])
            def purchase(request: dict[str, Any]) -> None: ...


def test_a_class_method_that_the_runner_would_never_call_is_refused() -> None:
    with pytest.raises(BadDefinition, match=r"App\.purchase is a class method"):

        class App(SagaEventsApplication):
            @classmethod
            @event(PURCHASE, statuses=["pending"])
            def purchase(cls, request: dict[str, Any]) -> None: ...


def test_a_handler_that_the_runner_would_not_find_by_its_name_is_refused() -> None:
    def logged(method: Any) -> Any:
        def wrapper(self: Any, request: dict[str, Any]) -> Any:
            return method(self, request)

        return wrapper

    with pytest.raises(BadDefinition, match=r"App\.purchase is called wrapper inside"):

        class App(SagaEventsApplication):
            @event(PURCHASE, statuses=["pending"])
            @logged
            def purchase(self, request: dict[str, Any]) -> None: ...


def test_two_methods_of_one_name_of_which_one_is_a_handler_are_refused() -> None:
    with pytest.raises(BadDefinition, match=r"App\.purchase is assigned twice"):

        class App(SagaEventsApplication):
            @event(PURCHASE, statuses=["pending"])
            def purchase(self, request: dict[str, Any]) -> None: ...

            @event(CHANGE, statuses=["pending"])
            def purchase(self, request: dict[str, Any]) -> None: ...  # noqa: F811  # that is the mistake


def test_an_instance_of_a_saga_is_refused() -> None:
    with pytest.raises(BadDefinition, match="is no saga: give a subclass of Saga"):
        type("App", (SagaEventsApplication,), {PURCHASE: PurchaseSaga()})


def test_a_method_that_overrides_a_handler_without_being_one_is_refused() -> None:
    with pytest.raises(BadDefinition, match="decorate it with @event"):

        class Lost(Application):
            def asset_purchase_request_processing(self, request: dict[str, Any]) -> BackgroundResponse:
                return BackgroundResponse.done()

    class App(Application):
        @event(PURCHASE, statuses=["pending"])
        def asset_purchase_request_processing(self, request: dict[str, Any]) -> str:
            return f"{request['id']} was {super().asset_purchase_request_processing(request)}"

    assert events_of(App)[PURCHASE] == (PURCHASE, ["pending"])


@pytest.mark.parametrize(
    "event_type",
    ["asset_purchase_request_validation", "product_action_execution", "product_custom_event_processing"],
)
def test_events_that_are_answered_at_once_are_refused(event_type: str) -> None:
    with pytest.raises(BadDefinition, match="answered at once"):
        type(SagaEventsApplication)("App", (SagaEventsApplication,), {event_type: PurchaseSaga})


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("asset_purchase_request_procesing", "asset_purchase_request_processing"),
        ("asset_purchse_request_processing", "asset_purchase_request_processing"),
        ("tier_config_setup_request_proccessing", "tier_config_setup_request_processing"),
        ("listing_new_requests_processing", "listing_new_request_processing"),
    ],
)
def test_an_event_that_was_mistyped_is_refused_with_the_one_that_was_meant(mistyped: str, meant: str) -> None:
    with pytest.raises(BadDefinition, match=f"App.{mistyped}: did you mean {meant}?"):
        type(SagaEventsApplication)("App", (SagaEventsApplication,), {mistyped: PurchaseSaga})


@pytest.mark.parametrize(
    "value", [(PurchaseSaga,), "PurchaseSaga", [PurchaseSaga], PurchaseSaga.make, lambda self, request: None, {}, 1]
)
def test_what_handles_nothing_is_refused_under_the_name_of_an_event(value: Any) -> None:
    with pytest.raises(BadDefinition, match=r"handles nothing: assign a saga, on\(\.\.\.\), or None, or decorate"):
        type(SagaEventsApplication)("App", (SagaEventsApplication,), {"asset_purchase_request_processing": value})


def test_a_sweeper_that_is_not_schedulable_is_refused() -> None:
    with pytest.raises(BadDefinition, match="decorate the method with @schedulable"):

        class App(SagaEventsApplication):
            asset_purchase_request_processing = PurchaseSaga

            def resume_sagas(self, schedule: Any) -> None: ...


def test_a_saga_with_the_decorator_of_methods_is_refused() -> None:
    class Decorated(PurchaseSaga): ...

    with pytest.raises(BadDefinition, match=r"write asset_purchase_request_processing = on\(Decorated"):

        class App(SagaEventsApplication):
            foo = event("asset_purchase_request_processing", statuses=["pending"])(Decorated)


@pytest.mark.parametrize("name", ["config", "client", "logger", "get_events", "get_descriptor"])
def test_what_is_the_applications_own_is_no_event(name: str) -> None:
    with pytest.raises(BadDefinition, match=f"App.{name} is an application's own"):
        type(SagaEventsApplication)("App", (SagaEventsApplication,), {name: PurchaseSaga})


def test_events_that_the_framework_does_not_know_are_taken() -> None:
    class App(SagaEventsApplication):
        helpdesk_case_processing = PurchaseSaga
        asset_revoke_request_processing = PurchaseSaga

    assert set(events_of(App)) == {"helpdesk_case_processing", "asset_revoke_request_processing"}


@pytest.mark.parametrize("name", ["sagas", "async_sagas", "resume_sagas"])
def test_names_with_a_meaning_of_their_own_are_no_events(name: str) -> None:
    with pytest.raises(BadDefinition, match=name):
        type(SagaEventsApplication)("App", (SagaEventsApplication,), {name: PurchaseSaga})


def test_on_outside_of_a_line_of_an_event_is_refused() -> None:
    with pytest.raises(BadDefinition, match=r"App\.Purchase"):

        class App(SagaEventsApplication):
            Purchase = on(PurchaseSaga)


class WrongSaga(PurchaseSaga):
    deadline_s = -1


class AbstractSaga(Saga):
    pass


@pytest.mark.parametrize(
    ("saga", "options", "told"),
    [
        (NoStep, {}, "is no saga"),
        (WrongSaga, {}, "deadline_s"),
        (AbstractSaga, {}, "define transactions"),
        (PurchaseSaga, {"statuses": "pending"}, r'\["pending"\]'),
        (PurchaseSaga, {"statuses": []}, "statuses"),
        (PurchaseSaga, {"statuses": [1]}, "statuses"),
        (PurchaseSaga, {"is_async": "yes"}, "True or False"),
    ],
)
def test_on_refuses_what_cannot_be_meant(saga: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadDefinition, match=told):
        on(saga, **options)


@pytest.mark.parametrize("saga", [WrongSaga, AbstractSaga])
def test_a_line_refuses_a_saga_that_cannot_be_used(saga: Any) -> None:
    with pytest.raises(BadDefinition):
        type(SagaEventsApplication)("App", (SagaEventsApplication,), {PURCHASE: saga})


# --- the sweeper, as the runner finds it ---


def test_an_application_without_sagas_has_no_sweeper() -> None:
    class App(SagaEventsApplication):
        @event(PURCHASE, statuses=["pending"])
        def purchase(self, request: dict[str, Any]) -> BackgroundResponse:
            return BackgroundResponse.done()

    assert schedulables_of(App) == schedulables_of(SagaEventsApplication) == []


def test_sagas_of_mode_select_need_no_sweeper() -> None:
    class App(SagaEventsApplication):
        asset_purchase_request_processing = SelectSaga

    assert schedulables_of(App) == []


def test_the_sweeper_is_a_coroutine_only_where_a_saga_is_async() -> None:
    class Plain(SagaEventsApplication):
        asset_purchase_request_processing = PurchaseSaga

    assert schedulables_of(Plain) == schedulables_of(Application) == ["resume_sagas"]
    assert not inspect.iscoroutinefunction(Plain.resume_sagas)
    assert inspect.iscoroutinefunction(Application.resume_sagas)
    assert list(inspect.signature(Plain.resume_sagas).parameters) == ["self", "schedule"]


def test_a_subclass_that_makes_a_saga_async_gets_a_sweeper_of_that_kind() -> None:
    class Plain(SagaEventsApplication):
        asset_purchase_request_processing = PurchaseSaga

    class App(Plain):
        asset_purchase_request_processing = on(PurchaseSaga, is_async=True)

    assert inspect.iscoroutinefunction(App.resume_sagas)


def test_the_sweeper_can_be_taken_away_for_all_subclasses_too() -> None:
    class Without(Application):
        resume_sagas = None

    class App(Without):
        tier_config_setup_request_processing = PurchaseSaga

    assert schedulables_of(Without) == schedulables_of(App) == []


def test_an_author_may_write_the_sweeper() -> None:
    class App(SagaEventsApplication):
        asset_purchase_request_processing = PurchaseSaga

        @schedulable("Mine", "My own.")
        def resume_sagas(self, schedule: dict[str, Any]) -> str:
            return "mine"

    assert [one["name"] for one in App.get_schedulables()] == ["Mine"]
    assert App(None, None, {}).resume_sagas({}) == "mine"


def test_sagas_of_methods_bring_the_sweeper_too() -> None:
    class App(SagaEventsApplication):
        sagas = (PurchaseSaga,)

    class AsyncApp(SagaEventsApplication):
        async_sagas = (PurchaseSaga,)

    assert schedulables_of(App) == schedulables_of(AsyncApp) == ["resume_sagas"]
    assert inspect.iscoroutinefunction(AsyncApp.resume_sagas)


def test_sagas_given_for_the_sweeper_are_checked() -> None:
    with pytest.raises(BadDefinition, match="no saga"):

        class App(SagaEventsApplication):
            sagas = (NoStep,)


# --- with clients of Connect ---


@pytest.mark.anyio
@pytest.mark.parametrize("name", [PURCHASE, CHANGE])
async def test_a_real_delivery_is_carried_to_its_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[Any, Any] = {}
    monkeypatch.setattr("saga_engine.engine._engines", made)
    world = World(is_native_async=name == CHANGE)
    saga = saga_of(world.step("a"))
    app = type(SagaEventsApplication)("App", (SagaEventsApplication,), {name: on(saga, is_async=world.is_native_async)})
    client = (AsyncConnectClient if world.is_native_async else ConnectClient)("ApiKey x")
    answer = getattr(app(client, logging.getLogger("test"), {"SAGA_JOURNAL_URL": "memory://"}), name)({"id": "PR-1"})
    response = await answer if world.is_native_async else answer
    assert (response.status, world.executed) == ("success", ["a"])
    for engine in made.values():
        engine.close()
