"""Counting tokens: as the API counts where that is known, near it elsewhere, and never by the
network.

``llmcall.models.vocabularies`` is imported for its tokenizers, which are compared with tiktoken's.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public
from hypothesis import given
from hypothesis import strategies as st

from llmcall import count_tokens
from llmcall.models import tokens, vocabularies
from llmcall.models.tokens import TokenCount
from llmcall.testing import ScriptedClient

# Messages and tools of OpenAI's cookbook, "How to count tokens with tiktoken", whose counts by the
# API stand there; and texts in several languages with how many tokens they are in each encoding.
GIVEN = json.loads((Path(__file__).parent / "token_samples.json").read_text(encoding="utf-8"))
TEXTS = GIVEN["texts"]
O200K_FILE = "fb374d419588a4632f3f557e76b4b70aebbca790"  # as tiktoken calls it in its folder


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    """Start each test without a vocabulary."""
    vocabularies.found_counter.cache_clear()
    yield
    vocabularies.found_counter.cache_clear()


@pytest.fixture(scope="module")
def bpe() -> None:
    """Skip where the extra ``offline`` is not installed."""
    pytest.importorskip("bpe_openai", reason="needs the extra `offline`")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Make o200k_base a vocabulary of single bytes, found nowhere yet, and return the content of
    its file.
    """
    encoding = tiktoken.Encoding(
        "tiny",
        pat_str=r"[\s\S]+",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)
    monkeypatch.setattr(
        vocabularies, "_DIGESTS", {"o200k_base": hashlib.sha256(b"tiny").hexdigest()}
    )
    monkeypatch.setitem(sys.modules, "bpe_openai._bindings", None)
    return b"tiny"


def user(*parts: Any) -> list[dict[str, Any]]:
    """Return one user message of some parts."""
    return [{"role": "user", "content": list(parts)}]


# The number


@pytest.mark.parametrize(("estimated", "shown"), [(False, "12"), (True, "~12")])
def test_a_count_is_a_number(estimated: bool, shown: str) -> None:
    """It is an ``int`` that shows whether it is an estimate, and survives copying and pickling."""
    count = TokenCount(12, estimated)
    assert (count, repr(count), str(count), json.dumps(count), hash(count)) == (
        12,
        shown,
        "12",
        "12",
        hash(12),
    )
    for other in (pickle.loads(pickle.dumps(count)), copy.copy(count), copy.deepcopy(count)):
        assert (other, other.estimated, type(other)) == (12, estimated, type(count))
    assert type(count + 1) is type(sum([count, count])) is int


# Texts


@pytest.mark.parametrize("language", TEXTS)
def test_texts(language: str, bpe: None) -> None:
    """Texts are counted exactly in the model's encoding; of an unknown model the estimate is within
    a fifth.
    """
    text, o200k, cl100k = TEXTS[language].values()
    assert [repr(count_tokens(text, model)) for model in ("gpt-4o", "gpt-4", "gpt-oss-20b")] == [
        str(o200k),
        str(cl100k),
        str(o200k),
    ]
    estimate = count_tokens(text, "some-model")
    assert estimate.estimated and abs(estimate / o200k - 1) < 0.2


def test_texts_of_all_kinds(bpe: None) -> None:
    """The names of special tokens are text, and long texts are counted exactly, once for all
    threads.
    """
    assert [
        count_tokens("<|endoftext|>", model) for model in ("gpt-4o", "gpt-4", "gpt-oss-20b")
    ] == [7, 7, 7]
    assert repr(count_tokens(" word" * 210_000, "gpt-4o")) == "210000"
    with ThreadPoolExecutor(8) as pool:
        assert set(
            pool.map(lambda _: count_tokens(TEXTS["German"]["text"], "gpt-4o"), range(64))
        ) == {117}


@given(st.text(), st.sampled_from(["gpt-4o", "gpt-6-astra", "x", "o1", "gpt-4-vision-preview"]))
def test_any_text_is_counted(text: str, model: str) -> None:
    """Every text has a count for every model; only the empty one has none."""
    assert (count_tokens(text, model) > 0) is bool(text)


@pytest.mark.parametrize("wrong", [5, b"text", {"role": "user"}, ["text"]])
def test_neither_text_nor_messages(wrong: Any) -> None:
    """What cannot be counted is a TypeError that says what can."""
    with pytest.raises(TypeError, match=r"a string or a list of messages, not"):
        count_tokens(wrong, "gpt-4o")


# Messages


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)],
)
def test_framing_as_the_api_counted(model: str, expected: int, bpe: None) -> None:
    """Messages are framed as OpenAI's cookbook says, whose counts by the API these are."""
    assert repr(count_tokens(GIVEN["jargon"], model)) == str(expected)
    assert (
        count_tokens(GIVEN["jargon"], "gpt-5").estimated
        and count_tokens(GIVEN["jargon"], "llama3").estimated
    )


@pytest.mark.parametrize(("model", "expected"), [("gpt-4", 105), ("gpt-4o", 101)])
def test_tools_cost_not_less_than_the_api_counted(model: str, expected: int, bpe: None) -> None:
    """Tools cost their JSON, which is more than the API counted in OpenAI's cookbook, and are
    called an estimate.
    """
    count = tokens.count_tokens(GIVEN["weather"], model, tools=[GIVEN["weather_tool"]])
    assert expected <= count < 2 * expected and count.estimated


@pytest.mark.parametrize(
    ("model", "part", "expected"),
    [
        (
            "gpt-4o",
            {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
            85,
        ),
        ("gpt-4o", {"type": "image_url", "image_url": {"url": "https://a/b.png"}}, 765),
        (
            "gpt-4o-mini-2024-07-18",
            {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
            2833,
        ),
        ("gpt-4o-mini", {"type": "image_url", "image_url": {"url": "u", "detail": "high"}}, 25501),
        ("gpt-4o", {"type": "file", "file": {"file_id": "f"}}, 765),
        (
            "gpt-audio",
            {"type": "input_audio", "input_audio": {"data": "A" * 64000, "format": "wav"}},
            11,
        ),
    ],
)
def test_parts_that_are_no_text(model: str, part: dict[str, Any], expected: int) -> None:
    """Images, files and audio cost a documented constant, which is an estimate; what is unknown
    costs its JSON.
    """
    text = {"type": "text", "text": "What is it?"}
    count = count_tokens(user(text, part), model)
    assert (count - count_tokens(user(text), model), count.estimated) == (expected, True)
    assert (
        count_tokens(user({"type": "video", "url": "a b c d"}), model)
        > count_tokens(user(), model) + 5
    )


def test_parts_of_text_and_calls(bpe: None) -> None:
    """Parts of text count like one with their texts, as do a reply and a refusal; calls count by
    name and arguments.
    """
    parts = [{"type": "text", "text": "Yes,"}, {"type": "refusal", "refusal": " at once."}]
    message = {"role": "assistant", "content": "Yes, at once."}
    reply = ScriptedClient([message]).send_message("?", on_error="raise")
    for asked in ([message], [reply], [{"role": "assistant", "content": parts}]):
        assert repr(count_tokens(asked, "gpt-4o")) == "12"
    assert (
        count_tokens([{"role": "assistant", "content": None, "refusal": "No."}], "gpt-4o")
        == 3 + 3 + 1 + 2
    )
    arguments = '{"at": "the sky"}'
    for calls in (
        {
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "look", "arguments": arguments},
                }
            ]
        },
        {
            "tool_calls": [
                {"id": "1", "type": "custom", "custom": {"name": "look", "input": arguments}}
            ]
        },
        {"function_call": {"name": "look", "arguments": arguments}},
    ):
        count = count_tokens([{"role": "assistant", "content": None, **calls}], "gpt-4o")
        assert (count, count.estimated) == (
            3 + 3 + 1 + 3 + 1 + count_tokens(arguments, "gpt-4o"),
            True,
        )


# Vocabularies


def test_where_a_vocabulary_is_found(
    tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found where tiktoken keeps it, if it is whole: by its two variables, then in the
    temporary folder.
    """
    places = [tmp_path / "a", tmp_path / "b", tmp_path / "data-gym-cache"]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(places[0]))
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(places[1]))
    for place, variable in zip(
        places, ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", ""), strict=True
    ):
        vocabularies.found_counter.cache_clear()
        assert count_tokens("größer", "gpt-4o").estimated
        place.mkdir()
        (place / O200K_FILE).write_bytes(b"damaged")
        vocabularies.found_counter.cache_clear()
        assert count_tokens("größer", "gpt-4o").estimated
        (place / O200K_FILE).write_bytes(tiny)
        assert count_tokens("größer", "gpt-4o").estimated, "looked for once"
        vocabularies.found_counter.cache_clear()
        assert repr(count_tokens("größer", "gpt-4o")) == "8" and os.listdir(place) == [O200K_FILE]
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # tiktoken keeps nothing then
    vocabularies.found_counter.cache_clear()
    assert count_tokens("größer", "gpt-4o").estimated


def test_names_and_digests_are_those_of_tiktoken() -> None:
    """The files' names and their digests are what the installed tiktoken says."""
    source = Path(tiktoken_ext.openai_public.__file__).read_text(encoding="utf-8")
    for name, digest in vocabularies._DIGESTS.items():
        assert vocabularies._ADDRESS.format(name) in source and digest in source
