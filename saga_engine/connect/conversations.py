"""Conversations with Connect: written once as generators of calls, carried out by a plain or by an async client.

    def approving(request):
        answer = yield Call(request, "approve", {"template_id": "TL-1"})

`carry_out(client, approving(request))` gives the result with a `ConnectClient`, and something to await for it with an
`AsyncConnectClient`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from saga_engine.connect.api_errors import ConnectUnavailable, connect_error
from saga_engine.connect.requests import ConnectRequest
from saga_engine.context import SagaContext

__all__ = ["Call", "Conversation", "Part", "Save", "carry_out"]

T = TypeVar("T")


class Part(Protocol):
    """What a conversation may ask for."""

    def do(self, client: Any) -> Any:
        """Do it, and give its result; with an async client, something to await that is to be read by `read`."""
        ...

    async def ado(self, client: Any) -> Any:
        """Do it on an event loop, and give its result."""
        ...


Conversation = Generator[Part, Any, T]


@dataclass(frozen=True)
class Call:
    """One call of the Connect API about one request.

    Args:
        request: what it is about.
        verb: "get", "update", or the name of an action such as "approve".
        payload: the body.
    """

    request: ConnectRequest
    verb: str
    payload: dict[str, Any] = field(default_factory=dict)

    def do(self, client: Any) -> Any:
        """Make the call.

        Returns:
            What Connect answered: a dict, empty if the answer has no body; or something to await for that.

        Raises:
            ConnectUnavailable: it may be tried again.
            RefusedByConnect: it may not.
        """
        try:
            answer = self._begun(client)
        except Exception as error:
            raise connect_error(error, str(self)) or error from error
        return self._awaited(answer) if inspect.isawaitable(answer) else self._read(answer)

    async def ado(self, client: Any) -> Any:
        """Make the call, and await its answer if the client is async; gives and raises what `do` does."""
        answer = self.do(client)
        return await answer if inspect.isawaitable(answer) else answer

    def _begun(self, client: Any) -> Any:
        resource = self.request.resource(client)
        if self.verb == "get":
            return resource.get()
        if self.verb == "update":
            return resource.update(self.payload)
        return resource(self.verb).post(self.payload)

    async def _awaited(self, answer: Awaitable[Any]) -> Any:
        try:
            given = await answer
        except Exception as error:
            raise connect_error(error, str(self)) or error from error
        return self._read(given)

    def _read(self, answer: Any) -> dict[str, Any]:
        """Check that an answer is Connect's own; the page of a proxy is not, and tells nothing of what was done."""
        read = {} if answer is None else answer
        is_meant = isinstance(read, dict) and (self.verb != "get" or read.get("id") == self.request.id)
        if not is_meant:
            raise ConnectUnavailable(f"{self}: Connect answered what cannot be read: {answer!r:.200}")
        found: dict[str, Any] = read
        return found

    def __str__(self) -> str:
        return f"{self.verb} {self.request.id}"


@dataclass(frozen=True)
class Save:
    """The commit of a step's state, before what must not happen unknown."""

    context: SagaContext

    def do(self, client: Any) -> None:
        """Commit; see `SagaContext.save`."""
        self.context.save()

    async def ado(self, client: Any) -> None:
        """Commit without blocking the event loop."""
        await self.context.asave()


def carry_out(client: Any, conversation: Conversation[T]) -> T | Awaitable[T]:
    """Carry a conversation out.

    What a part raises is raised inside the conversation, which may go on.

    Args:
        client: a `ConnectClient` or `AsyncConnectClient`, or anything with the same methods.
        conversation: what to ask.

    Returns:
        What the conversation returns; if the answers of the client are to be awaited, something to await for it.
    """
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            part = conversation.send(answer) if error is None else conversation.throw(error)
        except StopIteration as over:
            return over.value  # type: ignore[no-any-return]  # a StopIteration is not generic
        answer = error = None
        try:
            answer = part.do(client)
        except Exception as raised:
            error = raised
        if inspect.isawaitable(answer):
            return _carry_on(client, conversation, answer)


async def _carry_on(client: Any, conversation: Conversation[T], awaitable: Awaitable[Any]) -> T:
    """Go on with a conversation whose first call has to be awaited."""
    while True:
        answer, error = None, None
        try:
            answer = await awaitable
        except Exception as raised:
            error = raised
        try:
            part = conversation.send(answer) if error is None else conversation.throw(error)
        except StopIteration as over:
            return over.value  # type: ignore[no-any-return]  # a StopIteration is not generic
        awaitable = part.ado(client)
