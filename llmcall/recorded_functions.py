"""Functions whose results are recorded as a model's answers are: a clock, a random draw, a search, a tool."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

from .cache.cache import shared_cache
from .cassettes.cassette import active_cassette, function_scope, guards
from .config import resolve as config
from .engine.call import repeated, share
from .engine.drivers import Do, Send, adrive, drive, look
from .engine.prepare import Options, RetryPolicy, missed, note_refused
from .engine.usage import Meter
from .errors import APIError, LLMCallError, ScopeError, short_traceback
from .notices import LEFT, is_left, process_failures
from .requests.keys import identity, map_texts, normalizer, ordered, plain, sampled_key
from .scopes import Scope, here
from .text import printable
from .types import Outcome, Request, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .cache.cache import ResponseCache
    from .cassettes.cassette import ActiveCassette
    from .config.settings import Settings
    from .engine.drivers import Flow
    from .scopes import Draw
    from .types import Record

__all__ = ["recorded"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

OBJECTS = ("self", "cls")  # the names of a first parameter that stands for an object or class
SCRIPTS = {"__mp_main__": "__main__"}  # multiprocessing's name of the script, in a spawned worker, is not the parent's


@overload
def recorded(function: Callable[Arguments, Result], /) -> Callable[Arguments, Result]: ...
@overload
def recorded(
    *, name: str | None = None, version: str | int | None = None
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]: ...


def recorded(function: Any = None, /, *, name: str | None = None, version: str | int | None = None) -> Any:
    """Record a function's results, and replay them: a decorator, also of async functions and of methods.

    A result is found again by the function's name and version, the arguments (defaults applied) and the scope: in the
    cache and in cassettes, by the same modes and draws as a model's answers. Results and arguments are plain data; a
    tuple among them becomes a list, and an object's names are sorted, so that live equals replay. ``[Cache] NORMALIZE``
    holds for the texts of arguments. A method's ``self`` (or ``cls``) enters only where it is plain data itself: two
    objects that ask the same share an answer, unless each has its scope. An exception is not recorded. Models that the
    function calls stand in a scope of its own below the present one, since a replay does not run it.

    :param name: what it is recorded under; ``None`` means module and qualified name. Of two functions of one name, each
        gets the other's results.
    :param version: tells its results from those of an earlier version.
    :returns: the function, recorded; it raises TypeError for an argument or a result that is not plain data, and
        CacheMissError where nothing is recorded and it may not run.
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
    return _decorated(_Function(function, _name_of(function, name), _version(version)))


def _name_of(function: Any, name: str | None) -> str:
    from inspect import isasyncgenfunction, isclass, isgeneratorfunction

    if not callable(function) or isclass(function):
        hint = "; put it below @classmethod" if isinstance(function, classmethod) else ""
        raise TypeError(f"@recorded takes a function, not {function!r}{hint}")
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator function; return a list, which can be recorded")
    if name is None:
        qualified = getattr(function, "__qualname__", "<lambda>")
        if qualified.endswith("<lambda>"):
            raise TypeError(f"{function!r} has no name of its own; give it one: recorded(name=…)")
        name = f"{SCRIPTS.get(function.__module__, function.__module__)}.{qualified}"
    if not isinstance(name, str) or not name:
        raise TypeError(f"name is {name!r}; it must be a text")
    return name


def _version(version: Any) -> Any:
    if isinstance(version, bool) or not isinstance(version, (str, int, type(None))):
        raise TypeError(f"version is {version!r}; it must be a text or a whole number")
    return version


def _decorated(function: _Function) -> Any:
    from inspect import iscoroutinefunction

    if iscoroutinefunction(function.function):

        @short_traceback
        @functools.wraps(function.function)
        async def arun(*args: Any, **kwargs: Any) -> Any:
            return await function.call(args, kwargs).aresult()

        return arun

    @short_traceback
    @functools.wraps(function.function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return function.call(args, kwargs).result()

    return run


class _Function:
    """Hold a function and what it is recorded under."""

    def __init__(self, function: Callable[..., Any], name: str, version: Any) -> None:
        self.function = function
        self.name = name
        self.version = version

    @functools.cached_property
    def _bind(self) -> Callable[..., Any]:
        from inspect import signature

        return signature(self.function).bind

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FunctionCall:
        """Return a call as it is looked up; it takes its draw."""
        settings = config.settings()
        asked = {"function": self.name, "arguments": self._arguments(args, kwargs, settings.cache_normalize)}
        if self.version is not None:
            asked["version"] = self.version
        return _prepared(self.name, "function", asked, functools.partial(self.function, *args, **kwargs), settings)

    def _arguments(self, args: Any, kwargs: Any, normalize: tuple[str, ...]) -> dict[str, Any]:
        try:
            bound = self._bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        bound.apply_defaults()
        given = dict(bound.arguments)
        first = next(iter(given), None)
        if first in OBJECTS and not _is_plain(given[first]):
            del given[first]
        replace = normalizer(normalize)
        return {name: _replaced(plain(value, f"{self.name}: {name}"), replace) for name, value in given.items()}


def _prepared(
    name: str, kind: str, asked: dict[str, Any], run: Callable[[], Any], settings: Settings, *, live: bool = False
) -> FunctionCall:
    tape = active_cassette()
    if settings.cache_namespace:
        asked["namespace"] = settings.cache_namespace
    identified = identity(kind, asked)
    try:
        active = here()
    except ScopeError as error:
        note_refused(f"{kind} call of {printable(name)}", name, Meter(), error)
        raise
    drawn = None if active is None else active.draw(identified)
    sample = None if drawn is None else drawn.sample
    request = Request(kind, "", asked, {}, {}, sample, sampled_key(identified, sample))
    return FunctionCall(name, run, request, drawn, tape, shared_cache(settings.cache_path), settings, live)


def http_call(method: str, path: str, body: Any, send: Callable[[], Any], settings: Settings) -> FunctionCall:
    """Return the call of an HTTP request as it is looked up; a GET is sent wherever it may be.

    :param method: with ``path`` and ``body`` (plain data, or ``None``) what identifies the request.
    :param send: sends it and returns plain data; for :meth:`FunctionCall.aresult` it is asynchronous.
    :param settings: say where it is recorded, and in what mode.
    """
    replace = normalizer(settings.cache_normalize)
    asked = {"method": method, "path": path, "body": _replaced(plain(body, "the body"), replace)}
    return _prepared(f"{method} {path}", "http", asked, send, settings, live=method == "GET")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, list, tuple, dict))


def _replaced(value: Any, replace: Callable[[str], str] | None) -> Any:
    return value if replace is None else map_texts(value, replace)


class FunctionCall(NamedTuple):
    """Hold one call of a recorded function; it is the transport that its own request is sent through."""

    name: str
    run: Callable[[], Any]
    request: Request
    drawn: Draw | None
    tape: ActiveCassette | None
    cache: ResponseCache
    settings: Settings
    is_live: bool = False

    @property
    def mode(self) -> str:
        """Return the mode of the disk cache."""
        return self.settings.cache_mode

    @property
    def reads_cache(self) -> bool:
        """Return whether the disk cache may supply the result."""
        return self.tape is None or self.tape.cassette.reads_cache

    @property
    def may_run(self) -> bool:
        """Return whether the function may be run where nothing is recorded."""
        return self.tape.cassette.asks if self.tape else self.mode != "replay"

    @property
    def storing_mode(self) -> str:
        """Return how the disk cache stores."""
        again = self.is_live or (self.tape is not None and self.tape.cassette.anew)
        return "rewrite" if again and self.mode != "off" else self.mode

    def stored(self) -> Record | None:
        """Return the result that the disk cache holds by now, where it may supply it."""
        return self.cache.get(self.request, mode=self.mode) if self.reads_cache else None

    @property
    def scope(self) -> str:
        """Return the scope path of the call, empty outside any scope."""
        return self.request.sample.partition("#")[0] if self.request.sample else ""

    def failed(self, error: BaseException) -> None:
        """Make the draw's number free again; a call that was cancelled is told at the end of the run."""
        if is_left(error) and (self.tape or self.mode != "off"):
            failures = self.tape.cassette.failures if self.tape else process_failures
            failures.add(self.scope, f"{self.request.kind} call of {self.name}", LEFT)
        if self.drawn is not None:
            self.drawn.give_back()

    def result(self) -> Any:
        """Return what is recorded, or run the function and record its result."""
        return drive(_answered(self))

    async def aresult(self) -> Any:
        """Return what is recorded, or run the asynchronous function and record its result."""
        return await adrive(_answered(self))

    def send(self, request: Request, timeout: float | None) -> Any:
        """Run the function."""
        with self._inside():
            return self.run()

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Run the asynchronous function."""
        with self._inside():
            return await self.run()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Stand in a scope of this call alone, so that a replay, which skips it, moves no draw outside."""
        if self.drawn is not None:
            with Scope(function_scope(self.name, self.request.cache_key)):
                yield
            return
        token = _running.set(_running.get() | {self.request.cache_key})
        try:
            yield
        finally:
            _running.reset(token)


_running: ContextVar[frozenset[str]] = ContextVar("llmcall functions that run here", default=frozenset())


def _answered(call: FunctionCall) -> Flow[Any]:
    """Return what is recorded, or the result of the function; a call that fails gives its draw back."""
    try:
        found = yield from _found(call)
    except BaseException as error:
        call.failed(error)
        raise
    if call.drawn is not None:
        call.drawn.end(found)
    return found.response["value"]


def _found(call: FunctionCall) -> Flow[Record]:
    """Return what is recorded, or run the function where there is leave.

    :raises CacheMissError: where there is none and no leave.
    """
    if call.is_live and call.may_run:
        return (yield from _run(call))
    found = call.tape.find(call.request) if call.tape else None
    if call.tape and found is not None:
        call.tape.cassette.count_replay()
        return found
    found = yield from look(call.cache, call.stored)
    if found is not None:
        return _kept(call, found)
    if not call.may_run:
        raise missed(call.request, call.name, Meter(), settings=call.settings, cache=call.cache, cassette=call.tape)
    return (yield from _joined(call))


def _kept(call: FunctionCall, record: Record) -> Record:
    return call.tape.keep(record) if call.tape else record


def _joined(call: FunctionCall) -> Flow[Record]:
    """Run the function, or share the result of an identical call that is under way."""
    key, ran = call.request.cache_key, []

    def ask(_: Any) -> Flow[dict[str, Outcome]]:
        """Run the function, and keep its result."""
        ran.append((yield from _run(call)))
        return {key: Outcome(ran[0])}

    if key in _running.get():  # whoever calls itself would wait for itself
        return (yield from _run(call))
    outcomes = yield from share([call], ask, RetryPolicy(), None if call.mode == "off" else call.cache)
    return ran[0] if ran else _kept(call, outcomes[key].record)


def _result(call: FunctionCall) -> Flow[Any]:
    """Run the function; send an HTTP request again where that may help."""

    def send(number: int) -> Flow[Any]:
        """Do so once."""
        return (yield Send(call, call.request, None))

    if call.request.kind != "http":
        return (yield from send(1))
    result, _ = yield from repeated(RetryPolicy.of(Options(), call.settings), call.name, send)
    return result


def _run(call: FunctionCall) -> Flow[Record]:
    for guard in guards if call.request.kind == "http" else ():
        guard(None, call.tape)
    try:
        result = yield from _result(call)
    except Exception as error:
        if isinstance(error, APIError) or not isinstance(error, LLMCallError):
            failures = call.tape.cassette.failures if call.tape else process_failures
            failures.add(call.scope, f"{call.name}: {type(error).__name__}")
        raise
    record = record_of(call.request, {"value": ordered(plain(result, f"{call.name}: the result", exact=True))})
    if call.mode != "off":
        record = yield Do(functools.partial(call.cache.store, record, mode=call.storing_mode))
    return _kept(call, record)
