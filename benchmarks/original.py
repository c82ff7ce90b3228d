"""Leaves one execution in a new journal, so that it can be copied: `python -m benchmarks.original STANDING URL`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from benchmarks.filling import SAGAS
from benchmarks.sagas import SYNC_STEPS
from saga_engine import Engine
from saga_engine.journal import Entry, StepStarted

_STEP_OF_DEATH = SYNC_STEPS[2].__name__


def _die_in_third_step(saga_id: str, entries: Sequence[Entry]) -> None:
    """As the engine's observer: end the process once the third step's start is on disk, as a kill would."""
    if any(isinstance(entry, StepStarted) and entry.step == _STEP_OF_DEATH for entry in entries):
        print(saga_id, flush=True)
        os._exit(0)


def main(standing: str, url: str) -> None:
    """Drive one execution as far as it is to go."""
    saga = next(saga for name, saga in SAGAS.items() if name == standing)
    with Engine(url, observer=_die_in_third_step if standing == "unfinished" else None) as engine:
        saga.make({}, engine=engine).resolve({"id": standing})
    print(standing)


if __name__ == "__main__":
    main(*sys.argv[1:])
