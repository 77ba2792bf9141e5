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
from packed_records import ANSWERED, ASKED, KEY, MESSAGE, PLAIN, RECORD, Planted, signed

from llmcall.cache.record import head_of, pack, packed, response_of, unpack
from llmcall.cache.rows import Rows, reply_of
from llmcall.errors import CacheCorruptError
from llmcall.types import Record

DICTS = st.dictionaries(st.text(max_size=5), PLAIN, max_size=4)


class Model(str, enum.Enum):
    """Be a string that belongs to a class."""

    MINI = "gpt-4o-mini"


# Plain data that JSON does not hold, or not as it is.
ODD = [
    {"bytes": b"\x00\xff"}, {"tuple": (1, 2)}, {1: "a"}, {None: 1}, {True: 1}, {"nan": float("nan")},
]  # fmt: skip
HEAD = ["chat", None, None, None, None, None, None, None]


def laid_out(*parts: bytes, end: bytes = b"e.") -> bytes:
    """Lay out parts as a record's, each with its operation before it."""
    counted = [part[:1] + (len(part) - 1).to_bytes(4, "little") + part[1:] for part in parts]
    inside = b"](" + b"".join(counted) + end
    return signed(b"\x80\x04\x95" + len(inside).to_bytes(8, "little") + inside)


def text(value: Any) -> bytes:
    """Return a part that holds JSON."""
    return b"X" + json.dumps(value).encode()


def pickled(value: Any) -> bytes:
    """Return a part that is a pickle."""
    return b"B" + pickle.dumps(value, 4)


NOTHING = pickled({})


@given(DICTS, DICTS, st.none() | st.text(max_size=9), st.none() | st.floats(0, 10))
def test_round_trip(asked: dict[str, Any], answered: dict[str, Any], sample: str | None, cost: float | None) -> None:
    """What is packed is what is unpacked."""
    record = Record(KEY, "chat", sample, asked, answered, cost)
    again = unpack(KEY, pack(record))
    assert again == record
    assert repr(again) == repr(record)


def test_the_time_is_kept_beside() -> None:
    """The time of storing is no part of the bytes."""
    assert unpack(KEY, pack(RECORD._replace(stored_at=1.0)), 99.0) == RECORD._replace(stored_at=99.0)


def test_a_record_belongs_to_its_key() -> None:
    """The bytes of one record do not pass for those of another, also where their checksum is of themselves alone."""
    for read in (unpack, head_of, response_of):
        with pytest.raises(CacheCorruptError, match=r"another.*checksum"):
            read("another", pack(RECORD))
        body = pack(RECORD)[:-4]
        with pytest.raises(CacheCorruptError, match="checksum"):
            read(KEY, body + crc32(body).to_bytes(4, "little"))


@pytest.mark.parametrize("field", ["cost", "kind", "sample", "host", "version"])
def test_a_head_that_nobody_could_read_is_not_written(field: str) -> None:
    """What is no text or number is refused before it is stored."""
    with pytest.raises(TypeError, match="could not be read"):
        pack(RECORD._replace(**{field: True}))


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
    """Any unpickler reads the three parts and what is in them; the answer's text stands in the head alone."""
    head, response, request = pickle.loads(pack(RECORD))
    assert json.loads(head) == ["chat", "trial/lisa#0", 0.0125, "openai", "api.openai.com", "0.1", "assistant", "3"]
    assert pickle.loads(response) == {**ANSWERED, "choices": [{"message": {**MESSAGE, "content": None}}]}
    assert pickle.loads(request) == ASKED


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
    ],
)  # fmt: skip
def test_what_is_a_text_and_nothing_else(message: Any, role: str | None, content: str | None) -> None:
    """Only such an answer stands in the head; every answer is read as it was written."""
    for more in ([], [{"message": {"role": "assistant", "content": "b"}}]):
        record = RECORD._replace(response={"id": 1, "choices": [{"index": 0, "message": message}, *more]})
        head = head_of(KEY, pack(record))
        assert (head.role, head.content) == (role, content)
        assert repr(unpack(KEY, pack(record), 12.5)) == repr(record)


@pytest.mark.parametrize("choices", [None, [], {}, "abc", [None], [[]], ["a"], [{}], [{"message": 3}]])
def test_choices_that_are_none(choices: Any) -> None:
    """What has no message is read as it was written, and is no reply."""
    record = RECORD._replace(response={"choices": choices})
    assert unpack(KEY, pack(record), 12.5) == record
    assert head_of(KEY, pack(record)).role is None
    for make in (lambda: reply_of(record), lambda: Rows().reply(KEY, pack(record))):
        with pytest.raises(CacheCorruptError, match="no answer of a model; after 'llmcall cache delete 0123456789ab'"):
            make()


def test_a_tuple_that_is_there_twice() -> None:
    """It is stored as lists, since a stranger could hold the reader up by such."""
    pair = (1, 2)
    record = RECORD._replace(request={"many": [pair, pair]})
    data, held = packed(record)
    assert unpack(KEY, data, 12.5) == held
    assert held.request == {"many": [[1, 2], [1, 2]]}


@pytest.mark.parametrize("value", ODD, ids=lambda value: str(next(iter(value))))
def test_odd_plain_data(value: dict[Any, Any]) -> None:
    """It is the same when it is read."""
    assert repr(unpack(KEY, pack(RECORD._replace(request=value, response=value)))) == repr(
        RECORD._replace(request=value, response=value, stored_at=None)
    )


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
    parts = [text(HEAD), NOTHING, NOTHING]
    parts[place] = b"B" + pickle.dumps({"a": [Planted(tmp_path / "proof")]}, protocol)
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, laid_out(*parts))
    assert not (tmp_path / "proof").exists()
    pickle.loads(parts[place][1:])  # the plant would have worked
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("end", [b"e.", b"ee.", b""])
@pytest.mark.parametrize("parts", [[], [text(HEAD)], [text(HEAD), NOTHING], [text(HEAD), *[NOTHING] * 3]])
def test_other_numbers_of_parts(parts: list[bytes], end: bytes) -> None:
    """A record has three parts, and nothing after them."""
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, laid_out(*parts, end=end))


@pytest.mark.parametrize(
    "part",
    [
        pickled([]), pickled(3), text({}), b"C{}", b"B", b"B" + b"[" * 5_000, b"B\x80\x04]r\xff\xff\xff\xff.",
        b"B\x80\x04})" + b"\x85" * 100_000 + b"Ns.",
    ],
)  # fmt: skip
def test_made_up_parts(part: bytes) -> None:
    """What is no dict of plain data is refused in the same words, and takes neither the memory nor the stack."""
    for parts in ((part, NOTHING), (NOTHING, part)):
        with pytest.raises(CacheCorruptError, match="cannot be read"):
            unpack(KEY, laid_out(text(HEAD), *parts))
        assert head_of(KEY, laid_out(text(HEAD), *parts)) == tuple(HEAD)


@pytest.mark.parametrize("response", [{}, {"choices": "abc"}, {"choices": []}, {"choices": [{"message": 3}]}])
def test_a_text_without_its_place(response: Any) -> None:
    """A head with a text, and a response that has no message for it, are no record."""
    with pytest.raises(CacheCorruptError, match="cannot be read"):
        unpack(KEY, laid_out(text([*HEAD[:6], "assistant", "a"]), pickled(response), NOTHING))


@pytest.mark.parametrize(
    "head",
    [
        b"B[]", b"X[", b"X\xff", b"X", b"X" + b"[" * 100_000, b"X" + b"9" * 5_000, text(HEAD) + b" ", text(HEAD[:-1]),
        text({"a": 1}), text("a"), text(None), text([1, *HEAD[1:]]), text(["chat", ["a"], *HEAD[2:]]),
        text(["chat", None, "free", *HEAD[3:]]), text(["chat", None, True, *HEAD[3:]]),
    ],
    ids=range(15),
)  # fmt: skip
def test_made_up_heads(head: bytes) -> None:
    """They are refused in the same words by every reader."""
    for read in (unpack, head_of, response_of):
        with pytest.raises(CacheCorruptError, match="cannot be read"):
            read(KEY, laid_out(head, NOTHING, NOTHING))


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
