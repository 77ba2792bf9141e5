"""The fields of an output type, which have columns of their own in a table."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin

from ..requests.schemas import optional_type


def fields_of(output_type: Any) -> tuple[str, ...]:
    """Return the names of a pydantic model's, a dataclass's or a ``TypedDict``'s fields; of any
    other type there are none.
    """
    if get_origin(output_type) is Annotated:
        return fields_of(get_args(output_type)[0])
    inner = optional_type(output_type)
    if inner is not None:
        return fields_of(inner)
    if not isinstance(output_type, type):
        return ()
    if hasattr(output_type, "model_fields"):
        return tuple(output_type.model_fields)
    if is_dataclass(output_type):
        return tuple(field.name for field in fields(output_type))
    is_typed_dict = hasattr(output_type, "__total__")
    return tuple(output_type.__annotations__) if is_typed_dict else ()
