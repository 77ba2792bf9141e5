"""Functions whose body is a model's answer: ``@llm`` makes them of a docstring and an annotation."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .calls import Answer, LLMCall

__all__ = ["LLMFunction", "call_arguments"]

Arguments = ParamSpec("Arguments")
Rest = ParamSpec("Rest")
Value = TypeVar("Value")

SELF = re.compile(r"\{[{%][^}]*(?<![.\w])self\b")  # a tag with the variable ``self``


class LLMFunction(Generic[Arguments, Value]):
    """Be a function whose body is a model's answer; as a method it binds its object.

    :param function: gives the name, the arguments and their defaults.
    :param llm_call: what answers; its templates take the arguments as variables.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[Arguments, Value], llm_call: LLMCall) -> None:
        functools.update_wrapper(self, function)
        self._signature = inspect.signature(function)
        self._bound: tuple[Any, ...] = ()
        self.llm_call = llm_call

    def _variables(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = self._signature.bind(*self._bound, *args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Ask, and return the answer as the type that the function is annotated to return."""
        return self.run(*args, **kwargs).value  # type: ignore[no-any-return]

    def run(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        """Ask, and return the value, the reply and the messages."""
        return self.llm_call.run(**self._variables(*args, **kwargs))

    async def acall(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Ask without blocking the event loop."""
        return (await self.llm_call.arun(**self._variables(*args, **kwargs))).value  # type: ignore[no-any-return]

    def map(self, rows: Iterable[Any], **map_options: Any) -> Any:
        """Ask about each row, a dict of arguments or what the only argument is; see :meth:`LLMCall.map`."""
        return self.llm_call.map_function(self, rows, map_options)

    def variables(self, item: Any) -> dict[str, Any]:
        """Return the templates' variables of an item of a ``map``: of a row, those that the function takes.

        :param item: a row, or anything else as the first argument.
        :raises TypeError: where an argument is missing.
        """
        if not isinstance(item, Mapping):
            return self._variables(item)
        parameters = self._signature.parameters
        takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        row = item if takes_all else {name: value for name, value in item.items() if name in parameters}
        return self._variables(**row)

    def bound_names(self) -> frozenset[str]:
        """Return the parameters that stand for the object of a bound method."""
        return frozenset(list(self._signature.parameters)[: len(self._bound)])

    @typing.overload
    def __get__(self, instance: None, owner: Any) -> LLMFunction[Arguments, Value]: ...
    @typing.overload
    def __get__(
        self: LLMFunction[Concatenate[Any, Rest], Value], instance: object, owner: Any
    ) -> LLMFunction[Rest, Value]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        bound: Any = object.__new__(LLMFunction)
        bound.__dict__.update(self.__dict__, _bound=(instance,))
        return bound

    def __reduce__(self) -> Any:
        # By its name, as any function; a bound one as an attribute of its object.
        return (getattr, (*self._bound, self.__name__)) if self._bound else self.__qualname__


def call_arguments(function: Callable[..., Any], params: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the :class:`LLMCall` behind a function.

    :param params: those that the decorator was given; a user template among them leaves the docstring a docstring.
    :raises TypeError: where the function has no docstring, is async, or its template takes ``self``.
    """
    name = function.__qualname__
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{name} is async; define it with def, and await {function.__name__}.acall(…)")
    found = {"output_type": _returned(function), **params}
    if params.keys() & {"user", "user_template_name"}:
        return found
    if not function.__doc__:
        raise TypeError(f"{name} has no docstring; it is the template of the user message")
    if SELF.search(function.__doc__):
        raise TypeError(f"{name}: Jinja2 keeps the name self for itself; name the first argument otherwise")
    return {"user": function.__doc__, **found}


def _returned(function: Callable[..., Any]) -> Any:
    """Return the type that a function is annotated to return; ``str`` where it is not."""
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        return str
    # Of the return annotation alone: those of the arguments may be names that exist for type checkers only.
    returning = SimpleNamespace(__annotations__={"return": annotation})
    return typing.get_type_hints(returning, function.__globals__, include_extras=True)["return"]
