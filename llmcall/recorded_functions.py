"""Functions whose results are recorded as a model's answers are: a clock, a random draw, a search,
a tool.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from . import secrets
from .cache.shared import shared_cache
from .cassettes.current import active_cassette
from .cassettes.misses import guards
from .cassettes.uses import function_scope
from .config import resolve as config
from .display.printable import printable
from .engine.draws import sampled
from .engine.drivers import adrive, drive
from .engine.effects import Do, Send, with_cache
from .engine.flights import share
from .engine.lookup import lookup
from .engine.prepared_call import PreparedCall
from .engine.retry import RetryPolicy, retried
from .engine.usage import Meter
from .errors import APIError, LLMCallError, short_traceback
from .failures import LEFT, is_left
from .notices import warn_once
from .requests.keys import map_texts, normalizer, ordered, plain
from .requests.signatures import Parameters
from .scopes import current_scope, scope_of_call
from .types import FROM_FUNCTION, FROM_SERVER, Outcome, Request, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .config.settings import Settings
    from .engine.effects import Flow
    from .types import Record

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PLAIN_TYPES = (NoneType, str, int, float, list, tuple, dict)
OBJECTS = ("self", "cls")  # the names of a first parameter that stands for an object or class
# In a spawned worker, multiprocessing gives the script another name than in the parent.
SCRIPTS = {"__mp_main__": "__main__"}


class RequestCounter(Protocol):
    """Counts recorded HTTP requests in usage, budgets and limits."""

    def attempt(self, call: FunctionCall, policy: RetryPolicy, number: int) -> Flow[Any]:
        """Send a request once, as soon as budgets and limits allow it, and return its answer."""
        ...

    def cost(self, value: Mapping[str, Any]) -> float | None:
        """Return the cost of an answer in USD, or ``None`` if it is unknown."""
        ...

    def count_hit(self, call: FunctionCall, record: Record) -> None:
        """Count an answer that is recorded, or that an equal request got."""
        ...

    def count_error(self, call: FunctionCall) -> None:
        """Count a request that failed for good."""
        ...


_meter = Meter()  # of no client


@dataclass(frozen=True, kw_only=True, eq=False)
class FunctionCall(PreparedCall):
    """One call of a recorded function, or one recorded HTTP request; as a transport, it runs it.

    :param name: of the function, or the method and path of the request.
    :param run: runs it; a coroutine function in an event loop.
    :param is_live: run it whenever that is allowed; a record answers only if it is not.
    :param counter: counts an HTTP request, or ``None``.
    """

    name: str
    run: Callable[[], Any]
    is_live: bool = False
    counter: RequestCounter | None = None

    @property
    def callee(self) -> str:
        """Return its name."""
        return self.name

    @property
    def label(self) -> str:
        """Return how messages name it."""
        request = self.request
        return f"{request.kind} call {request.cache_key[:12]} of {printable(self.name)}"

    @property
    def meter(self) -> Meter:
        """Return the meter of what no client makes."""
        return _meter

    def check_origin(self, record: Record) -> None:
        """Accept any record: no host answers functions."""

    def check_guards(self) -> None:
        """Raise what forbids to send an HTTP request; what a function asks is guarded itself."""
        if self.request.kind != "function":
            for guard in guards:
                guard(None, self.cassette)

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
        """Open a scope of this call alone: a replay skips the call, and no draw outside may move."""
        active = scope_of_call() if request.sample is not None else None
        if active is not None:
            with active.inside(function_scope(request.asked, request.sample)):
                yield
            return
        token = _running.set(_running.get() | {request.cache_key})
        try:
            yield
        finally:
            _running.reset(token)


# The calls that run in this context: one that calls itself would wait for itself.
_running: ContextVar[frozenset[str]] = ContextVar(
    "llmcall functions that run here", default=frozenset()
)


@overload
def recorded(function: Callable[Arguments, Result], /) -> Callable[Arguments, Result]: ...
@overload
def recorded(
    *, name: str | None = None, version: str | int | None = None, shared: bool = False
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]: ...


def recorded(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    version: str | int | None = None,
    shared: bool = False,
) -> Any:
    """Record a function's results and replay them: a decorator for functions, async functions and
    methods.

    The key of a result is the function's name and version, its arguments (defaults applied) and the
    scope. Cache and cassettes hold results with the same modes and draws as a model's answers.
    Arguments and results are plain data; tuples become lists and the names of objects are sorted, so
    that a run and its replay get the same. ``[Cache] NORMALIZE`` applies to the texts of arguments.
    A method's ``self`` (or ``cls``) is part of the key only if it is plain data itself: otherwise
    two objects with the same arguments share a result, unless each has its own scope. Exceptions
    are not recorded. Models that the function calls are in a scope of the call, below the current
    one, because a replay does not run the function.

    :param name: under which results are recorded; ``None`` means module and qualified name. Two
        functions with the same name get each other's results.
    :param version: separates the results from those of an earlier version.
    :param shared: whether the arms of a scope share its results, as they share a model's answers:
        for a die, a clock or a search. Otherwise each arm has its own results, because a function
        may read the state of the arm's world.
    :returns: the recorded function; it raises TypeError for an argument or a result that is not
        plain data, and CacheMissError if nothing is recorded and it may not run.
    :raises TypeError: if it is not a function, is a generator function, or has no name.

    >>> import random
    >>> @llmcall.recorded
    ... def throw(sides: int) -> int:
    ...     return random.randint(1, sides)
    >>> with llmcall.configured(cache_mode="auto"):
    ...     throw(6) == throw(6)
    True
    """
    if function is None:
        return lambda decorated: recorded(  # type: ignore[call-overload]
            decorated, name=name, version=version, shared=shared
        )
    from inspect import iscoroutinefunction

    named: dict[str, Any] = {"function": _name_of(function, name)}
    if isinstance(version, bool) or not isinstance(version, (str, int, NoneType)):
        raise TypeError(f"version is {version!r}; it must be a string or a whole number")
    if version is not None:
        named["version"] = version
    parameters = Parameters(function)
    run: Any
    if iscoroutinefunction(function):

        async def run(*args: Any, **kwargs: Any) -> Any:
            return await adrive(_called(function, named, parameters, args, kwargs, shared=shared))

    else:

        def run(*args: Any, **kwargs: Any) -> Any:
            return drive(_called(function, named, parameters, args, kwargs, shared=shared))

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
            raise TypeError(f"{function!r} has no name; give it one: recorded(name=…)")
        name = f"{SCRIPTS.get(function.__module__, function.__module__)}.{qualified}"
    if not isinstance(name, str) or not name:
        raise TypeError(f"name is {name!r}; it must be a string")
    return name


def _called(
    function: Any,
    named: dict[str, Any],
    parameters: Parameters,
    args: Any,
    kwargs: Any,
    *,
    shared: bool,
) -> Flow[Any]:
    """Take the draw of a call, and return the way to its result.

    :param named: the function's name and version.
    :param shared: whether the arms of a scope share its result.
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
    asked = {**named, "arguments": given}
    active = current_scope()
    if not shared and active is not None and active.arm is not None:
        asked["arm"] = active.arm.name
    run = functools.partial(function, *args, **kwargs)
    return _answered(_prepared("function", asked, settings, name=name, run=run))


def _prepared(kind: str, asked: dict[str, Any], settings: Settings, **fields: Any) -> FunctionCall:
    """Return a call with its draw.

    :param asked: what identifies it.
    :param fields: the further fields of :class:`FunctionCall`.
    """
    cassette = active_cassette()
    place = cassette.place() if cassette is not None else ()
    if settings.cache_namespace:
        asked["namespace"] = settings.cache_namespace
    call = FunctionCall(
        settings=settings,
        cache=shared_cache(settings.cache_path),
        request=Request(kind, "", asked, {}, {}, None, ""),
        cassette=cassette,
        place=place,
        **fields,
    )
    return sampled(call)


def http_call(
    method: str,
    host: str,
    path: str,
    query: Sequence[tuple[str, str]],
    body: Any,
    send: Callable[[], Any],
    settings: Settings,
    counter: RequestCounter | None = None,
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
    call = _prepared(
        "http",
        asked,
        settings,
        name=f"{method} {path}",
        run=send,
        is_live=method == "GET",
        counter=counter,
    )
    return _answered(call)


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


def _answered(call: FunctionCall) -> Flow[Any]:
    """Return the recorded result, or run the function; a call that fails gives its draw back.

    :raises CacheMissError: if nothing is recorded, and the function may not run.
    """
    try:
        if call.is_live and call.may_ask:
            call.check_guards()
            record = yield from _run(call)
        else:
            record = yield from _recorded(call)
    except BaseException as error:
        if is_left(error):
            words = f"{call.request.kind} call of {call.name}"
            call.failures.add(call.scope, words, LEFT, asks_model=call.request.kind == "http")
        call.give_back()
        raise
    call.end(record)
    call.note_used(record)
    return record.response["value"]


def _recorded(call: FunctionCall) -> Flow[Record]:
    """Return the record of a call; if there is none, that of its result now."""
    call, record = yield from with_cache(call.cache, lookup, call)
    is_hit = record is not None
    if record is None:
        record, is_hit = yield from _joined(call)
        record = call.keep(record, _source(call))
    if is_hit and call.counter is not None:
        call.counter.count_hit(call, record)
    return record


def _joined(call: FunctionCall) -> Flow[tuple[Record, bool]]:
    """Run the function, or share the result of an equal call that is under way.

    :returns: the record, and whether it is another call's.
    """
    key = call.request.cache_key
    if key in _running.get():
        return (yield from _run(call)), False
    is_shared = True

    def ask(_: Any) -> Flow[dict[str, Outcome]]:
        """Run the function."""
        nonlocal is_shared
        is_shared = False
        record = yield from _run(call)
        return {key: Outcome(record)}

    outcomes = yield from share([call], ask, RetryPolicy(), call.shared_store)
    return outcomes[key].record, is_shared


def _sent(call: FunctionCall) -> Flow[Any]:
    """Send an HTTP request, again if it fails, until its deadline."""
    policy = RetryPolicy.of(call.options, call.settings)

    def attempt(number: int) -> Flow[Any]:
        """Send it once."""
        if call.counter is not None:
            return (yield from call.counter.attempt(call, policy, number))
        return (yield Send(call, call.request, policy.time_left()))

    return (yield from retried(policy, call.name, attempt))


def _run(call: FunctionCall) -> Flow[Record]:
    """Run the function, or send the HTTP request, and store its result."""
    try:
        if call.request.kind == "http":
            result = yield from _sent(call)
        else:
            result = yield Send(call, call.request, None)
    except Exception as error:
        if isinstance(error, APIError) or not isinstance(error, LLMCallError):
            words = f"{call.name}: {type(error).__name__}"
            call.failures.add(call.scope, words, asks_model=call.request.kind == "http")
            if call.counter is not None:
                call.counter.count_error(call)
        raise
    value = ordered(plain(result, f"{call.name}: the result", exact=True))
    cost = None if call.counter is None else call.counter.cost(result)
    record = record_of(call.request, {"value": value}, cost=cost)
    kept: Record = yield Do(functools.partial(_stored, call, record))
    return kept


def _stored(call: FunctionCall, record: Record) -> Record:
    """Put a result in the cache and on the cassette; return the record that counts."""
    return call.keep(call.store(record, overwrite=call.is_live), _source(call))


def _source(call: FunctionCall) -> str:
    """Return where a cassette gets a result from."""
    return FROM_FUNCTION if call.request.kind == "function" else FROM_SERVER
