"""``@llm``: functions that a model answers."""

from __future__ import annotations

import functools
import inspect
import itertools
import re
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from ..core import loops, threads
from ..keys.request import Data
from ..support.arguments import Parameters
from ..support.frames import holds_nothing
from ..support.tracebacks import door
from .corrections import Answer
from .llm_call import LLMCall
from .rows import RowJob, with_undefined
from .tables import RowMethods

Arguments = ParamSpec("Arguments")
Rest = ParamSpec("Rest")
Value = TypeVar("Value")

SELF = re.compile(r"\{[{%][^}]*(?<![.\w])self\b")  # a tag with the variable ``self``


class LLMFunction(RowMethods, Generic[Arguments, Value]):
    """A function that a model answers; as a method, it binds its object.

    :ivar llm_call: the :class:`~llmcall.LLMCall` that answers; its templates take the arguments as
        variables.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[Arguments, Value], llm_call: LLMCall) -> None:
        functools.update_wrapper(self, function)
        self._parameters = Parameters(function)
        # A method's object by the name of the first parameter; empty for a function.
        self.bound: dict[str, Data] = {}
        self.llm_call = llm_call
        llm_call.parameters = frozenset(self._parameters.signature.parameters)
        llm_call.name = self.__name__

        if not llm_call.has_files:
            llm_call.refuse_unused(self._parameters.signature.parameters)

    def _call_variables(self, *args: object, **kwargs: object) -> dict[str, Any]:
        """Return the arguments of a call by name; given ones that hold nothing are undefined."""
        args = *self.bound.values(), *args
        variables = self._parameters.arguments(args, kwargs)
        given = {
            *itertools.islice(self._parameters.defaults, len(args)),
            *kwargs,
        } & variables.keys()
        missing = [name for name in sorted(given) if holds_nothing(variables[name])]
        variables = with_undefined(variables, missing)
        if self.llm_call.has_files:
            self.llm_call.refuse_unused(variables)
        return variables

    @door
    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Call the model, and return the answer as the type that the function is annotated to return."""
        return self.run(*args, **kwargs).value  # type: ignore[no-any-return]

    @door
    def run(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        """Call the model, and return the value, the reply and the messages."""
        return threads.run(self.llm_call.answer(self._call_variables(*args, **kwargs)))

    @door
    async def acall(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Call the model without blocking the event loop."""
        answer = self.llm_call.answer(self._call_variables(*args, **kwargs))
        return (await loops.run(answer)).value  # type: ignore[no-any-return]

    def __map_job__(self) -> RowJob:
        """Return the job of a ``map``'s rows."""
        return RowJob(self.llm_call, self.variables, self.bound)

    def __repr__(self) -> str:
        return f"<llm function {self.__qualname__}{self._parameters.signature}>"

    def variables(self, item: object) -> dict[str, Any]:
        """Return the templates' variables for an item of a ``map``.

        :param item: a row, of which the function gets the columns that it takes; anything else is
            the first argument.
        :raises TypeError: if an argument is missing.
        """
        if not isinstance(item, Mapping):
            return self._call_variables(item)
        defaults = self._parameters.defaults
        variables = {name: item.get(name, default) for name, default in defaults.items()}
        variables |= self.bound
        for name, value in variables.items():
            if value is inspect.Parameter.empty:
                raise TypeError(
                    f"the row has no column {name!r}, which the function needs (it has {', '.join(map(str, item))})"
                )
        var_keyword = self._parameters.var_keyword
        if var_keyword is not None:
            variables[var_keyword] = {name: item[name] for name in item if name not in defaults}
        return variables

    @typing.overload
    def __get__(self, instance: None, owner: object) -> LLMFunction[Arguments, Value]: ...
    @typing.overload
    def __get__(
        self: LLMFunction[Concatenate[Any, Rest], Value], instance: object, owner: Any
    ) -> LLMFunction[Rest, Value]: ...

    def __get__(self, instance: object, owner: object) -> object:
        if instance is None:
            return self
        first_parameter = next(iter(self._parameters.defaults), "self")
        bound: Any = object.__new__(LLMFunction)
        bound.__dict__.update(self.__dict__, bound={first_parameter: instance})
        return bound

    def __reduce__(self) -> Any:
        if self.bound:
            return getattr, (*self.bound.values(), self.__name__)
        return self.__qualname__  # as any function


def call_arguments(function: Callable[..., object], params: dict[str, object]) -> dict[str, Any]:
    """Return the arguments of the :class:`LLMCall` behind a function.

    :param params: the decorator's arguments; if one is a user template, the docstring is not used as
        one.
    :raises TypeError: if it is not a function, has no docstring, is async, or its template takes
        ``self``; if its return type is not known.
    """
    if not inspect.isfunction(function):
        raise TypeError(f"@llm takes a function, not {function!r}")
    name = function.__qualname__
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{name} is async; define it with def, and await {function.__name__}.acall(…)"
        )
    arguments = dict(params)
    if "output_type" not in params:
        arguments["output_type"] = _return_type(function)
    if params.keys() & {"user", "user_template_name"}:
        return arguments
    if not function.__doc__:
        raise TypeError(f"{name} has no docstring; it is the template of the user message")
    if SELF.search(function.__doc__):
        raise TypeError(
            f"{name}: Jinja2 reserves the name self; give the first argument another name"
        )
    # Python 3.13 removes a docstring's indentation; removed here, every version gives the same prompt.
    return {"user": inspect.cleandoc(function.__doc__), **arguments}


def _return_type(function: Callable[..., object]) -> object:
    """Return the annotated return type of a function, or ``str`` without an annotation."""
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        return str
    # Only this annotation is evaluated: the arguments' may use names that exist for type checkers
    # only.
    without_arguments = SimpleNamespace(__annotations__={"return": annotation})
    try:
        hints = typing.get_type_hints(without_arguments, function.__globals__, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"the return type {annotation} of {function.__qualname__} cannot be resolved: {error}. Under "
            "'from __future__ import annotations', or in quotes, it must be a name of the module: define it "
            f"there, or write @llmcall.llm(output_type={annotation})"
        ) from error
    return hints["return"]


@typing.overload
def llm(function: Callable[Arguments, Value], /) -> LLMFunction[Arguments, Value]: ...
@typing.overload
def llm(
    **params: object,
) -> Callable[[Callable[Arguments, Value]], LLMFunction[Arguments, Value]]: ...


def llm(function: object = None, /, **params: object) -> Any:
    """Turn a function into a call to a model: its docstring is the user message's template, and its
    return annotation is the output type.

    :param params: the arguments of :class:`LLMCall`, such as ``system=`` and ``temperature=``.
    :returns: a decorator, or, used without parentheses, the function.
    :raises TypeError: if it is not a function, has no docstring, is async, or its template takes
        ``self``.

    >>> @llmcall.llm(max_tokens=16)
    ... def greet(greeting: str) -> str:
    ...     "{{ greeting }}"
    >>> greet("Good morning!")
    'Good morning!'
    """

    @door
    def decorator(decorated: Any) -> Any:
        """Return the function that makes the call."""
        # Below @llm or above, these mean the same.
        if isinstance(decorated, (staticmethod, classmethod)):
            return type(decorated)(decorator(decorated.__func__))
        return LLMFunction(decorated, LLMCall(**call_arguments(decorated, params)))

    return decorator if function is None else decorator(function)
