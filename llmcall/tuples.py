"""``NamedTuple`` as in ``typing``, save that nothing is made of the annotations.

``typing`` compiles each of them when the class is made: two milliseconds of every start, for what nobody looks at.
"""

from __future__ import annotations

from .annotations import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

    class _Making(type):
        """Make of a class body the named tuple that its annotations describe."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace["__annotations__"]
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            made = namedtuple(name, fields, defaults=defaults, module=namespace.pop("__module__"))
            for attribute, value in namespace.items():
                setattr(made, attribute, value)
            return made

    class NamedTuple(metaclass=_Making):
        """Be what a named tuple with annotated fields is derived from."""


__all__ = ["NamedTuple"]
