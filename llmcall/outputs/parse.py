"""Text to typed value: what a model answered, as the output type that the caller asked for.

Lenient in form, strict in meaning: fences, words around the value, units and Markdown are read over; an answer that can
be read in two ways is refused, so that it is asked again and not guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

from ..errors import OutputError
from ..requests import schemas
from ..requests.schemas import is_choice, labels
from .choices import bare, choice, number, verdict, whole_number
from .json_scan import containers, scalar

__all__ = ["correction", "describe", "read"]

_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,}(?!~))[^\n`]*$", re.MULTILINE)
_ELEMENTS = {str: "strings", bool: "true or false", int: "whole numbers", float: "numbers"}
_END_OF_THOUGHTS = re.compile("</think>")
_QUOTES = re.compile(r'\\.|"')  # with what is escaped, which is no quote
_MAX_PROBLEMS = 5  # that a correction lists; a model mends those, and the next answer shows the rest


def read(text: str, output_type: Any, *, structured: bool = False) -> Any:
    """Read an answer as a type.

    :param text: the answer as the model gave it.
    :param output_type: ``str`` (the text unchanged), ``bool``, ``int``, ``float``, a ``Literal``, an ``Enum``, ``list``
        or ``list[…]``, ``dict`` or ``dict[…]``, ``Optional`` of these, ``Annotated`` with pydantic's constraints, a
        pydantic model, a dataclass, a ``TypedDict``, or any other type that pydantic reads from JSON.
    :param structured: whether :func:`llmcall.requests.schemas.response_format` was asked for, which wraps what is no
        object as ``{"value": …}``.
    :raises OutputError: where the answer has no reading as the type, or more than one.
    :raises TypeError: for a type that pydantic cannot read.
    """
    if output_type is str:
        return text
    try:
        return (_read_structured if structured else _read)(text, output_type)
    except OutputError as error:
        raise OutputError(f"{error}", text=text, expected=describe(output_type)) from error.__cause__


def describe(output_type: Any) -> str:
    """Return the sentence that tells the model what to answer; of ``str`` it is empty."""
    if output_type is str:
        return ""
    expected = _expected(output_type)
    return f"Answer with {expected}" if expected.endswith("}") else f"Answer with {expected}."


def correction(error: OutputError) -> str:
    """Return the user message that asks again, saying why and what is expected.

    :param error: what :func:`read` raised.
    """
    return f"I cannot use that answer: {error}.\n{error.expected}".rstrip()


def _read(text: str, output_type: Any) -> Any:
    if output_type is str:  # of an Optional
        return text
    text = _without_thoughts(text)
    if output_type in (bool, int, float) or is_choice(output_type):
        plain = _FENCE_LINE.sub("", text)
        if plain.lstrip()[:1] in ("{", "["):
            containers(plain)  # raises where it is cut off: the value may lack its end
        return _converted(plain, output_type)
    if (inner := schemas.optional_type(output_type)) is not None:
        return _read_optional(text, inner)
    if get_origin(output_type) is Annotated and schemas.simple_schema(get_args(output_type)[0]) is not None:
        return _checked(schemas.adapter(output_type).validate_python, _read(text, get_args(output_type)[0]))
    values = containers(text, _brackets(output_type))
    if not values and _brackets(output_type) == "{[":
        return _read_scalar(text, output_type)
    return _only_fit(values, output_type)


def _without_thoughts(text: str) -> str:
    """Drop what a reasoning model thought aloud, where its server left it in the answer."""
    marks = [mark for mark in _END_OF_THOUGHTS.finditer(text) if not _is_quoted(text, mark.start())]
    if not marks:
        return text
    thoughts, answer = text[: marks[-1].start()], text[marks[-1].end() :]
    return answer if "<think>" not in thoughts or thoughts.lstrip().startswith("<think>") else text


def _is_quoted(text: str, position: int) -> bool:
    """Tell whether a place lies in a JSON string: it ends on the line on which it began."""
    return _QUOTES.findall(text[text.rfind("\n", 0, position) + 1 : position]).count('"') % 2 == 1


def _read_optional(text: str, inner: Any) -> Any:
    is_null = bare(text).lower() in ("null", "none")
    if not is_null or (is_choice(inner) and bare(text).lower() in map(str.lower, labels(inner))):
        return _read(text, inner)
    return None


def _read_structured(text: str, output_type: Any) -> Any:
    try:
        values = containers(text, "{")
    except OutputError:  # reading says more of what is broken
        return _read(text, output_type)
    if len(values) == 1 and values[0].keys() == {"value"} and schemas.is_wrapped(output_type):
        return _converted(values[0]["value"], output_type)
    return _read(text, output_type)


def _brackets(output_type: Any) -> str:
    """Tell with which bracket the JSON of a type can begin."""
    fields = getattr(output_type, "model_fields", None)
    kind = get_origin(output_type) or output_type
    is_record = hasattr(output_type, "__dataclass_fields__") or hasattr(output_type, "__total__")
    if kind is dict or is_record or (fields is not None and "root" not in fields):
        return "{"
    return "[" if kind is list else "{["


def _only_fit(values: list[Any], output_type: Any) -> Any:
    """Return the one of several JSON values that fits the type; the same value twice is one."""
    fits: dict[str, Any] = {}
    problem: OutputError | None = None
    for value in values:
        try:
            fits[json.dumps(value, sort_keys=True)] = _converted(value, output_type)
        except OutputError as error:
            problem = problem or error
    if len(fits) > 1:
        raise OutputError(f"it holds {len(fits)} different JSON values that fit")
    if not fits:
        raise problem or OutputError(f"it holds no JSON {'object' if _brackets(output_type) == '{' else 'array'}")
    return next(iter(fits.values()))


def _read_scalar(text: str, output_type: Any) -> Any:
    """Read what is no object or array: the text as a JSON scalar, as it stands, or without the marks around it."""
    value = scalar(text)
    try:
        return _validated(value, output_type)
    except OutputError:
        if not isinstance(value, str) or bare(value) == value:
            raise
    return _validated(bare(value), output_type)


def _converted(value: Any, output_type: Any) -> Any:
    """Turn a JSON value into the type; a string is read as an answer of its own."""
    if isinstance(output_type, type) and output_type in _READERS:
        return _READERS[output_type](value)
    inner = schemas.optional_type(output_type)
    if inner is not None:
        return None if value is None else _converted(value, inner)
    if output_type in (list, dict):
        return _instance(value, output_type)
    if get_origin(output_type) is list and schemas.simple_schema(output_type) is not None:
        return _elements(_instance(value, list), get_args(output_type)[0])
    if is_choice(output_type):
        return choice(value if isinstance(value, str) else json.dumps(value), output_type)
    return _validated(value, output_type)


def _instance(value: Any, wanted: type) -> Any:
    if not isinstance(value, wanted):
        raise OutputError(f"it holds no JSON {'array' if wanted is list else 'object'}")
    return value


def _elements(values: list[Any], element_type: Any) -> list[Any]:
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(_converted(value, element_type))
        except OutputError as error:
            raise OutputError(f"element {index}: {error}") from error.__cause__
    return converted


def _as_string(value: Any) -> str:
    if not isinstance(value, str):
        raise OutputError("it is no string")
    return value


def _as_bool(value: Any) -> bool:
    if not isinstance(value, (str, bool)):
        raise OutputError("it is neither true nor false")
    return verdict(value) if isinstance(value, str) else value


def _as_int(value: Any) -> int:
    return whole_number(_number_text(value))


def _as_float(value: Any) -> float:
    try:
        return float(number(_number_text(value)))
    except OverflowError:
        raise OutputError("it holds a number too large to read") from None


_READERS: dict[Any, Callable[[Any], Any]] = {str: _as_string, bool: _as_bool, int: _as_int, float: _as_float}


def _number_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise OutputError("it is no number")
    return value if isinstance(value, str) else repr(value)


def _validated(value: Any, output_type: Any) -> Any:
    found = _checked(schemas.adapter(output_type).validate_json, json.dumps(value))
    if isinstance(found, float) and not abs(found) < float("inf"):
        raise OutputError(f"{found} is no number")
    return found


def _checked(validate: Callable[[Any], Any], value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as error:
        raise _problems(error) from error


def _problems(error: Any) -> OutputError:
    problems = sorted(_problem(found) for found in error.errors(include_url=False))  # their order differs by version
    more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
    return OutputError("; ".join(problems[:_MAX_PROBLEMS]) + more)


def _problem(found: Any) -> str:
    place = ".".join(str(step) for step in found["loc"])
    return f"{place}: {found['msg']}" if place else str(found["msg"])


def _expected(output_type: Any) -> str:
    """Say in words what is expected, as it goes on after "Answer with"."""
    words = {bool: "yes or no", int: "only a whole number", float: "only a number"}
    words |= {str: "a text", list: "only a JSON array", dict: "only a JSON object"}
    if isinstance(output_type, type) and output_type in words:
        return words[output_type]
    if is_choice(output_type):
        return f"exactly one of: {_options(output_type)}"
    if (inner := schemas.optional_type(output_type)) is not None:
        return f"null, or with {_expected(inner)}"
    if get_origin(output_type) is list and (named := _ELEMENTS.get(get_args(output_type)[0])):
        return f"only a JSON array of {named}"
    return _fitting_schema(output_type)


def _fitting_schema(output_type: Any) -> str:
    found = schemas.full_schema(output_type)
    kind = {"object": "object", "array": "array"}.get(schemas.rooted(found).get("type", ""), "value")
    return f"only a JSON {kind} that fits this JSON schema: {json.dumps(found, ensure_ascii=False)}"


def _options(output_type: Any) -> str:
    options = list(labels(output_type))
    plain = all(re.fullmatch(r"[^\s,\"'](?:[^,\"'\n]*[^\s,\"'])?", option) for option in options)
    return ", ".join(options if plain else [json.dumps(option, ensure_ascii=False) for option in options])
