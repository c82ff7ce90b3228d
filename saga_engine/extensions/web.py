"""The web application that serves the resources of plugins, beside what the engine serves itself."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound

from saga_engine.extensions.points import Contribution, Points
from saga_engine.extensions.web_resources import RESOURCES_POINT, owner_of, resources_by_path

__all__ = ["ResourcesRoute", "web_application"]

_logger = logging.getLogger("saga_engine.extensions")


def web_application(points: Points, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Make the ASGI application that serves the web resources of all plugins, as they are at each request.

    A resource gets every request for its path and for what is below it, with the path as the `root_path` of the
    scope. Its `lifespan` is not run: what it needs is begun and ended by its plugin.

    Args:
        points: where the resources are contributed.
        routes: what else is served; these come first.
    """
    return Starlette(routes=[*routes, ResourcesRoute(points)])


class ResourcesRoute(BaseRoute):
    """The route to the resources of all plugins, for an application that has other routes as well.

    Args:
        points: where the resources are contributed.
    """

    def __init__(self, points: Points) -> None:
        self._points = points
        self._seen: list[Contribution] = []
        self._by_path: dict[str, Contribution] = {}

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Find the resource with the longest path that the request's begins with."""
        root, path = _root_and_path(scope)
        contribution = self._find(path)
        if contribution is None:
            return Match.NONE, {}
        resource_path = root + contribution.instance.path.rstrip("/")
        # As if it ended with a slash: the resource's own root is "/", and no redirection is needed.
        is_exact = root + path == resource_path
        child = {
            "app_root_path": scope.get("app_root_path", root),
            "root_path": resource_path,
            "path": f"{resource_path}/" if is_exact else scope["path"],
            "endpoint": contribution.instance,
            "saga_plugin": owner_of(contribution),
        }
        return Match.FULL, child

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the resource serve the request. What it raises is logged with its plugin, and goes to the server."""
        try:
            await scope["endpoint"](scope, receive, send)
        except Exception:
            _logger.error("the web resource %s of %s failed", scope["root_path"], scope["saga_plugin"])
            raise

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Refuse: resources have no names."""
        raise NoMatchFound(name, path_params)

    def _find(self, path: str) -> Contribution | None:
        by_path = self._resources()
        while path:
            if path in by_path:
                return by_path[path]
            path = path.rpartition("/")[0]
        return None

    def _resources(self) -> dict[str, Contribution]:
        """Give the table of resources, made anew when plugins came or went."""
        present = self._points.contributions(RESOURCES_POINT)
        if [id(each) for each in present] != [id(each) for each in self._seen]:
            self._seen, self._by_path = present, resources_by_path(self._points)
        return self._by_path


def _root_and_path(scope: MutableMapping[str, Any]) -> tuple[str, str]:
    """Give where this application is mounted, and the path below that."""
    root, path = scope.get("root_path", ""), scope["path"]
    is_below = root and (path == root or path.startswith(f"{root}/"))
    return root, path[len(root) :] if is_below else path
