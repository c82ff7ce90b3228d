"""Ready transactions: approve, reject, inquire, write parameters; each knows from Connect itself what it has done.

They take asset requests and tier configuration requests, with a `ConnectClient` and with an `AsyncConnectClient`.
Derive from one to set its class attributes or to override what it asks for; its name is then that of your class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connect.client import ClientError
from connect.eaas.core.responses import BackgroundResponse
from tenacity import retry_if_exception_type, wait_exponential_jitter

from saga_engine.connect.actions import approving, failing, getting, inquiring, updating
from saga_engine.connect.api_errors import CONNECT_RETRY, RefusedByConnect, wait_as_connect_says
from saga_engine.connect.conversations import Conversation, Save, carry_out
from saga_engine.connect.parameters import Parameters
from saga_engine.connect.requests import ConnectRequest
from saga_engine.connect.tier_requests import view_of
from saga_engine.context import SagaContext
from saga_engine.errors import BadSetting, UndoRequested
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy, Suspend

__all__ = [
    "ApproveRequest",
    "ConnectStep",
    "InquireCustomer",
    "RejectRequest",
    "RejectWhenUndone",
    "UpdateParameters",
]

#: Connect answers these when a request does not stand as it must for an action.
_WRONG_STATUS = (400, 409)
#: How a request stands before anybody has approved or rejected it.
_OPEN = ("draft", "tiers_setup", "pending", "inquiring")
_APPROVED = ("approved", "scheduled")
_REASON_CHARS_MAX = 2_000


class ConnectStep(BackgroundTransaction):
    """What the ready transactions have in common: their services, their retries, their template.

    Class attributes:
        template_id: the template that the customer is shown: "TL-276-377-545".
        template_variable: the variable of the extension that holds the template's id; `template_id` goes first. With
            neither, Connect takes the product's own.

    Raises:
        BadSetting: the extension has no such variable; told before anything runs.
    """

    retry = CONNECT_RETRY
    compensation_retry = CONNECT_RETRY
    template_id: str | None = None
    template_variable: str | None = None

    def __init__(self, client: Any, logger: Any, config: Any, context: SagaContext) -> None:
        self.client = client
        self.logger = logger
        self.config: Mapping[str, Any] = config or {}
        self.context = context
        if not self.template_id and self.template_variable and not self.config.get(self.template_variable):
            raise BadSetting(
                f"{self.name()} wants the id of a template in the variable {self.template_variable}: set it in the "
                "extension's environment"
            )

    def template(self, request: dict[str, Any]) -> str | None:
        """Give the id of the template to use for this request; None: the product's own."""
        if self.template_id or not self.template_variable:
            return self.template_id
        return str(self.config[self.template_variable])

    def _carry_out(self, conversation: Conversation[Any]) -> Any:
        return carry_out(self.client, conversation)


class ApproveRequest(ConnectStep):
    """Approve the request in Connect: the point of no return.

    A crash after the approval does not approve again: Connect is asked how the request stands. If Connect says no (a
    required parameter has no value, say), the step answers `fail` with Connect's reason, and the saga is undone. While
    somebody has the customer asked, it waits for the next delivery. A refused key (401) is waited out, and parks in the
    end, as nothing can be told without one.
    """

    kind = Kind.PIVOT

    def execute(self, request: dict[str, Any]) -> Any:
        """Approve; done if it is approved already."""
        return self._carry_out(self._approving(view_of(request)))

    def probe(self, request: dict[str, Any]) -> Any:
        """Tell by the request's status whether it is approved."""
        return self._carry_out(_probing(view_of(request), _APPROVED, (*_OPEN, "failed")))

    def _approving(self, request: ConnectRequest) -> Conversation[BackgroundResponse | Suspend]:
        try:
            yield from approving(request, self.template(request.request))
        except RefusedByConnect as refusal:
            status = yield from _status_after(refusal, request)
            if status == "inquiring":
                self.logger.info("%s is inquiring: it is approved when the customer has answered", request.id)
                return Suspend(BackgroundResponse.done())
            if status not in _APPROVED:
                return BackgroundResponse.fail(f"{refusal}; the request is {status}")
        self.logger.info("%s is approved", request.id)
        return BackgroundResponse.done()


class RejectRequest(ConnectStep):
    """Reject the request in Connect and end the saga: what is listed behind it does not run.

    Put it before whatever has an effect, with a `should_execute` that finds the order impossible. To reject an order
    because the saga was undone, use `RejectWhenUndone`.

    Class attributes:
        reason: why, for whoever ordered.
    """

    kind = Kind.RETRIABLE
    # Here every refusal is waited out, since giving up would leave the request open.
    retry = RetryPolicy(
        wait=wait_as_connect_says(wait_exponential_jitter(initial=1, max=3600)),
        retry=retry_if_exception_type(ClientError),
    )
    reason: str = "The order cannot be carried out."

    def reason_for(self, request: dict[str, Any]) -> str:
        """Say why this request is rejected; by default, `reason`."""
        return self.reason

    def execute(self, request: dict[str, Any]) -> Any:
        """Reject, and answer `skip`; the same if it is rejected already."""
        return self._carry_out(self._rejecting(view_of(request)))

    def probe(self, request: dict[str, Any]) -> Any:
        """Tell by the request's status that it is not rejected.

        Never `DONE`: a step that is done lets the next one run. `execute` finds out by itself that nothing is left to
        do.
        """
        return self._carry_out(_probing(view_of(request), (), _OPEN))

    def _rejecting(self, request: ConnectRequest) -> Conversation[BackgroundResponse]:
        reason = self.reason_for(request.request)
        try:
            yield from failing(request, reason)
        except RefusedByConnect as refusal:
            status = yield from _status_after(refusal, request)
            if status != "failed":
                return BackgroundResponse.fail(f"{refusal}; the request is {status}")
        self.logger.info("%s is rejected: %s", request.id, reason)
        return BackgroundResponse.skip(f"{request.id} is rejected: {reason}")


class RejectWhenUndone(ConnectStep):
    """Listed first, it does nothing; its undo, which so comes last, rejects the request in Connect.

    So an order that was undone does not stay open in Connect. The request of an execution that had completed, and is
    undone later, is approved and stays so. One that somebody approved by hand while the saga turned back is for a
    person: the undo parks.
    """

    def reason_for(self, request: dict[str, Any], e: Exception) -> str:
        """Say why this request is rejected; by default, what made the saga turn back."""
        return str(e).strip() or type(e).__name__

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        """Do nothing."""
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        """Reject the request, unless it is rejected already, or what is undone had completed."""
        reason = self.reason_for(request, e)[:_REASON_CHARS_MAX]
        return self._carry_out(self._rejecting(view_of(request), reason, isinstance(e, UndoRequested)))

    def _rejecting(self, request: ConnectRequest, reason: str, had_completed: bool) -> Conversation[BackgroundResponse]:
        try:
            yield from failing(request, reason)
        except RefusedByConnect as refusal:
            status = yield from _status_after(refusal, request)
            if status in _OPEN:
                raise
            if status in _APPROVED and not had_completed:
                return BackgroundResponse.fail(f"{request.id} is {status} in Connect, but was undone: {reason}")
            self.logger.info("%s stays as it is: it is %s", request.id, status)
        else:
            self.logger.info("%s is rejected: %s", request.id, reason)
        return BackgroundResponse.done()


class InquireCustomer(ConnectStep):
    """Ask the customer for better parameters, and wait for the delivery that comes with them.

    Override `problems`. What it finds is written beside the values, the request is put into inquiring, and the
    execution waits, holding nothing. At the next delivery the problems are looked for anew: with none left the saga
    goes on, else the customer is asked again. Nobody is asked twice for one answer: how the request stands is looked
    up first.
    """

    def problems(self, request: dict[str, Any]) -> Mapping[str, str]:
        """Tell what is wrong: messages for the customer by the id of the parameter; empty: nothing is.

        By default, each required parameter of the ordering phase must have a value.
        """
        return dict.fromkeys(_unfilled(view_of(request).parameters), "A value is required.")

    def should_execute(self, request: dict[str, Any]) -> bool:
        """Tell whether there is anything to ask for."""
        return bool(self.problems(request))

    def execute(self, request: dict[str, Any]) -> Any:
        """Ask, and wait; done if the request has become good meanwhile, which is then taken over."""
        return self._carry_out(self._inquiring(view_of(request)))

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        """Do nothing: a question leaves nothing to undo."""
        return BackgroundResponse.done()

    def probe(self, request: dict[str, Any]) -> Any:
        """Tell by the request's status that nobody was asked; a customer who was asked has not answered yet."""
        return self._carry_out(_probing(view_of(request), (), ("draft", "tiers_setup", "pending")))

    def _inquiring(self, delivered: ConnectRequest) -> Conversation[BackgroundResponse | Suspend]:
        request = yield from getting(delivered)
        if request.status != "inquiring":
            problems = self.problems(request.request)
            if not problems:
                # The answer came while nobody was there: the later steps are to see it.
                delivered.request.clear()
                delivered.request.update(request.request)
                return BackgroundResponse.done()
            try:
                yield from inquiring(request, self.template(request.request), problems)
            except RefusedByConnect as refusal:
                status = yield from _status_after(refusal, request)
                if status != "inquiring":
                    return BackgroundResponse.fail(f"{refusal}; the request is {status}")
            self.logger.info("the customer of %s is asked for %s", request.id, ", ".join(problems))
        return Suspend(BackgroundResponse.done())


class UpdateParameters(ConnectStep):
    """Write parameters of the request in Connect: those that differ there; the undo writes the old values back.

    Override `values`, or let earlier steps fill `context.state["parameters"]`. Of a request that somebody has approved
    by hand, Connect takes no changes: that is logged, and the saga goes on. The undo leaves alone what somebody has
    changed since, and the request that was rejected, or that was approved by an execution which had completed: Connect
    takes no changes of either.
    """

    def values(self, request: dict[str, Any]) -> Mapping[str, Any]:
        """Give the values to write, by the id of the parameter; by default `context.state["parameters"]`."""
        values: Mapping[str, Any] = self.context.state.get("parameters", {})
        return values

    def execute(self, request: dict[str, Any]) -> Any:
        """Write what differs; nothing differs: nothing is sent."""
        return self._carry_out(self._writing(view_of(request), self.values(request)))

    def probe(self, request: dict[str, Any]) -> Any:
        """Compare what is there with what is to be there."""
        return self._carry_out(self._comparing(view_of(request), self.values(request)))

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        """Write back what was there before."""
        return self._carry_out(self._writing_back(view_of(request), isinstance(e, UndoRequested)))

    @property
    def _key(self) -> str:
        """Where in the state the undo finds what was there before."""
        return f"{self.name()}: parameters"

    def _writing(self, delivered: ConnectRequest, values: Mapping[str, Any]) -> Conversation[BackgroundResponse]:
        request = yield from getting(delivered)
        before = {name: request.value(name) for name in values}
        for name, value in values.items():
            request.set_value(name, value)
        changed = [param["id"] for param in request.changed_parameters()]
        if changed:
            # Of several attempts the first one counts: what a later one finds may be what that one wrote.
            noted = self.context.state.setdefault(self._key, {})
            for name in changed:
                first = noted.get(name, {}).get("before", before[name])
                noted[name] = {"before": first, "after": request.value(name)}
            yield Save(self.context)
            yield from self._sending(request, ", ".join(changed))
        return BackgroundResponse.done()

    def _sending(self, request: ConnectRequest, names: str) -> Conversation[None]:
        try:
            yield from updating(request)
        except RefusedByConnect as refusal:
            status = yield from _status_after(refusal, request)
            if status not in _APPROVED:
                raise
            # What the customer has by now must not be taken away for the sake of a parameter.
            self.logger.warning(
                "%s is %s already: the parameters %s are not written: %s", request.id, status, names, refusal
            )
        else:
            self.logger.info("%s: the parameters %s are written", request.id, names)

    def _comparing(self, delivered: ConnectRequest, values: Mapping[str, Any]) -> Conversation[Probe]:
        request = yield from getting(delivered)
        for name, value in values.items():
            request.set_value(name, value)
        return Probe.NOT_DONE if request.changed_parameters() else Probe.DONE

    def _writing_back(self, delivered: ConnectRequest, had_completed: bool) -> Conversation[BackgroundResponse]:
        noted: dict[str, Any] = self.context.state.get(self._key, {})
        if noted:
            request = yield from getting(delivered)
            if request.status == "failed" or (had_completed and request.status in _APPROVED):
                self.logger.info("%s is %s: its parameters stay as they are", request.id, request.status)
            else:
                ours = {name: was["before"] for name, was in noted.items() if request.value(name) == was["after"]}
                sent = yield from updating(request, ours)
                names = ", ".join(param["id"] for param in sent) or "none"
                self.logger.info("%s: parameters that have their former values again: %s", request.id, names)
            self.context.state.pop(self._key)  # what runs again after its undo begins anew
        return BackgroundResponse.done()


def _probing(request: ConnectRequest, done: tuple[str, ...], not_done: tuple[str, ...]) -> Conversation[Probe]:
    """Tell by the status that a request has in Connect now; what raises is unknown to the engine."""
    status = (yield from getting(request)).status
    return Probe.DONE if status in done else Probe.NOT_DONE if status in not_done else Probe.UNKNOWN


def _status_after(refusal: RefusedByConnect, request: ConnectRequest) -> Conversation[str]:
    """Ask how a request stands for which Connect refused an action.

    Raises:
        RefusedByConnect: the refusal itself, if it is not about the request.
    """
    if refusal.status_code not in _WRONG_STATUS:
        raise refusal
    return (yield from getting(request)).status


def _unfilled(parameters: Parameters) -> list[str]:
    return [
        name
        for name in parameters
        if parameters[name].get("phase", "ordering") == "ordering"
        and (parameters[name].get("constraints") or {}).get("required")
        and parameters.value(name, None) is None
    ]
