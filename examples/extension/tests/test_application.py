"""What the runner finds: the events, the schedule, the variables and the web application of the extension."""

from __future__ import annotations

import inspect
from importlib import metadata

from mail_connector.events import MailConnectorEvents
from mail_connector.web import MailConnectorWeb


def test_each_kind_of_order_has_a_handler() -> None:
    events = {event["event_type"]: event for event in MailConnectorEvents.get_events()}
    kinds = ("cancel", "change", "purchase")
    assert sorted(events) == [f"asset_{kind}_request_processing" for kind in kinds]
    assert all(event["statuses"] == ["pending"] for event in events.values())


def test_changes_are_handled_on_the_event_loop() -> None:
    assert inspect.iscoroutinefunction(MailConnectorEvents.asset_change_request_processing)
    assert not inspect.iscoroutinefunction(MailConnectorEvents.asset_purchase_request_processing)


def test_orders_that_connect_does_not_deliver_again_are_taken_up_by_a_schedule() -> None:
    [schedulable] = MailConnectorEvents.get_schedulables()
    assert schedulable["method"] == "resume_sagas"


def test_the_executions_are_pages_of_the_web_application() -> None:
    authorized, unauthorized = MailConnectorWeb.get_routers()
    assert "/sagas/executions" in [route.path for route in authorized.routes]
    assert unauthorized.routes == []


def test_the_runner_finds_both_applications_and_their_description() -> None:
    found = {point.name: point.load() for point in metadata.entry_points(group="connect.eaas.ext")}
    assert found == {"eventsapp": MailConnectorEvents, "webapp": MailConnectorWeb}
    for application in found.values():
        assert {"readme_url", "changelog_url"} <= application.get_descriptor().keys()
