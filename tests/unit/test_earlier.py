"""Records of llmcall 0.1.0: they are read, and nothing else whatever the bytes are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_records import ANSWERED, KEY, PLAIN, RECORD, Planted, signed

from llmcall.cache.record import head_of, response_of, unpack
from llmcall.errors import CacheCorruptError

FIELDS = ("kind", "sample", "request", "response", "cost", "api_type", "host", "version")


def packed(value: Any, protocol: int = 4) -> bytes:
    """Pickle anything, with a fitting checksum."""
    return signed(pickle.dumps(value, protocol))


def test_a_record_of_then() -> None:
    """The record, its head and its response are read as they were written."""
    fields = {name: getattr(RECORD, name) for name in FIELDS}
    old = packed(fields)
    assert unpack(KEY, old, 12.5) == RECORD
    assert head_of(KEY, old)[:6] == ("chat", "trial/lisa#0", 0.0125, "openai", "api.openai.com", "0.1")
    assert head_of(KEY, old).role is None
    assert response_of(KEY, old) == ANSWERED


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_any_plain_data_is_a_record_or_damage(value: Any, protocol: int) -> None:
    """Whatever plain data stands where a record should, it is a record or a CacheCorruptError."""
    shaped = {"kind": "chat", "request": {}, "response": {}}
    for found in (value, {**shaped, "request": value}, {**shaped, "cost": value}, {**shaped, "sample": value}):
        try:
            record = unpack(KEY, packed(found, protocol))
        except CacheCorruptError:
            continue
        assert isinstance(record.request, dict)
        assert record.sample is None or isinstance(record.sample, str)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["the whole", "a field", "deep inside"])
def test_a_planted_pickle_cannot_run(protocol: int, place: str, tmp_path: Path) -> None:
    """Whatever protocol it has and wherever it stands, what is planted stays unread."""
    planted = Planted(tmp_path / "proof")
    fields = {name: getattr(RECORD, name) for name in FIELDS}
    value = {
        "the whole": planted,
        "a field": {**fields, "response": planted},
        "deep inside": {**fields, "request": {"a": [planted]}},
    }
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, packed(value[place], protocol))
    assert not (tmp_path / "proof").exists()
    pickle.loads(pickle.dumps(planted, protocol))  # the plant would have worked
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"cbuiltins\nexec\n(S'1/0'\ntR.",
        b"(S'1/0'\nibuiltins\nexec\n.",
        b"\x80\x02cbuiltins\nobject\n)\x81.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",
        b"\x80\x02\x82\x01.",
        b"Pid\n.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",
        b"\x80\x05\x97.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"}}b.",
        b"",
        b".",
        b"0.",
        b"garbage",
    ],
)  # fmt: skip
def test_hostile_operations(body: bytes) -> None:
    """Every operation that reaches outside plain data is refused in the same words."""
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, signed(body))


@pytest.mark.parametrize(
    "value",
    [
        None, 3, "text", [], {}, {"kind": "chat"}, {"kind": "chat", "request": {}},
        {"kind": 1, "request": {}, "response": {}},
        {"kind": "chat", "request": [], "response": {}}, {"kind": "chat", "request": {}, "response": {}, "other": 1},
        {"kind": "chat", "request": {}, "response": {}, "cost": "free"},
        {"kind": "chat", "request": {}, "response": {}, "host": b"h"},
        {"kind": "chat", "request": {}, "response": {}, "sample": 0}, {1: 2},
    ],
)  # fmt: skip
def test_plain_data_that_is_no_record(value: Any) -> None:
    """Plain data of another shape is damage, too."""
    with pytest.raises(CacheCorruptError, match="something else than a record"):
        unpack(KEY, packed(value))
