"""The position of the running code, which names the caller and is inherited by its tasks; and the names in its
path: the user's own, and those that a ``map`` gives to items and repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ArgumentError
from ..keys.keys import key_of
from ..keys.request import Data
from ..support.lazy_names import pattern
from ..support.system import lock

if TYPE_CHECKING:
    from .active import ActiveScope
    from .callers import Caller

# In a path, a name that `reserved_name` returned, with the number that distinguishes identical items.
_RESERVED_NAME = pattern(r"(?:^|/)~[0-9a-f]+(?:~\d+)?(?=/|\Z)")
# The name of a repeat: shorter than an item's name, which has 16 digits.
_REPEAT = pattern(r"~(\d{1,15})")


def checked_name(name: object, label: str) -> str:
    """Return the name of a user's scope as text.

    :param label: what messages call the name.
    :raises TypeError: if it is neither text nor a number.
    :raises ValueError: if it is empty, contains ``/`` or ``#``, or is a name that a ``map`` gives.
    """
    if not isinstance(name, str):
        from numbers import Real

        if isinstance(name, bool) or not isinstance(name, Real):
            raise TypeError(f"{label} must be a string or a number, not {type(name).__name__}")
        name = str(name)
    if not name or "/" in name or "#" in name:
        raise ArgumentError(
            f"{label} {name!r} must not be empty or contain '/' or '#', which separate a sample's parts"
        )
    if is_reserved_name(name):
        raise ArgumentError(
            f"{label} {name!r} is reserved for the items and repeats of llmcall.map; leave out the '~'"
        )
    # A member of a string enumeration becomes its value.
    return str.__str__(name)


def reserved_name(name: str | int) -> str:
    """Return a name for a ``map``'s scope that no user's scope can have.

    :param name: an item's digest, or the number of a repeat.
    """
    return f"~{name}"


def function_scope(request: Mapping[str, Data], sample: str | None) -> str:
    """Return the name of the scope in which a recorded function runs; it is the same in every arm.

    :param request: what identifies the call.
    """
    name = str(request.get("function", "http"))
    key = key_of("function", {field: request[field] for field in request if field != "arm"}, sample)
    return f"{name.replace('/', '.').replace('#', '.')}.{key[:8]}"


def is_reserved_name(name: str) -> bool:
    """Return whether a ``map`` gave a name: ``~``, hexadecimal digits, and a number if items are
    identical.
    """
    return _RESERVED_NAME.fullmatch(name) is not None


def path_before_items(path: str) -> str:
    """Return the part of a scope path before the first item or repeat of a ``map``."""
    return _RESERVED_NAME.split(path, 1)[0]


def without_repeats(path: str) -> tuple[str, tuple[int, ...]]:
    """Return a scope path without the repeats of ``map``s, and the repeats' numbers.

    :returns: the path, and a number before its first name and after each name, because a ``map`` may
        run inside another's item; 0 stands for the first repeat, and for no repeat.
    """
    names = []
    repeats = [0]
    for name in path.split("/"):
        match = _REPEAT.fullmatch(name)
        if match is None:
            names.append(name)
            repeats.append(0)
        else:
            repeats[-1] += int(match[1])
    return "/".join(names), tuple(repeats)


ARM = "arm"  # the family of all arms


def draw_in_arm(sample: str, arm: str) -> str:
    """Return the name of an answer that one arm alone gets instead of a draw that its arms share."""
    return f"{sample} in arm {arm}"


# The order of a call, which decides where its record stands on a cassette: numbers, compared from the
# first one on. The order of a call in a map's item, or in an arm, begins with the item's or the arm's
# own. So whichever thread is faster, an item's calls come before those of the next item.
CallOrder = tuple[int, ...]


class Branch(NamedTuple):
    """An arm, or a cell of a table that varies.

    :param family: ``ARM``, or what identifies the table. Members of a family don't count each other's
        draws.
    :param path: the scope path of an arm; empty for a cell.
    :param name: the arm's name, or the cell's labels.
    """

    family: str
    path: str
    name: str


# The branches around a call, from the outermost; empty outside any.
Branches = tuple[Branch, ...]


MakeNotes = Callable[[], Mapping[str, Any]]


class Position(NamedTuple):
    """The position of a call in its program: plain data, which can go to any process.

    :param path: its scope path; empty outside any scope.
    :param order: its order among the calls of the program.
    :param branches: the arm, or the cell of a table that varies, in which it is made.
    :param caller: the caller's name, if it counts in its draw.
    :param draw: the number of its draw, or ``None``.
    :param is_in_order: ``True`` if the order of the calls, not the caller, tells its draw from identical ones.
    :param notes: what its record notes, by name, or ``None``; see :class:`NotesContext`.
    """

    path: str = ""
    order: CallOrder = ()
    branches: Branches = ()
    caller: str | None = None
    draw: int | None = None
    is_in_order: bool = False
    notes: Mapping[str, object] | None = None

    @property
    def arm(self) -> str:
        """Return the name of its arm; empty outside any."""
        if not self.branches:
            return ""
        return next((branch.name for branch in self.branches if branch.family == ARM), "")


class Held(NamedTuple):
    """The position of the running code, as its context holds it.

    :param active: the scope that it entered last, or ``None`` if it entered none.
    :param caller: the caller, or ``None`` if it has no name.
    :param levels: the levels of the recorded functions that run here, which their calls have below a default scope.
    :param is_programs: ``True`` if a program's call is answered here.
    :param ticket: tells the process that records this one what the code runs for; empty for what the whole process
        does.
    :param make_notes: returns what records note, or ``None``; see :class:`NotesContext`.
    """

    active: ActiveScope | None = None
    caller: Caller | None = None
    levels: str = ""
    is_programs: bool = False
    ticket: str = ""
    make_notes: MakeNotes | None = None


NOTHING = Held()
_held: ContextVar[Held] = ContextVar("llmcall here", default=NOTHING)
_process = NOTHING
held = _held.get


def held_by_process() -> Held:
    """Return the process-wide defaults for contexts without scope or caller: the scope opened for the
    process, and the main program.
    """
    return _process


def hold_in_process(**changes: Any) -> None:
    """Change what the process holds.

    :param changes: fields of :class:`Held`.
    """
    global _process
    with lock:  # two threads may change two fields at once
        _process = _process._replace(**changes)


def hold(**changes: Any) -> None:
    """Change what the current context holds.

    :param changes: fields of :class:`Held`.
    """
    _held.set(held()._replace(**changes))


def hold_scope(active: ActiveScope | None) -> None:
    """Change the scope that the current context holds. Each step of an actor does this, and ``_replace`` is slow."""
    _, caller, levels, is_programs, ticket, make_notes = held()
    _held.set(Held(active, caller, levels, is_programs, ticket, make_notes))


class NotesContext:
    """A block that adds notes to the records of its calls, beside those of outer blocks. A class, for speed:
    each typed replay enters one.

    :param make_notes: returns the notes by name; it is called only if a cassette records the call.
    """

    def __init__(self, make_notes: MakeNotes) -> None:
        self._make_notes = make_notes

    def __enter__(self) -> None:
        active, caller, levels, is_programs, ticket, outer = held()
        make_notes = inner = self._make_notes
        if outer is not None:
            make_notes = lambda: {**outer(), **inner()}  # noqa: E731
        self._token = _held.set(Held(active, caller, levels, is_programs, ticket, make_notes))

    def __exit__(self, *_: object) -> None:
        _held.reset(self._token)


def take_place(context: Context) -> None:
    """Hold what another context holds."""
    _held.set(context.get(_held, NOTHING))


@contextmanager
def holding(**changes: Any) -> Iterator[None]:
    """Change what the current context holds for a block; other fields stay as the block leaves them.

    :param changes: fields of :class:`Held`.
    """
    current = held()
    _held.set(current._replace(**changes))
    try:
        yield
    finally:
        hold(**{name: getattr(current, name) for name in changes})
