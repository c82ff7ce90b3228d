"""A redis server for tests: the real one if this machine has it, and one that knows the few commands of the cache."""

from __future__ import annotations

import fnmatch
import os
import shutil
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["real_server", "real_server_command", "small_server"]

_DEADLINE_S = 10.0


def real_server_command() -> str | None:
    """Find the program: `REDIS_SERVER`, or `redis-server` on the path; None: there is none."""
    return os.environ.get("REDIS_SERVER") or shutil.which("redis-server")


@contextmanager
def real_server(command: str) -> Iterator[str]:
    """Run a real server on a socket in a directory of its own; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="redis") as directory:
        path = Path(directory) / "socket"
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", directory]
        with subprocess.Popen([command, *options], stdout=subprocess.DEVNULL) as process:
            try:
                _wait_for(path, process)
                yield f"unix://{path}"
            finally:
                process.terminate()


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    ends_at = time.monotonic() + _DEADLINE_S
    while not path.exists():
        assert process.poll() is None, f"redis-server ended with {process.returncode}"
        assert time.monotonic() < ends_at, "redis-server did not open its socket"
        time.sleep(0.01)


@contextmanager
def small_server() -> Iterator[str]:
    """Run a small server in a thread; gives its URL."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Connection) as server:
        server.daemon_threads = True
        server.values = _Values()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()


class _Values:
    """Values with the monotonic time at which they expire."""

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def answer(self, words: list[bytes]) -> bytes:
        """Carry out one command."""
        command = words[0].upper()
        with self._lock:
            if command == b"GET":
                return _bulk(self._get(words[1]))
            if command == b"SET":
                is_limited = len(words) > 4 and words[3].upper() == b"PX"
                ttl_s = int(words[4]) / 1000 if is_limited else float("inf")
                self._entries[words[1]] = (words[2], time.monotonic() + ttl_s)
                return b"+OK\r\n"
            if command == b"DEL":
                return b":%d\r\n" % sum(self._entries.pop(key, None) is not None for key in words[1:])
            if command == b"SCAN":
                return self._scan(words[3])
        return b"+OK\r\n" if command in (b"CLIENT", b"SELECT", b"PING") else b"-ERR unknown command\r\n"

    def _get(self, key: bytes) -> bytes | None:
        value, expires_at = self._entries.get(key, (None, 0.0))
        return value if time.monotonic() < expires_at else None

    def _scan(self, pattern: bytes) -> bytes:
        text = pattern.decode().replace("\\-", "-").replace("\\*", "[*]").replace("\\[", "[[]")
        found = [key for key in self._entries if fnmatch.fnmatchcase(key.decode(), text)]
        return b"*2\r\n" + _bulk(b"0") + b"*%d\r\n" % len(found) + b"".join(_bulk(key) for key in found)


def _bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        values: _Values = self.server.values  # type: ignore[attr-defined]
        while words := _command(self.rfile):
            self.wfile.write(values.answer(words))


def _command(file: Any | BinaryIO) -> list[bytes]:
    """Read a command: an array of bulk strings; an empty list at the end of the connection."""
    line = file.readline()
    words = []
    for _ in range(int(line[1:]) if line else 0):
        length = int(file.readline()[1:])
        words.append(file.read(length + 2)[:-2])
    return words
