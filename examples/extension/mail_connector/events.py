"""What Connect calls: one line per event."""

from __future__ import annotations

from connect.eaas.core.decorators import variables

from mail_connector.sagas import CancelSaga, ChangeSaga, PurchaseSaga
from saga_engine.connect import SagaEventsApplication, on

__all__ = ["MailConnectorEvents"]


@variables(
    [
        {"name": "VENDOR_URL", "initial_value": "https://api.vendor.example"},
        {"name": "VENDOR_TIMEOUT_S", "initial_value": "10"},
        {"name": "POLL_S", "initial_value": "60"},
        {"name": "APPROVE_TEMPLATE_ID", "initial_value": "change me: a template of the product for approved requests"},
        {"name": "INQUIRE_TEMPLATE_ID", "initial_value": "change me: a template of the product for inquiring requests"},
        # A volume: what is on the container's own file system is lost with the container.
        {"name": "SAGA_JOURNAL_URL", "initial_value": "sqlite:////var/lib/mail-connector/saga.db"},
    ]
)
class MailConnectorEvents(SagaEventsApplication):
    """Each line is a whole handler of pending requests. `resume_sagas` comes along: schedule it in Connect."""

    asset_purchase_request_processing = PurchaseSaga
    asset_change_request_processing = on(ChangeSaga, is_async=True)
    asset_cancel_request_processing = CancelSaga
