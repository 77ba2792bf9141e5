"""One call: what it resolved, its request, its position in the program, and the store of its record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..apis.shapes import served_via
from ..config.settings import Settings
from ..config.values import is_loopback
from ..errors import CacheMissError, ConfigError, ScopeError
from ..keys.keys import Identity, OpenIdentity, sampled_key, short_key
from ..keys.parameters import EFFORT, configured_parameters, with_effort
from ..keys.request import Request
from ..scopes.active import ScopedRecord
from ..scopes.draws import Draw
from ..scopes.position import Position
from ..stores.cache.cache import ResponseCache, shared_cache
from ..stores.cassettes.stores import CacheStore, CassetteStore
from ..stores.record import Record
from ..support.display import printable
from ..support.failures import Failures, process_failures
from ..support.listeners import CallInfo, methods_by_event
from ..support.secrets import note_used
from ..support.system import is_watched
from ..support.waits import Progress
from .options import Deadline, Options
from .seams import Store

if TYPE_CHECKING:
    from ..clients.configured import ConfiguredClient as Client
    from ..link.errand import Errand
    from ..stores.cassettes.cassette import Cassette
    from ..traffic.sites import Site
    from ..traffic.usage import Meter
    from .kinds import Kind

# Features that answer calls without a model stand around a call's store: each returns the store to ask instead.
stores_around: list[Callable[[Call, Store], Store]] = []
# Features that hold recorded answers back: each returns for how many seconds, for calls that are looked up together.
answers_held_back: list[Callable[[Sequence[Call]], float]] = []


class Resolved(NamedTuple):
    """What a client makes of the settings. A call keeps what it began with: nothing configured, opened or edited
    meanwhile changes it.

    :param current: the process's settings: when they change, a client resolves them again.
    :param settings: as they apply to the client.
    :param cache: the disk cache that they name.
    :param options: the options of a call that names none.
    :param defaults: the parameters that they give a default to.
    :param meter: counts the calls; ``None``: they can cost nothing, as recorded functions and a program's requests
        without a body.
    :param sends_nothing: ``True`` if the client answers in a process of ours.
    :param sites: by the name of a model, what the client resolved of it; made when its first call is prepared.
    :param checked_hosts: the models and hosts whose records were checked for their origin.
    :param prepared: by the arguments of a call, the call without content, client and position, and its identity.
    """

    current: Settings
    settings: Settings
    cache: ResponseCache
    options: Options
    defaults: dict[str, Any]
    meter: Meter | None
    sends_nothing: bool
    sites: dict[str, Site]
    checked_hosts: set[tuple[str, str]]
    prepared: dict[tuple[object, ...], tuple[Call, OpenIdentity]]

    @classmethod
    def of(
        cls,
        settings: Settings,
        current: Settings | None = None,
        meter: Meter | None = None,
        *,
        sends_nothing: bool = False,
    ) -> Resolved:
        """Return what follows from settings."""
        cache, defaults = shared_cache(settings.cache_path), configured_parameters(settings)
        options = Options.of(settings)
        current = current or settings
        return cls(current, settings, cache, options, defaults, meter, sends_nothing, {}, set(), {})


class Call(NamedTuple):
    """One call: of a chat, an embedding, a recorded function or an HTTP request that is recorded as it
    is.

    :param client: makes it; ``None``: a recorded function, a program's request without a body, or another process.
    :param at: what it resolved: settings, disk cache, and the sites of its models.
    :param cassette: the open cassette, or ``None``.
    :param request: the request.
    :param options: how it is made.
    :param kind: how it is sent, checked and recorded.
    :param position: its position in the program.
    :param draw: its draw, or ``None``; released if the call fails.
    :param fallbacks: the names of the models to try, in order, if the context is too long.
    :param is_streamed: ``True`` if its answer is emitted piece by piece, to the reader of a stream.
    :param identity: of its request, without a sample, until it has its position.
    :param deadline: the end of all that is tried for it.
    :param used_records: collects the records that its arm's calls get, or ``None``.
    :param progress: how far it came; ``None`` if it was not begun.
    :param errand: has another process answer it; ``None``: this one does.
    """

    client: Client | None
    at: Resolved
    cassette: Cassette | None
    request: Request
    options: Options
    kind: Kind
    position: Position
    draw: Draw | None = None
    fallbacks: tuple[str, ...] = ()
    is_streamed: bool = False
    identity: Identity | None = None
    deadline: Deadline = Deadline(None)
    used_records: deque[ScopedRecord] | None = None
    progress: Progress | None = None
    errand: Errand | None = None

    def placed(
        self, position: Position, sample: str | None = None, draw: Draw | None = None
    ) -> Call:
        """Return the call at a position, with the key that follows from its sample."""
        assert self.identity is not None  # it has no position yet
        if self.position.notes is not None:
            position = position._replace(notes=self.position.notes)
        # By position, not by _replace, which takes twice as long: a microsecond more for each replayed answer.
        asked = self.request
        request = Request(
            asked.kind,
            asked.model,
            asked.hashed,
            asked.body,
            asked.headers,
            sample,
            sampled_key(self.identity, sample),
            asked.expected,
        )
        return Call(
            self.client,
            self.at,
            self.cassette,
            request,
            self.options,
            self.kind,
            position,
            draw,
            self.fallbacks,
            self.is_streamed,
        )

    def begun(self, progress: Progress) -> Call:
        """Return the call with its deadline, which starts to run now, its progress from now on, and its sites."""
        if self.is_counted:
            for model in (self.request.model, *self.fallbacks):
                self.site_of(model)
        return self._replace(deadline=Deadline.after(self.options.deadline), progress=progress)

    @property
    def name(self) -> str:
        """Return what it calls: a model, a function, or the method and path of an HTTP request."""
        return self.kind.name or self.request.model

    @property
    def settings(self) -> Settings:
        """Return its settings."""
        return self.at.settings

    @property
    def cache(self) -> ResponseCache:
        """Return the disk cache."""
        return self.at.cache

    @property
    def needs_thread(self) -> bool:
        """Return whether an event loop looks up and stores its answer in a thread: to wait for a server, or because
        BlockBuster forbids that loop to touch a disk.
        """
        return self.at.cache.storage.is_on_server or is_watched()

    @property
    def site(self) -> Site:
        """Return the site of its model."""
        return self.site_of(self.request.model)

    def site_of(self, model: str) -> Site:
        """Return the site of a model, which the client makes at its first call."""
        site = self.at.sites.get(model)
        if site is None:
            assert self.client is not None  # another process gave all sites
            site = self.at.sites.setdefault(model, self.client.site(model))
        return site

    def note_keys(self) -> None:
        """Note the keys that its client would send with it, also where a record answers it."""
        if self.kind.has_own_transport:
            return
        sent: list[tuple[object, str | None]] = [(self.settings.api_key, self.settings.base_url)]
        if self.is_counted:
            with suppress(ConfigError):  # a replay needs neither an endpoint nor its key
                sent += [(endpoint.key(), endpoint.address) for endpoint in self.site.endpoints]
        for key, address in sent:
            if isinstance(key, str):
                note_used([key], is_local=is_loopback(address or ""))

    @property
    def is_counted(self) -> bool:
        """Return whether it counts in usage: not if it can cost nothing."""
        return self.at.meter is not None

    @property
    def label(self) -> str:
        """Return how messages name it."""
        request = self.request
        words = "call {} of" if request.kind in ("function", "http") else "request {} to"
        return f"{request.kind} {words.format(short_key(request.cache_key))} {printable(self.name)}"

    @property
    def info(self) -> CallInfo:
        """Return what a user's listener is told about it."""
        request, position = self.request, self.position
        return CallInfo(
            request.kind,
            self.name,
            position.path,
            request.sample,
            position.arm,
            request.cache_key,
            self.kind.is_programs,
        )

    @property
    def may_call(self) -> bool:
        """Return whether the cassette, or without one the cache's mode, allows a call."""
        if self.cassette is not None:
            return self.cassette.may_record
        return self.settings.cache_mode != "replay"

    @property
    def failures(self) -> Failures:
        """Return the list that reports at the end of the run what was not recorded."""
        if self.cassette is not None:
            return self.cassette.failures
        if self.settings.cache_mode == "off":
            return Failures()  # nothing is recorded, and nothing reported
        return process_failures

    def begin_stream(self, progress: Progress) -> None:
        """Note that its answer is read in pieces from now on; it counts as abandoned unless
        :meth:`end_stream` follows.
        """
        progress.is_read = True
        self.failures.begin(progress, self.position.path, self.label)

    def end_stream(self, progress: Progress, error: BaseException | None = None) -> None:
        """Note the end of an answer that was read in pieces, if it was.

        :param error: with which it ended.
        """
        if progress.is_read:
            self.failures.end(progress, error)

    @property
    def store(self) -> Store:
        """Return what holds its record: the cassette over the disk cache, or the cache alone."""
        cassette, position, cache = self.cassette, self.position, self.cache
        mode = "off" if self.options.cache is False else self.settings.cache_mode
        if mode == "off" and cassette is not None and (answers := cassette.answers) is not None:
            cache, mode = answers, "auto"
        calls_anew = self.kind.calls_anew(self)
        overwrites = calls_anew or (cassette is not None and cassette.bypasses_cache)
        # Under a cassette, the cassette says which arms used a record: the cache does not see all uses.
        arms_apart = (
            position._replace(branches=())
            if position.branches and cassette is not None
            else position
        )
        is_read = self.progress is not None and self.progress.is_read
        below = CacheStore(cache, mode, arms_apart, overwrites, is_read)
        store: Store = below
        if cassette is not None:
            # Outside any scope, identical calls share a record, and a program that waits for an end needs the
            # last one, now and in a replay.
            replaces = calls_anew and self.request.sample is None
            store = CassetteStore(cassette, below, position, replaces)
        for around in stores_around:
            store = around(self, store)
        return store

    @property
    def shared_by(self) -> ResponseCache | Cassette | None:
        """Return the object by which identical concurrent calls share an answer; ``None`` if they share none."""
        if self.options.cache is False or (
            self.request.sample is None and self.kind.calls_anew(self)
        ):
            return None
        if self.settings.cache_mode != "off":
            return self.cache
        # Arms share their draws without a cache, too.
        return self.cassette if self.position.arm else None

    def notify(self, event: str, *details: Any) -> None:
        """Notify the listeners of something, by the name of their method."""
        # as notify() does, but quicker: each replay has two events
        for method in methods_by_event[event]:
            method(self, *details)

    def unrecorded(self) -> Call:
        """Return the call as one whose answer is neither looked up nor stored."""
        return self._replace(cassette=None, options=self.options._replace(cache=False))

    def release_draw(self) -> None:
        """Free the draw's number."""
        if self.draw is not None:
            self.draw.release()

    def note(self, **amounts: float | str | None) -> None:
        """Note the call's usage or outcome.

        :param amounts: by column of :class:`~llmcall.types.Usage`, or by a name of :class:`.Counts`; ``None`` means
            unknown.
        """
        self.notify("used", amounts)

    def note_hit(self, record: Record, saved: float | None) -> None:
        """Note that a record answers the call, or several records the texts of embeddings.

        :param record: the first of them.
        :param saved: what they cost in USD, or ``None`` if unknown.
        """
        if not self.is_counted:
            return
        amounts: dict[str, float | str | None] = {"cached_calls": 1, "saved": saved}
        if self.cassette is not None and record.stored_at is None:
            amounts["replayed_calls"] = 1
        is_models = self.kind.calls_model and not record.given
        if is_models and (served := served_via(record.model_answer)) is not None:
            amounts["served"] = served
        self.notify("used", amounts)

    def note_answer(self, answer: Record) -> None:
        """Keep the draw, and note the record that answers the call: for its arm, and for the listeners."""
        if self.draw is not None:
            self.draw.keep(answer)
        if self.used_records is not None:
            self.used_records.append(ScopedRecord(self.position.path, answer))
        self.notify("answered", answer)

    def take_back_failure(self) -> bool:
        """Take back a failure of the same call: its program made it again, so the failure was one attempt. Return
        whether there was one.
        """
        if not self.kind.has_own_transport or not self.failures.take_back(self.request.cache_key):
            return False
        self.note(recovered=self.request.cache_key)
        return True

    def refuse(self, error: CacheMissError | ScopeError) -> NoReturn:
        """Raise an error instead of an answer; the program may catch it and continue."""
        self.notify("refused", error)
        raise error

    def to_model(self, model: str) -> Call:
        """Return the call for another model, with that model's default effort if the call names none.
        Its answer is recorded under the same key.
        """
        body = dict(self.request.body)
        if body.get(EFFORT) == self.site.effort.get(EFFORT):
            body.pop(EFFORT, None)
        body = with_effort({**body, "model": model}, self.site_of(model).effort)
        return self._replace(request=self.request._replace(model=model, body=body))


class InnerCall(Call):
    """A call that a callback makes, such as a transport: it is unrecorded, and only limits and budgets count it."""

    __slots__ = ()
    is_counted = False
    shared_by = None

    def notify(self, event: str, *details: Any) -> None:
        """Do nothing."""

    @property
    def failures(self) -> Failures:
        """Return an empty list, never reported."""
        return Failures()

    @property
    def store(self) -> Store:
        """Return a store that holds nothing."""
        return CacheStore(self.cache, "off", self.position)
