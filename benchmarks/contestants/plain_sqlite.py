"""Python's own ``sqlite3`` with a hash of sorted JSON, in front of the SDK. It keeps the assistant's
message.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from ..workload import API_KEY, MODEL
from .base import SyncContestant

FILE = "answers.sqlite3"
CREATE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, message TEXT NOT NULL)"
SELECT = "SELECT message FROM answers WHERE key = ?"
INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?)"


class Contestant(SyncContestant):
    """Do what a user without a library would: select, else call and insert. Each thread has a
    connection of its own.
    """

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._client: Any = None
        self._local = threading.local()
        self._connection().execute("PRAGMA journal_mode = wal")
        self._connection().execute(CREATE)

    def ask(self, prepared: Any) -> Any:
        """Return the assistant's message."""
        request = {"model": MODEL, "messages": prepared}
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        row = self._connection().execute(SELECT, (key,)).fetchone()
        if row is not None:
            return json.loads(row[0])
        response = self._sdk().chat.completions.create(**request)
        message = response.choices[0].message.model_dump(exclude_unset=True)
        with self._connection() as connection:
            connection.execute(INSERT, (key, json.dumps(message)))
        return message

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        if not hasattr(self._local, "connection"):
            self._local.connection = sqlite3.connect(Path(self.folder, FILE))
            self._local.connection.execute("PRAGMA synchronous = normal")  # as diskcache has it
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _sdk(self) -> Any:
        """Return the SDK's client, made at the first miss: a replay imports no SDK."""
        if self._client is None:
            import openai

            self._client = openai.OpenAI(api_key=API_KEY, base_url=self.base_url)
        return self._client

    def text(self, reply: Any) -> str:
        """Return the message's text."""
        return str(reply["content"])

    def close(self) -> None:
        """Close this thread's connection and the SDK's client."""
        self._connection().close()
        if self._client is not None:
            self._client.close()
        super().close()
