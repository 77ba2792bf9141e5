"""Paid answers that a storage could not take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import CacheError
from ...support.display import counted
from ...support.notices import notice
from ...support.system import at_exit

if TYPE_CHECKING:
    from .storages import Storage


class UnstoredAnswers(dict[str, bytes]):
    """Paid answers that could not be stored, packed, by key, kept in memory until the storage takes them.

    :param storage: the storage to try again.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._replacing: set[str] = set()  # keys
        self._warned_process: int | None = None  # the process that logged the warning

    def keep(self, key: str, packed: bytes, error: BaseException, replaces: bool) -> bytes:
        """Keep a record, and warn once in each process.

        :param error: why the storage does not have it.
        :param replaces: ``True`` if it replaces what is stored.
        :returns: the record that counts, packed: the first one under the key.
        """
        if replaces:
            self._replacing.add(key)
        if self._warned_process != os.getpid():
            self._warned_process = os.getpid()
            at_exit(self._store_at_exit)
            notice(
                "the cache cannot store answers; they are kept in memory until it can: %s",
                str(error) or type(error).__name__,
            )
        return self.setdefault(key, packed)

    def retry(self, consequence: str = "") -> None:
        """Try again to store all records; the disk may have room by now.

        :param consequence: what happens to those that still cannot be stored, for a warning.
        """
        failure: Exception | None = None
        for key, packed in list(self.items()):
            try:
                self._storage.put(key, packed, replaces=key in self._replacing)
            except (OSError, CacheError) as error:
                failure = error
            else:
                self.pop(key, None)
        if consequence and failure is not None:
            notice("%s %s: %s", counted(len(self), "answer"), consequence, failure)

    def _store_at_exit(self) -> None:
        self.retry("could not be stored in the cache; answers that are in no cassette are lost")
        self.clear()
