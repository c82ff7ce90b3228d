"""Services: the container that injects them, the providers that declare them, and the cache."""

from saga_engine.services.cache import (
    Cache,
    CacheError,
    MemoryCache,
    SQLiteCache,
    provide_cache,
    provide_sqlite_cache_adapter,
)
from saga_engine.services.container import (
    BindingConflict,
    Container,
    DependencyBuildingFailure,
    InvalidClassType,
)
from saga_engine.services.providers import BaseServiceProvider, ServiceProvider, bind_config

__all__ = [
    "BaseServiceProvider",
    "BindingConflict",
    "Cache",
    "CacheError",
    "Container",
    "DependencyBuildingFailure",
    "InvalidClassType",
    "MemoryCache",
    "SQLiteCache",
    "ServiceProvider",
    "bind_config",
    "provide_cache",
    "provide_sqlite_cache_adapter",
]
