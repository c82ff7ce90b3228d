"""The file of the SQLite journal: what may be opened, how it is created and migrated, and what its errors mean."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

from saga_engine.errors import (
    BadJournalURL,
    CorruptJournal,
    ForeignJournal,
    JournalError,
    JournalUnavailable,
    NewerJournal,
    UnsafeFileSystem,
)

__all__ = [
    "APPLICATION_ID",
    "BUSY_MAX_S",
    "begin",
    "connect",
    "file_system_of",
    "migrations",
    "open_file",
    "opening",
    "path_of",
    "refuse_unsafe_file_system",
    "translated",
]

#: Marks a database as ours: "saga" in ASCII.
APPLICATION_ID = 0x73616761

#: How long a write waits for the writers of other processes before it gives up.
BUSY_MAX_S = 30.0

#: WAL needs memory that all processes share, and locks that work: on these, neither is sure.
#: 9p and virtiofs are not listed: under WSL, gVisor and in virtual machines one kernel serves all processes there, and
#: where it cannot share memory, SQLite fails at once and aloud instead of corrupting the file.
_UNSAFE_FILE_SYSTEMS = frozenset(
    {"afs", "ceph", "cifs", "davfs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb", "smb2", "smb3"}
    | {"smbfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"}
)

_MAGIC = b"SQLite format 3\x00"

#: Held while a journal is opened. Closing any descriptor of a file drops all locks that the process has on it, so
#: nobody may open the file through SQLite while another thread creates it.
opening = threading.RLock()


def path_of(url: str) -> str:
    """Give the absolute path that a `sqlite:///` URL names.

    Raises:
        BadJournalURL: it names no file.
    """
    scheme, _, path = url.partition("://")
    if scheme != "sqlite" or not path.startswith("/"):
        raise BadJournalURL(f"{url!r}: write three slashes before a relative path, four before an absolute one")
    if path in ("/", "/:memory:"):
        raise BadJournalURL(f"{url!r} names no file: write sqlite:///path/to/file.db, or memory:// for no file at all")
    if "?" in path or "#" in path or "\x00" in path:
        raise BadJournalURL(f"{url!r}: a journal URL takes no options, write sqlite:///path/to/file.db")
    return os.path.abspath(path[1:])


def open_file(path: str) -> sqlite3.Connection:
    """Open the journal for writing; create or migrate it first.

    Raises:
        JournalError: one of its kinds, see `open_journal`.
    """
    _check_place(path)
    with opening, translated(path):
        _create(path)
        connection = connect(path)
        try:
            _adopt(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def connect(path: str) -> sqlite3.Connection:
    """Open one more connection to a journal that is there, durable to the disk at each commit."""
    connection = sqlite3.connect(path, timeout=BUSY_MAX_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        # On macOS, fsync leaves the data in the drive's cache; elsewhere these two do nothing.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        # Gives the space of a grown write-ahead log back; in bytes.
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except BaseException:
        connection.close()
        raise
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, waiting for other processes up to `BUSY_MAX_S`.

    Raises:
        sqlite3.OperationalError: they did not finish.
    """
    until = time.monotonic() + BUSY_MAX_S
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            # SQLite itself waits, except where it fears a deadlock; there it says so at once.
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.001)


# --- before it is opened ------------------------------------------------------------------------------------------


def _check_place(path: str) -> None:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise JournalUnavailable(f"{path}: the directory {directory} does not exist, create it first")
    if os.path.isdir(path):
        raise JournalUnavailable(f"{path} is a directory: name a file in it")
    refuse_unsafe_file_system(path)
    for place in (directory, path):
        if os.path.exists(place) and not os.access(place, os.W_OK):
            raise JournalUnavailable(
                f"{path}: {place} is read-only for this user, and even reading the journal needs to write next to it: "
                f"allow it, or copy the file to a writable directory"
            )


def refuse_unsafe_file_system(path: str, mountinfo: str = "/proc/self/mountinfo") -> None:
    """Refuse a file system on which write-ahead logging may lose or corrupt data.

    Args:
        path: the journal file, which need not be there yet.
        mountinfo: where the kernel lists the mounts; a missing one (not Linux) refuses nothing.
    """
    try:
        mounts = Path(mountinfo).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    file_system = file_system_of(path, mounts)
    if file_system in _UNSAFE_FILE_SYSTEMS:
        raise UnsafeFileSystem(
            f"{path} lies on {file_system}, where write-ahead logging is not safe: put the journal on a local disk"
        )


def file_system_of(path: str, mounts: str) -> str:
    """Give the type of the file system that holds the path, from the text of /proc/self/mountinfo."""
    place = os.path.realpath(path)
    found, found_length = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        inside = place == mount_point or place.startswith(mount_point.rstrip("/") + "/")
        # Of two mounts on one place, the later one is seen.
        if inside and len(mount_point) >= found_length:
            found, found_length = after.split(" ")[0], len(mount_point)
    return found


def _create(path: str) -> None:
    """Create the file for its owner alone; SQLite gives the files next to it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise JournalUnavailable(f"{path} cannot be created: {error.strerror}") from error


# --- when it is opened --------------------------------------------------------------------------------------------


def _adopt(connection: sqlite3.Connection, path: str) -> None:
    """Make sure that the file is ours before anything in it changes, and bring it up to date."""
    known = migrations()
    if _version(connection, path, known) == 0:
        _check_empty(connection, path)
    _switch_to_wal(connection)
    _migrate(connection, path, known)


def _version(connection: sqlite3.Connection, path: str, known: dict[int, str]) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id not in (0, APPLICATION_ID) or (version and application_id != APPLICATION_ID):
        raise _foreign(path)
    if version > max(known):
        raise NewerJournal(
            f"{path} has version {version}, this release reads up to {max(known)}: upgrade saga-engine, "
            f"or open another journal"
        )
    return version


def _check_empty(connection: sqlite3.Connection, path: str) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise _foreign(path)


def _foreign(path: str) -> ForeignJournal:
    return ForeignJournal(f"{path} is not a journal of saga-engine: it was left as it is, name another file")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Use a write-ahead log; SQLite does not wait here by itself while another process does the same."""
    until = time.monotonic() + BUSY_MAX_S
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.001)
            continue
        if mode != "wal":
            raise JournalUnavailable(f"SQLite cannot keep a write-ahead log here (mode {mode}): use a local disk")
        return


def migrations() -> dict[int, str]:
    """Give the migrations: number to script."""
    folder = resources.files("saga_engine.journals").joinpath("migrations", "sqlite")
    scripts = {script.name: script for script in folder.iterdir() if script.name.endswith(".sql")}
    return {int(name[:3]): scripts[name].read_text(encoding="utf-8") for name in sorted(scripts)}


def _migrate(connection: sqlite3.Connection, path: str, known: dict[int, str]) -> None:
    """Bring the file to the latest version, in one transaction."""
    if _version(connection, path, known) == max(known):
        return
    begin(connection)
    try:
        # Another process may have done it while this one waited.
        version = _version(connection, path, known)
        if version == 0:
            _check_empty(connection, path)
        for number in sorted(known):
            if number > version:
                _run_script(connection, known[number])
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {max(known)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements one by one: `executescript` would commit the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


# --- what SQLite's errors mean ------------------------------------------------------------------------------------


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn SQLite's errors into ours, with the path and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translation(error, path) from error


def _translation(error: sqlite3.Error, path: str) -> JournalError:
    # By text, because Python 3.10 does not tell SQLite's error code.
    text = str(error)
    if "file is not a database" in text:
        return _not_a_database(path)
    if "malformed" in text:
        return CorruptJournal(f"{path} is damaged ({text}): restore it from a backup")
    for part, advice in _ADVICE.items():
        if part in text:
            return JournalUnavailable(f"{path}: {text}; {advice}")
    return JournalUnavailable(f"{path}: {text}")


_ADVICE = {
    "full": "free some space on that disk, nothing that was journaled is lost",
    "disk I/O error": "look at that disk and its free space, nothing that was journaled is lost",
    "readonly": "allow this user to write the file and its directory",
    "unable to open": "allow this user to read and write the file and its directory",
    "locked": f"another process has held it for {BUSY_MAX_S:g} s: find out which, and end it",
}


def _not_a_database(path: str) -> JournalError:
    # Nobody can hold a lock on a file that is no database, so reading it here drops none.
    with closing(open(path, "rb")) as file:
        is_sqlite = file.read(len(_MAGIC)) == _MAGIC
    if is_sqlite:
        return CorruptJournal(f"{path} is damaged (its header cannot be read): restore it from a backup")
    return _foreign(path)
