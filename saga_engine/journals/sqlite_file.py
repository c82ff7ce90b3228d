"""The file of the SQLite journal: what may be opened, how it is created and migrated, what its errors mean."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

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

#: How long one look for the lock may take: SQLite itself looks ever more rarely, and the unlucky starve.
_BUSY_LOOK_S = 0.05

#: WAL needs memory that all processes share, and locks that work: on these, neither is sure. 9p and virtiofs are not
#: among them: under WSL, gVisor and in virtual machines one kernel serves all processes there, and where it cannot
#: share memory, SQLite fails at once and aloud instead of corrupting the file.
_UNSAFE_FILE_SYSTEMS = frozenset(
    {
        "afs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
    }
)

_MAGIC = b"SQLite format 3\x00"

#: Held while a journal is opened. Closing any descriptor of a file drops all locks that the process has on it, so
#: nobody may open the file through SQLite while another thread creates it.
opening = threading.RLock()


def path_of(url: str) -> Path:
    """Give the absolute path that a `sqlite:///` URL names.

    Raises:
        BadJournalURL: it names no file.
    """
    scheme, _, path = url.partition("://")
    if scheme != "sqlite" or not path.startswith("/"):
        raise BadJournalURL(
            f"{url!r}: write sqlite:///relative/path.db or, with four slashes, sqlite:////absolute/path.db"
        )
    if path in ("/", "/:memory:"):
        raise BadJournalURL(f"{url!r} names no file: write sqlite:///path/to/file.db, or memory:// for no file")
    if "?" in path or "#" in path or "\x00" in path:
        raise BadJournalURL(f"{url!r}: a journal URL takes no options, write sqlite:///path/to/file.db")
    return Path(path[1:]).absolute()


def open_file(path: Path) -> sqlite3.Connection:
    """Open the journal for writing; create or migrate it first.

    Raises:
        JournalError: one of its kinds, see `open_journal`.
    """
    with opening, translated(path):
        _check_place(path)
        _create(path)
        connection = connect(path)
        try:
            _adopt(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def connect(path: Path) -> sqlite3.Connection:
    """Open one more connection to a file that is there, durable to the disk at each commit."""
    connection = sqlite3.connect(
        # Without the mode, SQLite would put an empty database in the place of a journal that was removed.
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=_BUSY_LOOK_S,
        isolation_level=None,
        check_same_thread=False,
    )
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
    _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))


def _patiently(look: Callable[[], object]) -> None:
    """Do what other processes may hinder, again and again up to `BUSY_MAX_S`."""
    until_s = time.monotonic() + BUSY_MAX_S
    while not _is_done(look, is_last=time.monotonic() > until_s):
        # SQLite waits by itself, except where it fears a deadlock; there it says so at once.
        time.sleep(0.001)


def _is_done(look: Callable[[], object], is_last: bool) -> bool:
    """Do it; tell whether nobody hindered it."""
    try:
        look()
    except sqlite3.OperationalError as error:
        if is_last or "locked" not in str(error):
            raise
        return False
    return True


# --- before it is opened -------------------------------------------------------------------------------------


def _check_place(path: Path) -> None:
    directory = path.parent
    if not directory.is_dir():
        raise JournalUnavailable(f"{path}: the directory {directory} does not exist, create it first")
    if path.is_dir():
        raise JournalUnavailable(f"{path} is a directory: name a file in it")
    refuse_unsafe_file_system(path)
    for place in (directory, path):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise JournalUnavailable(
                f"{path}: this user may not write {place}, and even reading a journal needs that: "
                f"allow it, or copy the file to a directory of this user"
            )


def refuse_unsafe_file_system(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Refuse a file system on which write-ahead logging may lose or corrupt data.

    Args:
        path: the journal file, which need not be there yet.
        mountinfo: where the kernel lists the mounts; a missing one (not Linux) refuses nothing.

    Raises:
        UnsafeFileSystem: the file lies, or would lie, on a network file system.
    """
    try:
        mounts = mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    file_system = file_system_of(path, mounts)
    if file_system in _UNSAFE_FILE_SYSTEMS:
        raise UnsafeFileSystem(
            f"{path} lies on {file_system}, where write-ahead logging is not safe: put it on a local disk"
        )


def file_system_of(path: Path, mounts: str) -> str:
    """Give the type of the file system that holds the path, from the text of /proc/self/mountinfo."""
    place = path.resolve()
    found, found_length = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        # Of two mounts on one place, the later one is seen.
        if place.is_relative_to(mount_point) and len(mount_point) >= found_length:
            found, found_length = after.split(" ")[0], len(mount_point)
    return found


def _create(path: Path) -> None:
    """Create the file for its owner alone; SQLite gives the files next to it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise JournalUnavailable(f"{path} cannot be created: {error.strerror}; use another place") from error


# --- when it is opened ---------------------------------------------------------------------------------------


def _adopt(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that the file is ours before anything in it changes, and bring it up to date."""
    known = migrations()
    with _one_moment(connection):
        _version(connection, path, known)
        _check_whole(connection, path)
    # SQLite does not wait here by itself while another process does the same.
    _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        raise JournalUnavailable(f"{path}: SQLite keeps no write-ahead log here ({mode}): use a local disk")
    if _version(connection, path, known) < max(known):
        _migrate(connection, path, known)


def _version(connection: sqlite3.Connection, path: Path, known: dict[int, str]) -> int:
    """Give the version of the file, 0 for an empty one; refuse what is not ours or newer than this release."""
    with _one_moment(connection):
        version = _pragma(connection, "user_version")
        application_id = _pragma(connection, "application_id")
        schema_version = _pragma(connection, "schema_version")
    is_ours = application_id == APPLICATION_ID and version > 0
    if not is_ours and (application_id or version or schema_version):
        raise _foreign(path)
    if version > max(known):
        raise NewerJournal(
            f"{path} has version {version}, this release reads up to {max(known)}: upgrade saga-engine, "
            f"or open another journal"
        )
    return version


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Read everything inside as of one moment: another process may be making this file a journal right now."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        # The first read is what takes the moment.
        _patiently(lambda: connection.execute("SELECT count(*) FROM sqlite_master"))
        yield
    finally:
        connection.execute("ROLLBACK")


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that ends in the middle of a page, which SQLite would fill up with zeros.

    While there is a write-ahead log this may be what a crash left, and SQLite takes the page from there.
    """
    log = path.with_name(f"{path.name}-wal")
    if path.stat().st_size % _pragma(connection, "page_size") and not (log.exists() and log.stat().st_size):
        raise CorruptJournal(f"{path} is damaged (its end is missing): restore it from a backup")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _foreign(path: Path) -> ForeignJournal:
    return ForeignJournal(f"{path} is not a journal of saga-engine: it was left as it is, name another file")


def migrations() -> dict[int, str]:
    """Give the migrations: number to script."""
    folder = resources.files("saga_engine.journals") / "migrations" / "sqlite"
    scripts = {script.name: script for script in folder.iterdir() if script.name.endswith(".sql")}
    return {int(name[:3]): scripts[name].read_text(encoding="utf-8") for name in sorted(scripts)}


def _migrate(connection: sqlite3.Connection, path: Path, known: dict[int, str]) -> None:
    """Bring the file to the latest version, in one transaction."""
    begin(connection)
    try:
        # Another process may have done it while this one waited.
        version = _version(connection, path, known)
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


# --- what SQLite's errors mean -------------------------------------------------------------------------------


def translated(path: Path) -> _Translating:
    """Turn SQLite's errors into ours, with the path and what to do."""
    return _Translating(path)


class _Translating:
    """The context of `translated`; a class, as it is around every transaction and a generator costs more."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise _translation(error, self._path) from error


_ADVICE = {
    "full": "free some space on that disk; nothing that was journaled is lost",
    "disk I/O error": "look at that disk and its free space; nothing that was journaled is lost",
    "readonly": "allow this user to write the file and its directory",
    "unable to open": "allow this user to read and write the file and its directory",
    "locked": f"another process has held it for {BUSY_MAX_S:g} s: find out which, and end it",
}


def _translation(error: sqlite3.Error, path: Path) -> JournalError:
    # By text, because Python 3.10 does not tell SQLite's error code.
    text = str(error)
    if "file is not a database" in text:
        return _not_a_database(path)
    if "malformed" in text:
        return CorruptJournal(f"{path} is damaged ({text}): restore it from a backup")
    advice = next((advice for part, advice in _ADVICE.items() if part in text), "see what SQLite says about it")
    return JournalUnavailable(f"{path}: {text}; {advice}")


def _not_a_database(path: Path) -> JournalError:
    # Nobody can hold a lock on a file that is no database, so reading and closing it here drops none.
    with path.open("rb") as file:
        is_sqlite = file.read(len(_MAGIC)) == _MAGIC
    if is_sqlite:
        return CorruptJournal(f"{path} is damaged (its header cannot be read): restore it from a backup")
    return _foreign(path)
