"""The handlers: the first one is that of the older framework's example, word for word."""

from __future__ import annotations

from connect.eaas.core.decorators import event
from connect.eaas.core.extension import EventsApplicationBase

from plain_handlers.sagas import ChangeSaga, PurchaseSaga, ResellerSaga

__all__ = ["SampleFulfillmentExtensionEventsApplication"]


class SampleFulfillmentExtensionEventsApplication(EventsApplicationBase):
    @event("asset_purchase_request_processing", statuses=["pending"])
    def handle_asset_purchase_request_processing(self, request):
        self.logger.info(f"Obtained request with id {request['id']}")
        return PurchaseSaga.make(self.config, self.client, self.logger).resolve(request)

    @event("asset_change_request_processing", statuses=["pending"])
    async def handle_asset_change_request_processing(self, request):
        return await ChangeSaga.make(self.config, self.client, self.logger).aresolve(request)

    @event("tier_config_setup_request_processing", statuses=["pending"])
    def handle_tier_config_setup_request_processing(self, request):
        return ResellerSaga.make(self.config, self.client, self.logger).resolve(request)

    @event("tier_config_change_request_processing", statuses=["pending"])
    async def handle_tier_config_change_request_processing(self, request):
        return await ResellerSaga.make(self.config, self.client, self.logger).aresolve(request)
