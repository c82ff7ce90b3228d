"""One execution as a JSON document: written by `Engine.export`, read back without any journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from saga_engine.decider import full_id, replay
from saga_engine.errors import BadExport, JournalError
from saga_engine.journal import ENTRY_VERSION, Entry, Header, Loaded, SagaStarted, as_builtins, decode_entries
from saga_engine.record import SagaRecord, as_record

__all__ = ["entries_of", "export_of", "record_of"]

_FORMAT = "saga-engine execution"
_VERSION = 1


def export_of(header: Header, loaded: Loaded) -> dict[str, Any]:
    """Give an execution as plain JSON values: its header, all entries, and the mail that nobody took in yet."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "entry_version": ENTRY_VERSION,
        "saga_id": full_id(header.saga_id, header.generation),
        "saga": header.saga,
        "status": header.status.value,
        "created_at": header.created_at,
        "updated_at": header.updated_at,
        "entries": [as_builtins(entry) for entry in loaded.entries],
        "inbox": [as_builtins(message.entry) for message in loaded.inbox],
    }


def entries_of(document: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Read the entries of an exported execution, oldest first.

    Raises:
        BadExport: the document is no export of an execution, a later release wrote it, or it was damaged.
    """
    if not isinstance(document, Mapping) or document.get("format") != _FORMAT:
        raise BadExport("this is no exported execution: give what Engine.export or saga export wrote")
    version, entry_version = document.get("version"), document.get("entry_version")
    if version != _VERSION or not isinstance(entry_version, int):
        raise BadExport(f"the export has version {version!r}, this release reads {_VERSION}: upgrade saga-engine")
    try:
        entries = decode_entries(msgspec.json.encode(document.get("entries")), entry_version)
    except JournalError as error:
        raise BadExport(f"the export cannot be read: {error}") from error
    if [isinstance(entry, SagaStarted) for entry in entries] != [True, *[False] * (len(entries) - 1)]:
        raise BadExport("the export must have one beginning: its first entry, and no other, is SagaStarted")
    planned = {step.name for step in entries[0].plan.steps}  # type: ignore[attr-defined]  # it is SagaStarted
    unknown = {step for entry in entries if (step := getattr(entry, "step", None))} - planned
    if unknown:
        raise BadExport(f"the export names steps that its plan does not have: {sorted(unknown)}")
    return entries


def record_of(document: Mapping[str, Any]) -> SagaRecord:
    """Replay an exported execution and give its record, as `Engine.get` gave it.

    Raises:
        BadExport: see `entries_of`.
    """
    entries = entries_of(document)
    state = replay(entries)
    header = Header(
        eid=0,
        saga_id=state.saga_id,
        generation=state.generation,
        saga=state.saga,
        status=state.status,
        epoch=0,
        created_at=document.get("created_at", state.started_at),
        updated_at=document.get("updated_at", state.at),
        response=state.response,
    )
    return as_record(header, state)
