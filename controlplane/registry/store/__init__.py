"""Where the registry keeps its entries between two runs."""

from controlplane.registry.store.base import Contents, Store
from controlplane.registry.store.memory import MemoryStore
from controlplane.registry.store.sqlite import SqliteStore

__all__ = ["Contents", "MemoryStore", "SqliteStore", "Store"]
