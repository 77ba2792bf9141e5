"""Records as bytes: plain data in, plain data out, and nothing else whatever the bytes are."""

from __future__ import annotations

import datetime
import enum
import json
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.errors import CacheCorruptError
from llmcall.storage.packing import head_of, pack, packed, response_of, unpack
from llmcall.types import Record

KEY = "0123456789abcdef" * 4
ASKED = {
    "model": "m",
    "messages": [{"role": "user", "content": "Käse 🧀"}],
    "temperature": 0.5,
    "n": 2,
    "logprobs": True,
}
MESSAGE = {"role": "assistant", "content": "3", "tool_calls": None}
ANSWERED: dict[str, Any] = {"choices": [{"message": MESSAGE}], "usage": {"prompt_tokens": 2**40}}
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


# Plain data that JSON would turn into something else.
NO_JSON = [
    {"bytes": b"\x00\xff"}, {"tuple": (1, 2)}, {1: "a"}, {None: 1}, {True: 1}, {"nan": float("nan")},
]  # fmt: skip
HEAD = ["chat", None, None, None, None, None, None, None]


class Planted:
    """Write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")


def signed(body: bytes) -> bytes:
    """Put a fitting checksum behind any bytes."""
    return body + crc32(body).to_bytes(4, "little")


def laid_out(*parts: bytes, end: bytes = b"e.") -> bytes:
    """Lay out parts as a record's, each with its operation before it."""
    counted = [part[:1] + (len(part) - 1).to_bytes(4, "little") + part[1:] for part in parts]
    inside = b"](" + b"".join(counted) + end
    return signed(b"\x80\x04\x95" + len(inside).to_bytes(8, "little") + inside)


def text(value: Any) -> bytes:
    """Return a part that holds JSON."""
    return b"X" + json.dumps(value).encode()


@given(DICTS, DICTS, st.none() | st.text(max_size=9), st.none() | st.floats(0, 10))
def test_round_trip(asked: dict[str, Any], answered: dict[str, Any], sample: str | None, cost: float | None) -> None:
    """What is packed is what is unpacked."""
    record = Record(KEY, "chat", sample, asked, answered, cost)
    again = unpack(KEY, pack(record))
    assert again == record
    assert repr(again) == repr(record)


def test_key_and_time_are_kept_beside() -> None:
    """Key and time of storing are no part of the bytes."""
    assert unpack("another", pack(RECORD), 99.0) == RECORD._replace(cache_key="another", stored_at=99.0)


def test_same_bytes_for_the_same_record() -> None:
    """Packing is a function of the record."""
    assert pack(RECORD) == pack(unpack(KEY, pack(RECORD)))


def test_only_plain_data_is_written() -> None:
    """The pickle uses no operation that looks up, calls or builds anything of a class."""
    operations = {operation.name for operation, _, _ in pickletools.genops(pack(RECORD)[:-4])}
    assert not operations & {
        "GLOBAL",
        "STACK_GLOBAL",
        "INST",
        "OBJ",
        "NEWOBJ",
        "NEWOBJ_EX",
        "REDUCE",
        "BUILD",
        "EXT1",
        "PERSID",
        "BINPERSID",
    }


@given(st.data())
def test_every_flipped_byte_is_noticed(data: st.DataObject) -> None:
    """No byte can change without notice, those of the checksum included."""
    good = bytearray(pack(RECORD))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CacheCorruptError, match=KEY[:12]):
        unpack(KEY, bytes(good))


def test_every_cut_is_noticed() -> None:
    """No record can lose its end, or all of itself."""
    good = pack(RECORD)
    for length in range(len(good)):
        with pytest.raises(CacheCorruptError):
            unpack(KEY, good[:length])


def test_strings_and_numbers_of_a_class_become_plain() -> None:
    """What has a plain form is stored in it, so that it can be read again."""
    record = RECORD._replace(
        request={"model": Model.MINI, "more": OrderedDict(a=(1, 2))}, response={"n": enum.IntEnum("N", "ONE").ONE}
    )  # type: ignore[attr-defined]
    again = unpack(KEY, pack(record))
    assert (again.request, again.response) == ({"model": "gpt-4o-mini", "more": {"a": [1, 2]}}, {"n": 1})
    assert type(again.request["model"]) is str


def test_what_has_no_plain_form_is_refused() -> None:
    """A record that could not be read again is never written; the error names the place."""
    with pytest.raises(TypeError, match=r"response\.choices\[0\]\.at is a datetime"):
        pack(RECORD._replace(response={"choices": [{"at": datetime.datetime(2026, 1, 1)}]}))


def test_the_whole_is_one_pickle_of_plain_data() -> None:
    """Any unpickler reads the three parts, which are texts here; the answer's text stands in the head alone."""
    head, response, request = pickle.loads(pack(RECORD))
    assert json.loads(head) == ["chat", "trial/lisa#0", 0.0125, "openai", "api.openai.com", "0.1", "assistant", "3"]
    assert json.loads(response) == {**ANSWERED, "choices": [{"message": {**MESSAGE, "content": None}}]}
    assert json.loads(request) == ASKED


def test_a_hit_reads_the_head_alone() -> None:
    """The head holds what a reply needs."""
    head = head_of(KEY, pack(RECORD))
    assert head == ("chat", "trial/lisa#0", 0.0125, "openai", "api.openai.com", "0.1", "assistant", "3")
    assert response_of(KEY, pack(RECORD)) == ANSWERED


@pytest.mark.parametrize(
    ("message", "role", "content"),
    [
        ({"role": "assistant", "content": "a"}, "assistant", "a"), ({"content": "a", "refusal": ""}, "assistant", "a"),
        ({"role": "assistant", "content": None}, "assistant", None), ({"role": "tool", "content": ""}, "tool", ""),
        ({"role": "assistant", "content": "a", "tool_calls": [{}]}, None, None),
        ({"role": "assistant", "content": "a", "refusal": "no"}, None, None),
        ({"role": "assistant", "content": ["a"]}, None, None), ({"role": 1, "content": "a"}, None, None),
        ("a", None, None), (None, None, None),
    ],
)  # fmt: skip
def test_what_is_a_text_and_nothing_else(message: Any, role: str | None, content: str | None) -> None:
    """Only such an answer stands in the head; every answer is read as it was written."""
    for more in ([], [{"message": {"role": "assistant", "content": "b"}}]):
        record = RECORD._replace(response={"id": 1, "choices": [{"index": 0, "message": message}, *more]})
        head = head_of(KEY, pack(record))
        assert (head.role, head.content) == (role, content)
        assert repr(unpack(KEY, pack(record), 12.5)) == repr(record)


@pytest.mark.parametrize("choices", [None, [], {}, "abc", [None], [[]], ["a"], [{}], [{"message": []}]])
def test_answers_of_any_shape(choices: Any) -> None:
    """What has no message is read as it was written."""
    record = RECORD._replace(response={"choices": choices})
    assert unpack(KEY, pack(record), 12.5) == record
    assert head_of(KEY, pack(record)).role is None


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: str(next(iter(value))))
def test_what_json_cannot_hold(value: dict[Any, Any]) -> None:
    """It stands in a pickle of its own, and is the same when it is read."""
    assert repr(unpack(KEY, pack(RECORD._replace(request=value, response=value)))) == repr(
        RECORD._replace(request=value, response=value, stored_at=None)
    )
    assert [type(part) for part in pickle.loads(pack(RECORD._replace(request=value)))] == [str, str, bytes]


def test_the_record_that_was_packed_is_the_one_that_is_read() -> None:
    """It holds what the bytes hold, and shares nothing with what was given."""
    given = RECORD._replace(request={"model": Model.MINI})
    data, record = packed(given)
    assert repr(record) == repr(unpack(KEY, data, 12.5))
    record.response["choices"][0]["message"]["content"] = "changed"
    assert given.response == ANSWERED


def test_lone_surrogates_other_scripts_and_long_numbers_are_kept() -> None:
    """Each text is read as it was written, and takes no more room than in UTF-8."""
    record = RECORD._replace(response={"choices": [{"message": {"role": "assistant", "content": "\ud83d 東 \0"}}]})
    record = record._replace(request={"pair": "\ud83d" + "\ude00", "long": 2**20_000})
    assert unpack(KEY, pack(record), 12.5) == record
    assert "東京".encode() in pack(RECORD._replace(request={"a": "東京"}))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", [1, 2])
def test_a_planted_pickle_cannot_run(protocol: int, place: int, tmp_path: Path) -> None:
    """Whatever protocol it has, what is planted in a part stays unread."""
    parts = [text(HEAD), text({}), text({})]
    parts[place] = b"B" + pickle.dumps({"a": [Planted(tmp_path / "proof")]}, protocol)
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, laid_out(*parts))
    assert not (tmp_path / "proof").exists()
    pickle.loads(parts[place][1:])  # the plant would have worked
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "data",
    [
        laid_out(), laid_out(text(HEAD)), laid_out(text(HEAD), text({})), laid_out(text(HEAD), text({}), text([])),
        laid_out(text(HEAD), text(3), text({})), laid_out(text(HEAD), text({}), text({}), text({})),
        laid_out(text(HEAD), text({}), text({}), end=b"ee."), laid_out(text(HEAD), text({}), text({}), end=b""),
        laid_out(text(HEAD), b"C{}", text({})), laid_out(text(HEAD), b"B", text({})),
        laid_out(b"B[]", text({}), text({})),
        laid_out(text(HEAD[:-1]), text({}), text({})), laid_out(text({"a": 1}), text({}), text({})),
        laid_out(text("a"), text({}), text({})), laid_out(text(None), text({}), text({})),
        laid_out(text([1, *HEAD[1:]]), text({}), text({})),
        laid_out(text(["chat", ["a"], *HEAD[2:]]), text({}), text({})),
        laid_out(text(["chat", None, "free", *HEAD[3:]]), text({}), text({})),
        laid_out(text(["chat", None, True, *HEAD[3:]]), text({}), text({})),
        laid_out(text([*HEAD[:6], "assistant", "a"]), text({}), text({})),
        laid_out(text([*HEAD[:6], "assistant", "a"]), text({"choices": "abc"}), text({})),
        laid_out(b"X[", text({}), text({})), laid_out(b"X\xff", text({}), text({})), laid_out(b"X", text({}), text({})),
        laid_out(text(HEAD) + b" ", text({}), text({})), laid_out(text(HEAD), text({}) + b"{}", text({})),
        laid_out(text(HEAD), b"X" + b"[" * 100_000, text({})), laid_out(text(HEAD), b"X" + b"9" * 5_000, text({})),
        laid_out(text(HEAD), b"B" + b"\x80\x04]r\xff\xff\xff\xff.", text({})),
        laid_out(text(HEAD), b"B" + b"\x80\x04}" + b")" + b"\x85" * 100_000 + b"Ns.", text({})),
    ],
)  # fmt: skip
def test_made_up_bytes(data: bytes) -> None:
    """What somebody made up is refused in the same words, and takes neither the memory nor the stack."""
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, data)
    try:
        head = head_of(KEY, data)
    except CacheCorruptError:
        return
    assert head == tuple(HEAD) or head[6:] == ("assistant", "a")


@given(st.binary(max_size=60), st.integers(0, 70), st.binary(max_size=4))
def test_any_bytes_within_a_record(inserted: bytes, place: int, replaced: bytes) -> None:
    """A record with some of its bytes replaced, and a fitting checksum, is a record or damage."""
    body = pack(RECORD)[:-4]
    changed = signed(body[:place] + inserted + body[place + len(replaced) :])
    for read in (unpack, head_of, response_of):
        try:
            read(KEY, changed)
        except CacheCorruptError as error:
            assert KEY[:12] in str(error)
