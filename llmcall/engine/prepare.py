"""From the arguments of a call to its request, options, draw and place in a cassette; and to what
is recorded of it.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes import cassette as cassettes
from ..cassettes.cassette import active_cassette, guards, open_cassettes
from ..errors import (
    APIError,
    CacheMissError,
    LLMCallError,
    RateLimitError,
    RequestTimeoutError,
    ScopeError,
)
from ..notices import REFUSED, Failures, logger, process_failures, warn_once
from ..requests.arguments import (
    asked_messages,
    asked_parameters,
    check_messages,
    check_names,
    checked,
    expected_answer,
    given_parameters,
)
from ..requests.keys import ANEW, identity, key_of, normalizer, sampled_key
from ..scopes import Recorded, here, standing
from ..text import printable
from ..types import FROM_CACHE, FROM_FUNCTION, Record, Request, record_of
from .usage import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..cache.cache import ResponseCache
    from ..cassettes.cassette import Cassette, Place
    from ..config.settings import Settings
    from ..scopes import Draw
    from .limits import Pool
    from .usage import Meter

ON_ERROR = ("raise", "none", "return")
# The arguments of send_message that are handed on in this order, as a tuple of values.
ARGUMENTS = (
    "model", "temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "n",
    "response_format", "tools", "tool_choice", "reasoning_effort", "extra_body", "timeout", "deadline", "max_attempts",
    "waiting_time", "exponential_backoff_factor", "sample", "cache", "on_error", "dedent_messages",
)  # fmt: skip
# the version of marshal's format in which equal data are equal bytes, whoever else refers to them
PLAIN = 2
# of the calls that a client remembers: their arguments, packed, and the prepared call
MEMO_BYTES = 8 * 2**20
PREPARED_BYTES = (
    1_500  # of a prepared call, beside its texts, which the packed arguments hold as well
)
MOST_SEEN = 10_000  # calls of which is known that they were made once
MOST_FORMS = 100
MOST_POINTERS = 100  # that lead to one another; no list of fallbacks is so long


class Options(NamedTuple):
    """Hold how one call is made, none of which enters its key; ``None`` means what the settings
    say.

    :param timeout: seconds for one attempt.
    :param deadline: seconds for the whole call with its retries and waits.
    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param exponential_backoff_factor: what each further wait is multiplied by.
    :param sample: which draw this is, instead of the next one.
    :param cache: ``False`` goes past the disk cache.
    :param on_error: ``"raise"``, ``"none"`` or ``"return"``.
    :param dedent_messages: remove the common indentation of every text.
    :param enable_pydantic_model_return: return what ``response_format`` is read as, in place of the
        reply.
    """

    timeout: float | None = None
    deadline: float | None = None
    max_attempts: int | None = None
    waiting_time: float | None = None
    exponential_backoff_factor: float | None = None
    sample: str | None = None
    cache: bool | None = None
    on_error: str | None = None
    dedent_messages: bool = False
    enable_pydantic_model_return: bool = False


POSITIVE = ("timeout", "deadline", "max_attempts", "exponential_backoff_factor")
DEFAULT_OPTIONS = Options()
OPTIONS = frozenset(Options._fields)


def split_options(given: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Return a call's options, checked, and its other arguments.

    :param given: arguments by name, none of which is ``None``.
    :raises TypeError: for an option of the wrong type, naming it.
    :raises ValueError: for one out of range.
    """
    if OPTIONS.isdisjoint(given):
        return DEFAULT_OPTIONS, given
    params = {name: value for name, value in given.items() if name not in OPTIONS}
    return Options(**{name: _checked(name, given[name]) for name in given.keys() & OPTIONS}), params


def _checked(name: str, value: Any) -> Any:
    value = checked(name, value)
    if name in POSITIVE and value <= 0:
        raise ValueError(f"{name} is {value}; it must be more than 0")
    if name == "waiting_time" and value < 0:
        raise ValueError(f"{name} is {value}; it must be at least 0")
    if name == "on_error" and value not in ON_ERROR:
        raise ValueError(
            f"on_error is {value!r}; it must be one of {', '.join(map(repr, ON_ERROR))}"
        )
    if name != "sample":
        return value
    if value == "":
        raise ValueError("sample is ''; it must name a draw")
    return str(value)


class RetryPolicy(NamedTuple):
    """Hold how often and when a failed call is tried again.

    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param factor: what each further wait is multiplied by.
    :param max_waiting_time: seconds that no wait of our own exceeds.
    :param deadline_at: the monotonic time after which nothing is tried, or ``None``.
    """

    max_attempts: int = 5
    waiting_time: float = 1.0
    factor: float = 2.0
    max_waiting_time: float = 60.0
    deadline_at: float | None = None

    @classmethod
    def of(cls, options: Options, settings: Settings) -> RetryPolicy:
        """Return that of a call; its deadline begins now."""
        deadline = settings.deadline if options.deadline is None else options.deadline
        factor = options.exponential_backoff_factor
        return cls(
            settings.retry_max_attempts if options.max_attempts is None else options.max_attempts,
            settings.retry_waiting_time if options.waiting_time is None else options.waiting_time,
            settings.retry_exponential_backoff_factor if factor is None else factor,
            settings.retry_max_waiting_time,
            None if deadline is None else time.monotonic() + deadline,
        )

    def time_left(self) -> float | None:
        """Return the seconds until the deadline, or ``None`` where there is none."""
        return None if self.deadline_at is None else self.deadline_at - time.monotonic()

    def ended(self, error: APIError) -> bool:
        """Return whether it was the caller's own deadline that ended a call, which others need not
        share.
        """
        left = self.time_left()
        if left is None:
            return False
        waits = (
            isinstance(error, (RateLimitError, RequestTimeoutError)) and error.status_code is None
        )
        return left <= 0 or (error.attempts < self.max_attempts if error.retryable else waits)


class Resolved(NamedTuple):
    """Hold what a client comes to under the present settings.

    :param generation: of the settings.
    :param pools: by model, each made at its first call.
    :param hosts: whose records were looked at, each with the model that was asked for.
    :param defaults: the parameters that the settings give a default to.
    :param memo: what is remembered of chat calls; ``None`` where settings and arguments do not
        decide alone.
    """

    generation: int
    settings: Settings
    cache: ResponseCache
    pools: dict[str, Pool]
    hosts: set[tuple[str, str]]
    defaults: dict[str, Any]
    memo: Memo | None


class PreparedCall(NamedTuple):
    """Hold one call as its arguments describe it, before it is looked up or sent.

    :param client: the :class:`~llmcall.LLMClient` that makes it.
    :param resolved: what the client comes to under the settings of the call.
    :param scope: its scope path; empty outside any.
    :param draw: what it takes of the scope's draws, to be given back where it fails; ``None``
        outside any scope.
    :param cassette: the one that is open.
    :param place: the call's in the order of those on the cassette.
    :param parse: reads the answer as the type that ``response_format`` was.
    """

    client: Any
    resolved: Resolved
    request: Request
    options: Options
    scope: str = ""
    draw: Draw | None = None
    cassette: Cassette | None = None
    place: Place = ()
    parse: Callable[[str], Any] | None = None

    @property
    def shared_by(self) -> ResponseCache | None:
        """Return the disk cache whose users share the answer, ``None`` where it is not stored."""
        resolved = self.resolved
        return (
            None
            if self.options.cache is False or resolved.settings.cache_mode == "off"
            else resolved.cache
        )

    def store(self, record: Record, *, anew: bool = False) -> Record:
        """Store a record in the disk cache, unless the call goes past it; return the one that
        counts.

        :param anew: whether it is put in the place of what is there.
        """
        if self.draw is not None and self.draw.asker is not None:
            record = record.replace(asker=self.draw.asker)
        if self.options.cache is False:
            return record
        mode = self.resolved.settings.cache_mode
        anew = anew or (self.cassette is not None and self.cassette.anew)
        if anew and mode != "off":
            mode = "rewrite"  # a cassette that is written anew does so to the disk cache too
        return self.resolved.cache.store(record, mode=mode)

    def give_back(self) -> None:
        """Make the draw's number free again."""
        if self.draw is not None:
            self.draw.give_back()

    def end(self, answer: Record | None = None) -> None:
        """Note that the call has its answer."""
        if self.draw is not None:
            self.draw.end(answer)

    def add_usage(self, **amounts: Any) -> None:
        """Count what it used."""
        count(self.client.meter, self.request.model, self.scope, amounts)

    def keep(self, record: Record, source: str) -> Record:
        """Put a record on the cassette, and return the one that counts there: whatever was recorded
        first.

        A fallback's is a record of its own, and the first request's points to it.

        :param source: ``FROM_SERVER``, ``FROM_CACHE`` or ``FROM_FUNCTION``, by which the cassette counts it.
        """
        if self.cassette is None:
            return record
        if self.draw is not None and self.draw.asker is not None:
            for key in {self.request.cache_key, record.cache_key}:
                self.cassette.note_asker(key, self.draw)
        if record.cache_key != self.request.cache_key:
            pointer = record_of(self.request, {"fallback": record.cache_key})
            self.cassette.add(pointer, self.place, FROM_FUNCTION)
        return self.cassette.add(record, self.place, source)

    def note_replayed(self, record: Record) -> None:
        """Note who gets a recorded answer, if askers have names: the next replay gives it to them."""
        draw = self.draw
        if draw is None or draw.asker is None:
            return
        draw.note_found(record.asker)
        if self.cassette is not None:
            for key in {self.request.cache_key, record.cache_key}:
                self.cassette.note_asker(key, draw, record.asker)
        elif self.resolved.settings.cache_mode != "replay":
            self.resolved.cache.name_asker(record, draw.asker)

    def stored(self) -> Record | None:
        """Return the answer that the disk cache holds, or ``None``; also where it may not supply
        it.
        """
        if self.options.cache is False or (
            self.cassette is not None and not self.cassette.reads_cache
        ):
            return None
        resolved, request = self.resolved, self.request
        mode = resolved.settings.cache_mode
        record = resolved.cache.get(request, mode=mode)
        if record is None:
            return None
        if "fallback" in record.response:
            record = followed(record, functools.partial(resolved.cache.get, mode=mode))
        if (
            record is not None
            and record.host is not None
            and (request.model, record.host) not in resolved.hosts
        ):
            self._check_host(record, record.host)
        return record

    def _check_host(self, record: Record, host: str) -> None:
        """Say so, once, where a record of a model comes from another host than those that serve it
        now.
        """
        model = record.request.get("model", "")
        hosts = self.client.hosts(model)
        if host not in hosts:
            warn_once(
                f"answers of {model} recorded from {host} are used for {', '.join(sorted(hosts))}; "
                "[Cache] NAMESPACE keeps servers apart that differ"
            )
        self.resolved.hosts.add((self.request.model, host))

    def refuses(self, record: Record) -> bool:
        """Return whether a recorded answer is none to this call: its ``response_format`` refuses
        it.

        An :class:`LLMCall` records such answers, since it reads them itself; a class may have
        changed since.
        """
        if self.request.expected is None:
            return False
        from ..responses import fits

        return not fits(self.request, record.response)

    def anew(self) -> PreparedCall:
        """Return the same call as a further draw, whose answer is recorded beside one that it
        refuses.
        """
        request, sample = self.request, f"{self.request.sample or '#'}{ANEW}"
        key = key_of(request.kind, request.asked, sample)
        return self._replace(request=request._replace(sample=sample, cache_key=key))

    @property
    def name(self) -> str:
        """Return what it is called in messages."""
        return f"{self.request.kind} request {self.request.cache_key[:12]} to {self.request.model}"

    @property
    def failures(self) -> Failures:
        """Return what tells of it at the end of the run where it is not recorded; nobody does where
        no call is.
        """
        if self.cassette is not None:
            return self.cassette.failures
        return process_failures if self.resolved.settings.cache_mode != "off" else Failures()


class _Form(NamedTuple):
    """Hold what the arguments of calls come to beside their messages or texts.

    :param asked: what of them enters the key.
    :param given: the parameters that are sent.
    :param expected: as of :class:`llmcall.types.Request`.
    """

    model: str
    options: Options
    asked: dict[str, Any]
    given: dict[str, Any]
    headers: dict[str, str]
    normalize: Callable[[str], str] | None
    expected: Any
    parse: Callable[[str], Any] | None


class _Undrawn(NamedTuple):
    """Hold a chat call before it takes its draw.

    :param request: as it is outside any scope.
    :param identified: what :func:`llmcall.requests.keys.identity` says of it.
    """

    request: Request
    identified: Any
    form: _Form


class Memo(NamedTuple):
    """Hold what a client remembers of its chat calls, by their arguments as marshal packs them.

    :param forms: by the arguments beside the messages.
    :param seen: hashes of the calls that were made once.
    :param calls: those that were made again.
    """

    forms: dict[bytes, _Form]
    seen: set[int]
    calls: dict[bytes, _Undrawn]


def prepare_chat(
    client: Any, messages: Any, arguments: Mapping[str, Any], values: tuple[Any, ...] = ()
) -> PreparedCall:
    """Return a chat call as its arguments describe it; inside a scope it takes a draw.

    :param arguments: by name.
    :param values: further ones, those of ``ARGUMENTS`` in their order.
    :raises TypeError, ValueError: for a wrong argument.
    :raises ScopeError: where it is left to chance which draw it takes.
    """
    resolved, cassette = client.resolved, None
    place: Place = ()
    if open_cassettes or resolved.settings.cassette_path is not None:
        cassette = active_cassette(client.base_settings)
        place = cassette.place() if cassette else ()
        resolved = client.resolved  # a cassette's own settings stand above the others
    undrawn = None
    if resolved.memo is not None:
        try:
            packed = dumps((messages, values, arguments), PLAIN)  # type: ignore[arg-type]
            try:  # not get(): see usage.count
                undrawn = resolved.memo.calls[packed]
            except KeyError:
                undrawn = _remembered(client, resolved, resolved.memo, packed)
        except (ValueError, RecursionError):  # not plain data
            pass
    request, identified, form = undrawn or _undrawn(client, resolved, messages, values, arguments)
    try:
        active = here()
    except ScopeError as error:
        note_refused(_words(request, request.model), request.model, client.meter, error)
        raise
    scope, drawn = "" if active is None else active.path, None
    if form.options.sample is not None:
        sample = f"{scope}#{form.options.sample}"
    elif active is not None:
        digest = request.cache_key
        recorded = functools.partial(
            recorded_askers, resolved, form.options, identified, scope, digest, cassette
        )
        drawn = active.draw(digest, cassette or resolved.cache, recorded)
        sample = drawn.sample
    else:
        return PreparedCall(
            client, resolved, request, form.options, "", None, cassette, place, form.parse
        )
    kind, model, asked, body, headers, _, _, expected = request
    request = Request(
        kind, model, asked, body, headers, sample, sampled_key(identified, sample), expected
    )
    return PreparedCall(
        client, resolved, request, form.options, scope, drawn, cassette, place, form.parse
    )


def recorded_askers(
    resolved: Resolved,
    options: Options,
    identified: Any,
    path: str,
    digest: str,
    cassette: Cassette | None,
) -> Recorded:
    """Return who asked for the draws of a request when they were recorded.

    :param identified: what :func:`llmcall.requests.keys.identity` says of the request.
    :param path: the scope path.
    :param digest: the request's key outside any scope.
    """
    askers: dict[int, str] = {}
    if options.cache is not False and (cassette is None or cassette.reads_cache):
        for number in itertools.count():
            key = sampled_key(identified, f"{path}#{number}")
            record = resolved.cache.get(key, mode=resolved.settings.cache_mode)
            if record is None:
                break
            if record.asker is not None:
                askers[number] = record.asker
    if cassette is None:
        return Recorded(askers)
    found = cassette.recorded_askers(path, digest)
    return Recorded({**askers, **found.askers}, found.goes_on)


def _remembered(client: Any, resolved: Resolved, memo: Memo, packed: bytes) -> _Undrawn | None:
    """Return a call made of a copy of its arguments, which nobody else changes, and remember it.

    ``None`` where it is made for the first time, since most are made once, and where there is
    something wrong with the copy: marshal takes what shares its memory, as NumPy's numbers do, for
    bytes.
    """
    seen = hash(packed)
    if seen not in memo.seen:
        if len(memo.seen) >= MOST_SEEN:
            memo.seen.clear()
        memo.seen.add(seen)
        return None
    try:
        undrawn = _undrawn(client, resolved, *loads(packed))
    except (TypeError, ValueError):
        return None
    if len(packed) <= MEMO_BYTES // 64:
        if (
            len(memo.calls) * (2 * len(packed) + PREPARED_BYTES) > MEMO_BYTES
        ):  # where calls are about alike
            memo.calls.clear()
        memo.calls[packed] = undrawn
    return undrawn


def _undrawn(
    client: Any,
    resolved: Resolved,
    messages: Any,
    values: tuple[Any, ...],
    arguments: Mapping[str, Any],
) -> _Undrawn:
    form = _form(client, resolved, values, arguments)
    checked = check_messages(messages, dedent=form.options.dedent_messages)
    asked = {**form.asked, "messages": asked_messages(checked, form.normalize)}
    body = {"model": form.model, "messages": checked, **form.given}
    identified = identity("chat", asked)
    key = sampled_key(identified, None)
    return _Undrawn(
        Request("chat", form.model, asked, body, form.headers, None, key, form.expected),
        identified,
        form,
    )


def _form(
    client: Any, resolved: Resolved, values: tuple[Any, ...], arguments: Mapping[str, Any]
) -> _Form:
    """Return the form of a call; where its arguments are plain data, it is made of a copy of them,
    and remembered.
    """
    if resolved.memo is not None:
        forms = resolved.memo.forms
        try:
            packed = dumps((values, arguments), PLAIN)  # type: ignore[arg-type]
            form = forms.get(packed)
            if form is None:
                form = _new_form(client, resolved, *loads(packed))
                if len(forms) >= MOST_FORMS:
                    forms.clear()
                forms[packed] = form
            return form
        except (TypeError, ValueError, RecursionError):
            pass  # not plain data, or wrong: the arguments themselves say what is
    return _new_form(client, resolved, values, arguments)


def _new_form(
    client: Any,
    resolved: Resolved,
    values: tuple[Any, ...],
    arguments: Mapping[str, Any],
    kind: str = "chat",
) -> _Form:
    named = (*zip(ARGUMENTS, values, strict=False), *arguments.items())
    options, params = split_options({name: value for name, value in named if value is not None})
    model = client.model_named(params.pop("model", None))
    check_names(params, kind)
    given = {**(resolved.defaults if kind == "chat" else {}), **given_parameters(params)}
    headers = given.pop("extra_headers", {})
    asked = {"model": model, **asked_parameters(given)}
    if namespace := client.namespace(model):
        asked["namespace"] = namespace
    wanted, parse = params.get("response_format"), None
    if wanted is not None and not isinstance(wanted, dict):
        from ..outputs import read

        parse = functools.partial(read, output_type=wanted, structured=True)
    normalize = normalizer(resolved.settings.cache_normalize)
    return _Form(model, options, asked, given, headers, normalize, expected_answer(wanted), parse)


def prepare_embeddings(
    client: Any, text: Any, model: str | None, arguments: Mapping[str, Any]
) -> list[PreparedCall]:
    """Return an embeddings call as its arguments describe it, one text each; none takes a draw.

    :raises TypeError: for a wrong argument.
    """
    cassette = active_cassette(client.base_settings)
    resolved, scope = client.resolved, standing()
    named = {**arguments, "model": model or client.default_embedding_model()}
    form = _new_form(client, resolved, (), named, "embedding")
    if form.options.sample is not None:
        raise TypeError("embeddings take no sample: the same text has the same embedding")
    prepared = []
    for each in texts_of(text):
        asked = {**form.asked, "input": form.normalize(each) if form.normalize else each}
        body, key = (
            {"model": form.model, "input": each, **form.given},
            key_of("embedding", asked, None),
        )
        request = Request("embedding", form.model, asked, body, form.headers, None, key)
        place = cassette.place() if cassette else ()
        prepared.append(
            PreparedCall(client, resolved, request, form.options, scope, None, cassette, place)
        )
    return prepared


def texts_of(text: Any) -> list[str]:
    """Return the texts to embed, checked.

    :param text: one text or a sequence of texts.
    :raises TypeError: for anything else, naming its place.
    """
    if isinstance(text, str):
        return [text]
    if isinstance(text, (bytes, bytearray)) or not (
        isinstance(text, Sequence) or hasattr(text, "tolist")
    ):
        raise TypeError(
            f"text is {type(text).__name__}; it must be a string or a sequence of strings"
        )
    for index, item in enumerate(text):
        if not isinstance(item, str):
            raise TypeError(f"text[{index}] is {type(item).__name__}; it must be a string")
    return list(text)


def lookup(call: PreparedCall) -> tuple[PreparedCall, Record | None]:
    """Return a call with its recorded answer, or with ``None`` where a call is allowed.

    Past answers that it refuses, the call is the draw that its own one is recorded as.

    :raises CacheMissError: where there is none, and the cassette (where none is open, the mode)
        forbids to ask.
    """
    cassette = call.cassette
    if cassette is not None:
        find = functools.partial(cassette.find, place=call.place)
        record = followed(find(call.request), find)
        if record is not None:
            call.note_replayed(record)
            if call.refuses(record):
                return lookup(call.anew())
            cassette.count_replay()
            return call, record
    record = call.stored()
    if record is None:
        if not cassette.asks if cassette else call.resolved.settings.cache_mode == "replay":
            raise _missed(call)
        for guard in (
            guards if call.request.kind != "function" else ()
        ):  # what a function asks of models is guarded
            guard(call.client, cassette)
        return call, None
    if cassette is None:
        call.note_replayed(record)
    else:
        record = call.keep(record, FROM_CACHE)
    return (
        lookup(call.anew())
        if call.request.expected is not None and call.refuses(record)
        else (call, record)
    )


_first_miss: list[str] = []


def _missed(call: PreparedCall) -> CacheMissError:
    """Return the error of a request that is not recorded and may not be asked, noted as
    :func:`note_refused` does.

    Where another was missed before in this process, it says so: what a program swallowed may have
    led to this one.
    """
    resolved, name = call.resolved, call.request.model or call.client.name
    error = cassettes.missed(
        call.request,
        settings=resolved.settings,
        cache=resolved.cache,
        cassette=call.cassette,
        past_cache=call.options.cache is False,
    )
    if _first_miss:
        error.first = _first_miss[0]
    else:
        _first_miss.append(error.args[0])
    note_refused(_words(call.request, name), name, call.client.meter, error)
    return error


def _words(request: Request, name: str) -> str:
    verb, preposition = ("request", "to") if request.model else ("call", "of")
    return f"{request.kind} {verb} {request.cache_key[:12]} {preposition} {printable(name)}"


def note_refused(what: str, name: str, meter: Meter, error: LLMCallError) -> None:
    """Log what had no leave, count it, and note it for the end of the run: a program may swallow
    the error.

    :param what: the call in words.
    :param name: of the model or function, by which it is counted.
    """
    logger().error("%s refused: %s: %s", what, type(error).__name__, error.args[0])
    count(meter, name, standing(), {"errors": 1})
    process_failures.add(standing(), f"{what}: {type(error).__name__}", REFUSED)


def followed(record: Record | None, find: Callable[[str], Record | None]) -> Record | None:
    """Return the record that a pointer leads to (or is no pointer itself), ``None`` where it leads
    nowhere.

    :param find: gives the record of a key, or ``None``.
    """
    found = record
    for _ in range(MOST_POINTERS):
        if found is None or "fallback" not in found.response or found.kind != "chat":
            return found
        found = find(str(found.response["fallback"]))
    return None
