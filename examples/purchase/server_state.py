"""What the example's other side remembers: what the local Connect does, and the vendor's objects."""

from __future__ import annotations

from saga_engine.connect.local_state import LocalState

__all__ = ["ServerState"]


class ServerState(LocalState):
    """The other side's state: one SQLite file, one connection, one caller at a time."""

    schema = (
        LocalState.schema
        + """
CREATE TABLE IF NOT EXISTS vendor_object (
    number      INTEGER PRIMARY KEY,
    collection  TEXT NOT NULL,
    key         TEXT NOT NULL,
    sent        TEXT NOT NULL,     -- the body that was posted, as JSON
    deleted     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (collection, key)       -- one key, one effect
);
"""
    )
