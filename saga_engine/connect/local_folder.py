"""The folder of a local Connect: nobody else's while it runs, and nobody's files are removed from it but its own."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from saga_engine.connect.local_errors import BadFolder

__all__ = ["occupy"]

#: Held while a local Connect runs. It stays, and marks the folder as one whose files may be removed.
_LOCK = "connect.lock"
_FILES = ("runner.log", "saga.db", "saga.db-shm", "saga.db-wal", "state.db", "state.db-journal", "trusted.pem")
_ENTRY_POINTS = "entry_points"
_NO_URL = frozenset("#?%")


def occupy(folder: Path, *, is_fresh: bool) -> BinaryIO:
    """Have a folder for one local Connect alone.

    Args:
        folder: made if missing.
        is_fresh: remove what an earlier local Connect left there.

    Returns:
        What holds it: to be closed in the end.

    Raises:
        BadFolder: it cannot be written to; another local Connect runs there; or it was to be made fresh, and no local
            Connect was there before, but files are.
    """
    if set(str(folder.absolute())) & _NO_URL:
        raise BadFolder(f"{folder.absolute()} has one of # ? %, which the URL of a journal cannot have: name another")
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if is_fresh and not (folder / _LOCK).exists() and any(folder.iterdir()):
                raise BadFolder(f"{folder} holds other files: name a folder for the local Connect alone")
            lock = stack.enter_context((folder / _LOCK).open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_fresh:
                _clear(folder)
        except BlockingIOError as e:
            raise BadFolder(f"another local Connect runs in {folder}: name another folder, or end that one") from e
        except OSError as e:
            raise BadFolder(f"{folder} cannot be used: {e.strerror}: name a folder that can be written to") from e
        stack.pop_all()
        return lock


def _clear(folder: Path) -> None:
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    if (folder / _ENTRY_POINTS).exists():
        shutil.rmtree(folder / _ENTRY_POINTS)
    # Whoever keeps the folder around it under version control does not want it there.
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
