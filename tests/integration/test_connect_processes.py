"""The journal of handlers: opened at the first delivery, once per process, and anew after a fork and a spawn."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import connect_app
import pytest
from connect_app import PurchaseApplication, calls_in, deliver

from saga_engine import Engine, SagaStatus, default_engine

LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Any, Engine]]:
    """The default engines that this process makes in the test."""
    made: dict[Any, Engine] = {}
    monkeypatch.setattr("saga_engine.engine._engines", made)
    yield made
    for (pid, *_), engine in made.items():
        if pid == os.getpid():
            engine.close()


def statuses_in(folder: Path) -> dict[str, SagaStatus]:
    with Engine(f"sqlite:///{folder}/saga.db") as engine:
        return {record.saga_id: record.status for record in engine.search()}


def test_nothing_is_opened_before_the_first_delivery_and_once_by_many(
    tmp_path: Path, engines: dict[Any, Engine]
) -> None:
    PurchaseApplication(None, None, {"SAGA_JOURNAL_URL": f"sqlite:///{tmp_path}/saga.db"})
    assert engines == {}
    assert list(tmp_path.iterdir()) == []
    threads = [threading.Thread(target=deliver, args=(tmp_path, f"PR-{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(engines) == 1
    assert len(calls_in(tmp_path)) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("is_opened_before", [True, False])
def test_a_forked_process_opens_the_journal_anew(
    tmp_path: Path, engines: dict[Any, Engine], is_opened_before: bool
) -> None:
    if is_opened_before:
        deliver(tmp_path, "PR-parent")
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=deliver, args=(tmp_path, f"PR-{number}")) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(LIMIT_S)
    assert [child.exitcode for child in children] == [0, 0]
    deliver(tmp_path, "PR-after")
    assert len(engines) == 1
    keys = ["0", "1", "after", *(["parent"] if is_opened_before else [])]
    assert statuses_in(tmp_path) == {f"PurchaseSaga:PR-{key}": SagaStatus.COMPLETED for key in keys}
    by_key = dict(calls_in(tmp_path))
    assert [by_key[f"PurchaseSaga:PR-{number}"] for number in range(2)] == [child.pid for child in children]


def _exit_1_if_inherited(inherited: Engine, folder: Path) -> None:
    sys.exit(1 if default_engine({"SAGA_JOURNAL_URL": f"sqlite:///{folder}/saga.db"}) is inherited else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_leaves_its_parents_engine_alone(tmp_path: Path, engines: dict[Any, Engine]) -> None:
    deliver(tmp_path, "PR-1")
    (engine,) = engines.values()
    child = multiprocessing.get_context("fork").Process(target=_exit_1_if_inherited, args=(engine, tmp_path))
    child.start()
    child.join(LIMIT_S)
    assert child.exitcode == 0


def test_a_spawned_process_opens_the_journal_and_knows_what_others_did(tmp_path: Path) -> None:
    deliver(tmp_path, "PR-1")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, connect_app.__file__, str(tmp_path), "PR-1", "PR-2"]
    subprocess.run(command, check=True, timeout=LIMIT_S, env=environment)
    assert [saga_id for saga_id, _ in calls_in(tmp_path)] == ["PurchaseSaga:PR-1", "PurchaseSaga:PR-2"]
    assert len({pid for _, pid in calls_in(tmp_path)}) == 2
