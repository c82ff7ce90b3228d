"""Services: the container that injects them, the providers that declare them, and the cache."""

from saga_engine.services.bindings import Scope, scoped
from saga_engine.services.cache import (
    Cache,
    CacheError,
    MemoryCache,
    NoCache,
    SQLiteCache,
    provide_cache,
    provide_redis_cache_adapter,
    provide_sqlite_cache_adapter,
)
from saga_engine.services.container import Container
from saga_engine.services.failures import (
    AsyncServiceWanted,
    BindingConflict,
    DependencyBuildingFailure,
    InvalidClassType,
)
from saga_engine.services.providers import BaseServiceProvider, ServiceProvider, bind_config

__all__ = [
    "AsyncServiceWanted",
    "BaseServiceProvider",
    "BindingConflict",
    "Cache",
    "CacheError",
    "Container",
    "DependencyBuildingFailure",
    "InvalidClassType",
    "MemoryCache",
    "NoCache",
    "SQLiteCache",
    "Scope",
    "ServiceProvider",
    "bind_config",
    "provide_cache",
    "provide_redis_cache_adapter",
    "provide_sqlite_cache_adapter",
    "scoped",
]
