"""Values that pydantic reads against their meaning: a year as seconds since 1970, "NaN" as a number,
an object of other fields as one of defaults.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from ..display.formatting import shortened
from ..errors import OutputError
from .numbers import refuse_thousands

LONGEST_LIST = 300  # characters of the names that a message lists
_TIMES = (datetime.date, datetime.time)
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\s*")
# Hours that end a text without seconds: "09:00-17:00" is no time in the zone -17:00.
_RANGE = re.compile(r"(?:^|\s)\d{1,2}:\d{2}\s*[-−–]\s*\d{1,2}:\d{2}\s*$")


def refuse_misread(given: Any, converted: Any) -> None:
    """Refuse a value if pydantic misread a part of it.

    :param given: the JSON value.
    :param converted: what pydantic made of it.
    :raises OutputError: if a number became a date or time, a range of times became one time, a
        truth value or "45.000" a whole number, a text an infinite number or none, or an object one
        of defaults, because its keys are others than the fields.
    """
    if isinstance(converted, float) and not math.isfinite(converted):
        raise OutputError(f"{converted} is no number")
    if type(converted) in (int, float) and isinstance(given, bool):
        raise OutputError(f"{json.dumps(given)} is no number")
    if type(converted) is int and isinstance(given, str):
        refuse_thousands(given, converted)
    if isinstance(converted, _TIMES):
        _refuse_misread_time(given)
    is_set_of_list = isinstance(converted, (set, frozenset)) and isinstance(given, list)
    if is_set_of_list and any(isinstance(part, _TIMES) for part in converted):
        for each in given:
            _refuse_misread_time(each)
    if isinstance(given, Mapping) and given:
        _refuse_other_fields(given, converted)
    for given_part, converted_part in _parts(given, converted):
        refuse_misread(given_part, converted_part)


def no_known_key(given: Iterable[str], keys: Iterable[str]) -> OutputError:
    """Return the error of an object none of whose keys is a field.

    :param keys: those of the fields.
    """
    return OutputError(f"none of its keys ({_listed(given)}) is a field; they are {_listed(keys)}")


def _refuse_misread_time(given: Any) -> None:
    """Refuse what became a date or time if it is a number, or a range of times."""
    if isinstance(given, bool):
        return
    if isinstance(given, (int, float)) or (isinstance(given, str) and _NUMBER.fullmatch(given)):
        raise OutputError(f"{given!r} is a number, and no date or time")
    if isinstance(given, str) and _RANGE.search(given):
        raise OutputError(f"{given!r} is a range of times, and not one")


def _refuse_other_fields(given: Mapping[str, Any], converted: Any) -> None:
    """Refuse an object if its keys are not the fields of what it became: none of them, or one in
    another case.
    """
    output_type: Any = type(converted)
    keys = _keys_of(output_type)
    if not keys or getattr(converted, "model_extra", None):
        return
    if not given.keys() & set(keys):
        raise no_known_key(given, keys)
    missing = {_plain(key): key for key in keys if key not in given}
    for key in given.keys() - set(keys):
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
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    keys: dict[str, None] = {}
    for by_alias in (True, False) if _takes_names(output_type) else (True,):
        try:
            schema = TypeAdapter(output_type).json_schema(by_alias=by_alias)
        except (PydanticUndefinedAnnotation, PydanticUserError):
            return ()
        # A class that holds itself is a reference; pydantic 2.1 wraps that.
        [reference] = schema.get("allOf") or [schema]
        if "$ref" in reference:
            schema = schema["$defs"][reference["$ref"].rpartition("/")[2]]
        keys |= dict.fromkeys(schema.get("properties", ()))
    for model_field in getattr(output_type, "model_fields", {}).values():
        keys |= dict.fromkeys(_other_keys(model_field) if keys else ())
    return tuple(keys)


def _other_keys(model_field: Any) -> list[str]:
    """Return the keys under which a model's field may stand, beside the one in its JSON schema."""
    # A path begins with a key.
    heads = [
        each if isinstance(each, str) else getattr(each, "path", [None])[0]
        for each in _aliases(model_field)
    ]
    return [head for head in heads if isinstance(head, str)]


def _aliases(model_field: Any) -> list[Any]:
    """Return the aliases of a model's field: texts, paths or ``None``."""
    alias = model_field.validation_alias
    return list(getattr(alias, "choices", [alias]))


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
    if isinstance(converted, (list, tuple)) and isinstance(given, list):
        yield from zip(given, converted, strict=False)
        return
    if isinstance(converted, (set, frozenset)):
        yield from ((None, part) for part in converted)
        return
    values = given if isinstance(given, Mapping) else {}
    if isinstance(converted, Mapping):
        yield from zip(values, converted, strict=False)
    for names, part in _fields(converted):
        yield next((values[name] for name in names if name in values), None), part


def _fields(converted: Any) -> Iterator[tuple[list[str], Any]]:
    """Yield the values of a dict or of an object's fields, each after its names in JSON."""
    if isinstance(converted, Mapping):
        for key, part in converted.items():
            yield [key], part
    elif dataclasses.is_dataclass(converted):
        for field in dataclasses.fields(converted):
            yield [field.name], getattr(converted, field.name)
    else:
        model_fields = getattr(type(converted), "model_fields", {})
        for name, model_field in model_fields.items():
            yield _names_of_field(name, model_field), getattr(converted, name)


def _names_of_field(name: str, model_field: Any) -> list[str]:
    """Return the names in JSON of a model's field; its own is the last one."""
    aliases = (*_aliases(model_field), model_field.alias)
    return [*(each for each in aliases if isinstance(each, str)), name]
