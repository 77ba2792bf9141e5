"""Functions whose results are recorded like a model's answers: a clock, a search, a tool.

Programs' HTTP requests that are recorded unchanged take the same steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from numbers import Integral
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

from .config import resolve as config
from .config.settings import Settings
from .core import loops, threads
from .core.answer import answer_calls
from .core.calls import Call, Resolved
from .core.effects import Do
from .core.kinds import Function, Kind
from .core.options import Options
from .core.prepare import place, unplaced_call
from .core.seams import Response, Transport
from .keys.plain_data import map_texts, plain, recordable
from .keys.request import Data, Request
from .scopes.active import here
from .scopes.position import function_scope
from .scopes.scope import in_function
from .stores.cassettes.current import open_current_cassette
from .support.arguments import OBJECTS, Parameters
from .support.failures import UnrecordedResult, failed_inside
from .support.loop_waits import InContext
from .support.normalizers import normalizer
from .support.notices import notice
from .support.waits import enter_call
from .traffic import call_listeners as call_listeners  # its listeners join

if TYPE_CHECKING:
    from .clients.configured import ConfiguredClient as Client
    from .errors import LLMCallError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PLAIN_TYPES = (NoneType, str, int, float, list, tuple, dict)
# In a spawned worker, multiprocessing gives the script another name than in the parent.
SCRIPTS = {"__mp_main__": "__main__"}


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
) -> object:
    """Record a function's results and replay them: a decorator for functions, async functions and
    methods.

    The key of a result is the function's name and version, its arguments (defaults applied) and the
    scope. Cache and cassettes hold results with the same modes and draws as a model's answers.
    Arguments and results are plain data; tuples become lists and the names of objects are sorted, so
    that a run and its replay get the same. ``[Cache] NORMALIZE`` applies to the texts of arguments.
    A method's ``self`` (or ``cls``) is part of the key only if it is plain data itself; otherwise,
    two objects with the same arguments share a result, unless each has its own scope. Exceptions
    are not recorded, nor is a result that was computed while a call in the function failed. A replay
    does not run the function. So each run of it makes its calls to models in a scope of its own, below
    the current one, and its caller sees no context variable that it sets.

    :param name: the name under which results are recorded; ``None`` means module and qualified name.
        Two functions with the same name get each other's results.
    :param version: separates the results from those of an earlier version.
    :param shared: ``True`` lets the arms of a scope share its results, as they share a model's answers:
        for a die, a clock or a search. Otherwise, each arm has its own results, because a function
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
    # Below @recorded or above, these mean the same.
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(
            recorded(name=name, version=version, shared=shared)(function.__func__)
        )
    from inspect import iscoroutinefunction

    name_fields: dict[str, Data] = {"function": _recorded_name(function, name)}
    if isinstance(version, bool) or not isinstance(version, (str, Integral, NoneType)):
        raise TypeError(f"version is {version!r}; it must be a string or a whole number")
    if version is not None:
        name_fields["version"] = plain(version, "version")
    recorded_function = _RecordedFunction(function, name_fields, Parameters(function), shared)
    run: Any
    if iscoroutinefunction(function):

        async def run(*args: Any, **kwargs: object) -> Any:
            return await loops.run(recorded_result(recorded_function.call(args, kwargs)))

    else:

        def run(*args: Any, **kwargs: object) -> Any:
            return threads.run(recorded_result(recorded_function.call(args, kwargs)))

    return functools.wraps(function)(run)


def _recorded_name(function: Any, name: str | None) -> str:
    """Return the name under which a function's results are recorded.

    :param name: the decorator's argument.
    """
    from inspect import isasyncgenfunction, isclass, isgeneratorfunction

    if not callable(function) or isclass(function):
        raise TypeError(f"@recorded takes a function, not {function!r}")
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


class _RecordedFunction(NamedTuple):
    """A function whose results are recorded.

    :param name_fields: its name and version, as fields of the key.
    :param shared: ``True`` if the arms of a scope share its results.
    """

    function: Callable[..., Any]
    name_fields: dict[str, Data]
    parameters: Parameters
    shared: bool

    def call(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Call:
        """Return the call with some arguments; inside a scope it takes a draw.

        :raises TypeError: for an argument that the function does not take or that is not plain data.
        """
        name = self.name_fields["function"]
        settings = config.settings()
        arguments = self._key_arguments(args, kwargs, settings)
        identity_fields = {**self.name_fields, "arguments": arguments}
        arm = "" if self.shared else here().position.arm
        if arm:
            identity_fields["arm"] = arm
        run = functools.partial(self.function, *args, **kwargs)
        return prepare_recorded("function", identity_fields, settings, OwnFunction(run, name))

    def _key_arguments(
        self, args: tuple[object, ...], kwargs: dict[str, object], settings: Settings
    ) -> dict[str, object]:
        """Return the key's form of the arguments, by the names of their parameters."""
        name = self.name_fields["function"]
        arguments = self.parameters.arguments(args, kwargs)
        first = next(iter(arguments), None)
        if first in OBJECTS and not isinstance(arguments[first], PLAIN_TYPES):
            del arguments[first]
        as_plain_data = {
            parameter: plain(value, f"{name}: {parameter}")
            for parameter, value in arguments.items()
        }
        key_arguments: dict[str, object] = normalized(as_plain_data, settings)
        return key_arguments


class OwnFunction(Function):
    """A recorded function of this process.

    :param run: runs it; an async function's returns an awaitable.
    :param name: the function's.
    """

    def __init__(self, run: Callable[[], Any], name: str) -> None:
        super().__init__(name)
        self.run = run

    async def send(
        self, call: Call, transport: Transport | None, request: Request, timeout: float | None
    ) -> Response:
        """Run the function in the scope of its call."""
        return Response({"value": await self.result(call)})

    async def result(self, call: Call | None) -> Any:
        """Run the function in its own context, so that it changes no other, and return its result.

        :param call: the call, in whose scope it runs; ``None``: in that of the code.
        :raises UnrecordedResult: if a call in it failed.
        """
        context, block = copy_context(), ExitStack()
        failed = context.run(_enter_function, block, call)
        try:
            value = await Do(
                functools.partial(context.run, self.run),
                lambda: InContext(context, self.run),
            )
        finally:
            context.run(block.close)
        if failed:
            if not isinstance(failed[0], UnrecordedResult):  # which another line told
                notice(
                    f"the result of {self.name} is not recorded, because a call in it failed "
                    f"({type(failed[0]).__name__}): run it again, or raise the error with on_error='raise'"
                )
            raise UnrecordedResult(value=recordable(value, f"the result of {self.name}"))
        return value


def _enter_function(block: ExitStack, call: Call | None) -> list[LLMCallError]:
    """Enter the scope of a function's call for a block; return a list that gets the errors of the calls in it."""
    if call is not None:
        scope = function_scope(call.request.hashed, call.request.sample)
        block.enter_context(in_function(scope, draws=call.request.sample is not None))
        if call.progress is not None:
            enter_call(call.progress)
    return block.enter_context(failed_inside())


def prepare_recorded(
    kind: str,
    identity_fields: dict[str, Data],
    settings: Settings,
    call_kind: Kind,
    *,
    model: str = "",
    body: Mapping[str, object] | None = None,
    client: Client | None = None,
) -> Call:
    """Return a call; inside a scope it takes a draw.

    :param identity_fields: the fields of its key, without the namespace.
    :param call_kind: sends the request, or runs the function.
    :param model: the model, or the host, under which usage counts it.
    :param body: the request's body.
    :param client: the client that makes it and counts it; ``None`` if nothing counts it.
    """
    cassette = open_current_cassette()
    if settings.cache_namespace:
        identity_fields = {**identity_fields, "namespace": settings.cache_namespace}
    own: dict[str, Any] = {"deadline": None, "max_attempts": 1} if kind == "function" else {}
    options = Options.of(settings)._replace(timeout=None, **own)  # a program's own client has one
    request = Request(kind, model, identity_fields, body or {}, {}, None, "")
    at = Resolved.of(settings) if client is None else client.resolved
    return place(unplaced_call(client, at, cassette, request, options, call_kind))


def normalized(value: Any, settings: Settings) -> Any:
    """Return plain data with ``[Cache] NORMALIZE`` applied to its texts."""
    normalize = normalizer(settings.cache_normalize)
    return value if normalize is None else map_texts(value, normalize)


async def recorded_result(call: Call) -> object:
    """Return the recorded result, or run the function; a call that fails releases its draw.

    :raises CacheMissError: if nothing is recorded, and the function may not run.
    """
    try:
        [record] = await answer_calls([call])
    except UnrecordedResult as error:
        return error.value
    return record.response["value"]
