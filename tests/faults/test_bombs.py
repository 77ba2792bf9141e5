"""Short pickles that would take hours or gigabytes: each is refused before it is carried out."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import seeded

from llmcall.cache.plain_pickles import NotPlainError, dumps, loads
from llmcall.cache.record import UNREADABLE

BEGIN = b"\x80\x04"
PRIME = 2**61 - 1  # CPython's numbers are hashed modulo this, on 64 bits
MADE_UP = 20_000
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats() | st.binary(max_size=400)
    | st.text() | st.text(min_size=60, max_size=400),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)  # fmt: skip


def at(index: int) -> bytes:
    """Return the operation that takes what is remembered."""
    return b"h" + bytes([index])


def doubled_lists(count: int) -> bytes:
    """Return lists of which each holds the one before it twice."""
    return b"](](K\x01e\x94" + b"".join(b"](" + 2 * at(index) + b"e\x94" for index in range(count)) + b"e"


def doubled_tuples(count: int, filler: bytes = b"") -> bytes:
    """Return the same of tuples, and a dict of which the last is the key.

    :param filler: what comes between a tuple and the operation that remembers it.
    """
    step = 1 + filler.count(b"\x94")
    tuples = b"".join(2 * at(step * index + step - 1) + b"\x86" + filler + b"\x94" for index in range(count))
    return b"](K\x01\x85" + filler + b"\x94" + tuples + b"}" + at(step * (count + 1) - 1) + b"Nse"


def colliding_numbers(count: int) -> bytes:
    """Return a dict whose keys have one hash."""
    numbers = (b"\x8a\x0c" + (PRIME * factor).to_bytes(12, "little") for factor in range(count))
    return b"}(" + b"".join(number + b"N" for number in numbers) + b"u"


BOMBS = {
    "lists": doubled_lists(60), "tuples": doubled_tuples(60), "numbers": colliding_numbers(200_000),
    "remembered twice": doubled_tuples(50, b"\x94"), "framed": doubled_tuples(50, b"\x95" + bytes(8)),
    "of a protocol": doubled_tuples(50, BEGIN), "with nothing appended": doubled_tuples(50, b"(e"),
    "with nothing set": doubled_tuples(50, b"(u"), "with nothing added": doubled_tuples(50, b"(\x90"),
    "remembered, with nothing appended": doubled_tuples(50, b"\x94(e\x94"),
    "a far place": b"Nr\xff\xff\xff\xff", "a far place as text": b"Np4000000000\n",
    "deep lists": b"]" * 100_000 + b"a" * 99_999, "deep tuples": b"})" + b"\x85" * 1_000_000 + b"Ns",
    "bytes that are not there": b"B\xff\xff\xff\xffabc", "more of them": b"\x8e" + struct.pack("<Q", 2**40) + b"abc",
    "a buffer": b"\x96" + struct.pack("<Q", 2**40) + b"abc", "a frame": b"\x95" + struct.pack("<Q", 2**62) + b"N",
    "one tuple as many keys": b"](" + b"(" + b"K\x01" * 100_000 + b"t\x94" + b"}h\x00Ns" * 100_000 + b"e",
    "a list in itself": b"]" + b"2a" * 60, "sets": b"](" + b"(K\x01\x91\x94"
    + b"".join(b"(" + at(index) + b"K\x02\x91\x94" for index in range(60)) + b"e",
}  # fmt: skip


def peak_of(body: bytes) -> int:
    """Return the most memory that the reading of a pickle took, in bytes."""
    tracemalloc.start()
    try:
        loads(body)
    except UNREADABLE:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@given(PLAIN)
def test_plain_data_passes(value: Any) -> None:
    """What is written is read as it was; only a tuple that is there twice is not written."""
    try:
        body = dumps(value)
    except NotPlainError:
        return
    assert repr(loads(body)) == repr(value)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    """Each is refused, and takes memory in proportion to its length; that it ends shows that it takes no time."""
    body = BEGIN + BOMBS[name] + b"."
    assert peak_of(body) < 50 * len(body) + 2_000_000  # of the imports and the expression, the first time
    with pytest.raises(UNREADABLE):
        loads(body)


def test_made_up_pickles() -> None:
    """Pickles that are put together by chance, or damaged, take memory in proportion to their length."""
    dice = seeded()
    pieces = [bytes([operation]) for operation in b"()N.K}]aeus\x85\x86\x87\x94hjtr\x8c\x8aXBCqp0122\x8f\x90\x91\x95"]
    pieces += [at(index) for index in range(20)]
    pieces += [b"\x86\x94", b"](", b"}(", b"r\xff\xff\xff\x0f", b"K\x01", b"\x8c\x01k"]
    good = pickle.dumps({"a": ["x" * 300, 1, 2.5, None, {"b": (1, 2)}], "c": b"yy"}, 4)
    loads(dumps({"first": 1}))
    for number in range(MADE_UP):
        if number % 2:
            body = BEGIN + b"".join(dice.choices(pieces, k=dice.randint(1, 40))) + b"."
        else:
            place = dice.randrange(len(good))
            body = good[:place] + dice.choice(pieces) + good[place + dice.randint(0, 2) :]
        assert peak_of(body) < 100 * len(body) + 20_000, body
