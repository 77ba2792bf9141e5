"""The ways to record a program: an HTTP client for its SDK, a block, a cassette."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, TypeVar

from ..additions import additions
from ..scopes.active import default_scope, here, new_program_scope
from ..scopes.callers import naming_own_calls, numbered_anew
from ..scopes.scope import scope as open_scope
from ..stores.cassettes.cassette import Cassette
from ..stores.cassettes.reports import SETTINGS
from ..support.notices import notice
from .actors import Actor, is_named_by_text
from .children import recorded_children
from .interceptors import Sight
from .patches import patched_by, recorded_libraries
from .placeholders import placeholder_keys
from .recorder import Recorder

if TYPE_CHECKING:
    import openai

Client = TypeVar("Client")


def http_client(
    *, actor: Actor | None = None, transport: object = None, **overrides: object
) -> openai.DefaultHttpxClient:
    """Return an HTTP client for ``openai.OpenAI(http_client=…)`` whose calls are recorded and
    replayed.

    If the API still fails after llmcall's retries, the program gets the API's response. A connection
    that fails or times out raises the HTTP library's own exception: the SDK retries it, and raises
    its ``openai.APIConnectionError``. An llmcall error is an ``openai.APIStatusError`` with
    the status 409, which the SDK does not retry.

    :param actor: names the actor of a request: a function of a :class:`llmcall.types.ProgramRequest` that returns
        a scope's name or ``None``; ``"system"`` (each system message, after the normalizers of the settings,
        is an actor); ``"system:REGEX"`` or ``"user:REGEX"`` (the name is the first group, or the match, in the
        first such message); or ``"header:NAME"`` (the name is the header's value). A request that names no
        actor is in the surrounding scope; without one, in an open cassette in the scope ``run``.
    :param transport: sends requests that are not recorded. The default is the SDK's, which also uses
        the environment's proxies.
    :param overrides: settings by name, as for a client: ``cache_path=``, ``cache_mode=``, ….
        Sampling parameters among them are added to requests without them; those from files and
        the environment are not.
    :returns: an ``openai.DefaultHttpxClient``: an ``httpx.Client``, or an ``httpx2.Client`` if the
        installed SDK uses that.

    >>> import openai
    >>> client = openai.OpenAI(api_key="none", http_client=llmcall.http_client())
    """
    from ..support import libraries

    recorder = Recorder(actor, overrides, function="http_client()")
    return _recorded_client(libraries.openai.DefaultHttpxClient, recorder, transport)


def async_http_client(
    *, actor: Actor | None = None, transport: object = None, **overrides: object
) -> openai.DefaultAsyncHttpxClient:
    """Return an HTTP client for ``openai.AsyncOpenAI(http_client=…)``. It takes the arguments of
    :func:`http_client`.

    >>> import openai
    >>> client = openai.AsyncOpenAI(api_key="none", http_client=llmcall.async_http_client())
    """
    from ..support import libraries

    recorder = Recorder(actor, overrides, function="async_http_client()")
    return _recorded_client(libraries.openai.DefaultAsyncHttpxClient, recorder, transport)


def _recorded_client(client: type[Client], recorder: Recorder, transport: object) -> Client:
    """Return a client of the SDK whose transports and proxies a recorder patches."""
    from ..clients.api_errors import http_library
    from .transports import PatchedTransport

    library = http_library()

    class RecordedClient(client):  # type: ignore[misc, valid-type]
        """An HTTP client of the SDK whose calls are recorded and replayed."""

        # Private: patches._choose_transport says why this method is replaced.
        def _transport_for_url(self, url: object) -> object:
            below = super()._transport_for_url(url)
            # If a block is open, its recorder is attached already; a call passes one recorder only.
            if isinstance(below, PatchedTransport):
                below = below.below
            return PatchedTransport(library, recorder, below)

    return RecordedClient(transport=transport)


@contextlib.contextmanager
def patched(
    actor: Actor | None = None, hosts: Collection[str] = (), **overrides: object
) -> Iterator[None]:
    """Record and replay the requests of every HTTP client of the process, for a block.

    The block records the clients of httpx, httpx2 and requests in any library, including those made
    before it, whatever their transports. A request outside any scope is in the scope ``run``. An llmcall
    error reaches the program as an error of its SDK (with requests: as a response with the status
    409); the end of the block raises the first one again.

    :param actor: names the actor of a request; see :func:`http_client`.
    :param hosts: further hosts whose JSON requests are recorded, besides those to models.
    :param overrides: settings by name, as for a client.
    :raises ConfigError, TypeError: if a setting is wrong, as for a client.

    >>> def main():
    ...     "Stands in for a program that uses the OpenAI SDK."
    >>> with llmcall.patched(actor="system"), llmcall.cassette("program.jsonl"):
    ...     main()
    """
    default = new_program_scope()
    recorder = Recorder(actor, overrides, hosts, function="patched()", default=default)
    with naming_own_calls(), _recording(recorder):
        yield
    recorder.raise_first_error()


def cassette(
    path: str | os.PathLike[str],
    mode: str = "once",
    actor: Actor | None = None,
    hosts: Collection[str] = (),
) -> Cassette:
    """Record every model call of a block in a file, and replay it: llmcall's own, and the calls of
    the openai SDK and of every other client of httpx, httpx2 or requests.

    It is a context manager and a decorator; ``.open()`` and ``.close()`` serve cells of a notebook.
    Outside any scope, a program's identical requests are draws of the scope ``run``, counted from 0 at
    each opening, and llmcall's own identical calls share an answer. If ``llmcall run`` recorded the file,
    they are draws, too, and its ``--scope``, ``--actor`` and ``--seed`` apply. If calls were refused and the
    code in the block went on, the end of the block raises the first of these errors.

    :param path: the file, JSON Lines; ``~`` is the user's home.
    :param mode: ``none`` (or ``replay``) only reads. ``once`` records if there is no file or its recording is
        incomplete; otherwise it only reads. ``new`` adds missing answers. ``update`` also moves
        unused records to the disk cache. ``rewrite`` starts empty and requests
        everything again.
    :param actor: names the actor of an SDK's request; see :func:`http_client`.
    :param hosts: further hosts whose JSON requests are recorded, besides those to models.
    :raises ValueError: for an unknown mode.
    :raises CacheError: when the block begins, if the path is a folder.
    :raises CacheCorruptError: when the block begins, if the file is damaged.

    >>> for _ in range(2):
    ...     with llmcall.cassette("good-morning.jsonl", mode="once") as tape:
    ...         llmcall.client().send_message("Good morning!", max_tokens=16).content, tape.replayed
    ('Good morning!', 0)
    ('Good morning!', 1)
    """
    around = functools.partial(recording_programs, actor=actor, hosts=hosts)
    return Cassette(path, mode, around=around)


def open_named_cassette(path: str, mode: str) -> None:
    """Open the cassette that the settings name, until they name another one or the process ends."""
    Cassette(path, mode, owner=SETTINGS, around=recording_programs).__enter__()


@contextlib.contextmanager
def recording_programs(
    tape: Cassette, actor: Actor | None = None, hosts: Collection[str] = ()
) -> Iterator[None]:
    """Record the requests of the process's HTTP clients while a cassette is open. Where ``llmcall run`` recorded the
    file, its scope, actor and seed hold, unless others are given, as in its own replay.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(naming_own_calls())
        if tape.run is not None:
            scope, named_by = tape.run.get("scope"), str(tape.run.get("actor", ""))
            if scope is not None and here().opened_by == "default":
                stack.enter_context(open_scope(str(scope), process=True))
            if actor is None and is_named_by_text(named_by):
                actor = named_by
            if (seed := tape.run.get("seed")) is not None:
                from .seeds import seeded  # only then

                stack.enter_context(seeded(seed))
        # A cassette that the settings name is open for the process, not for the scope of its first call.
        context = Context() if tape.owner.is_settings else copy_context()
        recorder = context.run(
            Recorder,
            actor,
            {},
            hosts,
            function="cassette()",
            sends_nothing=not tape.may_record,
            default=tape.program_scope,
            is_of_cassette=True,
        )
        if not tape.may_record:
            stack.enter_context(placeholder_keys())
        stack.enter_context(_recording(recorder))
        stack.enter_context(default_scope(tape.default_scope))
        stack.enter_context(numbered_anew())
        yield
    if not (tape.recorded or tape.replayed):
        for line in other_connections(recorder):
            notice("%s", line)
    if tape.owner.raises_refusals:
        recorder.raise_first_error()


@contextlib.contextmanager
def _recording(recorder: Recorder) -> Iterator[None]:
    """Attach a recorder to the process's clients for a block."""
    with patched_by(recorder), recorded_children(recorder):
        try:
            yield
        finally:
            for line in unrecorded_lines(recorder):
                notice("%s", line)


def unrecorded_lines(recorder: Recorder) -> Iterator[str]:
    """Yield a line about each request to a model that is not recorded, and about each host of a model to
    which other clients connected.
    """
    for address in recorder.seen[Sight.MODEL_REQUEST]:
        sent = "was sent and not recorded, so a replay refuses it"
        outcome = "was refused" if recorder.sends_nothing else sent
        yield f"{address} {outcome}: llmcall records JSON that is posted to a model and answered in JSON"
    *names, last = recorded_libraries()
    libraries = f"{', '.join(names)} and {last}"
    recorded = (
        f"llmcall records what {libraries} send to APIs like those of OpenAI, Anthropic and Gemini"
    )
    remedy = remedy_of_sockets(". If a library with sockets of its own")
    for host in recorder.seen[Sight.MODEL_CONNECTION]:
        what = f"requests that other clients sent to {host} are not recorded, so a replay cannot answer them"
        if recorder.sends_nothing:
            what = f"a replay refused a connection to {host}"
        yield f"{what}. {recorded}{remedy}"


def other_connections(recorder: Recorder) -> Iterator[str]:
    """Yield a line about the connections to other hosts by clients that are not recorded: one may be a model's."""
    if connected := recorder.seen[Sight.OTHER_CONNECTION]:
        yield (
            f"the program connected to {', '.join(connected)} through a library that llmcall does not record"
            + remedy_of_sockets(": if it")
        )


def remedy_of_sockets(beginning: str) -> str:
    """Return what to do about a library with its own sockets; empty if no feature knows.

    :param beginning: the words before "takes a base URL from the environment".
    """
    remedy = additions("remedies").get("a library with sockets of its own")
    return f"{beginning} takes a base URL from the environment, {remedy}" if remedy else ""
