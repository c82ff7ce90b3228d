"""What wraps the steps of a saga. Imports `transactions` only."""

from middleware.stack import Middleware, is_async, make_middleware_callstack

__all__ = ["Middleware", "is_async", "make_middleware_callstack"]
