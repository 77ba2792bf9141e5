"""Pickles of plain data: dicts, lists, tuples, strings, numbers, booleans, bytes and ``None``, nothing else."""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

from .operations import check, check_shape

__all__ = ["PROTOCOL", "NotPlainError", "dumps", "loads"]

PROTOCOL = 4  # the newest that every supported Python reads and that holds no out-of-band buffers


class NotPlainError(Exception):
    """Say that a value is no plain data, such as a string of a class of its own."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse: plain data names no class."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain data")

    def persistent_load(self, identifier: Any) -> NoReturn:
        """Refuse: plain data refers to nothing outside."""
        raise pickle.UnpicklingError("it refers to an object outside")


class _PlainPickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> NoReturn:
        """Refuse: only what is no plain data has to be reduced."""
        raise NotPlainError


def dumps(value: Any) -> bytes:
    """Return plain data as a pickle.

    :raises NotPlainError: where it is none.
    """
    file = io.BytesIO()
    _PlainPickler(file, PROTOCOL).dump(value)
    try:
        check(file.getvalue())
    except ValueError as error:  # a tuple that is there twice, which nobody could read again
        raise NotPlainError(str(error)) from error
    return file.getvalue()


def loads(body: bytes) -> Any:
    """Return the plain data in a pickle; every operation is looked at before any is carried out.

    :raises ValueError: where it holds anything else, or could overflow the stack or reserve the memory.
    :raises TypeError, LookupError, AttributeError, EOFError, MemoryError, OverflowError, RecursionError: at bytes that
        somebody made up.
    """
    check(body)
    try:
        value = _PlainUnpickler(io.BytesIO(body)).load()
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error
    check_shape(value, len(body))
    return value
