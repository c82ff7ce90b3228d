"""The live documents of one drive: the request and the state as dicts, one pair for each scope of the plan.

Steps hold on to these dicts (`context.state`, an injected `request`), so they stay the same objects while a drive
lasts; their content is brought up to date before each call. Only an attempt that was abandoned keeps its old pair,
which then nobody else looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from saga_engine.codec import decode_json
from saga_engine.context import SagaContext
from saga_engine.errors import NotAllowed

if TYPE_CHECKING:
    from saga_engine.drive import Drive

__all__ = ["Documents", "Live", "Source"]

#: Gives the journaled request and state of a scope, as JSON text.
Source = Callable[[str], tuple[Raw, Raw]]


class Live:
    """The two dicts of one scope, and the JSON text that each was last equal to."""

    __slots__ = ("data", "data_known", "request", "request_known")

    def __init__(self, request: Raw, data: Raw) -> None:
        self.request: dict[str, Any] = decode_json(request)
        self.data: dict[str, Any] = decode_json(data)
        self.request_known = request
        self.data_known = data

    def refresh(self, request: Raw, data: Raw) -> None:
        """Bring the dicts up to date; they stay the same objects."""
        if request is not self.request_known:
            _fill(self.request, request)
            self.request_known = request
        if data is not self.data_known:
            _fill(self.data, data)
            self.data_known = data

    def reset(self, request: Raw, data: Raw) -> None:
        """Undo what a step did to the dicts that cannot be journaled."""
        _fill(self.request, request)
        _fill(self.data, data)
        self.request_known, self.data_known = request, data


def _fill(live: dict[str, Any], text: Raw) -> None:
    live.clear()
    live.update(decode_json(text))


class Documents:
    """All live documents of one drive.

    Args:
        source: what they are filled from when a step is built.
        remaining_s: what contexts tell of the budget, in seconds.
    """

    def __init__(self, source: Source, remaining_s: Callable[[], float]) -> None:
        self.source = source
        self.drive: Drive | None = None
        self._remaining_s = remaining_s
        self._lives: dict[str, Live] = {}

    def of(self, scope: str) -> Live:
        """Give the pair of a scope; it is made, and filled, when first asked for."""
        live = self._lives.get(scope)
        if live is None:
            live = self._lives[scope] = Live(*self.source(scope))
        return live

    def renew(self, scope: str) -> None:
        """Leave the present pair to an attempt that was abandoned; the next one gets another."""
        del self._lives[scope]

    def request(self, scope: str) -> dict[str, Any]:
        """Give the request that steps of this scope may have injected."""
        return self.of(scope).request

    def context(self, *, scope: str, saga_id: str, saga: str, step: str, path: str) -> SagaContext:
        """Make the context of one step."""
        return SagaContext(
            saga_id, saga, step, self.of(scope).data, path=path, remaining_s=self._remaining_s, save=self._save
        )

    def _save(self, context: SagaContext) -> None:
        """Commit the state in the middle of a step."""
        if self.drive is None:
            raise NotAllowed("context.save() in a constructor: nothing is journaled yet; move it to execute")
        self.drive.save(context.path)
