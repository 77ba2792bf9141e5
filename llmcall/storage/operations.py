"""The operations of a pickle, looked at before any is carried out.

An unpickler that can build nothing but plain data still does what a stranger's bytes say. Keys that are tuples nested a
million deep overflow the stack of the interpreter while it hashes them; a place in the memo whose number is in the
billions reserves memory for all that come before it (CPython before the mending of its issue 115952). What
:mod:`llmcall.storage.plain_pickles` writes needs neither, and holds none of the older protocols' operations.
"""

from __future__ import annotations

__all__ = ["check"]

# Hashing takes about 80 bytes of the C stack a level (measured with CPython 3.10, 3.11 and 3.13), and the smallest
# stack of a thread that Python runs on has 128 KiB (musl).
DEPTH = 1000

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
NESTING = frozenset(b"t\x85\x86\x87\x91")


def check(body: bytes) -> None:
    """Walk over the operations of a pickle without carrying them out.

    :raises ValueError: where one is none that plain data is written with, or tuples may be nested too deeply.
    """
    place, end, nesting = 0, len(body), 0
    while place < end:
        operation = body[place]
        length = LENGTHS.get(operation)
        if length is None:
            length = _counted_length(body, place)
        elif operation in NESTING:
            nesting += 1
        place += length
    if nesting > DEPTH:
        raise ValueError(f"it makes more than {DEPTH} tuples")


def _counted_length(body: bytes, place: int) -> int:
    digits = COUNTED.get(body[place])
    if digits is None:
        raise ValueError(f"its operation {body[place : place + 1]!r} is none that plain data is written with")
    return 1 + digits + int.from_bytes(body[place + 1 : place + 1 + digits], "little")
