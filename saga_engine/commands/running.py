"""Commands that run sagas: one delivery, a worker, a recovery."""

from __future__ import annotations

import logging

import click

from saga_engine.board import board_for
from saga_engine.command import (
    EPILOG,
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_LATER,
    Stopped,
    configured,
    opened,
    print_json,
    shared,
)
from saga_engine.commands.standing import how_to_go_on, tell_end, tell_record, typed
from saga_engine.delivery import Delivery, import_saga, import_sagas, read_request
from saga_engine.engine import Engine, Recovered
from saga_engine.narration import one_line
from saga_engine.record import SagaRecord

__all__ = ["recover", "run", "worker"]

#: How many plain steps a worker runs at once at least; more if it may carry on more executions than that.
_THREADS_MIN = 64


@click.command(epilog=EPILOG)
@click.argument("target")
@click.argument("request_file", metavar="REQUEST.json")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait out every suspension, until the execution is over.")
@shared
def run(target: str, request_file: str, is_waiting: bool, url: str, is_json: bool) -> int:
    """Deliver a request to a saga, and carry its execution on as far as it goes now.

    TARGET is the saga, MODULE:CLASS. REQUEST.json is a file, or - for standard input. Delivering a request again goes
    on with its execution; if that is over, it gives the recorded answer. What the steps need comes from the saga's
    own services(record).
    """
    saga = import_saga(target)
    request = read_request(request_file)
    with opened(url, is_json, is_live=True) as (engine, progress):
        delivery = Delivery(engine, progress, saga, request)
        try:
            with progress:
                response = delivery.until_over() if is_waiting else delivery.once()
        except Stopped as stopped:
            stopped.how_to_go_on = how_to_go_on(engine, delivery.saga_id, url)
            raise
        record = engine.get(delivery.saga_id)
        if record.status.is_ended and not progress.is_moved and not is_json:
            click.echo(f"{record.saga_id} was over already: no step was run.")
        return tell_end(record, response, url, is_json)


@click.command(epilog=EPILOG)
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option(
    "--concurrency",
    "concurrency_max",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="How many executions are carried on at once.",
)
@click.option(
    "--stop-timeout",
    "stop_timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="How long to wait for running steps when it is stopped.",
)
@click.option(
    "--poll",
    "poll_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="How often to look for what other processes left in the journal.",
)
@shared
def worker(
    targets: tuple[str, ...], concurrency_max: int, stop_timeout_s: float, poll_s: float, url: str, is_json: bool
) -> int:
    """Carry on whatever can go on, until SIGTERM or Ctrl-C.

    TARGET is a saga, MODULE:CLASS, or a MODULE that has some; the sagas of plugins need none. What is due, was left by
    a dead process or has mail is taken up, also of other sagas that can be imported. Several workers may share one
    journal. A first signal stops it gracefully: nothing new starts, running steps are waited for, the rest is given
    back. A second one does not wait.
    """
    sagas = [saga for target in targets for saga in import_sagas(target)]
    board = board_for(is_json)
    engine = Engine(
        url,
        sagas=sagas,
        concurrency_max=concurrency_max,
        threads_max=max(_THREADS_MIN, concurrency_max),
        poll_s=poll_s,
        stop_timeout_s=0.0,  # `run` waits for running steps; closing the engine is not to wait for them once more
        observer=board.observe,
        **configured(),
    )
    with engine:
        engine.start_plugins()
        if configured():
            sagas.extend(engine.plugins.points.get("sagas"))
        if not sagas:
            raise click.UsageError("name a TARGET, or by --config a file whose plugins have sagas")
        board.begin(f"{', '.join(saga.__name__ for saga in sagas)} in {url}")
        with board:
            # Inside, because the board puts itself between standard error and whoever keeps a hold of it.
            logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
            left = _until_stopped(engine, stop_timeout_s)
        if board.broken is not None:
            raise board.broken
        board.finish()
    if left:
        click.echo(f"saga: {_left(left, stop_timeout_s)}", err=True)
    return EXIT_LATER if left else EXIT_DONE


def _until_stopped(engine: Engine, stop_timeout_s: float) -> int:
    try:
        return engine.run(stop_timeout_s)
    except Stopped as stopped:  # for the second time
        stopped.how_to_go_on = "what was in a step then is left: the next worker goes on from there"
        raise


def _left(count: int, stop_timeout_s: float) -> str:
    were = "execution was" if count == 1 else "executions were"
    return (
        f"{count} {were} still in a step after {stop_timeout_s:g} s: its outcome is unknown, the next worker goes on "
        "from there; --stop-timeout waits longer"
    )


@click.command(epilog=EPILOG)
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@shared
def recover(targets: tuple[str, ...], url: str, is_json: bool) -> int:
    """Take up every unfinished execution that nobody holds and that can go on.

    Sagas are found by the names that the journal has for them; a TARGET (MODULE:CLASS, or MODULE) is only needed for
    one that has moved. Waits are not waited out. Left alone is what lacks its saga, one of its steps, or
    services(record).
    """
    sagas = [saga for target in targets for saga in import_sagas(target)]
    with opened(url, is_json, must_exist=True, sagas=sagas) as (engine, progress):
        try:
            recovered = engine.recover()
        except Stopped as stopped:
            stopped.how_to_go_on = f"what is left goes on with: {typed('recover', *targets, url=url)}"
            raise
        records = [engine.get(saga_id) for saga_id in progress.timelines]
    if is_json:
        counts = {"taken": int(recovered), "left_alone": recovered.left_alone, "failed": recovered.failed}
        executions = [{"saga_id": record.saga_id, "status": record.status.value} for record in records]
        print_json({**counts, "executions": executions, "reasons": dict(recovered.reasons)})
    else:
        _tell_recovered(recovered, records, url)
    if recovered.failed:
        return EXIT_ERROR
    return EXIT_LATER if recovered.left_alone else EXIT_DONE


def _tell_recovered(recovered: Recovered, records: list[SagaRecord], url: str) -> None:
    for record in records:
        tell_record(record, url)
    for saga_id, reason in recovered.reasons.items():
        click.echo(one_line(f"{saga_id}: not taken up: {reason}"))
    click.echo(f"Taken up {int(recovered)}, left alone {recovered.left_alone}, failed {recovered.failed}.")
