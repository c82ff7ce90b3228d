"""The five steps of a purchase, each with its undo."""

from __future__ import annotations

from abc import abstractmethod
from logging import LoggerAdapter
from typing import TYPE_CHECKING, Any

from connect.client import ClientError, ConnectClient
from connect.eaas.core.responses import BackgroundResponse
from tenacity import (
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from examples.purchase.vendor import Vendor, VendorRefused, VendorUnavailable
from saga_engine import SagaContext
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy

__all__ = ["ApproveRequest", "CreateCustomer", "CreateSubscription", "FillParameters", "ValidateParameters"]

if TYPE_CHECKING:
    _Logger = LoggerAdapter[Any]
else:
    _Logger = LoggerAdapter  # Python 3.10 cannot subscribe it, and the container reads the annotations

_WAIT = wait_exponential(multiplier=0.2, max=10) + wait_random(0, 0.2)


def _gave_no_answer(e: BaseException) -> bool:
    """Tell whether Connect may answer another time; a status of None means that no answer came at all."""
    return isinstance(e, ClientError) and (e.status_code is None or e.status_code >= 500)


_VENDOR_RETRY = RetryPolicy(stop=stop_after_attempt(4), wait=_WAIT, retry=retry_if_exception_type(VendorUnavailable))
_CONNECT_RETRY = RetryPolicy(stop=stop_after_attempt(4), wait=_WAIT, retry=retry_if_exception(_gave_no_answer))


class ValidateParameters(BackgroundTransaction):
    """Look at the order before anything is done: what is wrong here costs nothing to give up."""

    kind = Kind.READ_ONLY

    def __init__(self, logger: _Logger) -> None:
        self.logger = logger

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        problems = _problems(request["asset"])
        if problems:
            return BackgroundResponse.fail("the order cannot be carried out: " + "; ".join(problems))
        self.logger.info("the order of %s is complete", request["id"])
        return BackgroundResponse.done()


class CreateAtVendor(BackgroundTransaction):
    """What making a customer and making a subscription have in common.

    Class attributes:
        thing: what is made, in the singular; the vendor's collection is its plural.
    """

    thing: str
    retry = _VENDOR_RETRY

    def __init__(self, vendor: Vendor, logger: _Logger, context: SagaContext) -> None:
        self.vendor = vendor
        self.logger = logger
        self.context = context

    @abstractmethod
    def order(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say what to ask the vendor for."""

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        try:
            made = self.vendor.create(f"{self.thing}s", self.order(request), key=self.context.idempotency_key)
        except VendorRefused as refusal:
            return BackgroundResponse.fail(str(refusal))
        self._keep(made)
        return BackgroundResponse.done()

    def probe(self, request: dict[str, Any]) -> Probe:
        try:
            made = self._find()
        except VendorUnavailable:
            return Probe.UNKNOWN
        if made is None:
            return Probe.NOT_DONE
        self._keep(made)
        return Probe.DONE

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        # Looked up and not taken from the state: an interrupted attempt never wrote down what it made.
        made = self._find()
        if made is not None:
            self.vendor.delete(f"{self.thing}s", made["id"], key=self.context.idempotency_key)
            self.logger.info("%s %s is deleted", self.thing, made["id"])
        return BackgroundResponse.done()

    def _find(self) -> dict[str, Any] | None:
        return self.vendor.find(f"{self.thing}s", key=self.context.execute_key)

    def _keep(self, made: dict[str, Any]) -> None:
        self.context.state[f"{self.thing}_id"] = made["id"]
        self.logger.info("%s %s is there", self.thing, made["id"])


class CreateCustomer(CreateAtVendor):
    """Make the end customer's account at the vendor."""

    thing = "customer"

    def order(self, request: dict[str, Any]) -> dict[str, Any]:
        customer = request["asset"]["tiers"]["customer"]
        return {
            "name": customer["name"],
            "email": _param(request["asset"], "admin_email"),
            "country": customer["contact_info"]["country"],
        }


class CreateSubscription(CreateAtVendor):
    """Order the items for that customer."""

    thing = "subscription"

    def order(self, request: dict[str, Any]) -> dict[str, Any]:
        ordered = request["asset"]["items"]
        items = [{"mpn": item["mpn"], "quantity": int(item["quantity"])} for item in ordered]
        return {
            "customer_id": self.context.state["customer_id"],
            "items": [item for item in items if item["quantity"] > 0],
        }


class FillParameters(BackgroundTransaction):
    """Write into the asset what the vendor answered; the undo writes back what was there before."""

    retry = _CONNECT_RETRY

    def __init__(self, client: ConnectClient, logger: _Logger, context: SagaContext) -> None:
        self.client = client
        self.logger = logger
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        state = self.context.state
        values = {"customer_id": state["customer_id"], "subscription_id": state["subscription_id"]}
        # The first attempt's answer is kept: a later one would take its own new values for the former ones.
        if "parameters_before" not in state:
            state["parameters_before"] = {name: _param(request["asset"], name) for name in values}
            self.context.save()
        self._write(request["id"], values)
        self.logger.info("the parameters %s are filled in", ", ".join(values))
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        if "parameters_before" in self.context.state:
            self._write(request["id"], self.context.state["parameters_before"])
            self.logger.info("the parameters have their former values")
        return BackgroundResponse.done()

    def _write(self, request_id: str, values: dict[str, str]) -> None:
        params = [{"id": name, "value": value} for name, value in values.items()]
        self.client.requests[request_id].update({"asset": {"params": params}})


class ApproveRequest(BackgroundTransaction):
    """Tell Connect that the order is fulfilled. There is no way back from there, so there is no undo."""

    retry = _CONNECT_RETRY

    def __init__(self, client: ConnectClient, logger: _Logger, config: dict[str, Any]) -> None:
        self.client = client
        self.logger = logger
        self.config = config

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        template = {"template_id": self.config["APPROVE_TEMPLATE_ID"]}
        self.client.requests[request["id"]]("approve").post(template)
        self.logger.info("%s is approved", request["id"])
        return BackgroundResponse.done()

    def probe(self, request: dict[str, Any]) -> Probe:
        try:
            status = self.client.requests[request["id"]].get()["status"]
        except ClientError:
            return Probe.UNKNOWN
        return Probe.DONE if status == "approved" else Probe.NOT_DONE

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        raise e


def _problems(asset: dict[str, Any]) -> list[str]:
    problems = [] if "@" in _param(asset, "admin_email") else ["admin_email is no e-mail address"]
    quantities = [item["quantity"] for item in asset["items"]]
    if not all(quantity.isdecimal() for quantity in quantities):
        problems.append(f"a quantity is no whole number: {', '.join(quantities)}")
    elif not any(int(quantity) for quantity in quantities):
        problems.append("nothing is ordered: every quantity is 0")
    return problems


def _param(asset: dict[str, Any], name: str) -> str:
    """Give a parameter's value; empty if it has none."""
    return next((param["value"] or "" for param in asset["params"] if param["id"] == name), "")
