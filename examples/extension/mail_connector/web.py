"""What people look at: the executions, below /api/sagas in the extension's web application."""

from __future__ import annotations

from connect.eaas.core.decorators import router, web_app
from connect.eaas.core.extension import WebApplicationBase

from saga_engine.connect import executions_router

__all__ = ["MailConnectorWeb"]

router.include_router(executions_router())


@web_app(router)
class MailConnectorWeb(WebApplicationBase):  # type: ignore[misc]  # connect ships no types
    """Has no routes of its own yet; methods with `@router.get(...)` would be some."""
