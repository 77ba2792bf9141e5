"""JSON schemas of Python types and functions."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from functools import lru_cache, partial, wraps
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin
from unicodedata import normalize

from ..support.tracebacks import mistake
from .request import Data, UncheckedFormat
from .schema_forms import canonical_schema, rooted, stable, strict

if TYPE_CHECKING:
    from pydantic import TypeAdapter


# Hyphens and dashes of Unicode's category Pd that stand between words and numbers, and the minus
DASH = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")


# The keywords that change nothing in what fits, and those of an object's schema.
_NOT_CHECKED = frozenset({"title", "description", "default", "examples", "format", "$defs"})
_OBJECT = (
    {"type", "properties", "additionalProperties"},
    {"type", "properties", "additionalProperties", "required"},
)
_PLAIN_TYPES = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


MOST_TYPES = 256  # whose results are kept


def once_per_type(function: Callable[[Any], object]) -> Callable[[Any], Any]:
    """Decorate a function so that it runs once for each type object; do not change what it returns."""
    # By the type's id, which no other object has as long as the type is kept here. Not by the type itself: Python
    # takes unions that differ only in order as equal, and some types have no hash.
    results: dict[int, tuple[object, Any]] = {}

    @wraps(function)
    def wrapper(output_type: object) -> Any:
        """Return the function's result for a type."""
        known = results.get(id(output_type))
        if known is None:
            if len(results) >= MOST_TYPES:
                results.clear()
            known = results[id(output_type)] = output_type, function(output_type)
        return known[1]

    return wrapper


@once_per_type
def response_format(output_type: object) -> dict[str, Data] | None:
    """Return the ``response_format`` parameter for a type, a strict JSON schema.

    A type whose JSON is not an object (a list, a number, a choice) is wrapped: ``{"value": …}``.

    :returns: the parameter, or ``None`` for ``str`` and for types that strict schemas cannot express:
        open dicts, tuples, ``Any``.
    :raises TypeError: for anything that is not an output type.
    """
    if output_type is str:
        return None
    schema = dict(full_schema(output_type))
    if json_kind(output_type) != "object":
        definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
        schema = {"type": "object", "properties": {"value": schema}, **definitions}
    try:
        return _format(output_type, strict(schema), is_strict=True)
    except ValueError:
        return None


@once_per_type
def unchecked_format(output_type: object) -> UncheckedFormat | None:
    """Return :func:`response_format`'s result for a caller that checks the answers."""
    parameter = response_format(output_type)
    return None if parameter is None else UncheckedFormat(parameter)


def class_format(model: object) -> dict[str, Data]:
    """Return the ``response_format`` parameter for a class.

    :param model: a pydantic model, dataclass or ``TypedDict``. If strict schemas cannot express it, the
        schema is not strict.
    :raises TypeError: for anything else.
    """
    if not isinstance(model, type) or json_kind(model) != "object":
        raise TypeError(
            f"response_format takes a dict, a pydantic model, a dataclass or a TypedDict, not {model!r}"
        )
    return response_format(model) or _format(model, full_schema(model), is_strict=False)


def function_tool(function: Callable[..., object]) -> dict[str, Data]:
    """Return the ``tools`` entry of a function: its name, its docstring and the schema of its
    parameters.

    :param function: a callable, or a class (pydantic model, dataclass, ``TypedDict``) whose fields
        are the parameters. A ``functools.partial`` has the name and docstring of its function.
    :raises TypeError: if it is not callable, or a parameter has no JSON schema.
    """
    if not callable(function):
        raise TypeError(f"tools contains {function!r}; it must be a list of dicts and functions")
    described: Any = function
    while isinstance(described, partial):  # whose own words are about partial functions
        described = described.func
    name = getattr(described, "__name__", type(described).__name__)
    is_class = isinstance(function, type)
    parameters = rooted(full_schema(function) if is_class else _arguments_schema(function))
    docstring = parameters.pop("description", None) if is_class else inspect.getdoc(described)
    description = {"description": docstring} if docstring else {}
    return {
        "type": "function",
        "function": {"name": _api_name(name), **description, "parameters": parameters},
    }


@once_per_type
def optional_type(output_type: object) -> Any:
    """Return ``T`` for ``Optional[T]``, and ``None`` for any other type."""
    alternatives = get_args(output_type)
    if (
        get_origin(output_type) not in (Union, UnionType)
        or len(alternatives) != 2
        or type(None) not in alternatives
    ):
        return None
    return alternatives[alternatives[0] is type(None)]


def read_type(output_type: Any) -> Any:
    """Return the type that answers are read as: ``str`` for one with remarks alone, a list for an ``Iterable``,
    which pydantic would read when it is used.

    :raises TypeError: for a list of options.
    """
    if isinstance(output_type, (list, tuple, set, frozenset)):
        options = ", ".join(map(repr, output_type))
        raise mistake(
            f"output_type is {output_type!r}; it must be a type, such as Literal[{options}]"
        )
    arguments = get_args(output_type)
    if get_origin(output_type) is Annotated and arguments[0] is str:
        return str if full_schema(output_type) == {"type": "string"} else output_type
    if Iterable in (output_type, get_origin(output_type)):
        return list[arguments[0]] if arguments else list  # type: ignore[valid-type]
    return output_type


@once_per_type
def adapter(output_type: Any) -> TypeAdapter[Any]:
    """Return pydantic's adapter of a type.

    :raises TypeError: for a type that pydantic cannot read.
    """
    from ..support.libraries import pydantic

    try:
        return pydantic.TypeAdapter(output_type)
    except (pydantic.PydanticUserError, NameError) as error:
        raise _no_schema(output_type, error) from error


def _no_schema(output_type: object, problem: Exception) -> TypeError:
    name = getattr(output_type, "__qualname__", output_type)
    return TypeError(f"{name} has no JSON schema: {str(problem).splitlines()[0]}")


def _pydantic_schema(output_type: object) -> dict[str, Data]:
    from ..support.libraries import pydantic

    try:
        return adapter(output_type).json_schema(schema_generator=_generator())  # type: ignore[no-any-return]
    except pydantic.PydanticUserError as error:
        raise _no_schema(output_type, error) from error


@lru_cache(maxsize=1)
def _generator() -> Any:
    from ..support.libraries import pydantic

    class Generator(pydantic.json_schema.GenerateJsonSchema):
        """A writer of the same schemas in all versions, without warnings about defaults that are not JSON."""

        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  as pydantic declares it

        def dataclass_schema(self, schema: Any) -> dict[str, Data]:
            """Return the schema without a generated docstring."""
            # Since 2.12 the docstring is the description.
            json_schema = super().dataclass_schema(schema)
            name, text = schema["cls"].__name__, schema["cls"].__doc__ or ""
            if text.startswith(f"{name}("):  # the docstring that @dataclass generates
                json_schema.pop("description", None)
            elif text:
                json_schema.setdefault("description", inspect.cleandoc(text))
            return json_schema

        def decimal_schema(self, schema: Any) -> dict[str, Data]:
            """Return the schema without the pattern that only some versions write."""
            json_schema = super().decimal_schema(schema)
            for alternative in json_schema.get("anyOf", ()):
                alternative.pop("pattern", None)  # written only by 2.12 and 2.13
            return json_schema

        def encode_default(self, dft: Any) -> Any:
            """Return a default as JSON, sets sorted, as new versions of pydantic do."""
            return _finite(super().encode_default(_ordered(dft)))

    return Generator


def _finite(default: Any) -> Any:
    """Return a default's data; what JSON cannot represent raises the error for which pydantic leaves a default out."""
    from ..support.libraries import pydantic_core

    try:
        json.dumps(default, allow_nan=False)
    except ValueError as error:
        raise pydantic_core.PydanticSerializationError(str(error)) from None
    return default


def _ordered(default: object) -> object:
    """Return a default, its sets sorted: their own order differs between processes."""
    if type(default) is dict:
        return {name: _ordered(item) for name, item in default.items()}
    if type(default) in (list, tuple):
        return [_ordered(item) for item in default]  # type: ignore[attr-defined]
    if not isinstance(default, (set, frozenset)):
        return default
    try:
        return sorted(default)
    except TypeError:  # members of an Enum, or of several types
        return sorted(default, key=repr)


def _arguments_schema(function: Data) -> dict[str, Data]:
    """Return the schema of a function's parameters, without ``*args`` and ``**kwargs``."""
    from ..support.libraries import pydantic_core, typing_extensions

    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError as error:
        raise _no_schema(function, error) from error
    fields: dict[str, Data] = {}
    defaults: dict[str, object] = {}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[name] = hint
        if parameter.default is not parameter.empty:
            fields[name] = typing_extensions.NotRequired[fields[name]]
            # pydantic's own schemas leave out defaults that are not JSON, too.
            with suppress(pydantic_core.PydanticSerializationError):
                default = pydantic_core.to_jsonable_python(_ordered(parameter.default))
                defaults[name] = _finite(default)
    schema = _pydantic_schema(typing_extensions.TypedDict("Arguments", fields))  # type: ignore[operator]
    for name, default in defaults.items():
        schema["properties"][name]["default"] = default
    return canonical_schema({**schema, "additionalProperties": False})


@once_per_type
def full_schema(output_type: object) -> dict[str, Data]:
    """Return the canonical schema of a type, made without pydantic if possible.

    :raises TypeError: if pydantic has no JSON schema for the type.
    """
    schema = simple_schema(output_type)
    return canonical_schema(_pydantic_schema(output_type)) if schema is None else schema


def fits_closed(value: object, output_type: object) -> bool:
    """Return whether a JSON value fits a type's schema, in which objects take no unknown keys unless their
    class allows them.
    """
    schema = _closed_schema(output_type)
    return _fits_plainly(value, schema, schema) or _validator(output_type).is_valid(value)


def _fits_plainly(value: object, schema: Data, root: Mapping[str, Data]) -> bool:
    """Return whether a JSON value fits a schema by the most common keywords alone. If not, jsonschema
    decides, in four times the time and after an import of a tenth of a second.
    """
    keywords = schema.keys() - _NOT_CHECKED if isinstance(schema, dict) else None
    if keywords == {"type"}:
        return type(value) in _PLAIN_TYPES.get(str(schema["type"]), ())
    if keywords == {"type", "enum"}:
        return isinstance(value, str) and schema["type"] == "string" and value in schema["enum"]
    if keywords == {"anyOf"}:
        return any(_fits_plainly(value, option, root) for option in schema["anyOf"])
    if keywords == {"$ref"}:
        name = schema["$ref"].removeprefix("#/$defs/")
        return _fits_plainly(value, root.get("$defs", {}).get(name), root)
    if keywords == {"type", "items"} and isinstance(value, list) and schema["type"] == "array":
        return all(_fits_plainly(element, schema["items"], root) for element in value)
    if keywords in _OBJECT and isinstance(value, dict) and schema["type"] == "object":
        properties = schema["properties"]
        return (
            schema["additionalProperties"] is False
            and properties.keys() >= value.keys() >= {*schema.get("required", ())}
            and all(_fits_plainly(value[name], properties[name], root) for name in value)
        )
    return False


@once_per_type
def _closed_schema(output_type: object) -> Data:
    return _closed(_pydantic_schema(output_type))


@once_per_type
def _validator(output_type: object) -> Any:
    from ..support.libraries import jsonschema

    return jsonschema.Draft202012Validator(_closed_schema(output_type))


def _closed(node: object) -> Data:
    if isinstance(node, list):
        return [_closed(element) for element in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(child) for name, child in node.items()}
    if isinstance(node.get("pattern"), str):  # Python cannot read all of pydantic's expressions
        del closed["pattern"]
    if isinstance(node.get("multipleOf"), (int, float)):  # jsonschema does not round
        del closed["multipleOf"]
    # A set takes an element twice, and servers are not sent this rule.
    closed.pop("uniqueItems", None)
    if node.get("type") == "object" and "properties" in node:
        closed.setdefault("additionalProperties", False)
    return closed


def composed(text: str) -> str:
    """Return a text in one spelling: "é" as one character, and a hyphen for all hyphens and dashes, which
    models mix.
    """
    return DASH.sub("-", normalize("NFC", text))


@once_per_type
def spellings(output_type: object) -> dict[str, str]:
    """Return the options in a type's schema that have several spellings, by their :func:`composed` form."""
    found: dict[str, set[str]] = {}

    def collect(node: object) -> None:
        """Collect the options of a schema, or of several."""
        if isinstance(node, list):
            for item in node:
                collect(item)
        elif isinstance(node, dict):
            for option in node.get("enum") or ():
                if isinstance(option, str) and (not option.isascii() or "-" in option):
                    found.setdefault(composed(option), set()).add(option)
            for item in node.values():
                collect(item)

    collect(full_schema(output_type))
    return {composed: option for composed, [option, *others] in found.items() if not others}


@once_per_type
def json_kind(output_type: object) -> str:
    """Return the kind of a type's JSON: ``"object"``, ``"array"`` or ``"value"``."""
    kind = rooted(full_schema(output_type)).get("type")
    return kind if kind in ("object", "array") else "value"


@once_per_type
def simple_schema(output_type: object) -> dict[str, Data] | None:
    """Return the schema of a type that does not need pydantic (50 ms to import), or ``None``."""
    names = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object"}
    if isinstance(output_type, type) and output_type in names:
        return {"type": names[output_type]}
    if is_choice(output_type):
        return stable({"enum": list(map(json_of, labels(output_type).values()))})
    if output_type is list or get_origin(output_type) is list:
        items = simple_schema(get_args(output_type)[0]) if get_args(output_type) else {}
        return None if items is None else {"items": items, "type": "array"}
    inner_type = optional_type(output_type)
    inner_schema = None if inner_type is None else simple_schema(inner_type)
    return None if inner_schema is None else {"anyOf": [inner_schema, {"type": "null"}]}


def _format(output_type: Any, schema: dict[str, object], *, is_strict: bool) -> dict[str, Data]:
    is_class = isinstance(output_type, type) and get_origin(output_type) is None
    name = _api_name(output_type.__name__) if is_class else "answer"
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "strict": is_strict, "schema": schema},
    }


def _api_name(name: str) -> str:
    # The API allows at most 64 letters, digits, "_" and "-" ("Create chat completion", response_format
    # and tools).
    return re.sub("[^A-Za-z0-9_-]", "_", name)[:64]


def is_choice(output_type: object) -> bool:
    """Return whether a type is a ``Literal`` or an ``Enum``."""
    return get_origin(output_type) is Literal or (
        isinstance(output_type, type) and issubclass(output_type, Enum)
    )


@once_per_type
def labels(output_type: Any) -> dict[str, Data]:
    """Return the options of a type by the text that a model uses for them.

    :param output_type: a ``Literal`` (the text is the option itself if it is a string, else its JSON), or
        an ``Enum`` (the same of the members' values).
    """
    options = get_args(output_type) if get_origin(output_type) is Literal else output_type
    return {label_of(option): option for option in options}


def label_of(option: object) -> str:
    """Return the text that a model uses for an option."""
    written = json_of(option)
    return written if isinstance(written, str) else json.dumps(written)


def json_of(option: object) -> Data:
    """Return an option as JSON data: of an ``Enum``'s member its value, or its name if the value is no JSON value."""
    value = option.value if isinstance(option, Enum) else option
    if value is None or isinstance(value, (str, int, float)):
        return value
    return option.name if isinstance(option, Enum) else option
