"""Commands that keep the journal: export one execution, purge those that ended long ago."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import click
import msgspec

from saga_engine.command import EPILOG, EXIT_DONE, opened, print_json, shared
from saga_engine.engine import Engine
from saga_engine.errors import BadRequest
from saga_engine.journal import Header

__all__ = ["export", "purge"]

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"^(\d+(?:\.\d+)?)([smhdw])$")

#: How many headers a dry run reads at a time.
_PAGE = 1_000


def _in_seconds(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    """Read a span of time as people write it: 30d, 12h."""
    match = _AGE.match(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no age: write a number and s, m, h, d or w, for example 30d")
    return float(match[1]) * _SECONDS[match[2]]


@click.command(epilog=EPILOG)
@click.option(
    "--older-than",
    "age_s",
    callback=_in_seconds,
    metavar="AGE",
    required=True,
    help="How long ago they ended at least: 30d, 12h.",
)
@click.option("--dry-run", "is_dry", is_flag=True, help="Only count what could be purged.")
@shared
def purge(age_s: float, is_dry: bool, url: str, is_json: bool) -> int:
    """Remove the entries of executions that ended longer ago.

    Of each stays how it ended, so that a redelivery still gets its answer. Works in small batches, between which
    others write. What is not over, or parked, is never purged.
    """
    with opened(url, is_json, must_exist=True) as (engine, _):
        count = _purgeable(engine, time.time() - age_s) if is_dry else engine.purge(age_s)
    if is_json:
        print_json({"purged": 0, "purgeable": count} if is_dry else {"purged": count})
    else:
        executions = "1 execution" if count == 1 else f"{count} executions"
        click.echo(f"Would purge {executions}, save any that got mail." if is_dry else f"Purged {executions}.")
    return EXIT_DONE


def _purgeable(engine: Engine, before: float) -> int:
    count, last = 0, None
    while headers := engine.journal.search(limit=_PAGE, before=last):
        last = headers[-1].eid
        count += sum(_is_purgeable(header, before) for header in headers)
    return count


def _is_purgeable(header: Header, before: float) -> bool:
    return header.status.is_ended and not header.is_purged and header.drive is None and header.updated_at < before


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@click.option("-o", "--output", metavar="FILE", help="Where to write it; by default, standard output.")
@shared
def export(saga_id: str, output: str | None, url: str, is_json: bool) -> int:
    """Write an execution as JSON that `saga replay`, `Engine.replay` and tests can read.

    It holds everything that is journaled, secrets too: only its owner can read the file.
    """
    with opened(url, is_json, must_exist=True) as (engine, _):
        document = engine.export(saga_id)
    if output is None:
        print_json(document)
        return EXIT_DONE
    _write(Path(output), msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    count = len(document["entries"])
    if is_json:
        print_json({"saga_id": document["saga_id"], "file": output, "entries": count})
    else:
        click.echo(f"{document['saga_id']}: {count} entries are in {output}, with the secrets that are in them.")
    return EXIT_DONE


def _write(path: Path, body: bytes) -> None:
    """Write a file that only its owner can read.

    Raises:
        BadRequest: it cannot be written there.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as written:
            os.fchmod(file, 0o600)  # also of a file that was there
            written.write(body)
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}: name a file that can be written") from error
