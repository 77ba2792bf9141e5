"""The journal of awaited answers: responses that a server makes in the background."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import CacheCorruptError, CacheError
from ...stores.cache.directory import Directory
from ...stores.cache.storages import Change
from ...support.notices import warn_once

FOLDER = "awaited"  # in the cache's folder
IDENTIFIER = re.compile(r"[\w-]{1,200}", re.ASCII)  # it becomes a part of an address


class Awaited(NamedTuple):
    """One response that a call waits for.

    :param id: the server's identifier; ``None`` while the request is being sent.
    :param url: the server's address, without credentials; it is compared, never contacted.
    :param window: the requested window.
    :param begun_at: the time of the request, in seconds since the epoch.
    :param endpoint: the endpoint's name, since two may share an address and differ in their keys.
    """

    id: str | None
    url: str
    window: str
    begun_at: float
    endpoint: str


class _JournalRows(Directory):
    """The rows of a journal, in a database of its own; a damaged journal is deleted, not salvaged.

    :param folder: the cache's.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(os.path.join(folder, FOLDER))
        self._folders = [folder, self.name]  # the outer one first, while it is still empty

    def _damaged(self, error: object) -> CacheError:
        return CacheCorruptError(
            f"the journal of awaited answers in {self.name} is damaged ({error}); run 'llmcall cache clear --awaited', "
            "or delete that folder: awaited requests are then sent again, and may be paid for twice"
        )


class Journal:
    """The awaited responses of a cache, by the keys of their requests. All processes share it.

    :param folder: the cache's folder.
    :ivar is_swept: ``True`` if this process has looked for responses of killed processes.
    """

    def __init__(self, folder: str) -> None:
        self._rows = _JournalRows(folder)
        self.is_swept = False

    def get(self, key: str) -> Awaited | None:
        """Return the awaited response of a request, or ``None``."""
        row = self._rows.get(key)
        return None if row is None else _parse_note(row[0])

    def items(self) -> Iterator[tuple[str, Awaited]]:
        """Yield all keys with their awaited responses."""
        for key, packed, _ in self._rows.rows():
            if (awaited := _parse_note(packed)) is not None:
                yield key, awaited

    def __len__(self) -> int:
        return sum(awaited.id is not None for _, awaited in self.items())

    def note(self, key: str, awaited: Awaited) -> Awaited:
        """Note an awaited response; return the one that counts, which is the first one noted.

        :raises OSError, CacheError: if it cannot be stored.
        """

        def changes() -> Iterator[Change]:
            first = self.get(key)
            if first is None or first.id is None:
                yield Change(key, json.dumps(awaited).encode(), replaces=True)

        self._rows.write(changes())
        return self.get(key) or awaited

    def remove(self, key: str, identifier: str | None) -> None:
        """Remove a response, unless another one has taken its place.

        :param identifier: its ``id``.
        """

        def changes() -> Iterator[Change]:
            first = self.get(key)
            if first is not None and first.id == identifier:
                yield Change(key, None)

        try:
            self._rows.write(changes())
        except (OSError, CacheError) as error:
            warn_once(
                f"the note of an awaited answer cannot be removed, so its response may stay on the server: {error}",
                about=(Journal, self._rows.name),
            )

    def delete(self) -> None:
        """Delete the journal, even a damaged one.

        :raises OSError: if its folder cannot be deleted.
        """
        self.close()
        shutil.rmtree(self._rows.name)

    def disconnect(self) -> None:
        """Close this thread's connection until it is needed: a thread may wait for hours."""
        self._rows.disconnect()

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        self._rows.close()


def _parse_note(packed: bytes | None) -> Awaited | None:
    """Return a note, or ``None`` if llmcall did not write it."""
    try:
        awaited = Awaited(*json.loads(packed or b"[]"))
        is_ours = all(map(isinstance, awaited[1:], (str, str, float, str))) and (
            awaited.id is None or IDENTIFIER.fullmatch(awaited.id)
        )
    except (TypeError, ValueError):
        return None
    return awaited if is_ours else None
