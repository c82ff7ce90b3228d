"""An extension with a service: calls of the vendor's API are repeated, and a session that has ended is refreshed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from saga_engine import Engine
from saga_engine.extensions import ApiClientFactoryAware, AuthenticationAware, ConfigAware, errors, extension, plugin
from saga_engine.services import ServiceProvider, scoped
from transactions import retry

__all__ = ["PretendApi", "Session", "VendorError", "VendorExtension", "VendorPlugin", "VendorService"]


class VendorError(Exception):
    """What the vendor answers with an HTTP status from 400 on; `@retry` looks at `status_code`."""

    def __init__(self, status_code: int, text: str) -> None:
        super().__init__(f"{status_code} {text}")
        self.status_code = status_code


class PretendApi:
    """Stands for the vendor: it ends sessions without notice, is busy now and then, and keeps what was ordered."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.orders: dict[str, str] = {}
        self._tokens = 0
        self._is_busy_once = True

    def new_token(self) -> str:
        """Log in; the tokens given before are void from then on."""
        self._tokens += 1
        self.calls.append("log in")
        return f"token {self._tokens}"

    def end_session(self) -> None:
        """Make all tokens void."""
        self._tokens += 1

    def order(self, token: str, key: str, item: str) -> str:
        """Order an item; a key that was used before gives the same order."""
        self.calls.append("order")
        if token != f"token {self._tokens}":
            raise VendorError(401, "your session has ended")
        if self._is_busy_once:
            self._is_busy_once = False
            raise VendorError(503, "busy")
        return self.orders.setdefault(key, f"{item} #{len(self.orders) + 1}")


class Session:
    """The session with the vendor, shared by all that calls it."""

    def __init__(self, api: PretendApi) -> None:
        self._api = api
        self.token = api.new_token()

    async def refresh(self) -> None:
        """Log in again; `@retry` does so after a 401."""
        self.token = self._api.new_token()


class VendorService:
    """What steps call.

    Args:
        api: the vendor.
        retry_config: read by `@retry`: how often, and how long in between.
        session: refreshed by `@retry` after a 401.
    """

    def __init__(self, api: PretendApi, retry_config: Any, session: Session) -> None:
        self._api = api
        self._retry_config = retry_config
        self._auth_session = session

    @retry
    async def order(self, item: str, key: str) -> str:
        """Order an item under an idempotency key; gives the order's name."""
        return self._api.order(self._auth_session.token, key, item)


class VendorExtension(ConfigAware, ApiClientFactoryAware, AuthenticationAware):
    """Registered with `engine.extensions().register(VendorExtension)`, which calls the three setters."""

    def set_config(self, config: Any) -> None:
        """Take the engine's configuration."""
        self._retry_config = config.retry

    def set_api_client_factory(self, api_client_factory: Callable[[], PretendApi]) -> None:
        """Take what is bound to `api_client_factory`."""
        self._api = api_client_factory()

    def set_auth_session(self, auth_session: Session) -> None:
        """Take what is bound to `auth_session`."""
        self._session = auth_session

    def get_service(self) -> VendorService:
        """Give the service; asked for with `engine.extensions().service(VendorExtension)`."""
        return VendorService(self._api, self._retry_config, self._session)


@plugin(id="vendor", version="2.1.0")
class VendorPlugin:
    """Registers the extension, and provides what it is given and what it gives."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(self) -> None:
        """Register the extension, once the engine is there."""
        with suppress(errors.DuplicateExtension):  # it stays registered when this plugin is reloaded
            self._engine.extensions().register(VendorExtension)

    @extension(point="service_providers")
    class Services(ServiceProvider):
        """What every saga and every plugin can have injected; what is shared by all of them says so."""

        @scoped("application")
        def provide_api_client_factory(self) -> Callable[[], PretendApi]:
            """Give what makes clients; here it is one for all."""
            api = PretendApi()
            return lambda: api

        @scoped("application")
        def provide_auth_session(self, api_client_factory: Callable[[], PretendApi]) -> Session:
            """Log in."""
            return Session(api_client_factory())

        def provide_vendor(self, engine: Engine) -> VendorService:
            """Give what the extension provides."""
            service: VendorService = engine.extensions().service(VendorExtension)
            return service
