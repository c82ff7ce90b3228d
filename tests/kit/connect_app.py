"""An events application as an extension has it, and a ledger of the calls of its steps, for tests with real processes.

Usage: connect_app.py FOLDER KEY...: deliver requests in a process of its own; journal and ledger are in the folder.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from saga_engine import Saga, SagaContext
from saga_engine.connect import SagaEventsApplication
from transactions import BackgroundTransaction

__all__ = ["PurchaseApplication", "calls_in", "deliver"]


def calls_in(folder: Path) -> list[tuple[str, int]]:
    """List the calls of the step so far: execution, process."""
    ledger = folder / "ledger"
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [(saga_id, int(pid)) for saga_id, pid in (line.split() for line in lines)]


class Buy(BackgroundTransaction):
    """Writes a line into the ledger."""

    def __init__(self, config: dict[str, Any], context: SagaContext) -> None:
        self.folder, self.context = Path(config["FOLDER"]), context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        with (self.folder / "ledger").open("a") as ledger:
            ledger.write(f"{self.context.saga_id} {os.getpid()}\n")
        return BackgroundResponse.done()


class PurchaseSaga(Saga):
    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Buy]


class PurchaseApplication(SagaEventsApplication):
    asset_purchase_request_processing = PurchaseSaga


def deliver(folder: Path | str, key: str) -> str:
    """Deliver a request as the runner does, to a new instance; give the status of the answer."""
    config = {"SAGA_JOURNAL_URL": f"sqlite:///{folder}/saga.db", "FOLDER": str(folder)}
    application = PurchaseApplication(None, logging.getLogger("test"), config)
    response = application.asset_purchase_request_processing({"id": key})
    return str(response.status)


if __name__ == "__main__":
    sys.exit(0 if {deliver(sys.argv[1], key) for key in sys.argv[2:]} == {"success"} else 1)
