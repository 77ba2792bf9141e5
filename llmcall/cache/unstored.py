"""Paid answers that a storage did not take: they are kept in memory until it does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..display.formatting import counted
from ..errors import CacheError
from ..notices import notice
from ..system import at_exit
from .rows import Change

if TYPE_CHECKING:
    from collections.abc import Container

    from .places import Storage


class UnstoredAnswers:
    """The packed records that a storage refused, by key. The first one under a key counts.

    :param storage: is tried again.
    :param replaced_keys: the keys whose records replace what is stored.
    """

    def __init__(self, storage: Storage, replaced_keys: Container[str]) -> None:
        self._storage = storage
        self._replaced_keys = replaced_keys
        self._packed: dict[str, bytes] = {}
        self._warned_process: int | None = None  # the process that was told

    def __bool__(self) -> bool:
        return bool(self._packed)

    def get(self, key: str) -> bytes | None:
        """Return the record that is kept under a key, packed, or ``None``."""
        return self._packed.get(key)

    def discard(self, key: str) -> None:
        """Forget a record, since another one replaces it."""
        self._packed.pop(key, None)

    def keep(self, key: str, packed: bytes, error: Exception) -> bytes:
        """Keep a record, and warn once in each process.

        :param error: why the storage refused it.
        :returns: the record that counts, packed.
        """
        if self._warned_process != os.getpid():
            self._warned_process = os.getpid()
            at_exit(self._store_at_exit)
            notice(
                "the cache cannot store answers; they are kept in memory until it can: %s", error
            )
        return self._packed.setdefault(key, packed)

    def store(self, consequence: str = "") -> None:
        """Try to store all records again: a disk may have room by now.

        :param consequence: what becomes of those that cannot be stored now, for a warning.
        """
        failure: Exception | None = None
        for key, packed in list(self._packed.items()):
            try:
                self._storage.write([Change(key, packed, replaces=key in self._replaced_keys)])
            except (OSError, CacheError) as error:
                failure = error
            else:
                self._packed.pop(key, None)
        if consequence and failure is not None:
            notice("%s %s: %s", counted(len(self._packed), "answer"), consequence, failure)

    def _store_at_exit(self) -> None:
        self.store("lost, because nothing could be stored")
        self._packed.clear()
