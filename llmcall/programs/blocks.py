"""Blocks in which the requests of every HTTP client of the process are recorded and replayed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from contextvars import Context, copy_context
from typing import Any

from .. import askers
from ..cassettes.cassette import Cassette
from ..notices import notice
from .actors import Actor, warn_of_askers
from .front import in_front
from .recorder import Recorder

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
PLACEHOLDER = "none-a-replay-sends-nothing"
RECORDED_LIBRARIES = (
    "llmcall records what the libraries httpx, httpx2 and requests send to APIs like those of OpenAI, "
    "Anthropic and Gemini"
)


@contextlib.contextmanager
def patched(
    actor: Actor | None = None, hosts: Collection[str] = (), **overrides: Any
) -> Iterator[None]:
    """Record and replay the requests of every HTTP client of the process, for a block.

    The block records the clients of httpx, httpx2 and requests in any library, including those made
    before it, whatever their transports. One of llmcall's own errors reaches the program as an error
    of the SDK (in requests: as a response with the status 409); the first one is raised again at the
    end of the block.

    :param actor: names who is asking; see :func:`http_client`.
    :param hosts: further hosts whose JSON requests are recorded, besides those to models.
    :param overrides: settings by name, as for a client.
    :raises ConfigError, TypeError: if a setting is wrong, as for a client.

    >>> def main():
    ...     "Stands in for a program that uses the OpenAI SDK."
    >>> with llmcall.patched(actor="system"), llmcall.cassette("program.jsonl"):
    ...     main()
    """
    recorder = Recorder(actor, overrides, hosts, caller="patched()")
    with askers.naming_own_calls(), _recorded(recorder):
        yield
    recorder.raise_first_error()


def cassette(
    path: str | os.PathLike[str],
    mode: str = "once",
    actor: Actor | None = None,
    hosts: Collection[str] = (),
) -> Cassette:
    """Record every model call of a block in a file, and replay it: llmcall's own, and those of the
    openai SDK and of every other client of httpx, httpx2 or requests.

    It is a context manager and a decorator; ``.open()`` and ``.close()`` serve cells of a notebook.
    If calls were refused and the code in the block went on, the first of these errors is raised at
    its end.

    :param path: the file, JSON Lines.
    :param mode: ``none`` (or ``replay``) only reads. ``once`` records if there is no file or its recording is
        incomplete; otherwise it only reads. ``new`` adds missing answers. ``update`` also moves
        unused records to the disk cache. ``rewrite`` starts empty and asks for
        everything again.
    :param actor: names who is asking with the SDK; see :func:`http_client`.
    :param hosts: further hosts whose JSON requests are recorded, besides those to models.
    :raises ValueError: if there is no such mode.
    :raises CacheCorruptError: when the block begins, if the file is damaged.

    >>> for _ in range(2):
    ...     with llmcall.cassette("good-morning.jsonl", mode="once") as tape:
    ...         llmcall.client().send_message("Good morning!", max_tokens=16).content, tape.replayed
    ('Good morning!', 0)
    ('Good morning!', 1)
    """
    return recording_programs(Cassette(path, mode), actor, hosts)


def open_named_cassette(path: str, mode: str) -> None:
    """Open the cassette that the settings name, until they name another one or the process ends."""
    recording_programs(Cassette(path, mode, is_named_by_settings=True)).__enter__()


def recording_programs(
    tape: Cassette, actor: Actor | None = None, hosts: Collection[str] = ()
) -> Cassette:
    """Make a cassette record the requests of the process's HTTP clients while it is open.

    :returns: the cassette.
    """

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        # One that the settings name is open for the process, and not for the scope of its first call.
        context = Context() if tape.is_named_by_settings else copy_context()
        recorder = context.run(Recorder, actor, {}, hosts, caller="cassette()")
        with (
            contextlib.nullcontext() if tape.may_record else placeholder_keys(),
            _recorded(recorder),
        ):
            yield
        # Otherwise the process ends, or a test failed and tells of itself.
        if tape.write_at_end and not tape.is_named_by_settings:
            recorder.raise_first_error()

    tape.around = around
    return tape


@contextlib.contextmanager
def _recorded(recorder: Recorder) -> Iterator[None]:
    """Put a recorder in front of the process's clients for a block."""
    with in_front(recorder):
        try:
            yield
        finally:
            warn_of_askers()
            for line in unrecorded_words(recorder):
                notice("%s", line)


def unrecorded_words(recorder: Recorder) -> Iterator[str]:
    """Yield a line about each host of a model to which other clients connected."""
    for host in recorder.unrecorded:
        if recorder.sends_nothing:
            yield f"a replay refused a connection to {host}. {RECORDED_LIBRARIES}"
        else:
            yield (
                f"what was sent to {host} by other clients is not recorded, so a replay cannot "
                f"answer it. {RECORDED_LIBRARIES}"
            )


@contextlib.contextmanager
def placeholder_keys() -> Iterator[None]:
    """Set placeholder keys for a block."""
    names = set_placeholder_keys()
    try:
        yield
    finally:
        for name in names:
            if os.environ.get(name) == PLACEHOLDER:
                del os.environ[name]


def set_placeholder_keys() -> list[str]:
    """Let SDKs be made in a replay, which sends nothing: the keys that are unset get a placeholder.

    :returns: the names of their variables.
    """
    names = [name for name in KEYS if not os.environ.get(name)]
    os.environ.update(dict.fromkeys(names, PLACEHOLDER))
    return names
