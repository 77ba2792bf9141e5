"""Stores of many records, filled without a server: llmcall's and plain diskcache's."""

from __future__ import annotations

from ..contestants import LLMCALL, PLAIN_DISKCACHE, Entry

STORES: dict[Entry, str] = {PLAIN_DISKCACHE: "plain_diskcache", LLMCALL: "llmcall_cache"}
