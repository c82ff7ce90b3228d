"""What a worker could take up: read from the journal in pages, in an order of its own, without what it passed over."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Collection

from msgspec import Struct

from saga_engine.journal import Header, Journal

__all__ = ["Backlog", "Candidate"]

#: How many headers are read at a time: more than one worker takes, so that several do not all want the same ones.
PAGE = 256
#: The most pages that are read at once in search of something that was not passed over.
_PAGES_MAX = 16
#: A header that was read longer ago than this, in seconds, is read again before its execution is loaded.
_FRESH_S = 0.1
#: For so long, in seconds, what could not be driven here is not loaded again; nor what was noted as stuck.
_PASSED_OVER_S = 60.0
STUCK_S = 300.0
#: How many of these are remembered.
_PASSED_OVER_MAX = 16_384


class Candidate(Struct, frozen=True):
    """An execution that nobody held when its header was read, at this monotonic time."""

    header: Header
    read_at_s: float


class Backlog:
    """What is due, was left by a dead process, or has mail, as far as this worker has read. Not thread-safe.

    Pages are read oldest first, beginning anew after the last; each is shuffled.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._random = random.Random()
        self._candidates: list[Candidate] = []
        self._after = 0
        self._passed: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        """Count what was read and not taken yet."""
        return len(self._candidates)

    @property
    def has_more(self) -> bool:
        """Whether the journal had more behind the last page."""
        return self._after > 0

    def pop(self) -> Candidate | None:
        """Take one; None: there is none, or the next page must be read first."""
        return self._candidates.pop() if self._candidates else None

    def clear(self) -> None:
        """Forget what was read."""
        self._candidates.clear()
        self._after = 0

    def read(self, now_s: float, monotonic_s: float, taking: Collection[int]) -> None:
        """Read on until there is something to take, or nothing is left.

        Args:
            now_s: wall time: what is due.
            monotonic_s: when this is.
            taking: eids that are being taken up already.
        """
        for _ in range(_PAGES_MAX):
            page = self._journal.recoverable(now=now_s, after=self._after, limit=PAGE, stuck_before=now_s - STUCK_S)
            self._after = page[-1].eid if len(page) == PAGE else 0
            found = [h for h in page if h.eid not in taking and not self._is_passed_over(h, monotonic_s)]
            if found or not self._after:
                self._random.shuffle(found)
                self._candidates = [Candidate(header, monotonic_s) for header in found]
                return

    def refreshed(self, candidate: Candidate, monotonic_s: float) -> Header | None:
        """Give the header as it is now; None: somebody else has taken the execution up meanwhile."""
        header = candidate.header
        if monotonic_s - candidate.read_at_s < _FRESH_S:
            return header
        now = self._journal.header(header.saga_id, header.generation)
        return now if now is not None and now.epoch == header.epoch and now.drive is None else None

    def pass_over(self, eid: int, epoch: int, monotonic_s: float) -> None:
        """Leave it alone for a while, unless somebody drives it meanwhile."""
        self._passed[eid] = (epoch, monotonic_s + _PASSED_OVER_S)
        self._passed.move_to_end(eid)
        while len(self._passed) > _PASSED_OVER_MAX:
            self._passed.popitem(last=False)

    def _is_passed_over(self, header: Header, monotonic_s: float) -> bool:
        epoch, until_s = self._passed.get(header.eid, (0, 0.0))
        return epoch == header.epoch and monotonic_s < until_s
