"""Web resources: the ASGI apps that plugins contribute, each under a path of its own.

They are contributed to the extension point `web_resources`: any ASGI app with an attribute `path`. What serves them
is in `saga_engine.extensions.web`.
"""

from __future__ import annotations

import inspect
import logging
import re
from typing import Any, Protocol, runtime_checkable

from saga_engine.extensions.errors import NotConforming, ReservedName
from saga_engine.extensions.points import Contribution, Points

__all__ = [
    "MODULES_NAMESPACE",
    "RESERVED_NAMESPACES",
    "RESOURCES_POINT",
    "ModuleResource",
    "WebResource",
    "check_app",
    "checked_path",
    "owner_of",
    "resources_by_path",
    "warn_of_rivals",
]

RESOURCES_POINT = "web_resources"

#: Where modules should put their resources: nothing of the engine's will ever be there.
MODULES_NAMESPACE = "/_saga/client"

#: What is the engine's own, with all that is below it. The root itself is, too.
RESERVED_NAMESPACES = ("/_saga", "/api", "/assets", "/events", "/health", "/metrics", "/sagas", "/static")

#: A path of segments without anything that a URL or a path pattern gives a meaning to.
_PATH = re.compile(r"(/[^/{}?#%\\\s]+)+")

_logger = logging.getLogger("saga_engine.extensions")


@runtime_checkable
class WebResource(Protocol):
    """An ASGI app and its path."""

    path: str

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; see the ASGI specification."""


class ModuleResource:
    """An ASGI app that a module registered under a path."""

    def __init__(self, path: str, app: Any) -> None:
        self.path = path
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the app serve the request."""
        await self._app(scope, receive, send)


def checked_path(path: Any) -> str:
    """Give the path without a slash at its end.

    Raises:
        NotConforming: it is not the absolute path of a resource; a ValueError.
        ReservedName: it is in a namespace of the engine's own; a ValueError.
    """
    if not isinstance(path, str):
        raise NotConforming(f"{path!r} is no path: give a str such as {MODULES_NAMESPACE}/my_module/hello")
    plain = path.rstrip("/")
    is_taken = any(_is_below(plain, taken) for taken in RESERVED_NAMESPACES)
    if not plain or (is_taken and not _is_below(plain, MODULES_NAMESPACE)):
        raise ReservedName(f"{path} is the engine's own: put resources below {MODULES_NAMESPACE}, or in other places")
    if not _PATH.fullmatch(plain) or {".", ".."} & set(plain.split("/")):
        raise NotConforming(f"{path!r} cannot be served: give the full path, such as {MODULES_NAMESPACE}/my_module")
    return plain


def check_app(path: str, app: Any) -> None:
    """Make sure that this looks like an ASGI app.

    Raises:
        NotConforming: it cannot be called with `(scope, receive, send)`; a ValueError.
    """
    try:
        inspect.signature(app).bind(None, None, None)
    except (TypeError, ValueError) as error:
        raise NotConforming(f"{path}: {app!r} is no ASGI app, it cannot be called with scope, receive, send") from error


def resources_by_path(points: Points) -> dict[str, Contribution]:
    """Give what serves each path: of several, the one whose plugin comes first. What serves nothing is logged."""
    found: dict[str, Contribution] = {}
    for each in points.contributions(RESOURCES_POINT):
        try:
            path = checked_path(getattr(each.instance, "path", None))
            check_app(path, each.instance)
        except (NotConforming, ReservedName) as error:
            _logger.error("a web resource of %s is not served: %s", owner_of(each), error)
            continue
        first = found.setdefault(path, each)
        if first is not each and not isinstance(each.instance, ModuleResource):  # whose registration told it
            _warn(path, each, first)
    return found


def warn_of_rivals(points: Points, registered: ModuleResource) -> None:
    """Log which resources are not served because of this new one, or because of which it is not served itself."""
    same = [each for each in points.contributions(RESOURCES_POINT) if _path_of(each) == registered.path]
    is_served = same[0].instance is registered
    for each in same[1:]:
        if is_served or each.instance is registered:
            _warn(registered.path, each, same[0])


def _warn(path: str, loser: Contribution, winner: Contribution) -> None:
    _logger.warning("%s of %s is not served: %s serves that path", path, owner_of(loser), owner_of(winner))


def _path_of(contribution: Contribution) -> str:
    return str(getattr(contribution.instance, "path", "")).rstrip("/")


def owner_of(contribution: Contribution) -> str:
    """Name the plugin that contributed something."""
    return "no plugin" if contribution.plugin is None else contribution.plugin.id


def _is_below(path: str, namespace: str) -> bool:
    return path == namespace or path.startswith(f"{namespace}/")
