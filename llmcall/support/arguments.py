"""A call's arguments: checked by the annotations of its function, and named by its parameters."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from .tracebacks import mistake

if TYPE_CHECKING:
    import inspect

Function = TypeVar("Function", bound=Callable[..., Any])

MISSING = object()
QUOTED_CHARACTERS = 60  # of a wrong value
OBJECTS = ("self", "cls")  # names of a first parameter that is the method's object or class

# By the beginning of an annotation: the types that it stands for, and their name in messages. A parameter
# with any other annotation is left to the function.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "Callable": ((Callable,), "a function"),  # type: ignore[dict-item]
    "Mapping": ((Mapping,), "a dict"),
    "None": ((NoneType,), "None"),
    "bool": ((bool,), "True or False"),
    "float": ((Real,), "a number"),
    "int": ((Integral,), "a whole number"),
    "os.PathLike": ((os.PathLike,), "a path"),
    "str": ((str,), "a string"),
}
# By the function that is called: where its unknown arguments go.
_ELSEWHERE = {
    "client": ". Settings go to OpenAIClient(model=…), the model also to send_message(…, model=…)"
}


class _Demanded(NamedTuple):
    """The types that an annotation demands.

    :param kinds: the types.
    :param words: the types in words.
    """

    kinds: tuple[type, ...]
    words: str

    def accepts(self, value: object) -> bool:
        # True is an int for Python, and a mistake for a number of repeats
        is_taken_for_number = isinstance(value, bool) and bool not in self.kinds
        return isinstance(value, self.kinds) and not is_taken_for_number


def checked(function: Function) -> Function:
    """Return a function that checks its arguments before it does anything.

    :raises TypeError: for an argument of another type than its annotation says, and for an unknown name, with
        the nearest one.
    """
    name = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        if args or kwargs:
            check_arguments(function, bound(name, _signature(function)[0], args, kwargs).arguments)
        return function(*args, **kwargs)

    return cast("Function", call)


def bound(
    name: str, signature: inspect.Signature, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> inspect.BoundArguments:
    """Return the arguments of a call by the names of a function's parameters.

    :param name: the function's.
    :raises TypeError: for a missing argument, and for an unknown name, with the nearest one.
    """
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        unknown = next((word for word in kwargs if word not in signature.parameters), None)
        if unknown is None:
            raise mistake(f"{name}(): {error}") from None
        raise mistake(
            f"{name}() has no argument {unknown!r}{nearest(unknown, signature.parameters)}"
            f"{_ELSEWHERE.get(name, '')}"
        ) from None


class Parameters:
    """The parameters of a function, which name each call's arguments.

    :ivar name: the function's name.
    :ivar signature: the function's signature.
    :ivar var_keyword: the name of the ``**`` parameter, or ``None``.
    :ivar defaults: the other parameters' defaults by name; ``signature.empty`` without a default.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        import inspect  # takes milliseconds, and a call without functions does not need it

        self.name = getattr(function, "__name__", repr(function))
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters
        # Whether each parameter takes one argument, by position or by name.
        self._are_plain = all(
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters.values()
        )
        self.var_keyword: str | None = None
        self.defaults: dict[str, object] = {}
        for name, parameter in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                self.var_keyword = name
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self.defaults[name] = ()
            else:
                self.defaults[name] = parameter.default

    def arguments(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> dict[str, object]:
        """Return all arguments of a call by name, including defaults.

        :raises TypeError: if the function does not take them.
        """
        given = {**dict(zip(self.defaults, args, strict=False)), **kwargs}
        is_each_once = (
            len(args) + len(kwargs) == len(given) and given.keys() == self.defaults.keys()
        )
        if self._are_plain and is_each_once:
            return {**self.defaults, **given}  # bind takes several times as long
        named = bound(self.name, self.signature, args, kwargs)
        named.apply_defaults()
        return named.arguments


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, object]) -> None:
    """Check arguments by the annotations of a function.

    :param arguments: by name; those that were not given may be left out.
    :raises TypeError: see :func:`checked`.
    """
    for name, expected in _signature(function)[1].items():
        value = arguments.get(name, MISSING)
        if value is not MISSING and not expected.accepts(value):
            raise mistake(f"{name} is {value!r:.{QUOTED_CHARACTERS}}; it must be {expected.words}")


@functools.cache
def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, _Demanded]]:
    """Return a function's signature, and what is checked of its parameters."""
    import inspect  # costs milliseconds, and every process imports this module

    signature = inspect.signature(function)
    expected = {
        name: found
        for name, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (found := _demanded(str(parameter.annotation))) is not None
    }
    return signature, expected


def _demanded(annotation: str) -> _Demanded | None:
    """Return the types that an annotation demands, or ``None`` if part of it is unknown."""
    while "[" in annotation:
        annotation = re.sub(r"\[[^\[\]]*\]", "", annotation)  # the innermost brackets
    kinds = [_KINDS.get(part.strip()) for part in annotation.split("|")]
    if None in kinds:
        return None
    found = cast("list[tuple[tuple[type, ...], str]]", kinds)
    return _Demanded(
        tuple(kind for types, _ in found for kind in types),
        " or ".join(words for _, words in found),
    )


def nearest(word: str, candidates: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ``". Did you mean 'X'?"`` for the most similar candidate, in upper or lower case, or empty text.

    :param cutoff: the least similarity, 0 to 1, as for ``difflib.get_close_matches``.
    """
    from difflib import get_close_matches

    spelled = {candidate.casefold(): candidate for candidate in candidates}
    matches = get_close_matches(word.casefold(), spelled, 1, cutoff)
    return f". Did you mean {spelled[matches[0]]!r}?" if matches else ""
