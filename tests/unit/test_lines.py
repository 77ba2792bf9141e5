"""Records as JSON Lines: what is written, what is read back, what is refused."""

from __future__ import annotations

import json
import os
import stat
from hashlib import sha256
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.cassettes import format as lines
from llmcall.cassettes.format import Decoder, ordered
from llmcall.errors import CacheCorruptError, CacheError
from llmcall.types import Record, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: dict[str, Any] = {"model": "gpt-4o-mini", "aliases": {"b": "c", "a": "d"}, "normalize": []}
HEADER = '{"llmcall": 1, "settings": {}}\n'
GOOD = '{"kind": "chat", "request": {}, "response": {}}'

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
names = st.text(max_size=5) | st.sampled_from(["$text", "$bytes", "$data", "$messages", "messages", "role"])
plain = st.recursive(
    scalars | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)
plain_objects = st.dictionaries(names, plain, max_size=4)


def key_of(kind: str, request: Any, sample: str | None) -> str:
    """Stand in for the caller's keys: numbers in one form, dict order ignored."""
    return sha256(repr((kind, sample, json.dumps(request, sort_keys=True, default=repr))).encode()).hexdigest()


def chat(
    *texts: str, answer: str = "Yes.", sample: str | None = None, system: str | None = None, **more: Any
) -> Record:
    """Build a record of a chat whose messages alternate between user and assistant."""
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    request = {"model": "m", "messages": messages, **more}
    response = {"choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}], "model": "m"}
    return Record(key_of("chat", request, sample), "chat", sample, request, response, 0.25)


def history(turns: int, length: int, *, changing: bool = False) -> list[Record]:
    """Build the records of a conversation in which each request repeats all before it."""
    texts = [f"{turn:06d}".ljust(length, "abcdefghij"[turn % 10]) for turn in range(2 * turns)]
    systems = [f"You are in state {turn}." if changing else "You are Lisa." for turn in range(turns)]
    return [chat(*texts[: 2 * t + 1], answer=texts[2 * t + 1], sample="a#0", system=systems[t]) for t in range(turns)]


def written(records: list[Record], settings: dict[str, Any] = SETTINGS, **options: Any) -> str:
    """Return a whole file."""
    return "".join(lines.encode(settings, records, **options))


def decoded(text: str | bytes) -> lines.Lines:
    """Read a whole file."""
    data = text.encode() if isinstance(text, str) else text
    return lines.decode(data.splitlines(keepends=True) if b"\r" not in data else data.split(b"\n"), "f.jsonl", key_of)


def asked(record: Record) -> Request:
    """Build the request that a record answers."""
    key = key_of(record.kind, record.request, record.sample)
    return Request(record.kind, "m", record.request, {}, {}, record.sample, key)


def entries(text: str) -> list[dict[str, Any]]:
    """Parse every line of a file."""
    return [json.loads(line) for line in text.split("\n") if line]


def test_whole_file_is_pinned() -> None:
    """The bytes of version 1 never change."""
    long = "x" * 250 + "\n" + "é" * 250
    record = chat("Hi\u2028\x7f", "Yes.", long, "No.", "Well?", sample="s#0", stop=["b", "a"])
    record.response.update(id="r-1", created=17, system_fingerprint="f")
    later = chat("Hi\u2028\x7f", "Yes.", long, "No.", "Well?", "Oh.", "And?", sample="s#0", answer=long)
    embedding = Record("", "embedding", None, {"input": "a", "model": "e"}, {"embedding": b"\x00\x01"})
    text = sha256(long.encode()).hexdigest()[:32]
    run = ""
    for index, content in enumerate(["Hi\u2028\x7f", "Yes.", {"$text": text}, "No.", "Well?"]):
        canonical = json.dumps({"content": content, "role": ("user", "assistant")[index % 2]})
        run = sha256((run + canonical).encode()).hexdigest()[:32]
    found = written([record, later, embedding], {"model": "m"})
    assert found.replace(text, "TEXT").replace(run, "RUN").split("\n") == [
        '{"llmcall": 1, "settings": {"model": "m"}}',
        '{"kind": "embedding", "request": {"input": "a", "model": "e"}, "response": {"embedding": {"$bytes": "AAE="}}}',
        f'{{"text": "TEXT", "lines": ["{"x" * 250}", "{"é" * 250}"]}}',
        '{"kind": "chat", "sample": "s#0", "request": {"messages": [{"role": "user", "content": "Hi\\u2028\\u007f"}, '
        '{"role": "assistant", "content": "Yes."}, {"role": "user", "content": {"$text": "TEXT"}}, '
        '{"role": "assistant", "content": "No."}, {"role": "user", "content": "Well?"}], "model": "m", '
        '"stop": ["b", "a"]}, "response": {"choices": [{"index": 0, "message": {"role": "assistant", '
        '"content": "Yes."}}], "model": "m"}, "cost": 0.25}',
        '{"kind": "chat", "sample": "s#0", "request": {"messages": [{"$messages": "RUN"}, '
        '{"role": "assistant", "content": "Oh."}, {"role": "user", "content": "And?"}], "model": "m"}, '
        '"response": {"choices": [{"index": 0, "message": {"role": "assistant", "content": {"$text": "TEXT"}}}], '
        '"model": "m"}, "cost": 0.25}',
        "",
    ]


@given(plain_objects, plain_objects, st.sampled_from(["chat", "embedding", "function"]), st.none() | st.text())
def test_any_plain_data_comes_back(request: Any, response: Any, kind: str, sample: str | None) -> None:
    """Whatever plain data is written is read as it was, its types included."""
    [record] = decoded(written([Record("", kind, sample, request, response)]))
    kept = {name: value for name, value in response.items() if kind == "function" or name not in lines.VOLATILE}
    assert repr(ordered([record.request, record.response])) == repr(ordered([request, kept]))
    assert (record.kind, record.sample, record.cost) == (kind, sample, None)


@given(st.lists(st.text(max_size=3) | st.sampled_from(["a" * 501, "\r\n" * 300, "\n" * 501]), max_size=12), st.data())
def test_histories_come_back(texts: list[str], data: st.DataObject) -> None:
    """Requests that share beginnings, with and without system messages, are read as they were."""
    ends = data.draw(st.lists(st.integers(0, len(texts)), max_size=6))
    systems = [data.draw(st.sampled_from([None, "A", "B"])) for _ in ends]
    pairs = enumerate(zip(ends, systems, strict=True))
    records = [chat(*texts[:end], system=system, seed=index) for index, (end, system) in pairs]
    assert [record.request for record in decoded(written(records))] == [record.request for record in records]


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=30))
def test_lines_are_lines_for_every_reader(text: str) -> None:
    """No character of a text breaks a line, for readers that know more line ends than LF too."""
    file = written([chat(text)])
    assert len(file.splitlines()) == file.count("\n") == 2


@pytest.mark.parametrize("changing", [False, True])
def test_growing_history_stays_linear(changing: bool) -> None:
    """Twice the turns make a file at most 2.05 times as long; its size is below 3 times the text of 200 characters."""
    sizes = [len(written(history(turns, 200, changing=changing)).encode()) for turns in (40, 80)]
    assert sizes[1] < 2.05 * sizes[0]
    assert sizes[0] < 3 * 80 * 200


def test_few_messages_stay_where_they_are() -> None:
    """Requests of three messages are written whole however often they repeat."""
    records = [chat("a", "b", "c", seed=seed) for seed in range(3)]
    assert "$messages" not in written(records)


def test_last_message_is_always_shown() -> None:
    """The same messages asked of two models share all but the last."""
    second = entries(written([chat(*"abcde"), chat(*"abcde", seed=1)]))[2]
    assert [*map(list, second["request"]["messages"])] == [["$messages"], ["role", "content"]]


def test_long_text_is_written_once_before_its_use() -> None:
    """A text of 501 characters is a line of its own, one of 500 is not."""
    found = entries(written([chat("x" * 501), chat("x" * 501, seed=1), chat("y" * 500)]))
    assert [next(iter(entry)) for entry in found] == ["llmcall", "text", "kind", "kind", "kind"]


def test_texts_are_read_in_any_order() -> None:
    """Lines may stand in any order after the header, and twice."""
    head, *rest = written(history(6, 600)).splitlines(keepends=True)
    shuffled = decoded(head + "".join(reversed(rest)) + "".join(rest) + head)
    assert len(shuffled) == 6
    assert {record.cache_key for record in shuffled} == {record.cache_key for record in history(6, 600)}


def test_ten_thousand_references_in_a_row() -> None:
    """A chain of references is followed without recursion, wherever its parts stand."""
    said = [{"role": "user", "content": str(number)} for number in range(10_000)]
    made: list[str] = []
    digest, begin = "", list[dict[str, str]]()
    for number, message in enumerate(said):
        digest = sha256((digest + json.dumps(message, sort_keys=True)).encode()).hexdigest()[:32]
        begin = [*begin, message]
        if number >= 3:
            made.append(json.dumps({"kind": "chat", "request": {"messages": begin}, "response": {}}) + "\n")
            begin = [{"$messages": digest}]
    found = decoded(HEADER + "".join(reversed(made))).get(asked(Record("", "chat", None, {"messages": said}, {})))
    assert found is not None
    assert found.request == {"messages": said}


def test_a_history_is_read_backwards() -> None:
    """A record far behind in a file is resolved without reading all before it: its history stands just above."""
    reads: list[int] = []

    class Counted(lines.Lines):
        def encoded(self, position: int) -> dict[str, Any]:
            """Count what is read."""
            reads.append(position)
            return super().encoded(position)

    records = [record for actor in range(50) for record in history(6, 20 + actor)]
    file = Counted([line.encode() for line in written(records).splitlines(keepends=True)], "x", key_of)
    assert file.record(299).request == records[299].request and len(reads) < 30


def test_threads_read_references_at_once() -> None:
    """A reference that one thread follows while another one reads is followed after it."""
    first, second = entries(written([chat(*"abcde"), chat(*"abcdefg")]))[1:]
    found: list[Any] = []

    def requests() -> Iterator[dict[str, Any]]:
        """Read, while the other thread wants to."""
        other.start()
        other.join(0.2)
        yield first["request"]

    decoder = Decoder(requests())
    other = Thread(target=lambda: found.append(decoder.request(second["request"])))
    found.append(decoder.request(second["request"]))
    other.join()
    assert found == [chat(*"abcdefg").request] * 2


def test_order_of_names_does_not_matter() -> None:
    """Dicts built in another order give the same bytes."""
    one = Record("", "function", None, {"b": {"d": 1, "c": 2}, "a": 3}, {"y": 1, "x": [{"q": 1, "p": 2}]})
    other = Record("", "function", None, {"a": 3, "b": {"c": 2, "d": 1}}, {"x": [{"p": 2, "q": 1}], "y": 1})
    assert written([one], {"m": 1, "k": 2}) == written([other], {"k": 2, "m": 1})


def test_records_are_sorted_by_scope_path() -> None:
    """Those without a sample come first, children after their parent; within a path the order of the calls stays."""
    samples = ["b#0", "a-c#0", "a/b#1", "a#7", None, "a/b#0", "#1", "a#2"]
    found = entries(written([chat(str(index), sample=sample) for index, sample in enumerate(samples)]))[1:]
    assert [entry.get("sample") for entry in found] == [None, "#1", "a#7", "a#2", "a/b#1", "a/b#0", "a-c#0", "b#0"]


def test_get_finds_every_record_and_no_other() -> None:
    """Each record is found by its request; a request with another sample, parameter or text is not."""
    records = [*history(5, 600), *(chat("a", seed=seed, sample=f"s#{seed}") for seed in range(3))]
    records += [Record("", "function", None, {"name": "f", "n": n}, {"value": n}) for n in range(3)]
    file = decoded(written(records))
    for record in records:
        found = file.get(asked(record))
        assert found is not None
        assert (found.request, found.response) == (record.request, record.response)
    for other in (chat("a"), chat("a", seed=1, sample="s#0"), chat("b", seed=1, sample="s#1")):
        assert file.get(asked(other)) is None


def test_get_reads_only_what_is_like_the_request() -> None:
    """What is not there is looked for without the keys of all records; one with the same last message is tried."""
    keyed: list[str | None] = []

    def counted(kind: str, request: Any, sample: str | None) -> str:
        """Count the keys that are made."""
        keyed.append(sample)
        return key_of(kind, request, sample)

    records = [record for actor in range(20) for record in history(6, 600 + actor)]
    file = lines.decode([line.encode() for line in written(records).splitlines(keepends=True)], "x", counted)
    assert file.get(asked(chat(*"abcdef", sample="a#0"))) is None and not keyed
    assert file.get(asked(records[70]._replace(request={**records[70].request, "seed": 1}))) is None
    assert len(keyed) == 1


@pytest.mark.parametrize("length", [20, 600])
def test_get_finds_lines_that_were_written_otherwise(length: int) -> None:
    """A line with its names in another order, other blanks and escapes, and its long text in it, still answers."""
    record = chat("é" * length, sample="a#0", seed=1)
    *head, line = written([record]).splitlines()
    entry = json.loads(line)
    entry["request"] = dict(reversed(record.request.items()))
    file = decoded("\n".join([*head, json.dumps(entry, indent=None, separators=(" ,", " : "), sort_keys=True)]))
    found = file.get(asked(record))
    assert found is not None and found.request == record.request


def test_get_does_not_depend_on_how_a_line_is_written() -> None:
    """A line reformatted by hand, with names in another order, is found."""
    line = '{"response": {}, "request": {"n": {"b": 1, "a": 2}, "name":"f"}, "kind":"function"}'
    record = Record("", "function", None, {"name": "f", "n": {"a": 2, "b": 1}}, {})
    assert decoded(HEADER + line).get(asked(record)) is not None


def test_records_are_the_callers_own() -> None:
    """Changing what was returned changes nothing that is returned later."""
    file, request = decoded(written(history(4, 600))), asked(history(4, 600)[3])
    first = file.get(request)
    assert first is not None
    first.request["messages"].clear()
    assert file.get(request) == file.get(request) != first


@pytest.mark.parametrize("form", ["\ufeff{}", "\n \n{}\n", "{}\n\n", "{}\r\n{}\r\n"])
def test_harmless_differences_are_accepted(form: str) -> None:
    """A byte order mark, blank lines, CRLF and a missing last newline change nothing."""
    file = form.format(HEADER.strip(), HEADER.strip()) + ("" if "\r" in form else f"\n{GOOD}")
    assert [record.kind for record in decoded(file)] == ([] if "\r" in form else ["chat"])


def test_same_answer_under_another_cost_is_accepted() -> None:
    """Two lines with one answer are one record, the first."""
    one, other = chat("a"), chat("a")._replace(cost=9.0)
    assert [record.cost for record in decoded(written([one, other]))] == [0.25]


@pytest.mark.parametrize("respelt", [False, True])
def test_two_answers_to_one_key_are_refused(respelt: bool) -> None:
    """The error has the numbers of both lines, also where only the key shows that the requests are the same."""
    one, other = written([chat("a"), chat("a", answer="No.")], {}).splitlines()[1:]
    text = HEADER + one + "\n" + (json.dumps(json.loads(other), indent=None, sort_keys=True) if respelt else other)
    with pytest.raises(CacheCorruptError, match=r"^f\.jsonl:3: line 2 has another answer"):
        decoded(text).records()


DAMAGE = {
    "empty": ("", "no header"),
    "no header": (GOOD, "no header"),
    "text first": ('{"text": "a", "lines": ["b"]}', "no header"),
    "version a text": ('{"llmcall": "1", "settings": {}}', "version"),
    "version true": ('{"llmcall": true, "settings": {}}', "version"),
    "version zero": ('{"llmcall": 0, "settings": {}}', "version"),
    "no settings": ('{"llmcall": 1}', "settings"),
    "more in header": ('{"llmcall": 1, "settings": {}, "time": 3}', "unknown field 'time'"),
    "list": (HEADER + "[]", "no JSON object"),
    "unknown line": (HEADER + '{"a": 1}', "neither a record"),
    "half a line": (HEADER + GOOD[:-9], "not JSON, and seems cut off"),
    "broken": (HEADER + GOOD[:-9] + "\n" + GOOD, "not JSON"),
    "ours": (HEADER + "<<<<<<< HEAD\n", "unresolved merge"),
    "base": (HEADER + "||||||| 1a2b\n", "unresolved merge"),
    "middle": (HEADER + "=======\n", "unresolved merge"),
    "theirs": (HEADER + ">>>>>>> branch\n", "unresolved merge"),
    "deep": (HEADER + '{"a":' + "[" * 100_000, "nested too deeply"),
    "less deep": (
        HEADER + '{"kind": "function", "request": {"a": ' + "[" * 5_000 + "]" * 5_000 + '}, "response": {}}',
        "nested too deeply",
    ),
    "NaN": (HEADER + GOOD.replace("{}", '{"a": NaN}'), "NaN is not JSON"),
    "infinite": (HEADER + GOOD.replace("{}", '{"a": 1e999}'), "too large"),
    "surrogate": (HEADER + GOOD.replace("{}", '{"a": "\\ud83d"}'), "lone surrogate"),
    "unknown kind": (HEADER + GOOD.replace("chat", "chit"), "kind"),
    "unknown field": (HEADER + GOOD[:-1] + ', "host": "h"}', "unknown field 'host'"),
    "request a list": (HEADER + '{"kind": "chat", "request": [], "response": {}}', "request"),
    "no response": (HEADER + '{"kind": "chat", "request": {}}', "response"),
    "sample a number": (HEADER + GOOD[:-1] + ', "sample": 1}', "sample"),
    "cost a text": (HEADER + GOOD[:-1] + ', "cost": "1"}', "cost"),
    "text no list": (HEADER + '{"text": "a", "lines": "b"}', "digest of a text"),
    "text of numbers": (HEADER + '{"text": "a", "lines": [1]}', "digest of a text"),
    "wrong digest": (HEADER + '{"text": "%s", "lines": ["b"]}' % ("0" * 32), "does not have the digest"),
    "no such text": (HEADER + GOOD.replace("{}", '{"a": {"$text": "00"}}'), "text 00, which no line holds"),
    "no such messages": (HEADER + GOOD.replace("{}", '{"messages": [{"$messages": "00"}]}', 1), "messages 00"),
    "empty reference": (HEADER + GOOD.replace("{}", '{"messages": [{"$messages": ""}]}', 1), "which no request holds"),
    "messages elsewhere": (HEADER + GOOD.replace("{}", '{"a": {"$messages": "00"}}'), "means nothing there"),
    "unknown reference": (HEADER + GOOD.replace("{}", '{"$new": 1}'), "means nothing there"),
    "not escaped": (HEADER + GOOD.replace("{}", '{"$data": {"a": 1}}'), "means nothing there"),
    "no Base64": (HEADER + GOOD.replace("{}", '{"$bytes": "AAé"}'), "not Base64"),
    "loose Base64": (HEADER + GOOD.replace("{}", '{"$bytes": "AAE"}'), "not Base64"),
}


@pytest.mark.parametrize(("text", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused_with_its_line(text: str, message: str) -> None:
    """Every damage is an error with the file's name, the line's number and what is wrong."""
    with pytest.raises(CacheCorruptError, match=rf"^f\.jsonl:{2 if text.startswith(HEADER) else 1}: ") as caught:
        list(decoded(text))
    assert message in str(caught.value)


def test_not_utf8_is_refused() -> None:
    """Bytes of another encoding are named as such."""
    with pytest.raises(CacheCorruptError, match=r"f\.jsonl:2: the line is not UTF-8"):
        decoded(HEADER.encode() + '{"é": 1}\n'.encode("latin-1"))


def test_too_long_a_line_is_refused_unread(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit is not read to its end."""
    for module in ("llmcall.cassettes.format", "llmcall.cassettes.format"):
        monkeypatch.setattr(f"{module}.LINE_BYTES", 100)
    (tmp_path / "f").write_text(HEADER + "x" * 1000)
    with pytest.raises(CacheCorruptError, match=r":2: the line is longer than 100 bytes"):
        lines.read(tmp_path / "f", key_of)


def test_newer_version_is_named() -> None:
    """A file of version 2 is no damaged file; the error says which versions and what to do."""
    with pytest.raises(CacheError, match=r"^f\.jsonl:1: .* version 2 .* up to version 1; upgrade") as caught:
        decoded('{"llmcall": 2, "settings": {}}')
    assert not isinstance(caught.value, CacheCorruptError)


def test_headers_that_differ_are_refused() -> None:
    """After a merge of two settings the error names the line and what differs."""
    second = '{"llmcall": 1, "settings": {"model": "n", "namespace": null}}\n'
    with pytest.raises(CacheCorruptError, match=r"^f\.jsonl:2: .* line 1 in model, namespace"):
        decoded('{"llmcall": 1, "settings": {"model": "m"}}\n' + second)


def test_removed_message_is_missed() -> None:
    """A record whose shared messages were removed cannot be read; the others can."""
    file = written(history(4, 600), {}).splitlines(keepends=True)
    removed = decoded("".join(line for line in file if '"$messages"' in line or '"kind"' not in line))
    with pytest.raises(CacheCorruptError, match="take it from version control"):
        list(removed)


@pytest.mark.parametrize(
    ("data", "error", "place"),
    [
        ({"a": [float("nan")]}, ValueError, r"record 1 \(sample 's#0'\): request\.a\[0\] is nan"),
        ({"a": float("-inf")}, ValueError, r"request\.a is -inf"),
        ({"a": {"b": "x\ud800"}}, ValueError, r"request\.a\.b has a lone surrogate at index 1"),
        ({"a": {"\udfff": 1}}, ValueError, r"a key of request\.a has a lone surrogate"),
        ({"a": [{1: 2}]}, TypeError, r"request\.a\[0\] has a key of type int"),
        ({"a": (1, 2)}, TypeError, r"request\.a is of type tuple"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_place(data: Any, error: type[Exception], place: str) -> None:
    """Only plain data is written."""
    with pytest.raises(error, match=place):
        written([Record("", "function", "s#0", data, {})])


def test_too_deep_data_is_refused() -> None:
    """Nesting without end is a ValueError that names the record."""
    data: list[Any] = []
    for _ in range(100_000):
        data = [data]
    with pytest.raises(ValueError, match=r"record 1: .* nested too deeply"):
        written([Record("", "function", None, {"a": data}, {})])


def test_credentials_are_refused_unless_allowed() -> None:
    """A credential is named by its record and place and is not in the message; ALLOW lets it pass."""
    secret = "sk-proj-" + "a1B2c3D4e5F6" * 4
    records = [chat("fine"), chat("Hi", "Hello.", f"My key is {secret}.", sample="s#0")]
    place = r"record 2 \(sample 's#0'\): request\.messages\[2\]\.content .*\(sk-p…\)"
    with pytest.raises(CacheError, match=place) as caught:
        written(records)
    assert secret[6:] not in str(caught.value)
    assert secret in written(records, allow=(r"sk-proj-\w+",))
    with pytest.raises(CacheError, match=r"the header: settings\.namespace"):
        written([], {"namespace": secret})


def test_write_and_read_a_file(tmp_path: Any) -> None:
    """Folders are made, the bytes are those of encode, and nothing else is left behind."""
    path = tmp_path / "new" / "folder" / "f.jsonl"
    lines.write(path, SETTINGS, history(6, 600))
    assert path.read_bytes().decode() == written(history(6, 600))
    file = lines.read(path, key_of)
    assert file.settings == SETTINGS
    assert [record.cache_key for record in file.records()] == [record.cache_key for record in history(6, 600)]
    assert os.listdir(path.parent) == ["f.jsonl"]


def test_failed_write_leaves_the_old_file(tmp_path: Any) -> None:
    """After an error the old file is whole and there is no temporary one."""
    path = tmp_path / "f.jsonl"
    lines.write(path, {}, [chat("old")])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        lines.write(path, {}, [chat("new"), Record("", "function", None, {"a": object()}, {})])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["f.jsonl"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_mode_of_the_file(tmp_path: Any) -> None:
    """A new file has the umask's mode, an old one keeps its own, a link goes on linking."""
    path, link = tmp_path / "f.jsonl", tmp_path / "link"
    old = os.umask(0o027)
    try:
        lines.write(path, {}, [])
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    link.symlink_to(path)
    lines.write(link, {}, [chat("a")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert len(lines.read(path, key_of)) == 1
