"""The look at a pickle before it is read: no stranger's bytes overflow the stack or reserve the memory."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import ran

from llmcall.cache.operations import MOST_TUPLES, check
from llmcall.cache.plain_pickles import dumps, loads
from llmcall.cache.record import UNREADABLE

DEEP = 1_000_000
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
# Each makes a key that is nested deeper than a stack bears; in the notation of Python, for another process.
NESTING = {
    "one in one": 'b")" + b"\\x85" * DEEP',
    "two in one": 'b")" + b"N\\x86" * DEEP',
    "three in one": 'b")" + b"NN\\x87" * DEEP',
    "marked": 'b"(" * DEEP + b"t" * DEEP',
    "remembered": 'b")" + b"\\x85\\x94" * DEEP',
    "of several kinds": 'b"(" * (DEEP // 2) + b"t" * (DEEP // 2) + b"\\x85" * (DEEP // 2)',
}


@pytest.mark.parametrize("how", list(NESTING))
def test_deep_keys_are_refused(how: str) -> None:
    """In a process of its own, lest a crash take all other tests along."""
    program = f"""
        from llmcall.cache.plain_pickles import loads
        DEEP = {DEEP}
        try:
            loads(b"\\x80\\x04}}" + {NESTING[how]} + b"Ns.")
        except ValueError as error:
            print("more than" in str(error))
    """
    assert ran(program) == "True"


@pytest.mark.parametrize("depth", [1, MOST_TUPLES // 4, MOST_TUPLES - 5])
def test_no_depth_below_crashes(depth: int) -> None:
    """What is not refused fits onto the smallest stack that Python runs on."""
    program = """
        from llmcall.cache.plain_pickles import loads
        body = b"\\x80\\x04})" + b"\\x85" * int(sys.argv[1]) + b"Ns."
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=lambda: print(len(loads(body))))
        thread.start()
        thread.join()
    """
    assert ran(program, depth) == "1"


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
    """Each is refused before anything is carried out."""
    with pytest.raises(ValueError, match="none that plain data is written with"):
        loads(b"\x80\x04N" + operation + b".")


@given(st.dictionaries(st.text(), PLAIN))
def test_what_is_written_here_passes(value: dict[str, Any]) -> None:
    """Nothing that is written is refused, and it is read as it was."""
    check(dumps(value))
    assert repr(loads(dumps(value))) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        {"text": "(" * 5000}, {"text": "\N{HORIZONTAL ELLIPSIS}\N{KATAKANA LETTER TE}" * 5000},
        {"bytes": b"\x85" * 5000}, {"many": [{"a": 1, "b": 2}] * 3000}, {"many": [[number] for number in range(3000)]},
        {"long": 2**9000}, {"text": "x" * 300, "large": "y" * 70_000, "bytes": b"z" * 70_000},
        {"tuple": (1, (2, 3), (4, 5, 6, 7))},
    ],
)  # fmt: skip
def test_texts_and_long_conversations_pass(value: dict[str, Any]) -> None:
    """However many bytes look like operations, only operations count."""
    assert loads(dumps(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Bytes that somebody made up are plain data, or an error that readers of records know."""
    with suppress(*UNREADABLE):
        loads(b"\x80\x04" + body)


def test_a_huge_place_in_the_memo_is_never_made() -> None:
    """Twelve bytes take no gigabytes."""
    with pytest.raises(ValueError, match="none that plain data"):
        loads(b"\x80\x04]r\xff\xff\xff\xff.")
