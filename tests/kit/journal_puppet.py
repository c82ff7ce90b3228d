"""A process that uses a journal as it is told: one command a line on stdin, one answer a line on stdout."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator

from msgspec import Raw
from msgspec.structs import replace

from saga_engine.errors import JournalError, LeaseLost
from saga_engine.journal import Committed, SagaStatus, StateSaved
from saga_engine.journals import open_journal
from saga_engine.testing.journals import Scribe


class Puppet:
    """The commands; each returns its answer."""

    def __init__(self, url: str, lease_s: float, heartbeat_s: float) -> None:
        self._url = url
        self._options = {"lease_s": lease_s, "heartbeat_s": heartbeat_s}

    def open(self) -> str:
        self._journal = open_journal(self._url, **self._options)
        return "opened"

    def start(self, saga_id: str, exclusive: str | None = None) -> str:
        self._scribe = Scribe(self._journal, saga_id, f"d-{os.getpid()}").start(exclusive=exclusive)
        return f"started {self._scribe.eid}"

    def step(self, size_bytes: str = "0") -> str:
        body = b'"' + b"x" * int(size_bytes) + b'"'
        entry = StateSaved(at=2.0, step="pay", state=Raw(body))
        self._scribe.write(replace(self._scribe.next(), entries=(entry,)))
        return f"appended {self._scribe.seq}"

    def release(self) -> str:
        self._scribe.release(due_at=5.0)
        return "released"

    def hammer(self, count: str) -> str:
        """Carry many executions from start to end."""
        for number in range(int(count)):
            Scribe(self._journal, f"s-{os.getpid()}-{number}", "d").start().step().release(SagaStatus.COMPLETED)
        return "hammered"

    def contend(self, count: str, right: str) -> str:
        """Carry executions from start to end that need the right, each as soon as it is free."""
        for number in range(int(count)):
            scribe = Scribe(self._journal, f"s-{os.getpid()}-{number}", "d")
            while not isinstance(scribe.write(replace(scribe.opening(), exclusive=right)), Committed):
                pass
            scribe.step().release(SagaStatus.COMPLETED, frees=right)
        return "contended"

    def limit_file_size(self, size_bytes: str) -> str:
        """Play a full disk: no file may grow past this size; -1 lifts that."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = resource.RLIM_INFINITY if size_bytes == "-1" else int(size_bytes)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        return "limited"

    def drop_root(self) -> str:
        """Become somebody to whom file modes apply."""
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        return "dropped"

    def fork(self) -> str:
        """Go on in a child, whose answers follow on the same stdout; the parent closes the journal and waits."""
        child = os.fork()
        if child == 0:
            return "forked"
        self._journal.close()
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status))

    def close(self) -> str:
        self._journal.close()
        return "closed"


def _answers(puppet: Puppet, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        command, *arguments = line.split()
        try:
            answer: str = getattr(puppet, command)(*arguments)
        except (JournalError, LeaseLost) as error:
            answer = f"{type(error).__name__}: {error}"
        yield answer


if __name__ == "__main__":
    # iter(readline, "") and not stdin itself, which reads ahead: a forked child must find its own commands.
    for _answer in _answers(Puppet(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])), iter(sys.stdin.readline, "")):
        sys.stdout.write(_answer + "\n")
        sys.stdout.flush()
