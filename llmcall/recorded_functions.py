"""Functions whose results are recorded as a model's answers are: a clock, a random draw, a search,
a tool.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from contextvars import ContextVar
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

from . import secrets
from .cache.cache import shared_cache
from .cassettes.cassette import function_scope
from .cassettes.current import active_cassette
from .cassettes.misses import guards
from .config import resolve as config
from .engine.drivers import Do, Send, adrive, drive, look
from .engine.flights import share
from .engine.lookup import lookup
from .engine.options import DEFAULT_OPTIONS
from .engine.prepare import sampled
from .engine.prepared_call import PreparedCall, Resolved
from .engine.retry import RetryPolicy, repeated
from .engine.usage import Meter
from .errors import APIError, LLMCallError, short_traceback
from .notices import LEFT, is_left, warn_once
from .requests.arguments import Parameters
from .requests.keys import map_texts, normalizer, ordered, plain
from .scopes import here
from .types import FROM_FUNCTION, FROM_SERVER, Outcome, Request, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .config.settings import Settings
    from .engine.drivers import Flow
    from .types import Record

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PLAIN_TYPES = (NoneType, str, int, float, list, tuple, dict)
OBJECTS = ("self", "cls")  # the names of a first parameter that stands for an object or class
# multiprocessing's name of the script, in a spawned worker, is not the parent's
SCRIPTS = {"__mp_main__": "__main__"}


@overload
def recorded(function: Callable[Arguments, Result], /) -> Callable[Arguments, Result]: ...
@overload
def recorded(
    *, name: str | None = None, version: str | int | None = None
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]: ...


def recorded(
    function: Any = None, /, *, name: str | None = None, version: str | int | None = None
) -> Any:
    """Record a function's results, and replay them: a decorator, also of async functions and of
    methods.

    A result is found again by the function's name and version, the arguments (defaults applied) and
    the scope: in the cache and in cassettes, by the same modes and draws as a model's answers.
    Results and arguments are plain data; a tuple among them becomes a list, and an object's names
    are sorted, so that live equals replay. ``[Cache] NORMALIZE`` holds for the texts of arguments.
    A method's ``self`` (or ``cls``) enters only where it is plain data itself: two objects that ask
    the same share an answer, unless each has its scope. An exception is not recorded. Models that
    the function calls stand in a scope of its own below the present one, since a replay does not
    run it.

    :param name: what it is recorded under; ``None`` means module and qualified name. Of two
        functions of one name, each gets the other's results.
    :param version: tells its results from those of an earlier version.
    :returns: the function, recorded; it raises TypeError for an argument or a result that is not
        plain data, and CacheMissError where nothing is recorded and it may not run.
    :raises TypeError: where it is no function, or a generator function, or has no name of its own.

    >>> import random
    >>> @llmcall.recorded
    ... def throw(sides: int) -> int:
    ...     return random.randint(1, sides)
    >>> with llmcall.configured(cache_mode="auto"):
    ...     throw(6) == throw(6)
    True
    """
    if function is None:
        return lambda decorated: recorded(decorated, name=name, version=version)  # type: ignore[call-overload]
    from inspect import iscoroutinefunction

    named: dict[str, Any] = {"function": _name_of(function, name)}
    if isinstance(version, bool) or not isinstance(version, (str, int, NoneType)):
        raise TypeError(f"version is {version!r}; it must be a text or a whole number")
    if version is not None:
        named["version"] = version
    parameters = Parameters(function)
    run: Any
    if iscoroutinefunction(function):

        async def run(*args: Any, **kwargs: Any) -> Any:
            return await adrive(_called(function, named, parameters, args, kwargs))

    else:

        def run(*args: Any, **kwargs: Any) -> Any:
            return drive(_called(function, named, parameters, args, kwargs))

    return short_traceback(functools.wraps(function)(run))


def _name_of(function: Any, name: str | None) -> str:
    from inspect import isasyncgenfunction, isclass, isgeneratorfunction

    if not callable(function) or isclass(function):
        hint = "; put it below @classmethod" if isinstance(function, classmethod) else ""
        raise TypeError(f"@recorded takes a function, not {function!r}{hint}")
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator function; return a list, which can be recorded"
        )
    if name is None:
        qualified = getattr(function, "__qualname__", "<lambda>")
        if qualified.endswith("<lambda>"):
            raise TypeError(f"{function!r} has no name of its own; give it one: recorded(name=…)")
        name = f"{SCRIPTS.get(function.__module__, function.__module__)}.{qualified}"
    if not isinstance(name, str) or not name:
        raise TypeError(f"name is {name!r}; it must be a text")
    return name


def _called(
    function: Any, named: dict[str, Any], parameters: Parameters, args: Any, kwargs: Any
) -> Flow[Any]:
    """Take the draw of a call, and return the way to its result.

    :param named: the function's name and version.
    """
    name, settings = named["function"], config.settings()
    try:
        given = parameters.arguments(args, kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    first = next(iter(given), None)
    if first in OBJECTS and not isinstance(given[first], PLAIN_TYPES):
        del given[first]
    replace = normalizer(settings.cache_normalize)
    given = {
        parameter: _replaced(plain(value, f"{name}: {parameter}"), replace)
        for parameter, value in given.items()
    }
    source = _Source(name, functools.partial(function, *args, **kwargs))
    return _prepared(source, "function", {**named, "arguments": given}, settings)


def _prepared(source: _Source, kind: str, asked: dict[str, Any], settings: Settings) -> Flow[Any]:
    cassette = active_cassette()
    place = cassette.place() if cassette else ()
    if settings.cache_namespace:
        asked["namespace"] = settings.cache_namespace
    resolved = Resolved(0, settings, shared_cache(settings.cache_path), {}, set(), {})
    request = Request(kind, "", asked, {}, {}, None, "")
    call = PreparedCall(source, resolved, request, DEFAULT_OPTIONS, cassette=cassette, place=place)
    return _answered(sampled(call))


def http_call(
    method: str,
    host: str,
    path: str,
    query: Sequence[tuple[str, str]],
    body: Any,
    send: Callable[[], Any],
    settings: Settings,
    counter: Any = None,
) -> Flow[Any]:
    """Return the way to the response of an HTTP request; a GET is sent wherever it may be.

    What its query and its body hold of credentials, by the names of the fields, is neither recorded
    nor part of the key.

    :param method: with ``host``, ``path``, ``query`` and ``body`` (plain data, or ``None``) what
        identifies the request.
    :param send: sends it and returns plain data; in an event loop it is asynchronous.
    :param settings: say where it is recorded, and in what mode.
    :param counter: counts it in usage, budgets and limits: its ``attempt(call, policy, number)`` is
        the way of an attempt, ``cost(value)`` says what an answer cost, ``count_hit(call, record)``
        counts a recorded answer, ``count_error(call)`` a failure.
    :raises CacheError: for a body with a field that may hold a credential by its name.
    """
    where = f"{method} {host}{path}"
    secrets.refuse_named(body, settings.cassette_allow, where)
    asked: dict[str, Any] = {"method": method, "host": host, "path": path}
    fields = _identifying(query, where)
    if fields:
        asked["query"] = fields
    replace = normalizer(settings.cache_normalize)
    plain_body = secrets.without_credentials(plain(body, "the body"))
    asked["body"] = _replaced(plain_body, replace)
    return _prepared(
        _Source(f"{method} {path}", send, is_live=method == "GET", counter=counter),
        "http",
        asked,
        settings,
    )


def _identifying(query: Sequence[tuple[str, str]], where: str) -> dict[str, list[str]]:
    """Return the values of a query by their names, without credentials; say what is left out."""
    fields: dict[str, list[str]] = {}
    for name, value in query:
        if secrets.names_credential(name, maybe=True):
            warn_once(
                f"{where}: the parameter {name!r} of the query is a credential by its name; it is sent, but it is "
                "neither recorded nor part of the key"
            )
        else:
            fields.setdefault(name, []).append(value)
    return fields


def _replaced(value: Any, replace: Callable[[str], str] | None) -> Any:
    return value if replace is None else map_texts(value, replace)


class _Source(NamedTuple):
    """Stand for the client of a call: it runs what is recorded.

    :param name: what is recorded, in messages.
    :param counter: as of :func:`http_call`.
    :param is_live: whether it is run wherever it may be, and what is recorded answers only
        elsewhere.
    """

    name: str
    run: Callable[[], Any]
    is_live: bool = False
    counter: Any = None
    meter: Meter = Meter()  # usage counts models

    def send(self, request: Request, timeout: float | None) -> Any:
        """Run the function."""
        with self._inside(request):
            return self.run()

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Run the asynchronous function."""
        with self._inside(request):
            return await self.run()

    @contextmanager
    def _inside(self, request: Request) -> Iterator[None]:
        """Stand in a scope of this call alone, so that a replay, which skips it, moves no draw
        outside.
        """
        active = here() if request.sample is not None else None
        if active is not None:
            with active.inside(function_scope(self.name, request.cache_key)):
                yield
            return
        token = _running.set(_running.get() | {request.cache_key})
        try:
            yield
        finally:
            _running.reset(token)


_running: ContextVar[frozenset[str]] = ContextVar(
    "llmcall functions that run here", default=frozenset()
)


def _answered(call: PreparedCall) -> Flow[Any]:
    """Return what is recorded, or the result of the function; a call that fails gives its draw
    back.

    :raises CacheMissError: where nothing is recorded, and there is no leave to run it.
    """
    try:
        cassette, mode = call.cassette, call.resolved.settings.cache_mode
        if call.client.is_live and (cassette.asks if cassette else mode != "replay"):
            for guard in guards:
                guard(call.client, cassette)
            found = call.keep((yield from _run(call)), FROM_SERVER)
        else:
            _, record = yield from look(call.resolved.cache, lookup, call)
            source = FROM_FUNCTION if call.request.kind == "function" else FROM_SERVER
            is_hit = record is not None
            if record is None:
                record, is_hit = yield from _joined(call)
                record = call.keep(record, source)
            if is_hit and call.client.counter is not None:
                call.client.counter.count_hit(call, record)
            found = record
    except BaseException as error:
        if is_left(error):
            call.failures.add(call.scope, f"{call.request.kind} call of {call.client.name}", LEFT)
        call.give_back()
        raise
    call.end(found)
    return found.response["value"]


def _joined(call: PreparedCall) -> Flow[tuple[Record, bool]]:
    """Run the function, or share the result of an identical call that is under way; return the
    result, and whether it is shared.
    """
    key, is_shared = call.request.cache_key, True

    def ask(_: Any) -> Flow[dict[str, Outcome]]:
        """Run the function."""
        nonlocal is_shared
        is_shared = False
        return {key: Outcome((yield from _run(call)))}

    if key in _running.get():  # whoever calls itself would wait for itself
        return (yield from _run(call)), False
    outcomes = yield from share([call], ask, RetryPolicy(), call.shared_by)
    return outcomes[key].record, is_shared


def _sent(call: PreparedCall) -> Flow[Any]:
    """Send an HTTP request within the deadline, again if that may help."""
    policy = RetryPolicy.of(call.options, call.resolved.settings)

    def send(number: int) -> Flow[Any]:
        """Send it once."""
        if call.client.counter is not None:
            return (yield from call.client.counter.attempt(call, policy, number))
        return (yield Send(call.client, call.request, policy.time_left()))

    return (yield from repeated(policy, call.client.name, send))


def _run(call: PreparedCall) -> Flow[Record]:
    """Run the function, or send the HTTP request."""
    name = call.client.name
    try:
        if call.request.kind == "http":
            result = yield from _sent(call)
        else:
            result = yield Send(call.client, call.request, None)
    except Exception as error:
        if isinstance(error, APIError) or not isinstance(error, LLMCallError):
            call.failures.add(call.scope, f"{name}: {type(error).__name__}")
            if call.client.counter is not None:
                call.client.counter.count_error(call)
        raise
    counter = call.client.counter
    record = record_of(
        call.request,
        {"value": ordered(plain(result, f"{name}: the result", exact=True))},
        cost=None if counter is None else counter.cost(result),
    )
    return (yield Do(functools.partial(call.store, record, anew=call.client.is_live)))  # type: ignore[no-any-return]
