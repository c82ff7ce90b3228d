"""The application's container: the services of one engine, around those of its plugins and of each execution."""

from __future__ import annotations

import logging

from saga_engine.plan import default_cache
from saga_engine.saga import Services
from saga_engine.services import Container, bind_config
from saga_engine.services.bindings import Registration

__all__ = ["application_container", "scope_of_plugins"]

_logger = logging.getLogger("saga_engine.plugins")


def application_container(services: Services) -> Container:
    """Make it: it holds the engine's own services, as far as there are any, and the default cache.

    The engine's variables are not bound by name: a delivery with a configuration of its own must not see them.
    """
    own = {"client": services.client, "logger": services.logger}
    bound = [Registration(name, value, "instance", "Engine") for name, value in own.items() if value is not None]
    config = Registration("config", services.config or {}, "instance", "Engine")
    return Container().bind_registrations([config, *bound, default_cache()])


def scope_of_plugins(application: Container, services: Services) -> Container:
    """Make the scope around those of all plugins: in it, the engine's variables are bound by name."""
    return bind_config(application.child(), services.config or {}, _logger)
