"""Keys and other values by numbers, and arrays of what is known of each: a million objects would take gigabytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from ...support.system import lock

T = TypeVar("T")


class Numbered(Generic[T]):
    """Values, numbered from 0 on; threads may add them."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []

    def add(self, value: T) -> int:
        """Return the number of a value, which gets the next one if it is new."""
        number = self._numbers.get(value)
        if number is None:
            with lock:
                number = self._numbers.get(value)
                if number is None:
                    number = len(self._values)
                    self._values.append(value)
                    self._numbers[value] = number
        return number

    def get(self, value: T) -> int:
        """Return the number of a value, or -1."""
        return self._numbers.get(value, -1)

    def __getitem__(self, number: int) -> T:
        return self._values[number]

    def __len__(self) -> int:
        return len(self._values)


class KeyNumbers:
    """The keys of records, numbered."""

    def __init__(self) -> None:
        self._keys = Numbered[bytes]()

    def add(self, key: str) -> int:
        """Return the number of a key, which gets the next one if it is new."""
        return self._keys.add(bytes.fromhex(key))

    def get(self, key: str) -> int:
        """Return the number of a key, or -1."""
        return self._keys.get(bytes.fromhex(key))

    def packed(self, number: int) -> bytes:
        """Return the key with a number as its bytes."""
        return self._keys[number]

    def __getitem__(self, number: int) -> str:
        return self._keys[number].hex()


class Column:
    """A value for each number; 0 for those that have none.

    :param code: of its type, as of an ``array``.
    """

    __slots__ = ("_array",)

    def __init__(self, code: str) -> None:
        self._array: array[Any] = array(code)

    def __getitem__(self, number: int) -> Any:
        return self._array[number] if 0 <= number < len(self._array) else 0

    def __setitem__(self, number: int, value: object) -> None:
        lacking = number + 1 - len(self._array)
        if lacking > 0:
            self._array.extend([0] * lacking)
        self._array[number] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self._array)
