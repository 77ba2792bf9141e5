"""The form of cassettes and exports: what is written, what is read back, what is refused,
credentials above all.

The fakes of credentials are built up so that no scanner of this file finds one.
Private imports: the file has a grammar, and so has what looks like a credential.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import string
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from clients import http
from commands import done
from files import record_of
from hypothesis import given
from hypothesis import strategies as st

import llmcall
from llmcall import CacheCorruptError, CacheError
from llmcall.core.parents import add_notes
from llmcall.scopes.position import NotesContext
from llmcall.stores.records import reader, writer
from llmcall.stores.records.header import Header
from llmcall.support import secrets as credentials
from llmcall.testing import ScriptedClient
from llmcall.types import Record

HEADER = '{"llmcall": 1, "settings": {}}\n'
KEY_OF_NOTHING = "11348fc34f954cd1dfbea46c03ce1acbb23674f2f9d1eb8f9fed66d1e898532f"
KEY = f', "key": "{KEY_OF_NOTHING}"}}'
GOOD = '{"kind": "function", "request": {}, "response": {}' + KEY


def chat(
    *texts: str,
    answer: str = "Yes.",
    sample: str | None = None,
    system: str | None = None,
    **more: Any,
) -> Record:
    """Build a record of a chat whose messages alternate between user and assistant."""
    messages = [
        {"role": ("user", "assistant")[index % 2], "content": text}
        for index, text in enumerate(texts)
    ]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    request = {"model": "m", "messages": messages, **more}
    response = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}],
        "model": "m",
    }
    return record_of("chat", sample, request, response, 0.25)


def function(request: Any, response: Any | None = None, sample: str | None = None) -> Record:
    """Build a record of a function."""
    return Record(None, "function", sample, request, response or {})


def history(turns: int, length: int) -> list[Record]:
    """Build the records of a conversation in which each request repeats all before it."""
    texts = [f"{turn:06d}".ljust(length, "abcdefghij"[turn % 10]) for turn in range(2 * turns)]
    return [
        chat(*texts[: 2 * t + 1], answer=texts[2 * t + 1], sample="a#0", system="You are Lisa.")
        for t in range(turns)
    ]


def written(records: list[Record]) -> str:
    """Return a whole file."""
    return "".join(writer.encode(Header({"model": "m"}), records))


def decoded(text: str | bytes) -> reader.RecordFile:
    """Read a whole file."""
    data = text.encode() if isinstance(text, str) else text
    return reader.RecordFile(data, "f.jsonl")


def test_the_bytes_of_version_1_never_change() -> None:
    """Records stand by scope, long texts once, and what is unseen is escaped."""
    long = "x" * 250 + "\n" + "é" * 251
    record = chat("Hi\u2028\x7f", "Yes.", long, "No.", "Well?", sample="s#0", stop=["b", "a"])
    record.response.update(id="r-1", created=17, system_fingerprint="f")
    later = chat(
        "Hi\u2028\x7f", "Yes.", long, "No.", "Well?", "Oh.", "And?", sample="s#0", answer=long
    )
    embedding = Record(
        None, "embedding", None, {"model": "e", "input": "a" * 500}, {"embedding": b"\x00\x01"}
    )
    text = sha256(long.encode()).hexdigest()[:32]
    found = written([record, later, embedding])
    assert found.replace(text, "TEXT").split("\n") == [
        '{"llmcall": 1, "settings": {"model": "m"}}',
        f'{{"kind": "embedding", "request": {{"input": "{"a" * 500}", "model": "e"}}, '
        '"response": {"embedding": {"$bytes": "AAE="}}, '
        '"key": "9e30b6c72ea1c01f648e770be185271e78cb007e79f5ee4b12938caa5b26d2b7"}',
        f'{{"text": "TEXT", "lines": ["{"x" * 250}", "{"é" * 251}"]}}',
        '{"kind": "chat", "sample": "s#0", "request": {"messages": [{"role": "user", "content": "Hi\\u2028\\u007f"}, '
        '{"role": "assistant", "content": "Yes."}, {"role": "user", "content": {"$text": "TEXT"}}, '
        '{"role": "assistant", "content": "No."}, {"role": "user", "content": "Well?"}], "model": "m", '
        '"stop": ["b", "a"]}, "response": {"choices": [{"index": 0, "message": {"role": "assistant", '
        '"content": "Yes."}}], "model": "m"}, "cost": 0.25, '
        '"key": "db33858b85f0f01c3a3edb9663521dde84e6e8f33a5cd5d73c1c43472fd7ce6c"}',
        '{"kind": "chat", "sample": "s#0", "request": {"messages": [{"role": "user", "content": "Hi\\u2028\\u007f"}, '
        '{"role": "assistant", "content": "Yes."}, {"role": "user", "content": {"$text": "TEXT"}}, '
        '{"role": "assistant", "content": "No."}, {"role": "user", "content": "Well?"}, '
        '{"role": "assistant", "content": "Oh."}, {"role": "user", "content": "And?"}], "model": "m"}, '
        '"response": {"choices": [{"index": 0, "message": {"role": "assistant", "content": {"$text": "TEXT"}}}], '
        '"model": "m"}, "cost": 0.25, '
        '"key": "54fb341168c48f3ef6782c985369943a04eb0c48dd23b3f8d0cfe438f803cb41"}',
        "",
    ]


@given(
    st.lists(
        st.text(max_size=3) | st.sampled_from(["a" * 501, "\r\n" * 300, "\n" * 501]), max_size=12
    ),
    st.data(),
)
def test_requests_that_share_beginnings_are_read_as_they_were(
    texts: list[str], data: st.DataObject
) -> None:
    """They may have system messages or none."""
    ends = data.draw(st.lists(st.integers(0, len(texts)), max_size=6))
    systems = [data.draw(st.sampled_from([None, "A", "B"])) for _ in ends]
    pairs = enumerate(zip(ends, systems, strict=True))
    records = [chat(*texts[:end], system=system, seed=index) for index, (end, system) in pairs]
    assert [record.request for record in decoded(written(records))] == [
        record.request for record in records
    ]


def test_lines_may_stand_in_any_order_after_the_header_and_twice() -> None:
    """Git's union merges make such files."""
    head, *rest = written(history(6, 600)).splitlines(keepends=True)
    shuffled = decoded(head + "".join(reversed(rest)) + "".join(rest) + head)
    assert len(shuffled) == 6
    assert {record.cache_key for record in shuffled} == {
        record.cache_key for record in history(6, 600)
    }


@pytest.mark.parametrize("length", [20, 600])
def test_a_line_with_other_escapes_and_another_order_of_names_in_its_request_replays(
    length: int,
) -> None:
    """It has its long text in it."""
    record = chat("é" * length, sample="a#0", seed=1)
    *head, line = written([record]).splitlines()
    entry = json.loads(line)
    entry["request"] = dict(reversed(record.request.items()))
    file = decoded("\n".join([*head, json.dumps(entry)]))
    found = file.get(record.cache_key)
    assert found is not None
    assert found.request == record.request


@pytest.mark.parametrize("form", ["\ufeff{}", "\n \n{}\n", "{}\n\n", "{}\r\n{}\r\n"])
def test_a_byte_order_mark_blank_lines_and_crlf_are_accepted(form: str) -> None:
    """A byte order mark, blank lines, CRLF and a missing last newline change nothing."""
    file = form.format(HEADER.strip(), HEADER.strip()) + ("" if "\r" in form else f"\n{GOOD}")
    assert [record.kind for record in decoded(file)] == ([] if "\r" in form else ["function"])


@pytest.mark.parametrize(
    "respelt",
    [{"separators": (",", ":")}, {"sort_keys": True}],
)
def test_a_line_that_does_not_begin_and_end_as_llmcall_writes_it_is_refused(respelt: Any) -> None:
    """Opening finds the key at the end, the scope and the caller at the beginning."""
    head, line = written([chat("a", sample="a#0")]).splitlines()
    with pytest.raises(CacheCorruptError, match=r"^f\.jsonl:2: the line "):
        decoded(f"{head}\n{json.dumps(json.loads(line), **respelt)}\n")


def test_a_request_that_was_changed_by_hand_is_named_when_it_is_looked_up() -> None:
    """Opening the file does not read it; the other records are there."""
    records = [chat("a"), chat("b")]
    file = decoded(written(records).replace('"content": "a"', '"content": "c"'))
    assert file.get(records[1].cache_key) == records[1]
    with pytest.raises(CacheCorruptError, match=r"^f\.jsonl:2: its key does not match its request"):
        file.get(records[0].cache_key)


def test_equal_answers_to_one_key_are_one_record() -> None:
    """The first one counts, with its cost."""
    [cheap] = decoded(written([chat("a"), chat("a").replace(cost=9.0)]))
    assert cheap.cost == 0.25


def test_two_answers_to_one_key_are_refused() -> None:
    """The error has the numbers of both lines."""
    one, other = written([chat("a"), chat("a", answer="No.")]).splitlines()[1:]
    with pytest.raises(CacheCorruptError, match=r"^f\.jsonl:3: line 2 has a different answer"):
        decoded(f"{HEADER}{one}\n{other}")


DAMAGE = {
    "blank": ("\n", "no header"),
    "no header": (GOOD, "no header"),
    "no settings": ('{"llmcall": 1}', "settings"),
    "unknown line": (HEADER + '{"a": 1}', "neither a record"),
    "half a line": (HEADER + GOOD[:-90], "not JSON, and seems cut off"),
    "broken": (HEADER + GOOD[:-90] + "\n" + GOOD, "not JSON"),
    "ours": (HEADER + "<<<<<<< HEAD\n", "unresolved merge"),
    "deep": (HEADER + '{"a":' + "[" * 100_000, "nested too deeply"),
    **{
        f"{levels} levels": (
            HEADER + GOOD.replace("{}", '{"a": %s}' % ("[" * levels + "]" * levels)),
            "nested too deeply",
        )
        for levels in (201, 450, 990)
    },
    "a setting's name that a terminal obeys": (
        '{"llmcall": 1, "settings": {"\\u001b[2J": 1}}',
        "the header has settings unknown to llmcall",
    ),
    "NaN": (HEADER + GOOD.replace("{}", '{"a": NaN}'), "NaN is not JSON"),
    "surrogate": (HEADER + GOOD.replace("{}", '{"a": "\\ud83d"}'), "lone surrogate"),
    "unknown kind": (HEADER + GOOD.replace("function", "chit"), "kind"),
    "unknown field": (HEADER + GOOD.replace(KEY, f', "host": "h"{KEY}'), "unknown field 'host'"),
    "no key": (HEADER + GOOD.replace(KEY, "}"), "the line has no 'key'"),
    "key elsewhere": (
        HEADER + GOOD.replace(KEY, f'{KEY[:-1]}, "cost": 1}}'),
        "the line does not end with its key",
    ),
    "old field": (
        HEADER + GOOD.replace(KEY, f', "asker": "1"{KEY}'),
        "unknown field 'asker'; remove it, or upgrade llmcall",
    ),
    "form without a name": (
        HEADER + GOOD.replace(KEY, f', "form": {{"digest": "0"}}{KEY}'),
        "'form' must have a name",
    ),
    "no response": (HEADER + '{"kind": "chat", "request": {}' + KEY, "response"),
    "not UTF-8": (HEADER + '{"é": 1}', "not UTF-8"),
    "another header": (
        HEADER + '{"llmcall": 1, "settings": {"top_p": 1}}',
        "differs from line 1 in top_p",
    ),
    "wrong digest": (
        HEADER
        + GOOD.replace("{}", '{"a": {"$text": "%s"}}' % ("0" * 32))
        + '\n{"text": "%s", "lines": ["b"]}' % ("0" * 32),
        "does not have the digest",
    ),
    "no such text": (
        HEADER + GOOD.replace("{}", '{"a": {"$text": "00"}}'),
        "text 00, which no line contains",
    ),
    "not escaped": (HEADER + GOOD.replace("{}", '{"$data": {"a": 1}}'), "is not valid there"),
    "no Base64": (HEADER + GOOD.replace("{}", '{"$bytes": "AAé"}'), "not Base64"),
}


@pytest.mark.parametrize(("text", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cassette_is_refused_with_the_line(text: str, message: str) -> None:
    """Every damage is an error with the file's name, the line's number and what is wrong."""
    with pytest.raises(
        CacheCorruptError, match=rf"^f\.jsonl:{2 if text.startswith(HEADER) else 1}: "
    ) as caught:
        file = decoded(text.encode("latin-1" if "UTF-8" in message else "utf-8"))
        [record.request for record in file]
    assert message in str(caught.value)


STRANGE = [
    b"",
    b"\n",
    b"\xff",
    b"[" * 100_000,
    b'"',
    b"{}\n",
    b'{"text": 3, "lines": []}\n',
    b'{"$bytes": "?"}',
    b'{"kind": "chat", "sample": "#", "request": {"messages": 3}, "response": {"choices": 3}, "cost": -1e308}\n',
]


@given(st.data())
def test_any_damage_gives_records_or_an_error_with_its_line(data: st.DataObject) -> None:
    """Bytes are cut out, put in or doubled anywhere."""
    file = written([*history(4, 600), function({"n": 1}, {"value": b"x"})]).encode()
    start, length = (
        data.draw(st.integers(0, len(file))),
        data.draw(st.integers(0, 80) | st.integers(0, len(file))),
    )
    put_in = data.draw(
        st.sampled_from([*STRANGE, *file.splitlines(keepends=True)]) | st.binary(max_size=4)
    )
    try:
        [record.request for record in decoded(file[:start] + put_in + file[start + length :])]
    except CacheError as error:
        assert re.match(r"f\.jsonl:\d+: ", str(error))


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        ([float("nan")], ValueError, r"record 2 \(sample 's#0'\): request\.a\[0\] is nan"),
        ({"b": "x\ud800"}, ValueError, r"request\.a\.b has a lone surrogate at index 1"),
        ([{1: 2}], TypeError, r"request\.a\[0\] has the key 1; keys must be strings"),
        ({1, 2}, TypeError, r"request\.a is a set"),
        pytest.param(DEEP, ValueError, r"record 2 .* nested too deeply", id="deep"),
    ],
)
def test_a_value_that_is_not_plain_data_is_an_error_with_its_place_and_leaves_the_old_file(
    data: Any, error: type[Exception], reason: str, tmp_path: Path
) -> None:
    """Nothing is beside it."""
    path = tmp_path / "f.jsonl"
    writer.write(path, Header({}), [chat("old")])
    before = path.read_bytes()
    with pytest.raises(error, match=reason):
        writer.write(path, Header({}), [function({"a": data}, sample="s#0"), chat("new")])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["f.jsonl"]


@given(st.lists(st.text("a\né\ud83d\ude00\udc00", max_size=40), max_size=4))
def test_an_answer_with_halves_of_characters_is_read_back(texts: list[str]) -> None:
    """Short or long, it is escaped; others stay."""
    answers = [text * repeated for text in texts for repeated in (1, 30)]
    records = [chat(str(number), answer=answer) for number, answer in enumerate(answers)]
    file = written([*records, chat("last", answer="whole")])
    found = [record.response for record in decoded(file)]
    assert found == [json.loads(json.dumps(record.response)) for record in records] + [
        chat("last", answer="whole").response
    ]


# Notes beside the key


def test_a_note_that_is_added_to_an_answer_is_in_the_file() -> None:
    """Its call needs no note of its own."""
    with llmcall.cassette("tape.jsonl"):
        reply = ScriptedClient(["Perhaps."]).send_message("Tea?")
        add_notes(reply.cache_key, {"unread": True})
    assert '"unread": true' in Path("tape.jsonl").read_text(encoding="utf-8")
    assert "  unread\nuser\n" in done("show", "tape.jsonl")


def test_a_call_has_the_notes_of_all_blocks_around_it() -> None:
    form = {"name": "<user>", "digest": "00", "variables": {"drink": "Tea"}}
    inner, outer = NotesContext(lambda: {"form": form}), NotesContext(lambda: {"unread": True})
    with llmcall.cassette("tape.jsonl"), outer, inner:
        ScriptedClient(["Perhaps."]).send_message("Tea?")
    line = json.loads(Path("tape.jsonl").read_text("utf-8").splitlines()[1])
    assert (line["unread"], line["form"]) == (True, form)


def test_a_note_that_no_feature_lists_is_an_error_before_a_call_is_paid() -> None:
    client = ScriptedClient(["Perhaps."])
    with llmcall.cassette("tape.jsonl"), NotesContext(lambda: {"mood": 1}):
        with pytest.raises(LookupError, match="'mood'"):
            client.send_message("Tea?")
        with pytest.raises(LookupError, match="'mood'"):
            add_notes("0" * 64, {"mood": 1})
    assert client.requests == []


# Credentials

LETTERS_DIGITS = string.ascii_letters + string.digits
URL_SAFE = LETTERS_DIGITS + "-_"
CAPITALS = string.ascii_uppercase + "234567"
HEX = string.digits + "abcdef"


def fake(length: int, alphabet: str = LETTERS_DIGITS) -> str:
    """Return a random secret with at least one letter and one digit."""
    chosen = random.Random(f"{length}{alphabet}")
    return "".join(chosen.choices(alphabet, k=length - 2)) + ("A7" if "A" in alphabet else "a7")


FORMS = {
    "openai": ("sk-" + fake(48), "API key"),
    "openai project": ("sk-" + "proj-" + fake(124, URL_SAFE), "OpenAI"),
    "anthropic": ("sk-" + "ant-api03-" + fake(95, URL_SAFE), "Anthropic"),
    "openrouter": ("sk-" + "or-v1-" + fake(64, HEX), "API key"),
    "aws": ("AK" + "IA" + fake(16, CAPITALS), "AWS access key"),
    "aws secret": (
        "aws_secret_access_" + "key = " + fake(40, LETTERS_DIGITS + "+/"),
        "key by its name",
    ),
    **{f"github {letter}": (f"gh{letter}" + "_" + fake(36), "GitHub") for letter in "pousr"},
    "gitlab": ("gl" + "pat-" + fake(20, URL_SAFE), "GitLab"),
    "google": ("AI" + "za" + fake(35, URL_SAFE), "Google API key"),
    **{
        f"slack {letter}": (f"xo{'x'}{letter}-123456789012-" + fake(24), "Slack")
        for letter in "abprs"
    },
    "stripe": ("sk" + "_live_" + fake(24), "Stripe"),
    # since September 2026
    "google of 2026": ("AQ" + ".Ab8RN6" + fake(40, URL_SAFE), "Google API key"),
    "bedrock": ("AB" + "SKQmVkcm9ja0FQSUtleS1" + fake(109, LETTERS_DIGITS + "+/"), "Bedrock"),
    "hugging face organization": ("api" + "_org_" + fake(34), "Hugging Face"),
    "google signature of the older form": (
        "https://storage.example/b/o?GoogleAccessId=a@b.example&Expires=9&"
        + "Signature="
        + fake(170, LETTERS_DIGITS + "+/"),
        "signature in a URL",
    ),
    "hugging face": ("h" + "f_" + fake(34), "Hugging Face"),
    "groq": ("gs" + "k_" + fake(52), "Groq"),
    "xai": ("xa" + "i-" + fake(80), "xAI"),
    "perplexity": ("pp" + "lx-" + fake(48), "Perplexity"),
    "nvidia": ("nv" + "api-" + fake(64, URL_SAFE), "NVIDIA"),
    "replicate": ("r" + "8_" + fake(37), "Replicate"),
    "cerebras": ("cs" + "k-" + fake(48, string.ascii_lowercase + string.digits), "Cerebras"),
    "fireworks": ("f" + "w_" + fake(24), "Fireworks"),
    "databricks": ("da" + "pi" + fake(32, HEX), "Databricks"),
    "tavily": ("tv" + "ly-dev-" + fake(32), "Tavily"),
    "langsmith": ("ls" + "v2_pt_" + fake(32, HEX) + "_" + fake(10, HEX), "LangSmith"),
    "langfuse": ("sk-" + "lf-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "Langfuse"),
    "sendgrid": ("S" + "G." + fake(22, URL_SAFE) + "." + fake(43, URL_SAFE), "SendGrid"),
    "google signature": (
        "https://storage.example/b/o?X-Goog-Expires=9&X-Goog-" + "Signature=" + fake(512, HEX),
        "signature in a URL",
    ),
    "npm": ("np" + "m_" + fake(36), "npm"),
    "pypi": ("pypi-" + "AgEIcHlwaS5vcmc" + fake(60, URL_SAFE), "PyPI"),
    "jwt": (
        ".".join(("ey" + "J" + fake(33, URL_SAFE), "ey" + "J" + fake(50, URL_SAFE), fake(43))),
        "JSON Web Token",
    ),
    "pem": ("-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEpAIBAAKCAQEA" + fake(48), "private key"),
    "pgp": ("-----BEGIN PGP PRIVATE" + " KEY BLOCK-----\n\nlQOYBF" + fake(58), "private key"),
    "bearer": ("Authorization: Bearer " + fake(40, URL_SAFE), "bearer token"),
    "basic": (
        "Authorization: Basic " + base64.b64encode(b"alice:" + fake(12).encode()).decode(),
        "password",
    ),
    "url": ("https://alice:" + fake(12) + "@example.org/x", "password in a URL"),
    "azure": ("api-" + "key: " + fake(32, HEX), "key by its name"),
    "azure in bold": ("__api-" + "key: " + fake(32, HEX) + "__", "key by its name"),
    "azure storage": (
        "AccountName=a;Account" + "Key=" + fake(86, LETTERS_DIGITS + "+/") + "==",
        "key by its name",
    ),
    "azure signature": (
        "SharedAccessSignature sr=x&" + "sig=" + fake(43) + "%3D&se=1",
        "signature in a URL",
    ),
    "bedrock of a day": (
        "bedrock-" + "api-key-" + "YmVkcm9jay5hbWF6b25hd3MuY29tLz9B" + fake(80) + "=",
        "Bedrock",
    ),
    "together": ("tg" + "p_v1_" + fake(43, URL_SAFE), "Together"),
    "fireworks of 2026": ("f" + "w3_" + fake(24), "Fireworks"),
    "voyage": ("p" + "a-" + fake(43, URL_SAFE), "Voyage"),
    "jina": ("ji" + "na_" + fake(60), "Jina"),
    "llamacloud": ("ll" + "x-" + fake(48), "LlamaCloud"),
    "vercel": ("vc" + "k_" + fake(56), "Vercel"),
    "firecrawl": ("f" + "c-" + fake(32, HEX), "Firecrawl"),
    "pinecone": ("pc" + "sk_" + fake(69, LETTERS_DIGITS + "_"), "Pinecone"),
    "weights and biases": ("wan" + "db_v1_" + fake(80, LETTERS_DIGITS + "_"), "Weights & Biases"),
    "slack app": ("xap" + "p-1-A0123456789-1234567890123-" + fake(64, HEX), "Slack"),
    "openai client secret": ("e" + "k_" + fake(32, HEX), "OpenAI"),
    "openai service account": ("sk-svc" + "acct-" + fake(60, URL_SAFE), "OpenAI"),
    "openai administrator": ("sk-ad" + "min-" + fake(60, URL_SAFE), "OpenAI"),
    "github fine-grained": ("github" + "_pat_" + fake(82, LETTERS_DIGITS + "_"), "GitHub"),
    "google access": ("ya" + "29." + fake(120, URL_SAFE), "Google access token"),
    "google client": ("GOC" + "SPX-" + fake(28, URL_SAFE), "Google client secret"),
    "slack refresh": ("xo" + "xe-1-" + fake(140), "Slack"),
    "stripe restricted": ("rk" + "_live_" + fake(24), "Stripe"),
    "stripe test": ("sk" + "_test_" + fake(24), "Stripe"),
    "stripe webhook": ("wh" + "sec_" + fake(32), "Stripe"),
    "notion": ("nt" + "n_" + fake(46), "Notion"),
    "linear": ("lin" + "_api_" + fake(40), "Linear"),
    "digitalocean": ("dop" + "_v1_" + fake(64, HEX), "DigitalOcean"),
}


ORDINARY = [
    "sk-…",
    "sk-" + "x" * 48,
    "sk-proj-" + "X" * 60,
    "sk-proj-your-key-goes-here-please",
    "api_key = 'YOUR_API_KEY_HERE_0123456789'",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY",
    "Authorization: Bearer $TOKEN, or Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
    "The bearer of this letter, a Bearer AuthenticationMiddlewareFactory",
    "postgres://user:password@localhost:5432/db",
    "postgres://{user}:{password}@{host}/db and https://${USER}:${TOKEN}@github.com/a/b",
    "see http://host:8080?to=a@b.org or http://host:80, me@x.org",
    "sk-circle-fade-dot sk-SK locale sk-learn_pipeline_with_10_steps",
    "client = OpenAI(api_key=os.environ['OPENAI_API_KEY'])",
    "api_key=load_the_secret_from_the_vault_version_2(name)",
    "headers = {'api-key': settings.azure_openai_api_key_for_region_1}",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
    "a file with -----BEGIN PRIVATE KEY----- in its first line",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "ASIAPACIFICDEVELOPMENTS, AKIAH, ASIAN KITCHEN",
    "xai-driven, npm_config_registry=https://registry.npmjs.org, hf_transfer, gsk_, ghp_",
    "pplx-api, nvapi-, fw_version, fw_the_firewall_version_2_of_the_house, dapi, dapibus sit amet, SG.de, tvly-",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, FAQ.About, api_org_chart, ABSKIP",
    "data:image/png;base64," + base64.b64encode(random.Random(1).randbytes(60_000)).decode(),
    base64.urlsafe_b64encode(random.Random(2).randbytes(60_000)).decode(),
    "postgres://shop:pa55word9@localhost:5432/shop and redis://:s3cr3tsauce@127.0.0.1:6379",
    # the example of jwt.io
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIy"
    "fQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    "grandpa-says-2024-was-a-good-year-for-bread pa-rt of fc-barcelona-1899-2024-and-more ek_ jina_embeddings_v3",
    "Möchten Sie Brot für 3 € kaufen? 面包多少钱？ хлеб",
]


@pytest.mark.parametrize(
    "around", ["{}", "A key: {}. Thanks!", '{{"a": "{}"}}', "a\n{}\nb", "a\\n{}\\n", "«{}»"]
)
def test_each_form_of_a_credential_is_found_wherever_it_stands(around: str) -> None:
    """The finding has its kind and its first four characters, and no more of it."""
    for text, kind in FORMS.values():
        whole = around.format(text)
        found = credentials.find(whole)
        assert found is not None, whole
        assert kind in found.kind
        assert found.beginning == whole[found.start : found.end][:4]
        assert text not in repr(found)


@pytest.mark.parametrize("around", ["_{}_", "__{}__"])
def test_a_credential_with_a_mark_is_found_within_emphasis_in_markdown(around: str) -> None:
    """A model's answer, part of the next prompt, may stress what it repeats."""
    for name in ("openai service account", "github fine-grained", "jina"):
        text, kind = FORMS[name]
        found = credentials.find(around.format(text))
        assert found is not None
        assert kind in found.kind


def test_a_long_credential_that_is_used_again_takes_no_other_ones_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limited number of used ones is remembered, by their first characters."""
    monkeypatch.setattr(credentials, "_used", {})
    monkeypatch.setattr(credentials, "MOST_USED", 2)
    short, long = fake(20), fake(60)
    credentials.note_used([short, long, long])
    assert credentials.is_used(short)
    assert credentials.is_used(long)


@pytest.fixture
def nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request has used a credential."""
    monkeypatch.setattr(credentials, "_used", {})


@pytest.mark.parametrize(
    ("variable", "value", "is_credential"),
    [
        ("DB_PASSWORD", "hunter2-and-more", True),
        ("PGPASSWORD", "Tr0ub4dor&3", True),
        ("DJANGO_SECRET_KEY", "x9$k-2mf(0q", True),
        ("JIRA_TOKEN", "ATC0q9w8e7r6", True),
        ("MYSQL_PWD", "pa55word-9", True),
        ("MYSQL_PWD", "<your password>", False),
        ("https_proxy", "http://ada:open%21sesame1@proxy.example:3128", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/home/ada/google-1.json", False),
        ("MAX_TOKENS", "1000000000", False),
        ("SESSION_TOKEN", "12345678", False),
        ("MODEL_TOKEN", "gpt-6-luna-2026", False),
        ("SECRET", "breadcrumbs", False),
        ("HOME", "/home/ada-1815", False),
    ],
)
def test_the_value_of_a_variable_whose_name_says_so_is_a_credential(
    variable: str, value: str, is_credential: bool, nothing_used: None
) -> None:
    """A tool that prints the environment puts it into the next prompt. Paths, words and dummies are none."""
    credentials.note_environment({variable: value})
    assert (credentials.find(f"It is open!sesame1, or {value}.") is not None) is is_credential


@pytest.mark.parametrize(
    ("url", "key", "is_credential"),
    [
        ("http://localhost:8000/v1", "token-abc123", False),
        ("http://localhost:8000/v1", "12345678", False),
        ("http://localhost:4000/v1", "f3a1c05e9b7d4826", True),  # a gateway's own
        ("https://models.example/v1", "token-abc123", True),
        ("https://models.example/v1", "12345678", False),
        ("https://models.example/v1", "alpaca3.1:8b-instruct", True),
        ("https://models.example/v1", "llama-3.1-8b-instruct", False),
    ],
)
def test_a_short_key_that_only_servers_of_this_machine_got_is_none(
    url: str, key: str, is_credential: bool, nothing_used: None
) -> None:
    """Nor is a number, a word or a model's name."""
    request = http.Request("POST", url, headers={"authorization": f"Bearer {key}"})
    credentials.note_request(request, is_local="localhost" in url)
    assert (credentials.find(f"The key is {key}.") is not None) is is_credential


def test_ordinary_text_is_no_credential() -> None:
    """Placeholders, hashes, images, words and code are none."""
    assert [text for text in ORDINARY if credentials.find(text)] == []


@pytest.mark.parametrize(
    ("allow", "passes"),
    [
        ((), False),
        ((r"sk-proj-",), False),
        ((r"",), False),
        ((r"sk-proj-\w+",), True),
        (("nothing", r"key=sk-\S*"), True),
    ],
)
def test_an_expression_of_allow_must_match_the_whole_credential(
    allow: tuple[str, ...], passes: bool
) -> None:
    """A part of it is not enough."""
    text = "key=sk-" + "proj-" + fake(60)
    assert (credentials.find(text, allow) is None) is passes


SECRET = "gh" + "p_" + fake(36)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (
            {"request": {"messages": [{"content": "a"}, {"content": SECRET}]}},
            "request.messages[1].content",
        ),
        ({"response": {"a": {SECRET: 1}}}, "a key of response.a"),
        ({SECRET: 1}, "a key of the data"),
        ({"sample": SECRET}, "sample"),
        ({"request": {"headers": {"api-key": fake(32, HEX)}}}, "request.headers.api-key"),
    ],
)
def test_the_place_of_a_credential_is_named_without_it(data: Any, path: str) -> None:
    """A place is a path into the data; a key that is a secret itself is not in it."""
    with pytest.raises(CacheError, match=r"^record 7: ") as caught:
        credentials.refuse_credentials(data, (), "record 7")
    message = str(caught.value)
    assert f"record 7: {path} contains" in message
    assert "set [Cassette] ALLOW" in message
    assert SECRET[4:] not in message
    assert fake(32, HEX) not in message


@pytest.mark.parametrize(
    ("settings", "record", "place"),
    [
        ({"namespace": SECRET}, {}, r"the header: settings\.namespace"),
        ({}, {"value": ({"a": SECRET},)}, r"record 1: response\.value\[0\]\.a contains"),
    ],
)
def test_a_whole_file_is_searched_for_credentials(settings: Any, record: Any, place: str) -> None:
    """Its header, and results of functions, also in tuples."""
    with pytest.raises(CacheError, match=place):
        list(writer.encode(Header(settings), [function({}, record)]))
