"""Recorders: the options for recording a program, what was seen of it, and the client that makes its calls."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from ..additions import additions
from ..clients.openai import OpenAIClient
from ..config.endpoints import Endpoint
from ..config.settings import Settings, checked_layer
from ..config.values import UNSET
from ..core.calls import Call, Resolved
from ..core.kinds import ProgramChat, ProgramEmbeddings
from ..errors import BudgetExceededError, CacheMissError, LLMCallError, ScopeError
from ..keys.request import Data
from ..link import messages
from ..link.client_facts import KEYS, keyless
from ..link.plain_values import error_in
from ..link.programs import innermost_recorder, interceptors, recordings
from ..scopes.active import ActiveScope, here
from ..scopes.scope import Scope
from ..support.listeners import CallListener, listen
from ..support.normalizers import normalizer
from . import connections
from .actors import Actor, Actors
from .interceptors import Interceptor, Sight, note_refusal
from .transport import ProgramTransport

if TYPE_CHECKING:
    from types import ModuleType

    from ..stores.cassettes.cassette import Cassette
    from ..stores.record import Record
    from .requests import RequestToRecord

OTHERS = (Sight.OTHER_CONNECTION, Sight.OTHER_REQUEST)
MOST_OTHERS = 5  # addresses of each of these that are kept
# Refusals that are counted where they are raised, in calls by llmcall's own client too.
COUNTED_ERRORS = (BudgetExceededError, CacheMissError, ScopeError)
LIMIT = "max_completion_tokens"  # another name for max_tokens


class ProgramClient(OpenAIClient):
    """A client that makes a program's calls to one address, with the credentials and headers of each request."""

    takes_defaults = False

    def _resolve(self) -> Resolved:
        """Return the resolved settings. Of the default parameters, only those given in code apply:
        the program's requests stay its own. Its own HTTP client sets the timeouts.
        """
        resolved = super()._resolve()
        options = resolved.options._replace(timeout=None, on_error="raise")
        overridden = {
            name: value for name, value in resolved.defaults.items() if name in self._overrides
        }
        return resolved._replace(defaults=overridden, options=options)

    def effort(self, model: str) -> dict[str, Data]:
        """Return nothing: a program's request gets no effort that it does not name."""
        return {}

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model; one in this process, if that answers whatever the address is."""
        api_type = self.settings.api_type
        if api_type in additions("program_senders"):
            return [Endpoint(api_type, (model,), api_type)]
        return super().endpoints(model)

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        api_type = endpoint.api_type or ""
        return api_type if api_type in additions("program_senders") else super().host(endpoint)

    def with_own_body(self, call: Call, transport: ProgramTransport) -> Call:
        """Return a call that the program's transport sends, with the program's own body: only an alias or
        an override changes a field of it. What llmcall knows about the model changes nothing.
        """
        request, body = call.request, transport.to_record.body
        sent = dict(body)
        if body.get("model") is not None or "model" in self._overrides:
            sent["model"] = request.model
        if request.kind == "embedding":
            sent["input"] = request.body["input"]
        else:
            for name, default in self.resolved.defaults.items():
                is_limited = name == "max_tokens" and body.get(LIMIT) is not None
                if body.get(name) is None and not is_limited:
                    sent[name] = default
        is_chat = request.kind == "chat"
        return call._replace(
            kind=ProgramChat(transport) if is_chat else ProgramEmbeddings(transport),
            request=request._replace(body=sent, expected=None),  # the program reads the answer
            is_streamed=is_chat and transport.to_record.requests_stream,
        )


class Recording(NamedTuple):
    """The options of a block, a run or an ``http_client``; those not given come from the ones around it.

    :param actors: name the actor of a request, or ``None``.
    :param hosts: further hosts whose JSON requests are recorded as kind "http".
    :param client_at: returns the client that makes the calls to an address.
    :param overrides: the settings that were given for these clients.
    :param default: the scope of calls outside any scope, or ``None``.
    :param is_of_cassette: ``True`` if ``default`` is a cassette's. Blocks inside then use it, too.
    :param sends_nothing: ``True`` if it only replays; ``None`` if that was not said.
    """

    client_at: Callable[[str], ProgramClient]
    overrides: Mapping[str, object] = {}
    actors: Actors | None = None
    hosts: frozenset[str] = frozenset()
    default: ActiveScope | None = None
    is_of_cassette: bool = False
    sends_nothing: bool | None = None

    def over(self, outer: Recording) -> Recording:
        """Return a copy that takes unspecified options from the one around it."""
        takes_clients = outer.overrides and not self.overrides
        has_default = self.is_of_cassette or (self.default and not outer.is_of_cassette)
        says_sending = self.sends_nothing is not None
        return Recording(
            client_at=outer.client_at if takes_clients else self.client_at,
            overrides=self.overrides or outer.overrides,
            actors=self.actors or outer.actors,
            hosts=self.hosts or outer.hosts,
            default=self.default if has_default else outer.default,
            is_of_cassette=self.is_of_cassette or outer.is_of_cassette,
            sends_nothing=self.sends_nothing if says_sending else outer.sends_nothing,
        )

    def scope_of(
        self, to_record: RequestToRecord, settings: Settings
    ) -> AbstractContextManager[object]:
        """Return the scope of a request's actor; without one, the scope stays.

        :param settings: the call's settings.
        """
        if self.actors is None:
            return nullcontext()
        normalize = normalizer(settings.cache_normalize)
        return self.actors.scope_of(to_record.for_actor(), normalize, self.default)


class RecordingOptions(NamedTuple):
    """The options of a recording, as another process gets them.

    :param arguments: of a :class:`Recorder`, by name.
    :param models: the addresses of models that are known.
    :param prints_first: ``True`` if the recording process prints the first miss when it comes.
    """

    arguments: dict[str, Any]
    models: frozenset[tuple[str, int]]
    prints_first: bool


class Recorder(Interceptor):
    """One recording of a program, and what was seen of it: of an ``http_client``, ``patched``, a cassette or a
    run. ``answering.response_to`` answers the requests themselves.

    :param actor: names the actor of a request; see :func:`llmcall.http_client`.
    :param overrides: settings by name.
    :param hosts: with those below, the options that :class:`Recording` has.
    :param function: the public function that took these arguments, for messages.
    :param is_linked: ``True`` if another process records this one.
    :raises ConfigError, TypeError: if a setting is wrong, as for a client.
    :ivar first_error: the first error of llmcall's that the program got, or ``None``.
    :ivar refused: how many of the program's calls were refused for other reasons than a miss, a scope or a budget,
        such as a credential in the request.
    :ivar seen: by sight, the addresses; of those that are not models', the first.
    :ivar report_first: is called with ``first_error`` when it comes.
    :ivar models: the addresses of models that the settings name or that were called.
    :ivar has_ended: ``True`` if the program's process is ending, so that nothing more can be recorded.
    :ivar made_in: the scope in which it was made.
    :ivar binds_cassettes: ``True`` if the cassettes that the program opens only read, too, where it sends nothing.
    """

    binds_cassettes = False

    def __init__(
        self,
        actor: Actor | None,
        overrides: Mapping[str, object],
        hosts: Collection[str] = (),
        *,
        function: str,
        sends_nothing: bool | None = None,
        default: ActiveScope | None = None,
        is_of_cassette: bool = False,
        is_linked: bool = False,
    ) -> None:
        # A wrong setting fails here, not in the program's first request; a path starts from this process's folder.
        settings: dict[str, Any] = {
            name: overrides[name] if setting.value is UNSET else setting.value
            for name, setting in checked_layer(overrides, function).items()
        }
        client_at = functools.cache(
            lambda address: ProgramClient(**{**settings, "base_url": address})
        )
        names = (hosts,) if isinstance(hosts, str) else hosts
        self._recording = Recording(
            client_at,
            settings,
            None if actor is None else Actors(actor, is_linked=is_linked),
            frozenset(map(_checked_host, names)),
            default,
            is_of_cassette,
            sends_nothing,
        )
        self._was_attached = False
        self.first_error: Exception | None = None
        self.refused = 0
        self.seen: dict[str, dict[str, None]] = {sight: {} for sight in Sight}
        self.report_first: Callable[[Exception], object] = bool
        self.models = connections.configured_models()
        self.has_ended = False
        self.stays_in_forks = bool(sends_nothing)
        self.made_in = here()

    def is_left(self, library: ModuleType, host: str) -> bool:
        """Return whether the process that records this one has ended, so that a request to a model passes."""
        return False

    def attach(self) -> None:
        """Compose its options with those of the recorders attached before it."""
        outer = innermost_recorder()
        self._was_attached = True
        if outer is not None:
            self._recording = self._recording.over(outer._recording)

    @property
    def recording(self) -> Recording:
        """Return the recording that counts for a request: an ``http_client``'s own, or the innermost, such as
        a cassette named by the settings.
        """
        counting = innermost_recorder()
        if counting is None or counting is self:
            return self._recording
        if not self._was_attached:
            return self._recording.over(counting._recording)
        return counting._recording if self in interceptors else self._recording

    @property
    def sends_nothing(self) -> bool:
        """Return whether a request that is not recorded is refused."""
        return bool(self.recording.sends_nothing)

    def known_models(self) -> set[tuple[str, int]]:
        """Return the addresses of models that this recorder and those around it know."""
        return set().union(*(recorder.models for recorder in self._watching()))

    def _watching(self) -> dict[Recorder, None]:
        """Return this recorder and the attached ones: all of them note what happens."""
        return dict.fromkeys([self, *recordings()])

    def note_refusal(self, error: Exception) -> None:
        """Count an llmcall error, and keep the first.

        An error that a daemon thread gets after the program's end is not counted.
        """
        if not self.has_ended:
            if self.first_error is None:
                self.first_error = error
                self.report_first(error)
            self.refused += not isinstance(error, COUNTED_ERRORS)

    def raise_first_error(self) -> None:
        """Raise the first llmcall error that a call got, if any."""
        if self.first_error is not None:
            raise self.first_error

    def note(self, sight: Sight, address: str) -> None:
        """Note something that is not recorded, to report it at the end.

        :raises ConnectionRefusedError: for a connection to a model, if nothing may be sent.
        :raises LLMCallError: for a request to one.
        """
        refused = None
        if sight == Sight.MODEL_CONNECTION and self.sends_nothing:
            refused = connections.refused_connection(address)
        for recorder in self._watching():
            seen = recorder.seen[sight]
            if sight not in OTHERS or len(seen) < MOST_OTHERS:
                seen[address] = None
            recorder.first_error = recorder.first_error or refused  # the program may go on
        if refused is not None:
            raise refused
        if sight == Sight.MODEL_REQUEST and self.sends_nothing:
            raise LLMCallError(
                f"{address} is not recorded, so a replay does not send it: llmcall records JSON that is posted "
                "to a model and answered in JSON"
            )

    # For the processes that are recorded, too

    def actor_scope(self, name: str) -> Scope | None:
        """Return the scope of an actor, which all processes share; ``None`` if no actors are named."""
        actors = self.recording.actors
        return None if actors is None else actors.scope_named(name, self.recording.default)

    def options(self) -> RecordingOptions:
        """Return the recording's options for another process: picklable, without keys or passwords."""
        recording = self.recording
        arguments = {
            "actor": recording.actors and recording.actors.for_children(),
            "overrides": {
                name: keyless(name, value)
                for name, value in recording.overrides.items()
                if name not in KEYS
            },
            "hosts": recording.hosts,
            "sends_nothing": self.sends_nothing,
        }
        models, prints_first = frozenset(self.known_models()), self.report_first is not bool
        return RecordingOptions(arguments, models, prints_first)

    def hear(self, note: messages.Refused | messages.Saw) -> None:
        """Note what another process saw of its program."""
        if isinstance(note, messages.Saw):
            with contextlib.suppress(ConnectionRefusedError, LLMCallError):  # refused there
                self.note(Sight(note.sight), note.address)
        elif isinstance(error := error_in(note.error, is_any=False), Exception):
            note_refusal(error)


def _checked_host(host: object) -> str:
    """Return the name of a host that is to be recorded."""
    if not isinstance(host, str) or "/" in host or "*" in host or host.count(":") == 1:
        raise ValueError(
            f"hosts has {host!r}; give names of hosts alone, such as 'api.example.com'"
        )
    return host.lower()


class ProgramCalls(CallListener):
    """A counter of refused calls, for the attached recorders. A failure after which the
    program's SDK tried again is an attempt of the same call.
    """

    def opened(self, cassette: Cassette) -> None:
        """Let a cassette of the program only read, where nothing may be sent: a map's workers keep to it, too."""
        if any(recorder.binds_cassettes and recorder.sends_nothing for recorder in recordings()):
            cassette.mode = "none"

    def answered(self, call: Call, record: Record) -> None:
        """No longer count an earlier attempt as failed, if a record answers this one. Note the key of a replayed
        request: a replay's children get placeholders for keys, and one that sends by itself would pay.
        """
        call.take_back_failure()
        if record.is_hit:
            call.note_keys()

    def refused(self, call: object, error: Exception) -> None:
        """Count the error."""
        note_refusal(error)


listen(ProgramCalls())
