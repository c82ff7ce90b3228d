"""What wraps the steps of a saga. Imports `transactions` only."""

from middleware.offline import BadCriteria, ConfiguredOfflineCriteria, OfflineCriteria
from middleware.stack import Middleware, is_async, make_middleware_callstack

__all__ = [
    "BadCriteria",
    "ConfiguredOfflineCriteria",
    "Middleware",
    "OfflineCriteria",
    "is_async",
    "make_middleware_callstack",
]
