"""Those that are measured: llmcall, the plain parts that it is made of, and what a user would pick
instead.

The table is read by the runner, which imports none of them; each module is imported in its own
environment only, and has a class ``Contestant``. A script of the same name in ``first_answers`` is
what a user would write with it.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A contestant.

    :param title: as tables show it.
    :param module: its module here, and its script in ``first_answers``.
    :param environment: the name of what it is installed in (:mod:`benchmarks.environments`).
    :param caches: whether it records answers.
    """

    title: str
    module: str
    environment: str
    caches: bool = True


PLAIN_OPENAI = Entry("plain openai", "plain_openai", "llmcall", caches=False)
PLAIN_DISKCACHE = Entry("plain diskcache", "plain_diskcache", "llmcall")
PLAIN_SQLITE = Entry("plain sqlite3", "plain_sqlite", "llmcall")
LLMCALL = Entry("llmcall", "llmcall_client", "llmcall")
LLMCALL_CACHE_OFF = Entry("llmcall, cache off", "llmcall_cache_off", "llmcall", caches=False)

CONTESTANTS = (
    PLAIN_OPENAI,
    PLAIN_DISKCACHE,
    PLAIN_SQLITE,
    LLMCALL,
    LLMCALL_CACHE_OFF,
    Entry("joblib.Memory", "joblib_memory", "joblib"),
    Entry("autogen DiskCacheStore", "autogen_store", "autogen"),
    Entry("vcrpy", "vcr_cassette", "vcrpy"),
    Entry("langchain SQLiteCache", "langchain_sqlite", "langchain"),
    Entry("litellm disk cache", "litellm_disk", "litellm"),
    Entry("dspy", "dspy_model", "dspy"),
    Entry("inspect_ai", "inspect_model", "inspect_ai"),
)
