"""Counting tokens: as the API counts where that is known, near it elsewhere, and never by the
network.

``llmcall.models.tokens`` is imported for its tokenizers, which are compared with tiktoken's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public
from hypothesis import given
from hypothesis import strategies as st

from llmcall import count_tokens
from llmcall.models import tokens
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
    tokens.loaded_counter.cache_clear()
    yield
    tokens.loaded_counter.cache_clear()


def user(*parts: Any) -> list[dict[str, Any]]:
    """Return one user message of some parts."""
    return [{"role": "user", "content": list(parts)}]


# The number


COUNTS = pytest.mark.parametrize("estimated", [False, True])


@COUNTS
def test_a_count_of_tokens_is_an_int(estimated: bool) -> None:
    """Its text, JSON and hash are those of the number; sums are plain numbers."""
    count = TokenCount(12, estimated)
    assert (count, str(count), json.dumps(count), hash(count)) == (12, "12", "12", hash(12))
    assert type(count + 1) is type(sum([count, count])) is int


# Texts


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_is_counted_exactly_in_the_models_encoding(language: str) -> None:
    text, o200k, cl100k = TEXTS[language].values()
    for model, expected in (("gpt-4o", o200k), ("gpt-4", cl100k), ("gpt-oss-20b", o200k)):
        assert repr(count_tokens(text, model)) == str(expected)


@pytest.mark.parametrize("language", TEXTS)
def test_the_estimate_for_an_unknown_model_is_near(language: str) -> None:
    """Within a fifth of the exact count of another model."""
    text, o200k, _ = TEXTS[language].values()
    estimate = count_tokens(text, "some-model")
    assert estimate.estimated
    assert abs(estimate / o200k - 1) < 0.2


def test_a_long_text_is_counted_exactly() -> None:
    assert repr(count_tokens(" word" * 210_000, "gpt-4o")) == "210000"


@given(st.text(), st.sampled_from(["gpt-4o", "gpt-6-astra", "x", "o1", "gpt-4-vision-preview"]))
def test_only_the_empty_text_has_no_tokens(text: str, model: str) -> None:
    """Every other one has some, for every model."""
    assert (count_tokens(text, model) > 0) is bool(text)


@pytest.mark.parametrize("wrong", [5, b"text", {"role": "user"}, ["text"]])
def test_counting_tokens_of_other_than_text_or_messages_is_an_error(wrong: Any) -> None:
    """The error says what can be counted."""
    with pytest.raises(TypeError, match=r"a string or a list of messages, not"):
        count_tokens(wrong, "gpt-4o")


# Messages


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)],
)
def test_messages_are_framed_as_the_api_counted(model: str, expected: int) -> None:
    """OpenAI's cookbook has these counts of the API."""
    assert repr(count_tokens(GIVEN["jargon"], model)) == str(expected)


def test_half_a_character_counts_as_tiktoken_counts_it() -> None:
    """tiktoken's documentation of ``encode``: lone surrogates become U+FFFD."""
    assert count_tokens("a\ud800", "gpt-4o") == count_tokens("a\ufffd", "gpt-4o")


@pytest.mark.parametrize("model", ["gpt-5", "llama3"])
def test_messages_for_a_model_of_unknown_framing_are_an_estimate(model: str) -> None:
    """Nobody has published how the API counts them."""
    assert count_tokens(GIVEN["jargon"], model).estimated


@pytest.mark.parametrize(("model", "expected"), [("gpt-4", 105), ("gpt-4o", 101)])
def test_tools_cost_not_less_than_the_api_counted(model: str, expected: int) -> None:
    """They cost their JSON, which is more than the API counted in OpenAI's cookbook: an estimate."""
    count = tokens.count_tokens(GIVEN["weather"], model, tools=[GIVEN["weather_tool"]])
    assert expected <= count < 2 * expected
    assert count.estimated


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
def test_images_files_and_audio_cost_a_documented_constant(
    model: str, part: dict[str, Any], expected: int
) -> None:
    text = {"type": "text", "text": "What is it?"}
    count = count_tokens(user(text, part), model)
    assert count - count_tokens(user(text), model) == expected
    assert count.estimated


@pytest.mark.parametrize("size", [1_000, 1_000_000])
def test_a_video_in_a_data_url_does_not_count_as_its_letters(size: int) -> None:
    """As a file, with the words around it; an estimate."""
    video = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{'A' * size}"}}
    count = count_tokens(user(video), "gpt-4o")
    assert 765 < count < 900
    assert count.estimated


def test_a_message_in_parts_and_a_reply_count_like_their_text() -> None:
    """A refusal among the parts too."""
    parts = [{"type": "text", "text": "Yes,"}, {"type": "refusal", "refusal": " at once."}]
    message = {"role": "assistant", "content": "Yes, at once."}
    reply = ScriptedClient([message]).send_message("?", on_error="raise")
    for asked in ([message], [reply], [{"role": "assistant", "content": parts}]):
        assert repr(count_tokens(asked, "gpt-4o")) == "12"


ARGUMENTS = '{"at": "the sky"}'


def test_arguments_of_a_tool_call_count_as_text_or_as_an_object() -> None:
    """Ollama's own API has objects."""
    counts = [
        count_tokens([{"role": "assistant", "tool_calls": [{"function": function}]}], "gpt-4o")
        for function in (
            {"name": "look", "arguments": ARGUMENTS},
            {"name": "look", "arguments": json.loads(ARGUMENTS)},
        )
    ]
    assert counts[0] == counts[1] > 0


# Vocabularies


@pytest.fixture(params=["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "the temporary folder"])
def vocabulary(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The place of a vocabulary's file, in a folder in which tiktoken keeps it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    folder = tmp_path / "data-gym-cache"
    if request.param.isupper():
        folder = tmp_path / "own"
        monkeypatch.setenv(request.param, str(folder))
    folder.mkdir()
    return folder / O200K_FILE


def test_a_vocabulary_is_found_where_tiktoken_keeps_it(
    vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its two variables, else in the temporary folder; nothing is written there."""
    encoding = tiktoken.Encoding(
        "tiny",
        pat_str=r"[\s\S]+",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)
    monkeypatch.setattr(tokens, "_DIGESTS", {"o200k_base": hashlib.sha256(b"tiny").hexdigest()})
    monkeypatch.setitem(sys.modules, "bpe_openai._bindings", None)
    vocabulary.write_bytes(b"tiny")
    assert repr(count_tokens("größer", "gpt-4o")) == "8"
    assert os.listdir(vocabulary.parent) == [O200K_FILE]


def test_names_and_digests_are_those_of_tiktoken() -> None:
    """The files' names and their digests are what the installed tiktoken says."""
    source = Path(tiktoken_ext.openai_public.__file__).read_text(encoding="utf-8")
    for name, digest in tokens._DIGESTS.items():
        assert tokens._ADDRESS.format(name) in source
        assert digest in source
