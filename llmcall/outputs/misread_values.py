"""Values that pydantic reads against their meaning: a year as seconds since 1970, "NaN" as a number,
an object of other fields as one of defaults.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..display.formatting import shortened
from ..errors import OutputError
from .numbers import refuse_thousands

LONGEST_LIST = 300  # characters of the names that a message lists
_TIMES = (datetime.date, datetime.time)
_WESTERNMOST, _EASTERNMOST = datetime.timedelta(hours=-12), datetime.timedelta(hours=14)
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\s*")
# Hours that end a text without seconds: "09:00-17:00" is no time in the zone -17:00.
_RANGE = re.compile(r"(?:^|\s)\d{1,2}:\d{2}\s*[-−–]\s*\d{1,2}:\d{2}\s*$")


def refuse_misread(given: Any, converted: Any, keys: Iterable[str]) -> None:
    """Refuse a value if pydantic misread a part of it.

    :param given: the JSON value.
    :param converted: what pydantic made of it.
    :param keys: those of all objects in the type; a ``TypedDict`` does not know its own.
    :raises OutputError: if a number became a date or time, a range of times became one time, a
        truth value or "45.000" a whole number, a text an infinite number or none, or an object one
        of defaults, because its keys are others than the fields.
    """
    if isinstance(converted, float) and not math.isfinite(converted):
        raise OutputError(f"{converted} is no number")
    is_number = isinstance(converted, (int, float)) and not isinstance(converted, bool)
    if is_number and isinstance(given, bool):
        raise OutputError(f"{json.dumps(given)} is no number")
    if type(converted) is int and isinstance(given, str):
        refuse_thousands(given, converted)
    if isinstance(converted, _TIMES):
        _refuse_misread_time(given, converted)
    if isinstance(given, Mapping) and given:
        _refuse_other_fields(given, converted, keys)
    for given_part, converted_part in _parts(given, converted):
        refuse_misread(given_part, converted_part, keys)


def _refuse_misread_time(given: Any, converted: Any) -> None:
    """Refuse what became a date or time if it is a number, or a range of times."""
    if isinstance(given, (int, float)) or (isinstance(given, str) and _NUMBER.fullmatch(given)):
        raise OutputError(f"{given!r} is a number, and no date or time")
    if isinstance(given, str) and _RANGE.search(given):
        raise OutputError(f"{given!r} is a range of times, and not one")
    offset = None if type(converted) is datetime.date else converted.utcoffset()
    if offset is not None and not _WESTERNMOST <= offset <= _EASTERNMOST:
        raise OutputError(
            f"{converted.isoformat()!r} is in no time zone; it may be a range of times"
        )


def _refuse_other_fields(given: Mapping[str, Any], converted: Any, keys: Iterable[str]) -> None:
    """Refuse an object if its keys are not the fields of what it became: none of them, or one in
    another case.
    """
    output_type: Any = type(converted)
    if isinstance(converted, Mapping):  # a dict keeps every key, a TypedDict its own
        read: Iterable[str] = converted.keys()
        is_other = not converted
    else:
        keys = read = _keys_of(output_type)
        is_other = not given.keys() & set(keys)
    if not keys or getattr(converted, "model_extra", None):
        return
    if is_other:
        raise OutputError(
            f"none of its keys ({_listed(given)}) is a field; they are {_listed(keys)}"
        )
    missing = {_plain(key): key for key in keys if key not in given}
    for key in given.keys() - set(read):
        if _plain(key) in missing:
            raise OutputError(f"its key {key!r} should be {missing[_plain(key)]!r}")


@lru_cache(maxsize=256)
def _keys_of(output_type: Any) -> tuple[str, ...]:
    """Return the keys that pydantic reads a model or dataclass from; empty for other types, and if a
    validator may read others.
    """
    is_model = hasattr(output_type, "model_fields")
    if not is_model and not dataclasses.is_dataclass(output_type):
        return ()
    decorators = getattr(output_type, "__pydantic_decorators__", None)
    if decorators is not None and (decorators.model_validators or decorators.root_validators):
        return ()
    keys = dict.fromkeys(_properties(output_type, by_alias=True))
    if _takes_names(output_type):
        keys |= dict.fromkeys(_properties(output_type, by_alias=False))
    for model_field in getattr(output_type, "model_fields", {}).values():
        keys |= dict.fromkeys(_other_keys(model_field) if keys else ())
    return tuple(keys)


@lru_cache(maxsize=512)
def _properties(output_type: Any, *, by_alias: bool) -> tuple[str, ...]:
    """Return the keys in the JSON schema of a class, in the order of its fields; empty if it has
    none.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    try:
        schema = TypeAdapter(output_type).json_schema(by_alias=by_alias)
    except (PydanticUndefinedAnnotation, PydanticUserError):
        return ()
    # A class that holds itself is a reference; pydantic 2.1 wraps that.
    [reference] = schema.get("allOf") or [schema]
    if "$ref" in reference:
        schema = schema["$defs"][reference["$ref"].rpartition("/")[2]]
    return tuple(schema.get("properties", ()))


def _other_keys(model_field: Any) -> list[str]:
    """Return the keys under which a model's field may stand, beside the one in its JSON schema."""
    return [path[0] for path in _paths(model_field) if isinstance(path[0], str)]


def _paths(model_field: Any) -> list[list[Any]]:
    """Return where a model's field may stand in JSON by its aliases: keys, and what leads to them."""
    alias = model_field.validation_alias
    return [getattr(each, "path", [each]) for each in getattr(alias, "choices", [alias])]


def _takes_names(output_type: Any) -> bool:
    """Return whether a class may be read by its fields' own names beside their aliases."""
    config = getattr(output_type, "model_config", None) or getattr(
        output_type, "__pydantic_config__", {}
    )
    return bool(config.get("populate_by_name") or config.get("validate_by_name"))


def _listed(names: Iterable[str]) -> str:
    """Return names in words."""
    return shortened(", ".join(map(str, names)), LONGEST_LIST)


def _plain(name: str) -> str:
    """Return a key in lower case, without what stands between its words."""
    return re.sub(r"[\W_]", "", name).lower()


def _parts(given: Any, converted: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each part of a value that is made of others, after what it was made from, or ``None``."""
    if getattr(converted, "__pydantic_root_model__", False):
        yield given, converted.root
    elif isinstance(converted, (set, frozenset)) and isinstance(given, list):
        # A set has another order. Most parts became what they are.
        pairs = ((each, part) for each in given for part in converted)
        yield from (pair for pair in pairs if type(pair[0]) is not type(pair[1]))
    elif isinstance(converted, Sequence) and isinstance(given, list):
        yield from zip(given, converted, strict=False)
    elif isinstance(converted, Mapping) and isinstance(given, Mapping):
        for given_key, key in zip(given, converted, strict=False):
            yield given_key, key
            yield given.get(key) if isinstance(key, str) else given[given_key], converted[key]
    else:
        for paths, part in _fields(converted):
            found = (_value_at(path, given) for path in paths)
            yield next((each for each in found if each is not None), None), part


def _fields(converted: Any) -> Iterator[tuple[list[list[Any]], Any]]:
    """Yield the values of an object's fields, each after the places where it may stand in JSON."""
    output_type: Any = type(converted)
    if dataclasses.is_dataclass(converted):
        names = _properties(output_type, by_alias=False)
        keys = dict(zip(names, _properties(output_type, by_alias=True), strict=False))
        for field in dataclasses.fields(converted):
            yield [[keys.get(field.name)], [field.name]], getattr(converted, field.name)
    else:
        for name, model_field in getattr(output_type, "model_fields", {}).items():
            yield [*_paths(model_field), [name]], getattr(converted, name)


def _value_at(path: list[Any], value: Any) -> Any:
    """Return what stands in a JSON value behind some keys and positions; ``None`` if nothing does."""
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value
