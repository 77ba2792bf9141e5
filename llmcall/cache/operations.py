"""The operations of a pickle, looked at before any is carried out.

An unpickler that can build nothing but plain data still does what a stranger's bytes say, and a few of them can cost
hours or gigabytes: a place in the memo whose number is in the billions reserves memory for all that come before it
(CPython before the mending of its issue 115952); keys that are tuples which hold one another twice, sixty deep, take
2^60 steps to hash, and such a million deep overflow the stack; integers that differ by multiples of 2^61 - 1 have one
hash, so that as keys each is compared with all others. What :mod:`llmcall.cache.plain_pickles` writes needs none of
this.
"""

from __future__ import annotations

from functools import cache
from gc import get_referents
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import re

__all__ = ["check", "check_shape"]

# Hashing takes about 80 bytes of the C stack a level (measured with CPython 3.10, 3.11 and 3.13), and the smallest
# stack of a thread that Python runs on has 128 KiB (musl).
MOST_TUPLES = 1000
MOST_LONG_NUMBERS = 1000  # as keys, each may be compared with all others
LEVELS = 1000  # of lists and dicts; no answer is nested deeper than 100
LONG_NUMBER = 9  # bytes; of shorter ones, no more than some thousand have one hash

# How long an operation is with its argument, by its byte; from the module pickletools, for protocol 4.
LENGTHS = {
    **dict.fromkeys(b".N\x88\x89]ae}su)t\x85\x86\x87\x8f\x90\x91(\x94", 1),
    **dict.fromkeys(b"\x80Kh", 2),
    **dict.fromkeys(b"M", 3),
    **dict.fromkeys(b"Jj", 5),
    **dict.fromkeys(b"\x95G", 9),
}
# How many bytes tell the length of what follows: texts, bytes, large numbers.
COUNTED = {0x8C: 1, ord("X"): 4, 0x8D: 8, ord("C"): 1, ord("B"): 4, 0x8E: 8, 0x8A: 1, 0x8B: 4}
NESTING = frozenset(b")t\x85\x86\x87\x91")
NUMBERS = frozenset(b"\x8a\x8b")
MEMOIZE, RECALL = 0x94, frozenset(b"hj")
# What lies on top of the stack may be a tuple still. Adding nothing to it is no error, whatever it is.
PUSHES_NOTHING = frozenset(b"\x80\x95(aesu\x90")
# What llmcall writes: no tuples, no sets, no number above 64 bits. A regular expression walks over it ten times as fast
# as Python. It knows texts of up to 63 bytes by their length; each longer one takes a step of its own.
BARE = rb"[.N\x88\x89\]}ae(us\x94]*"
KNOWN_TEXT, KNOWN_NUMBER = 64, 9
TOGETHER = 500  # operations, whose places the expression remembers
LONG = frozenset(b"\x8cX\x8dCB\x8e")


def check(body: bytes) -> None:
    """Walk over the operations of a pickle without carrying them out.

    :raises ValueError: where one is none that plain data is written with, or they may take more time or memory than
        their length tells.
    """
    walk, place, end = _known().match, 0, len(body)
    while place < end:
        known = walk(body, place)
        found = known.end() if known else place
        if found == place:
            if body[place] not in LONG:
                return _check_each(body)
            found = place + _counted_length(body, place)
        place = found
    if place > end:
        raise ValueError("it ends within a text")


@cache
def _known() -> re.Pattern[bytes]:
    """Return what matches up to so many operations of which llmcall's records consist."""
    import re

    sized = rb"\x8c(?:%b)|\x8a(?:%b)" % (_sized(KNOWN_TEXT), _sized(KNOWN_NUMBER))
    operation = rb"(?:%b|h.|K.|M..|J.{4}|G.{8}|j.{4}|\x80\x04|\x95.{8})" % sized
    return re.compile(rb"%b(?:%b%b){0,%d}" % (BARE, operation, BARE, TOGETHER), re.DOTALL)


def _sized(most: int) -> bytes:
    """Return what matches a length of one byte, and so many bytes."""
    return b"|".join(rb"\x%02x.{%d}" % (length, length) for length in range(most))


def _check_each(body: bytes) -> None:
    """Do the same operation by operation, tuples and large numbers counted."""
    place, end, tuples, numbers, remembered, is_tuple = 0, len(body), 0, 0, 0, False
    kept: set[int] = set()
    while place < end:
        operation = body[place]
        length = LENGTHS.get(operation) or _counted_length(body, place)
        if operation == MEMOIZE:
            if is_tuple:
                kept.add(remembered)
            remembered += 1
        elif operation in NESTING:
            tuples, is_tuple = tuples + 1, True
        elif operation not in PUSHES_NOTHING:
            is_tuple = False
            numbers += operation in NUMBERS and length > LONG_NUMBER + 2
            if operation in RECALL and int.from_bytes(body[place + 1 : place + length], "little") in kept:
                raise ValueError("it uses a tuple twice")
        place += length
    if place > end:
        raise ValueError("it ends too early")  # before what it lacks is reserved
    if tuples > MOST_TUPLES:
        raise ValueError(f"it makes more than {MOST_TUPLES} tuples")
    if numbers > MOST_LONG_NUMBERS:
        raise ValueError(f"it holds more than {MOST_LONG_NUMBERS} numbers of more than {LONG_NUMBER} bytes")


def _counted_length(body: bytes, place: int) -> int:
    digits = COUNTED.get(body[place])
    if digits is None:
        raise ValueError(f"its operation {body[place : place + 1]!r} is none that plain data is written with")
    return 1 + digits + int.from_bytes(body[place + 1 : place + 1 + digits], "little")


def check_shape(data: Any, size: int) -> None:
    """Check that plain data is no larger than its pickle, and not nested too deeply for whoever walks over it.

    A pickle may refer to one list many times, and that one to another: sixty lines of it are 2^60 items.

    :param size: of the pickle, in bytes.
    :raises ValueError: where it is not.
    """
    most = 10 * size + 1000
    level = [data]
    for _ in range(LEVELS):
        level = get_referents(*level)
        most -= len(level)
        if not level:
            return
        if most < 0:
            raise ValueError("it refers to one list or dict again and again")
    raise ValueError(f"it is nested deeper than {LEVELS} levels")
