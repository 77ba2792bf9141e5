"""Read a pickle as plain data: its opcodes build lists, dicts and scalars, and nothing is imported, called or hashed.

``pickle.Unpickler`` with ``find_class`` closed would call nothing either. But a stranger's file could still make it
hash a tuple nested so deeply that the interpreter crashes, or reserve gigabytes by one index of its memo (seen with
CPython 3.10 and 3.13).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

__all__ = ["Room", "Unbuilt", "plain", "read"]

DEPTH = 100  # levels of nesting; a response of the API has about ten
SCALARS = (str, int, float, bool, bytes, type(None))


class Unbuilt:
    """Stand for what a pickle would have built by code: a class, or an object of one.

    :ivar state: what the object was to be filled with, or ``None``.
    """

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None


def read(data: bytes) -> Any:
    """Return what a pickle holds; tuples and sets become lists, objects become :class:`Unbuilt`.

    :raises ValueError: where it is broken, or refers to something outside.
    """
    from warnings import catch_warnings, simplefilter

    try:
        with catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # of unknown escapes in texts of protocol 0
            return _built(data)
    except (IndexError, KeyError, AssertionError, OverflowError) as error:
        raise ValueError(f"the pickle is broken ({type(error).__name__}: {error})") from error


def _built(data: bytes) -> Any:
    from pickletools import genops

    machine = _Machine()
    for opcode, argument, _ in genops(data):
        perform = _OPCODES.get(opcode.name)
        if perform is None:
            raise ValueError(f"it uses {opcode.name}, which is no plain data")
        perform(machine, argument)
    return machine.stack.pop()


class _Machine:
    """Hold the state between opcodes.

    :ivar marks: the lengths of the stack at its marks.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def since_mark(self) -> list[Any]:
        """Take off what lies above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """Return what lies on top, which must be of a kind."""
        found = self.stack[-1]
        if not isinstance(found, kind):
            raise ValueError(f"it fills a {type(found).__name__} as if it were a {kind.__name__}")
        return found

    def replace(self, count: int, value: Any) -> None:
        """Put a value in the place of the topmost ones."""
        for _ in range(count):
            self.stack.pop()
        self.stack.append(value)


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _pushing(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _gathered(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.since_mark())


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.replace(count, machine.stack[len(machine.stack) - count :])


def _pop(machine: _Machine, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _append(machine: _Machine, _: Any) -> None:
    value = machine.stack.pop()
    machine.top(list).append(value)


def _extend(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.top(list).extend(items)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.top(dict)[_key(key)] = value


def _set_items(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.top(dict).update(_pairs(items))


def _dict(machine: _Machine, _: Any) -> None:
    machine.stack.append(dict(_pairs(machine.since_mark())))


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return [(_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


def _key(key: Any) -> Any:
    if not isinstance(key, SCALARS):
        raise ValueError("a key is neither a text nor a number")
    return key


def _memorize(machine: _Machine, index: Any) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.stack[-1]


def _recall(machine: _Machine, index: Any) -> None:
    machine.stack.append(machine.memo[index])


def _unbuilt_of(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.replace(count, Unbuilt())


def _unbuilt_since_mark(machine: _Machine, _: Any) -> None:
    machine.since_mark()
    machine.stack.append(Unbuilt())


def _build(machine: _Machine, _: Any) -> None:
    state = machine.stack.pop()
    machine.top(Unbuilt).state = state


# Names as of the module pickletools; what is not here (persistent ids, buffers outside the pickle) is refused.
_OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _push),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push),
    "NONE": _pushing(lambda: None),
    "NEWTRUE": _pushing(lambda: True),
    "NEWFALSE": _pushing(lambda: False),
    "EMPTY_DICT": _pushing(dict),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET"), _pushing(list)),
    **dict.fromkeys(("LIST", "TUPLE", "FROZENSET"), _gathered),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": _dict,
    "APPEND": _append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _extend),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.since_mark().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _memorize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _recall),
    **dict.fromkeys(("GLOBAL", "EXT1", "EXT2", "EXT4"), _unbuilt_of(0)),
    **dict.fromkeys(("STACK_GLOBAL", "REDUCE", "NEWOBJ"), _unbuilt_of(2)),
    "NEWOBJ_EX": _unbuilt_of(3),
    **dict.fromkeys(("INST", "OBJ"), _unbuilt_since_mark),
    "BUILD": _build,
}


class Room:
    """Limit what is made of a pickle: what refers to itself many times over would grow without end.

    :param size: bytes and values in all.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> None:
        """Take some room.

        :raises ValueError: where there is not enough.
        """
        self._left -= size
        if self._left < 0:
            raise ValueError("it holds far more than its size: values that refer to one another many times")


def plain(value: Any, room: Room, without: frozenset[str] = frozenset(), depth: int = DEPTH) -> Any:
    """Return what :func:`read` gave as JSON-like data of its own; of an object, its fields.

    :param without: names of fields that are left out, whatever they hold.
    :param depth: the levels of nesting that are allowed.
    :raises ValueError: where there is something else, a number that JSON cannot hold, a text that UTF-8 cannot, too
        deep a nesting, or more than the room has.
    """
    if not depth:
        raise ValueError(f"it is nested more than {DEPTH} levels deep")
    if isinstance(value, Unbuilt):
        value = _fields(value.state)
    if isinstance(value, dict):
        room.take(len(value))
        kept = [(_name(name, room), item) for name, item in value.items() if name not in without]
        return {name: plain(item, room, without, depth - 1) for name, item in kept}
    if isinstance(value, list):
        room.take(len(value))
        return [plain(item, room, without, depth - 1) for item in value]
    return _scalar(value, room)


def _fields(state: Any) -> dict[Any, Any]:
    """Return an object's fields: of a pydantic model (1 or 2) those that it declares, and those beyond."""
    fields = state.get("__dict__") if isinstance(state, dict) else None
    if not isinstance(fields, dict):
        raise ValueError("it holds an object that is no pydantic model")
    extra = state.get("__pydantic_extra__")
    return {**fields, **extra} if isinstance(extra, dict) else fields


def _name(name: Any, room: Room) -> str:
    if not isinstance(name, str):
        raise ValueError(f"it holds a dict with a key that is no text ({type(name).__name__})")
    return str(_scalar(name, room))


def _scalar(value: Any, room: Room) -> Any:
    if isinstance(value, str):
        room.take(len(value))
        value.encode()
    elif isinstance(value, float) and not isfinite(value):
        raise ValueError(f"it holds {value}, which JSON cannot hold")
    elif isinstance(value, (bytes, bytearray)):
        raise ValueError("it holds bytes")
    return value
