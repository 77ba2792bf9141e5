"""Records as bytes: plain data in, plain data out, and nothing else whatever the bytes are."""

from __future__ import annotations

import datetime
import enum
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

# A codec: what it refuses can only be handed to it as bytes.
from llmcall.cache.record import pack, unpack
from llmcall.errors import CacheCorruptError
from llmcall.types import Record

KEY = "0123456789abcdef" * 4
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Käse 🧀"}], "temperature": 0.5, "logprobs": True}
ANSWERED: dict[str, Any] = {
    "choices": [{"message": {"role": "assistant", "content": "3", "tool_calls": None}}],
    "usage": {"prompt_tokens": 2**40},
}
RECORD = Record(KEY, "chat", "trial/lisa#0", ASKED, ANSWERED, 0.0125, "openai", "api.openai.com", "0.1", 12.5)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
DICTS = st.dictionaries(st.text(max_size=5), PLAIN, max_size=4)


class Model(str, enum.Enum):
    """Be a string that belongs to a class."""

    MINI = "gpt-4o-mini"


class Planted:
    """Write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")


def signed(body: bytes) -> bytes:
    """Put the checksum behind bytes that a stranger would put there."""
    return body + crc32(body, crc32(KEY.encode())).to_bytes(4, "little")


@given(DICTS, DICTS, st.none() | st.text(max_size=9), st.none() | st.floats(0, 10))
def test_round_trip(asked: dict[str, Any], answered: dict[str, Any], sample: str | None, cost: float | None) -> None:
    """What is packed is what is unpacked; the time of storing is no part of the bytes."""
    record = Record(KEY, "chat", sample, asked, answered, cost)
    again = unpack(KEY, pack(record.replace(stored_at=1.0)), 99.0)
    assert repr(again) == repr(record.replace(stored_at=99.0)) and again == record.replace(stored_at=99.0)


@given(st.data())
def test_every_flipped_byte_is_noticed(data: st.DataObject) -> None:
    """No byte can change without notice, those of the checksum included, and none can be missing."""
    good = bytearray(pack(RECORD))
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[place] ^= data.draw(st.integers(1, 255))
    for bad in (changed, good[:place]):
        with pytest.raises(CacheCorruptError, match=KEY[:12]):
            unpack(KEY, bytes(bad))


def test_a_record_belongs_to_its_key() -> None:
    """The bytes of one record do not pass for those of another."""
    with pytest.raises(CacheCorruptError, match=r"another.*checksum"):
        unpack("another", pack(RECORD))


@pytest.mark.parametrize("field", ["cost", "kind", "sample", "host", "version"])
def test_what_nobody_could_read_is_not_written(field: str) -> None:
    """A field of a wrong type is refused before it is stored; so is what has no plain form, with its place."""
    with pytest.raises(TypeError, match="could not be read"):
        pack(RECORD.replace(**{field: True}))
    with pytest.raises(TypeError, match=r"response\.choices\[0\]\.at is a datetime"):
        pack(RECORD.replace(response={"choices": [{"at": datetime.datetime(2026, 1, 1)}]}))


def test_strings_and_numbers_of_a_class_become_plain() -> None:
    """What has a plain form is stored in it, so that it can be read again."""
    one = enum.IntEnum("N", "ONE").ONE  # type: ignore[attr-defined]
    record = RECORD.replace(request={"model": Model.MINI, "more": OrderedDict(a=(1, 2))}, response={"n": one})
    again = unpack(KEY, pack(record))
    assert (again.request, again.response) == ({"model": "gpt-4o-mini", "more": {"a": [1, 2]}}, {"n": 1})
    assert type(again.request["model"]) is str


@pytest.mark.parametrize(
    "value", [{"bytes": b"\x00\xff"}, {1: "a"}, {None: 1}, {"nan": float("nan")}, {"a": "\ud83d"}, {"b": 2**200}]
)
def test_odd_plain_data(value: dict[Any, Any]) -> None:
    """It is the same when it is read."""
    record = RECORD.replace(request=value, response=value)
    assert unpack(KEY, pack(record)).request.keys() == value.keys()
    assert str(unpack(KEY, pack(record), 12.5).response)[:99] == str(value)[:99]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_planted_pickle_cannot_run(protocol: int, tmp_path: Path) -> None:
    """Neither in a record's place, nor in its response, nor in its request, which is read later."""
    planted = Planted(tmp_path / "planted")
    head = (1, "chat", None, None, None, None, None)
    for value in (planted, (*head, {"a": planted}, pickle.dumps({})), (*head[:-1], planted, {}, pickle.dumps({}))):
        with pytest.raises(CacheCorruptError, match=r"pathlib|builtin|copyreg"):
            unpack(KEY, signed(pickle.dumps(value, protocol)))
    record = unpack(KEY, signed(pickle.dumps((*head, {}, pickle.dumps({"a": planted})), 4)))
    with pytest.raises(CacheCorruptError, match="pathlib"):
        _ = record.request
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"\x80\x04.", b"\x80\x04N.", pickle.dumps([1]), pickle.dumps((1, 2))]
)
def test_bytes_that_hold_no_record(body: bytes) -> None:
    """They are damage, though their checksum fits."""
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, signed(body))
