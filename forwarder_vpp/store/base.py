"""What the request pipeline asks of a store, and the store of tests."""

from typing import Protocol

from .row import Row


class Store(Protocol):
    """Rows by id. ``put`` and ``remove`` raise NsmError: RESOURCE_EXHAUSTED when the disk is full, else INTERNAL."""

    async def load(self) -> list[Row]:
        """Every row that can be read."""

    async def put(self, row: Row) -> None:
        """Keep ``row``; it survives the death of the agent once this returns."""

    async def remove(self, connection_id: str) -> None:
        """Forget a row; an unknown id is fine."""

    def put_later(self, row: Row) -> None:
        """As ``put``, soon and without waiting: a failure is logged, and it is tried again."""

    def remove_later(self, connection_id: str) -> None:
        """As ``remove``, without waiting: a failure is logged, and it is tried again."""

    async def close(self) -> None:
        """Write what is under way, then let go."""


class MemoryStore:
    """Rows in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    async def load(self) -> list[Row]:
        """Every row."""
        return list(self.rows.values())

    async def put(self, row: Row) -> None:
        """Keep."""
        self.rows[row.id] = row

    async def remove(self, connection_id: str) -> None:
        """Forget."""
        self.rows.pop(connection_id, None)

    def put_later(self, row: Row) -> None:
        """Keep."""
        self.rows[row.id] = row

    def remove_later(self, connection_id: str) -> None:
        """Forget."""
        self.rows.pop(connection_id, None)

    async def close(self) -> None:
        """Nothing to do."""
