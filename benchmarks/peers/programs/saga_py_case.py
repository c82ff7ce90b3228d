"""saga-py: a saga of five actions with their compensations, built for each run, in the callers' threads."""

from __future__ import annotations

from collections.abc import Callable

from saga import SagaBuilder, SagaError

from benchmarks.load import in_threads
from benchmarks.peers.programs.order import FAILING, STEPS, check_undone, read_order, tell

_undone: list[int] = []


def _do() -> None:
    return None


def _fail() -> None:
    raise ValueError("the fifth step fails")


def _undo_of(number: int) -> Callable[[], None]:
    return lambda: _undone.append(number)


def _run(saga: int) -> None:
    builder = SagaBuilder.create()
    for number in range(1, STEPS + 1):
        is_failing = (saga, number) == (FAILING, STEPS)
        builder = builder.action(_fail if is_failing else _do, _undo_of(number))
    builder.build().execute()


def _check() -> None:
    try:
        _run(FAILING)
    except SagaError:
        check_undone(_undone)
    else:
        raise RuntimeError("the saga whose fifth step fails did not raise")


if __name__ == "__main__":
    order = read_order()
    _check()
    tell(in_threads(_run, order.at_once, order.seconds), "saga-py")
