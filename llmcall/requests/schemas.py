"""JSON schemas of Python types and functions, in one form whatever the version of pydantic."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from ..outputs.choices import is_choice, labels
from .schema_forms import canonical, rooted, strict, types_of
from .typed_dicts import readable

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "adapter",
    "format_of",
    "is_wrapped",
    "model_schema",
    "optional_type",
    "response_format",
    "rooted",
    "schema",
    "simple_schema",
    "strict",
    "tool_of",
]


def model_schema(model_or_function: Any) -> dict[str, Any]:
    """Return the canonical JSON schema of a type, or of a function's arguments.

    The form is that of :func:`llmcall.requests.schema_forms.canonical`: the same for every pydantic 2.

    :param model_or_function: a pydantic model, dataclass, ``TypedDict``, ``Enum``, any other type that pydantic
        knows, or a function.
    :raises TypeError: for what pydantic has no JSON schema of, and for a function with positional-only parameters.
    """
    import inspect
    from functools import partial

    if inspect.isroutine(model_or_function) or isinstance(model_or_function, partial):
        return _arguments_schema(model_or_function)
    return canonical(_pydantic_schema(model_or_function))


def schema(output_type: Any) -> dict[str, Any] | None:
    """Return the strict JSON schema for the API's structured output.

    What is no object (a list, a number, a choice) is wrapped: ``{"value": …}``.

    :returns: ``None`` for ``str``, and for what strict schemas cannot say: open dicts, tuples, ``Any``.
    :raises TypeError: for what is no output type.
    """
    if output_type is str:
        return None
    full = _full_schema(output_type)
    if not _is_object(full):
        definitions = {"$defs": full.pop("$defs")} if "$defs" in full else {}
        full = {"type": "object", "properties": {"value": full}, **definitions}
    try:
        return strict(full)
    except ValueError:
        return None


def is_wrapped(output_type: Any) -> bool:
    """Tell whether :func:`schema` wraps a type as ``{"value": …}``."""
    return output_type is not str and not _is_object(_full_schema(output_type))


def response_format(output_type: Any) -> dict[str, Any] | None:
    """Return the ``response_format`` parameter for a type; ``None`` where :func:`schema` has none."""
    found = schema(output_type)
    return None if found is None else _format(output_type, found, is_strict=True)


def format_of(model: Any) -> dict[str, Any]:
    """Return the ``response_format`` parameter for a class that a caller gave as one.

    :param model: a pydantic model, dataclass or ``TypedDict``; what strict schemas cannot say is asked for without
        ``strict``.
    :raises TypeError: for anything else.
    """
    if not isinstance(model, type) or not _is_object(full := _full_schema(model)):
        raise TypeError(f"response_format takes a dict, a pydantic model, a dataclass or a TypedDict, not {model!r}")
    return response_format(model) or _format(model, full, is_strict=False)


def tool_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the ``tools`` entry of a function: its name, its docstring and the schema of its parameters.

    :param function: a function, a method, or a class (pydantic model, dataclass, ``TypedDict``) whose fields are the
        parameters.
    :raises TypeError: for parameters that have no JSON schema or no name.
    """
    import inspect

    name = getattr(function, "__name__", type(function).__name__)
    parameters = rooted(model_schema(function))
    described = parameters.pop("description", None) if isinstance(function, type) else inspect.getdoc(function)
    description = {"description": described} if described else {}
    return {"type": "function", "function": {"name": _name(name), **description, "parameters": parameters}}


def optional_type(output_type: Any) -> Any:
    """Return ``T`` of ``Optional[T]``; of any other type ``None``."""
    from types import UnionType
    from typing import Union

    alternatives = get_args(output_type)
    if get_origin(output_type) not in (Union, UnionType) or len(alternatives) != 2 or type(None) not in alternatives:
        return None
    return alternatives[alternatives[0] is type(None)]


def adapter(output_type: Any) -> TypeAdapter[Any]:
    """Return pydantic's reader of a type; a class's is kept.

    :raises TypeError: for a type that pydantic cannot read.
    """
    # unions that differ in order only are equal, so they cannot share a memo
    plain_class = isinstance(output_type, type) and get_origin(output_type) is None
    return _class_adapter(output_type) if plain_class else _adapter(output_type)


def _adapter(output_type: Any) -> TypeAdapter[Any]:
    import inspect

    from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter

    if inspect.isroutine(output_type):  # pydantic would read arguments and call it
        raise _no_schema(output_type, "it is a function")
    try:
        return TypeAdapter(readable(output_type))
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise _no_schema(output_type, error.message) from error
    except NameError as error:
        raise _no_schema(output_type, str(error)) from error


_class_adapter = lru_cache(maxsize=256)(_adapter)


def _no_schema(output_type: Any, problem: str) -> TypeError:
    return TypeError(
        f"{getattr(output_type, '__qualname__', output_type)} has no JSON schema: {problem.splitlines()[0]}"
    )


def _pydantic_schema(output_type: Any) -> dict[str, Any]:
    from pydantic import PydanticUserError

    try:
        return adapter(output_type).json_schema(schema_generator=_generator())
    except PydanticUserError as error:
        raise _no_schema(output_type, error.message) from error


@lru_cache(maxsize=1)
def _generator() -> Any:
    import inspect

    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Write what differs between versions in one way, and be silent about defaults that are no JSON."""

        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  as pydantic declares it

        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            """Leave out the docstring that nobody wrote."""
            found = super().dataclass_schema(schema)  # the docstring is the description since 2.12
            name, text = schema["cls"].__name__, schema["cls"].__doc__ or ""
            if text.startswith(f"{name}("):  # what @dataclass writes where there is none
                found.pop("description", None)
            elif text:
                found.setdefault("description", inspect.cleandoc(text))
            return found

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            """Leave out the pattern that only some versions write."""
            found = super().decimal_schema(schema)
            for alternative in found.get("anyOf", ()):
                alternative.pop("pattern", None)  # written by 2.12 and 2.13 alone
            return found

    return Generator


def _arguments_schema(function: Any) -> dict[str, Any]:
    import inspect

    from typing_extensions import NotRequired, TypedDict

    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, parameter in _parameters(function):
        annotation = Any if parameter.annotation is inspect.Parameter.empty else readable(parameter.annotation)
        if parameter.default is inspect.Parameter.empty:
            fields[name] = annotation
        else:
            fields[name] = NotRequired[annotation]
            defaults |= _plain_default(name, parameter.default)
    found = _pydantic_schema(TypedDict("Arguments", fields))  # type: ignore[operator]
    for name, default in defaults.items():
        found["properties"][name]["default"] = default
    return canonical({**found, "additionalProperties": False})


def _parameters(function: Any) -> list[tuple[str, Any]]:
    """List the parameters that can be given by name; ``*args`` and ``**kwargs`` have none."""
    import inspect

    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError as error:
        raise _no_schema(function, str(error)) from error
    if nameless := [name for name, found in parameters.items() if found.kind is found.POSITIONAL_ONLY]:
        raise _no_schema(
            function, f"the parameter {nameless[0]} is positional-only, and a model gives arguments by name"
        )
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [(name, found) for name, found in parameters.items() if found.kind not in variable]


def _plain_default(name: str, default: Any) -> dict[str, Any]:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return {name: to_jsonable_python(default)}
    except PydanticSerializationError:  # a default that is no JSON stays out of the schema, as in pydantic's own
        return {}


def _full_schema(output_type: Any) -> dict[str, Any]:
    found = simple_schema(output_type)
    return model_schema(output_type) if found is None else found


def simple_schema(output_type: Any) -> dict[str, Any] | None:
    """Return the schema of what needs no pydantic (it takes 50 ms to import), else ``None``."""
    names = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object"}
    if isinstance(output_type, type) and output_type in names:
        return {"type": names[output_type]}
    if is_choice(output_type):
        return _choice_schema(output_type)
    if output_type is list or get_origin(output_type) is list:
        items = simple_schema(get_args(output_type)[0]) if get_args(output_type) else {}
        return None if items is None else {"items": items, "type": "array"}
    if (inner := optional_type(output_type)) is not None and (found := simple_schema(inner)) is not None:
        return {"anyOf": [found, {"type": "null"}]}
    return None


def _choice_schema(output_type: Any) -> dict[str, Any]:
    options = labels(output_type)
    plain = get_origin(output_type) is Literal
    values = [
        option if plain and type(option) in (int, bool, type(None)) else label for label, option in options.items()
    ]
    types = types_of(values)
    return {"enum": values, "type": types[0]} if len(types) == 1 else {"enum": values}


def _is_object(full: dict[str, Any]) -> bool:
    return bool(rooted(full).get("type") == "object")


def _format(output_type: Any, found: dict[str, Any], *, is_strict: bool) -> dict[str, Any]:
    own_name = isinstance(output_type, type) and get_origin(output_type) is None
    name = _name(output_type.__name__) if own_name else "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "strict": is_strict, "schema": found}}


def _name(name: str) -> str:
    # the API allows letters, digits, "_" and "-", at most 64 ("Create chat completion", response_format and tools)
    return re.sub("[^A-Za-z0-9_-]", "_", name)[:64]
