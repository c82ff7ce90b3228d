"""The sweeper: what a schedule of the extension runs to carry on executions that Connect does not deliver again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Any

from connect.client import AsyncConnectClient, ConnectClient
from connect.eaas.core.responses import ScheduledExecutionResponse

from saga_engine.engine import Engine, default_engine
from saga_engine.recovery import Recovered, ServicesOf
from saga_engine.runner_limits import schedule_budget_s
from saga_engine.saga import Saga

__all__ = ["asweep", "sweep"]

#: Of how many executions the response says what is wrong; the log and `saga list --stuck` say it of all.
_REASONS_TOLD_MAX = 5

#: The sagas of an application, and which of them are async.
Sagas = Mapping[type[Saga], bool]


def sweep(application: Any, sagas: Sagas) -> ScheduledExecutionResponse:
    """Take up, in this thread, what is due, was left by a dead process, or has mail.

    Args:
        application: the instance that the runner made for this run of the schedule.
        sagas: its sagas, none of them async.

    Returns:
        Done, or fail if an execution raised an error or could not be driven; with the counts as its output.
    """
    engine, services = default_engine(application.config), _services_of(application, application.client)
    return _response(engine.recover(sagas=sagas, services=services, budget_s=schedule_budget_s()))


async def asweep(application: Any, sagas: Sagas) -> ScheduledExecutionResponse:
    """Do what `sweep` does where some sagas are async: those on this event loop, the others in a thread beside it.

    They may not be driven on a loop of another thread: all clients of one endpoint share their connections, and those
    belong to the loop of the runner.
    """
    engine, budget_s = default_engine(application.config), schedule_budget_s()
    found = await asyncio.gather(
        asyncio.to_thread(_recover_plain, engine, application, sagas, budget_s),
        engine.arecover(
            sagas=[saga for saga, is_async in sagas.items() if is_async],
            services=_services_of(application, application.client),
            budget_s=budget_s,
        ),
        return_exceptions=True,  # what one of them raises must not leave the other without anybody who waits for it
    )
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return _response(*(one for one in found if isinstance(one, Recovered)))


def _recover_plain(engine: Engine, application: Any, sagas: Sagas, budget_s: float) -> Recovered:
    plain = [saga for saga, is_async in sagas.items() if not is_async]
    services = _services_of(application, _plain_client(application.client))
    return engine.recover(sagas=plain, services=services, budget_s=budget_s)


def _services_of(application: Any, client: Any) -> ServicesOf:
    services = {"config": application.config, "client": client, "logger": application.logger}
    return lambda record: services


def _plain_client(client: Any) -> Any:
    """Make the client that plain steps call of the one that an async method of the extension gets."""
    if not isinstance(client, AsyncConnectClient):
        return client
    return ConnectClient(
        client.api_key,
        endpoint=client.endpoint,
        default_headers=dict(client.default_headers),
        default_limit=client.default_limit,
        max_retries=client.max_retries,
        logger=client.logger,
        timeout=client.timeout,
    )


def _response(*found: Recovered) -> ScheduledExecutionResponse:
    taken, left_alone, failed = sum(found), sum(one.left_alone for one in found), sum(one.failed for one in found)
    told = f"took up {taken}, left alone {left_alone}, failed {failed}"
    if any(one.is_out_of_time for one in found):
        told += "; its time was over, the next run goes on"
    reasons = {saga_id: why for one in found for saga_id, why in one.reasons.items()}
    told += "".join(f"; {saga_id}: {why}" for saga_id, why in islice(reasons.items(), _REASONS_TOLD_MAX))
    if left_alone or failed:
        return ScheduledExecutionResponse.fail(told)
    response = ScheduledExecutionResponse.done()
    response.output = told  # `done` takes none, but the runner passes on what there is
    return response
