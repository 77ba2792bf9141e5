"""Functions whose results are recorded as a model's answers are: a clock, a random draw, a search, a tool."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ..cache.cache import shared_cache
from ..cassettes.current import open_tape
from ..config import resolve as config
from ..engine.drivers import adrive, drive
from ..requests.keys import identity, sampled_key
from ..requests.messages import plain
from ..requests.normalizers import normalizer
from ..types import Request
from .function_calls import FunctionCall, answered
from .scopes import draw

if TYPE_CHECKING:
    from collections.abc import Callable

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
        CacheMissError where nothing is recorded and there is no leave to run it.
    :raises TypeError: where it is no function, or a generator function, or has no name of its own.
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

        @functools.wraps(function.function)
        async def arun(*args: Any, **kwargs: Any) -> Any:
            call = function.call(args, kwargs)
            try:
                return call.ended(await adrive(answered(call)))
            except BaseException:
                call.give_back()
                raise

        return arun

    @functools.wraps(function.function)
    def run(*args: Any, **kwargs: Any) -> Any:
        call = function.call(args, kwargs)
        try:
            return call.ended(drive(answered(call)))
        except BaseException:
            call.give_back()
            raise

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
        tape = open_tape()
        settings = config.settings()
        asked = {"function": self.name, "arguments": self._arguments(args, kwargs, settings.cache_normalize)}
        if self.version is not None:
            asked["version"] = self.version
        if settings.cache_namespace:
            asked["namespace"] = settings.cache_namespace
        identified = identity("function", asked)
        drawn = draw(identified)
        assert not isinstance(drawn, str)
        sample = drawn.sample if drawn else None
        request = Request("function", "", asked, {}, {}, sample, sampled_key(identified, sample))
        cache = shared_cache(settings.cache_path)
        return FunctionCall(
            self.name, self.function, args, kwargs, request, drawn, tape, cache, settings.cache_mode
        )  # fmt: skip

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
        replace = _normalizer(normalize)
        return {name: _replaced(plain(value, f"{self.name}: {name}"), replace) for name, value in given.items()}


_normalizer = functools.lru_cache(maxsize=32)(normalizer)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, list, tuple, dict))


def _replaced(value: Any, replace: Callable[[str], str] | None) -> Any:
    if replace is None:
        return value
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {name: _replaced(item, replace) for name, item in value.items()}
    return [_replaced(item, replace) for item in value] if isinstance(value, list) else value
