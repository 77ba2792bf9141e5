"""An answer, read as the type that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, get_args, get_origin

from ..errors import LLMCallError, OutputError
from ..requests import schemas
from ..requests.schemas import is_choice
from .choices import choice
from .expectations import describe
from .json_values import containers, scalar
from .numbers import number, whole_number
from .phrases import peeled, phrases, phrases_with_digits, without_marks

_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,}(?!~))[^\n`]*$", re.MULTILINE)
_TAGS_OF_THOUGHTS = ("think", "thinking", "thought", "reasoning", "scratchpad")
_THOUGHTS = [
    *((f"<{name}>", f"</{name}>") for name in _TAGS_OF_THOUGHTS),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
]
_KEY = re.compile(r"""([{,]\s*)(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')\s*:""")
_ANSWER_NAMES = ("value", "answer")
_BRACKETS = {"object": "{", "array": "["}  # that begin a JSON value, by its kind
# That a correction lists: a model mends those, and the next answer shows the rest.
_MAX_PROBLEMS = 5


def read(text: str, output_type: Any, *, structured: bool = False) -> Any:
    """Read an answer as a type.

    :param text: the answer as the model gave it.
    :param output_type: ``str`` (the text unchanged), ``bool``, ``int``, ``float``, a ``Literal``,
        an ``Enum``, ``list`` or ``list[…]``, ``dict`` or ``dict[…]``, ``Optional`` of these,
        ``Annotated`` with pydantic's constraints, a pydantic model, a dataclass, a ``TypedDict``,
        or any other type that pydantic reads from JSON.
    :param structured: whether :func:`llmcall.requests.schemas.response_format` was asked for, which
        wraps anything but an object as ``{"value": …}``.
    :raises OutputError: if the answer cannot be read as the type, or in more than one way.
    :raises TypeError: if pydantic cannot read the type.
    """
    if output_type is str:
        return text
    answer = without_thoughts(text)
    try:
        if text and not answer:
            raise OutputError("it ends within the model's reasoning")
        if structured:
            return _read_structured(answer, output_type)
        return _read(answer, output_type)
    except OutputError as error:
        error.text, error.expected = text, describe(output_type)
        raise
    except RecursionError:
        raise OutputError(
            "its JSON is nested too deeply", text=text, expected=describe(output_type)
        ) from None


def without_thoughts(text: str) -> str:
    """Return an answer without the reasoning before it, which a server may leave in; empty if the
    answer ends within its reasoning.
    """
    for opening, closing in _THOUGHTS:
        thoughts, end, answer = text.rpartition(closing)
        begins_with_thoughts = text.lstrip().startswith(opening)
        if not end and begins_with_thoughts:
            return ""
        if end and (opening not in thoughts or begins_with_thoughts):
            return answer
    return text


def _read_structured(text: str, output_type: Any) -> Any:
    """Read an answer that the API held to the schema of a type."""
    try:
        values = containers(text, "{")
    except OutputError:  # reading says more of what is broken
        return _read(text, output_type)
    is_wrapped = len(values) == 1 and values[0].keys() == {"value"}
    if is_wrapped and schemas.json_kind(output_type) != "object":
        return _converted(values[0]["value"], output_type)
    return _read(text, output_type)


def _read(text: str, output_type: Any) -> Any:
    """Read an answer that the model wrote freely."""
    if output_type is str:  # of an Optional
        return text
    if output_type in (bool, int, float) or is_choice(output_type):
        return _read_simple(text, output_type)
    inner = schemas.optional_type(output_type)
    if inner is not None:
        return _read_optional(text, inner)
    if get_origin(output_type) is Annotated:
        plain_type = get_args(output_type)[0]
        if schemas.simple_schema(plain_type) is not None:
            value = _read(text, plain_type)
            return _checked(schemas.adapter(output_type).validate_python, value)
    return _read_json(text, output_type)


def _read_simple(text: str, output_type: Any) -> Any:
    """Read yes or no, a number or an option."""
    unfenced = _FENCE_LINE.sub("", text)
    try:
        values = containers(unfenced)
    except OutputError:
        if unfenced.lstrip()[:1] in ("{", "["):  # the answer may lack its end
            raise
        values = []
    for fields in _objects(values):
        _refuse_unread_field(fields, output_type)
    return _converted(_KEY.sub(r"\1\n", unfenced) if values else unfenced, output_type)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in a JSON value, also those within others."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _objects(part)


def _refuse_unread_field(fields: dict[str, Any], output_type: Any) -> None:
    """Refuse an object whose answer may be one of its keys, as in ``{"no": true}``, or whose field for
    the answer cannot be read: one by that name, or null before another answer, as in ``{"rating":
    null, "max": 10}``.
    """
    is_number = output_type in (int, float)
    if not is_number and any(_is_label(name, output_type) for name in fields):
        raise OutputError("a key of its JSON is one of the options")
    named = [fields[name] for name in _ANSWER_NAMES if name in fields]
    is_answered = False
    for value in named or fields.values():
        try:
            _converted(value, output_type)
            is_answered = True
        except OutputError:
            is_named = isinstance(value, str) and bool(named)
            if is_named or (value is None and not is_answered):
                raise


def _read_optional(text: str, inner: Any) -> Any:
    """Read ``None`` or a type."""
    unfenced = _FENCE_LINE.sub("", text)
    is_null = any(layer.lower() in ("null", "none") for layer in peeled(unfenced))
    if is_null and not (is_choice(inner) and _is_label(unfenced, inner)):
        return None
    try:
        return _read(text, inner)
    except OutputError:
        found = phrases(without_marks(unfenced))
        if len(found) in (1, 2) and found[-1].lower() == "null":  # "Answer: null"
            return None
        raise


def _is_label(text: str, output_type: Any) -> bool:
    """Return whether an answer is one of a choice's options."""
    try:
        choice(text, output_type)
    except OutputError:
        return False
    return True


def _read_json(text: str, output_type: Any) -> Any:
    """Read the one JSON value in an answer that fits a type; the same value twice is one."""
    kind = schemas.json_kind(output_type)
    values = containers(text, _BRACKETS.get(kind, "{["))
    if not values:
        if kind != "value":
            raise OutputError(f"it holds no JSON {kind}")
        return _read_scalar(text, output_type)
    fitting_values: dict[str, Any] = {}
    errors: list[OutputError] = []
    for value in values:
        try:
            fitting_values[json.dumps(value, sort_keys=True)] = _converted(value, output_type)
        except OutputError as error:
            errors.append(error)
    if len(fitting_values) > 1:
        raise OutputError(f"it holds {len(fitting_values)} different JSON values that fit")
    if fitting_values:
        return next(iter(fitting_values.values()))
    is_wrapped = len(values) == 1 and isinstance(values[0], dict) and len(values[0]) == 1
    if kind == "value" and is_wrapped:
        [(name, value)] = values[0].items()
        if name in _ANSWER_NAMES:
            with suppress(OutputError):
                return _converted(value, output_type)
    raise errors[0]


def _read_scalar(text: str, output_type: Any) -> Any:
    """Read anything but an object or array: a JSON scalar or a string, also in a fence or with marks
    around it; else each phrase with a digit, if all of them are one value.
    """
    unfenced = _FENCE_LINE.sub("", text)
    errors = []
    for layer in peeled(unfenced):
        try:
            return _validated_scalar(layer, output_type)
        except OutputError as error:
            errors.append(error)
    with_digits = phrases_with_digits(unfenced)
    try:
        values = [_validated_scalar(phrase, output_type) for phrase in with_digits]
    except OutputError:
        raise errors[0] from None
    if not values or isinstance(values[0], str):  # any text may be a part of a text
        raise errors[0]
    if any(value != values[0] for value in values):
        raise OutputError(f"it holds different values, {' and '.join(with_digits[:3])}")
    return values[0]


def _validated_scalar(text: str, output_type: Any) -> Any:
    """Turn a text into a type, as JSON if it is a JSON scalar."""
    value: Any = text
    with suppress(ValueError):
        value = scalar(value)
    converted = _validated(value, output_type)
    # A float would lose a decimal's digits.
    return _validated(text, output_type) if isinstance(converted, Decimal) else converted


def _converted(value: Any, output_type: Any) -> Any:
    """Turn a JSON value into the type; a string is read as an answer of its own."""
    if output_type in (str, bool, int, float):
        return _simple(value, output_type)
    inner = schemas.optional_type(output_type)
    if inner is not None:
        return None if value is None else _converted(value, inner)
    if is_choice(output_type):
        return choice(value if isinstance(value, str) else json.dumps(value), output_type)
    kind = get_origin(output_type) or output_type
    if kind not in (list, dict) or schemas.simple_schema(output_type) is None:
        return _validated(value, output_type)
    if not isinstance(value, kind):
        raise OutputError(f"it holds no JSON {'array' if kind is list else 'object'}")
    element_types = get_args(output_type)
    if not element_types:
        return value
    return _elements(value, element_types[0])


def _elements(values: Any, output_type: Any) -> list[Any]:
    """Turn each element of an array into a type."""
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(_converted(value, output_type))
        except OutputError as error:
            raise OutputError(f"element {index}: {error}") from error.__cause__
    return converted


def _simple(value: Any, kind: Any) -> Any:
    """Turn a JSON value into a string, a truth value or a number."""
    if type(value) is kind:
        return value
    if kind in (int, float) and type(value) in (int, float):
        value = json.dumps(value)
    if kind is str or not isinstance(value, str):
        problems = {str: "it is no string", bool: "it is neither true nor false"}
        raise OutputError(problems.get(kind, "it is no number"))
    if kind is bool:
        return choice(value, bool)
    return whole_number(value) if kind is int else float(number(value))


def _validated(value: Any, output_type: Any) -> Any:
    """Turn a JSON value into a type, as pydantic reads it.

    :raises OutputError: if it does not fit.
    """
    return _checked(schemas.adapter(output_type).validate_json, json.dumps(value))


def _checked(validate: Callable[[Any], Any], value: Any) -> Any:
    """Call one of pydantic's functions, and raise what it finds as an ``OutputError``."""
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as error:
        problems = []
        for each in error.errors(include_url=False):
            field = ".".join(map(str, each["loc"]))
            problems.append(f"{field}: {each['msg']}" if field else each["msg"])
        problems.sort()  # versions of pydantic list them in different orders
        omitted_count = len(problems) - _MAX_PROBLEMS
        message = "; ".join(problems[:_MAX_PROBLEMS])
        if omitted_count > 0:
            message += f"; and {omitted_count} more"
        raise OutputError(message) from error
    except (RecursionError, LLMCallError):
        raise
    except Exception as error:
        raise OutputError(f"a validator raised {type(error).__name__}: {error}") from error
