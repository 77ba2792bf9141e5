"""The items of a ``map``: its arguments checked, what is done with each, and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from contextvars import ContextVar
from functools import partial
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .. import scopes
from ..cassettes.uses import current_position
from ..config.values import nearest
from ..display.formatting import one_line, shortened
from ..display.printable import printable
from ..engine.options import ON_ERROR
from ..notices import warn_once
from ..requests.keys import canonical
from ..scopes import made_name

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator

    from ..scopes import Active, Draws, Scope
    from ..types import Record

# The name of the item that a task runs outside any scope, if its job wants one; else empty.
current_item: ContextVar[str] = ContextVar("llmcall item", default="")

DIGEST_BYTES = 8  # of a SHA-256, in an item's name
OCCURRENCE = (
    "~"  # between a name and how often it came before; doubled where the name itself holds it
)
# In the name of several columns, what divides the parts of a sample, or the columns.
_ESCAPES = str.maketrans({"%": "%25", "/": "%2F", "#": "%23", ",": "%2C"})
# Of these, str() says all.
TEXTUAL = frozenset(
    {"date", "datetime", "time", "timedelta", "Decimal", "Fraction", "UUID", "NAType"}
)
SHOWN = 60  # characters of an item in a message


# Arguments


class MapOptions(NamedTuple):
    """The checked arguments of a map; see :func:`llmcall.map`."""

    key: Callable[[Any], Any] | None
    repeats: int
    workers: int | None
    progress: bool | None
    on_error: str
    executor: Executor | None
    scope: Scope | None


def check_options(
    items: Any,
    key: Any,
    repeats: Any,
    workers: Any,
    progress: Any,
    on_error: Any,
    executor: Any,
    scope: Any,
) -> MapOptions:
    """Return the arguments of a map, once they are checked.

    :raises TypeError: if one has the wrong type.
    :raises ValueError: if one has the wrong value.
    """
    if not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        kind = "an asynchronous generator" if hasattr(items, "__aiter__") else type(items).__name__
        raise TypeError(
            f"items is {kind}; it must be an iterable, such as a list, a generator or a DataFrame"
        )
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r}; it must be one of {', '.join(ON_ERROR)}")
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(
            f"progress is {progress!r}; it must be True, False or None (on a terminal or in a notebook)"
        )
    if executor is not None and not isinstance(executor, Executor):
        hint = ": pass client.get_executor()" if hasattr(executor, "get_executor") else ""
        raise TypeError(
            f"executor is {type(executor).__name__}; it must be a concurrent.futures.Executor{hint}"
        )
    return MapOptions(
        key_function(key),
        checked_count("repeats", repeats),
        None if workers is None else checked_count("workers", workers),
        progress,
        on_error,
        executor,
        scope if scope is None or isinstance(scope, scopes.Scope) else scopes.scope(scope),
    )


def checked_count(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    :param name: the argument's name, for the message.
    :raises TypeError, ValueError: if it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value


class CellRow(dict[str, Any]):
    """A row of one cell of a table that varies.

    :ivar cell: the cell's number. Equal rows of two cells have scopes of the same name.
    :ivar labels: the cell's labels, for messages.
    """

    def __init__(self, row: Mapping[str, Any], cell: int, labels: Mapping[str, Any]) -> None:
        super().__init__(row)
        self.cell = cell
        self.labels = dict(labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return CellRow, (dict(self), self.cell, self.labels)

    def __repr__(self) -> str:
        return repr({**self.labels, **self})


def cell_of(item: Any) -> int:
    """Return the number of an item's cell; 0 if nothing varies."""
    return item.cell if isinstance(item, CellRow) else 0


# What to do with each item


class Job(Protocol):
    """What a map does with each item."""

    def run(self, item: Any) -> Any:
        """Return an item's result."""

    def identity(self, item: Any) -> Any:
        """Return what identifies an item."""


class FunctionJob(NamedTuple):
    """Call a function with each item."""

    function: Callable[[Any], Any]

    def run(self, item: Any) -> Any:
        """Call the function."""
        return self.function(item)

    def identity(self, item: Any) -> Any:
        """Return what identifies an item: all of it."""
        return item


def job_of(function: Any) -> Job:
    """Return what a map does with each item.

    :param function: a callable with one argument, or an ``LLMCall`` or ``@llm`` function, whose
        method ``__map_job__`` returns its job.
    :raises TypeError: if it cannot be called, or is asynchronous.
    """
    from inspect import iscoroutinefunction

    if hasattr(type(function), "__map_job__"):
        return function.__map_job__()  # type: ignore[no-any-return]
    if not callable(function):
        raise TypeError(
            f"fn is {function!r}; it must be a function, an LLMCall or an @llm function"
        )
    if iscoroutinefunction(function):
        raise TypeError(
            f"{function.__qualname__} is asynchronous: pass a function that is not, or use asyncio.gather"
        )
    return FunctionJob(function)


def job_of_cell(job: Job, cell: int) -> Any:
    """Return what asks about the rows of one cell: the job itself if nothing varies."""
    return job.job_of_cell(cell) if hasattr(job, "job_of_cell") else job


class TaskPosition(NamedTuple):
    """The scopes of one draw of one item, and its place in the order of the calls.

    :param path: the scope in which the map runs; empty outside any.
    :param name: the name of the item's scope; empty outside any scope.
    :param repeat: the number of the draw, from 0; each further draw has a scope of its own.
    :param place: the map's place, the item's index, and the repeat.
    :param in_default: whether the map runs in the default scope.
    :param arm: the arm in which the map runs, or ``None``.
    :param item: outside any scope, the item's name if the job wants one; else empty.
    :param cell: the number of the item's cell, if rows vary.
    """

    path: str
    name: str
    repeat: int
    place: tuple[int, ...]
    in_default: bool = False
    arm: scopes.ArmPath | None = None
    item: str = ""
    cell: int = 0

    @property
    def number(self) -> int:
        """Return the item's number, from 0."""
        return self.place[-2]

    def enter(self, draws: Draws, used: deque[Record] | None) -> Active:
        """Move the present context, one of the task's own, to this position; return its scope.

        :param draws: the draws of its scopes.
        :param used: receives the records that answer its calls, or ``None``.
        """
        current_position.set(self.place)
        current_item.set(self.item)
        # An empty path means no scope, even if one is open elsewhere.
        path = f"{self.path}/{self.name}" if self.path else ""
        if self.repeat:
            path = f"{path}/{made_name(self.repeat)}" if path else made_name(self.repeat)
        if not self.in_default:
            return scopes.Active(path, draws, arm=self.arm, used=used)
        without = scopes.Active(made_name(self.repeat) if self.repeat else "", scopes.Draws())
        return scopes.Active(path, draws, without_default=without)


# Names


class ItemNames:
    """The names of the scopes of a map's items: each is a key or a digest, and a number if items
    share it.

    An item's name does not depend on the other items. Only different items that share a name are
    told apart by their order; :meth:`warn` warns of them.

    :param key: returns an item's key; ``None`` means to use a digest.
    :param identity: returns what identifies an item: the data to digest.
    """

    def __init__(self, key: Callable[[Any], Any] | None, identity: Callable[[Any], Any]) -> None:
        self._key = key
        self._identity = identity
        self._index = 0
        # by cell and name
        self._occurrences: Counter[tuple[int, str]] = Counter()
        # of the first item of each cell and name
        self._contents: dict[tuple[int, str], bytes | None] = {}
        # the cells and names that different items share
        self._ambiguous: set[tuple[int, str]] = set()
        self._example = ""

    def name(self, item: Any, *, takes_all: bool = False) -> str:
        """Return the name of the next item's scope.

        :param takes_all: whether to name an item that is not plain data by its class.
        :raises TypeError: if the key is neither a text nor a whole number, or, without one, the
            item is not plain data.
        :raises ValueError: if the key is empty or holds ``/`` or ``#``.
        """
        index = self._index
        self._index += 1
        if self._key is None:
            try:
                digested = digest(self._identity(item), index)
            except (TypeError, ValueError):
                if not takes_all:
                    raise
                digested = digest(type(item).__qualname__, index)
            name = made_name(digested[:DIGEST_BYTES].hex())
        else:
            name = _key_text(self._key(item), index).replace(OCCURRENCE, 2 * OCCURRENCE)
        place = cell_of(item), name
        self._compare(place, item, index)
        count = self._occurrences[place]
        self._occurrences[place] += 1
        return f"{name}{OCCURRENCE}{count}" if count else name

    def name_or_none(self, item: Any) -> str:
        """Return the next item's name; empty if it has none, because it is not plain data and there
        is no key.

        :raises TypeError, ValueError: for a key that cannot name a scope.
        """
        try:
            return self.name(item)
        except (TypeError, ValueError):
            if self._key is not None:
                raise
            return ""

    def _compare(self, place: tuple[int, str], item: Any, index: int) -> None:
        """Note whether an item differs from the first one of its cell and name."""
        try:
            content = digest(item, index)
        except (TypeError, ValueError):
            content = None  # nobody can tell whether it differs
        first = self._contents.setdefault(place, content)
        is_first = not self._occurrences[place]
        if not is_first and (content is None or content != first):
            self._example = (
                self._example or f"{_nth(index)}, {one_line(printable(repr(item)), SHOWN)}"
            )
            self._ambiguous.add(place)

    def warn(self) -> None:
        """Warn of different items that share a name; once for the same items."""
        count = sum(self._occurrences[place] for place in self._ambiguous)
        if not count:
            return
        warn_once(
            f"{count} items of a map share the name of their scope with one that differs "
            f"(for example {self._example}). Only their order tells them apart: sort the items, or "
            "insert or drop one, and they swap their answers. Give a key= that is another for each, "
            'such as a column, key="id", or a list of columns, key=["country", "id"]'
        )


class _Columns(tuple[Any, ...]):
    """The values of an item in several columns, which name its scope together."""


def key_function(key: Any) -> Callable[[Any], Any] | None:
    """Return a function that returns an item's key, or ``None`` if no key is given.

    :param key: a function of the item, a column of its row, or a list of columns.
    :raises TypeError: if it is anything else.
    :raises ValueError: if it is an empty list.
    """
    if key is None or callable(key):
        return key  # type: ignore[no-any-return]
    if isinstance(key, str):
        return partial(_column, key)
    if not isinstance(key, (list, tuple)) or not all(isinstance(name, str) for name in key):
        raise TypeError(
            f"key is {key!r}; it must be a function of the item, the name of a column, or a list of such names"
        )
    if not key:
        raise ValueError(f"key is {key!r}; it must name at least one column")
    columns = tuple(key)
    return lambda item: _Columns(_column(name, item) for name in columns)


def _column(name: str, item: Any) -> Any:
    """Return an item's value in a column, or in the field of that name.

    :raises TypeError, ValueError: if it has no such column; the message lists those that it has.
    """
    if isinstance(item, Mapping):
        if name in item:
            return item[name]
        known = [str(each) for each in item]
        shown = shortened(", ".join(known) or "none", 300)  # a table may have hundreds of columns
        raise ValueError(
            f"key={name!r} names a column that a row lacks; it has {shown}{nearest(name, known)}"
        )
    if hasattr(item, name):
        return getattr(item, name)
    kind = type(item)
    for attribute in ("__dataclass_fields__", "_fields", "model_fields"):
        if known := list(getattr(kind, attribute, ())):
            raise ValueError(
                f"key={name!r} names a field that {kind.__name__} lacks; it has {', '.join(known)}"
                f"{nearest(name, known)}"
            )
    raise TypeError(
        f"key={name!r} names a column, but an item is {kind.__name__}, not a row (a dict)"
    )


def _nth(index: int) -> str:
    """Return an item's name in messages, which count from 1: the last of three is item 3."""
    return f"item {index + 1}"


def _key_text(key: Any, index: int) -> str:
    """Return the name of the scope for a key."""
    if isinstance(key, _Columns):
        values = [_plain_text(value, index).translate(_ESCAPES) for value in key]
        return ",".join(values) or "%"
    text = _plain_text(key, index)
    if not text or "/" in text or "#" in text:
        raise ValueError(
            f"the key of {_nth(index)} is {key!r}; it names a scope, so it must not be empty or hold '/' or '#' "
            "(a list of columns may, even of one)"
        )
    return text


def _plain_text(value: Any, index: int) -> str:
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return str(value.__index__())  # also for NumPy's whole numbers
    if not isinstance(value, str):
        raise TypeError(
            f"the key of {_nth(index)} is {value!r}; it must be a text or a whole number"
        )
    return str.__str__(value)


def digest(identity: Any, index: int) -> bytes:
    """Return an item's SHA-256 digest.

    Equal numbers have one form (1 and 1.0), as have lists and tuples; the order of a dict's keys does
    not matter.

    :param identity: plain data, dates, decimals, enumerations, dataclasses, pydantic models, or
        NumPy's values.
    :raises TypeError: if it is anything else.
    """
    try:
        data = _plain(identity)
    except RecursionError:
        raise ValueError(
            f"{_nth(index)} is nested too deeply for a digest: give a key= that tells them apart"
        ) from None
    except _NotPlainError as error:
        raise TypeError(
            f"{_nth(index)} holds {error}, which is not plain data: give a key= that tells items apart (a function of "
            "the item, or a column), for the scope of each"
        ) from None
    return sha256(canonical(data, _nth(index))).digest()


class _NotPlainError(Exception):
    """Raised with the name of a type that is not plain data."""


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is bool or kind is int or value is None:
        return value
    if kind is dict or isinstance(value, Mapping):
        if all(isinstance(name, str) for name in value):
            return {
                str.__str__(name): item if type(item) is str else _plain(item)
                for name, item in value.items()
            }
        pairs = [[_plain(name), _plain(item)] for name, item in value.items()]
        return _tagged("dict", sorted(pairs, key=lambda pair: canonical(pair[0])))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if kind is not float:
        return _unusual(value)
    if not isfinite(value):
        return _tagged("float", str(value))
    return int(value) if value.is_integer() else value


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    # Plain data has no such key, so no item can look like another.
    return {f"\0{kind}": value}


def _unusual(value: Any) -> Any:
    kind = type(value).__name__
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy's, columns of pandas'
        return _plain(value.tolist())
    if isinstance(value, (bytes, bytearray)):
        return _tagged("bytes", bytes(value).hex())
    if isinstance(value, (set, frozenset)):
        return _tagged("set", sorted(map(_plain, value), key=canonical))
    if isinstance(value, type):
        raise _NotPlainError(f"the class {value.__name__}")
    if hasattr(value, "model_dump"):
        return _tagged(kind, _plain(value.model_dump()))
    if hasattr(value, "__dataclass_fields__"):
        return _tagged(
            kind, {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
        )
    for base in type(value).__mro__:
        if base.__module__ == "enum":
            return _tagged(kind, value.name)
        if base.__name__ in TEXTUAL:
            return _tagged(base.__name__, str(value))
        if hasattr(value, "__fspath__"):
            return _tagged("path", str(value))
        if base in (str, int, float):
            return _plain(base.__str__(value)) if base is str else _plain(base(value))
    raise _NotPlainError(kind)


def item_words(item: Any, position: TaskPosition, total: int | None) -> str:
    """Return an item in words: its number, from 1, and its key or the beginning of its text."""
    number = _nth(position.number) + (f" of {total}" if total is not None else "")
    name = position.name if position.name and not scopes.is_made_name(position.name) else None
    return f"{number} ({one_line(name or printable(repr(item)), SHOWN)})"


# Rows


def is_frame(items: Any) -> bool:
    """Return whether something is a pandas DataFrame, without importing pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] == "pandas"
        for base in type(items).__mro__
    )


def rows_of(items: Any) -> Iterator[Any]:
    """Return an iterator over items; for a DataFrame, over its rows as dicts."""
    if is_frame(items):
        names = list(items.columns)
        items = (
            dict(zip(names, values, strict=True))
            for values in items.itertuples(index=False, name=None)
        )
    return iter(items)


def length_of(items: Any) -> int | None:
    """Return the number of items, or ``None`` if it is unknown."""
    return len(items) if hasattr(items, "__len__") else None
