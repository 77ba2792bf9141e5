"""The look at a pickle before it is read: no stranger's record overflows the stack or reserves the memory."""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import ran

from llmcall.errors import CacheCorruptError
from llmcall.storage.operations import DEPTH, check, may_overflow
from llmcall.storage.packing import pack, unpack
from llmcall.types import Record

KEY = "0123456789abcdef" * 4
DEEP = 1_000_000
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def body_of(request: dict[str, Any]) -> bytes:
    """Return the pickle of a record."""
    return pack(Record(KEY, "chat", None, request, {}))[:-4]


def signed(body: bytes) -> bytes:
    """Put a fitting checksum behind any bytes."""
    return body + crc32(body).to_bytes(4, "little")


# Each makes a key that is nested deeper than a stack bears; in the notation of Python, for another process.
NESTING = {
    "one in one": 'b")" + b"\\x85" * DEEP',
    "two in one": 'b")" + b"N\\x86" * DEEP',
    "three in one": 'b")" + b"NN\\x87" * DEEP',
    "marked": 'b"(" * DEEP + b"t" * DEEP',
    "remembered": 'b")" + b"\\x85\\x94" * DEEP',
    "of several kinds": 'b"(" * (DEEP // 2) + b"t" * (DEEP // 2) + b"\\x85" * (DEEP // 2)',
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("how", list(NESTING))
def test_deep_keys_are_refused(how: str, strict: bool) -> None:
    """In a process of its own, lest a crash take all other tests along."""
    program = f"""
        from zlib import crc32
        from llmcall.errors import CacheCorruptError
        from llmcall.storage.packing import unpack
        DEEP = {DEEP}
        body = b"\\x80\\x04}}" + {NESTING[how]} + b"Ns."
        try:
            unpack("key", body + crc32(body).to_bytes(4, "little"), strict={strict})
        except CacheCorruptError as error:
            print("more than" in str(error))
    """
    assert ran(program) == "True"


@pytest.mark.parametrize("depth", [1, DEPTH // 4, DEPTH])
def test_no_depth_below_crashes(depth: int) -> None:
    """What is not looked at closely fits onto the smallest stack that Python runs on."""
    program = """
        from zlib import crc32
        from llmcall.errors import CacheCorruptError
        from llmcall.storage.packing import unpack
        body = b"\\x80\\x04})" + b"\\x85" * int(sys.argv[1]) + b"Ns."
        def work():
            try:
                unpack("key", body + crc32(body).to_bytes(4, "little"))
            except CacheCorruptError:
                print("refused")
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """
    assert ran(program, depth) == "refused"


@pytest.mark.parametrize(
    "operation",
    [
        b"r" + struct.pack("<I", 2**31), b"p2147483648\n", b"q\x01", b"g0\n", b"2", b"0", b"1", b"I1\n", b"L1L\n",
        b"F1\n", b"S'a'\n", b"Va\n", b"U\x01a", b"cbuiltins\nlist\n", b"R", b"b", b"o", b"\x81", b"\x92", b"\x93",
        b"\x82\x01", b"Pid\n", b"Q", b"\x96" + struct.pack("<Q", 1) + b"a", b"\x97", b"\x98",
        b"l", b"d", b"\xff", b"\x00",
    ],
)  # fmt: skip
def test_operations_that_are_not_written_here(operation: bytes) -> None:
    """A strict reading refuses each before anything is carried out."""
    with pytest.raises(CacheCorruptError, match="none that plain data is written with"):
        unpack(KEY, signed(b"\x80\x04N" + operation + b"."), strict=True)


@given(st.dictionaries(st.text(), PLAIN))
def test_what_is_written_here_passes(request: dict[str, Any]) -> None:
    """Nothing that is packed is refused, and a strict reading gives the same."""
    check(body_of(request))
    packed = pack(Record(KEY, "chat", None, request, {}))
    assert repr(unpack(KEY, packed, strict=True)) == repr(unpack(KEY, packed))


@pytest.mark.parametrize(
    "request_",
    [
        {"text": "(" * 5000}, {"text": "\N{HORIZONTAL ELLIPSIS}\N{KATAKANA LETTER TE}" * 5000},
        {"bytes": b"\x85" * 5000}, {"many": [{"a": 1, "b": 2}] * 3000}, {"many": [[number] for number in range(3000)]},
        {"long": 2**9000}, {"text": "x" * 300, "large": "y" * 70_000, "bytes": b"z" * 70_000},
        {"tuple": (1, (2, 3), (4, 5, 6, 7))},
    ],
)  # fmt: skip
def test_texts_and_long_conversations_pass(request_: dict[str, Any]) -> None:
    """However many bytes look like operations, only operations count."""
    record = Record(KEY, "chat", None, request_, {})
    assert unpack(KEY, pack(record)) == unpack(KEY, pack(record), strict=True) == record


def test_only_what_is_suspicious_is_looked_at() -> None:
    """An ordinary record is not walked over."""
    assert not may_overflow(body_of({"messages": [{"role": "user", "content": "What (do) apples cost…? " * 200}]}))
    assert may_overflow(b")" + b"\x85" * DEPTH)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Bytes that somebody made up are a record, or damage."""
    for strict in (False, True):
        try:
            unpack(KEY, signed(b"\x80\x04" + body), strict=strict)
        except CacheCorruptError:
            continue


def test_a_huge_place_in_the_memo_is_never_made() -> None:
    """A strict reading of twelve bytes takes no gigabytes."""
    with pytest.raises(CacheCorruptError):
        unpack(KEY, signed(b"\x80\x04]r\xff\xff\xff\xff."), strict=True)
