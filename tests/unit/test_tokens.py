"""Counting tokens."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcall.models import tokens
from llmcall.models.tokens import TokenCount, count_tokens, forget, shares
from llmcall.types import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

O200K, CL100K = "fb374d419588a4632f3f557e76b4b70aebbca790", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"

# OpenAI's cookbook, "How to count tokens with tiktoken": its messages and tools, and what the API counted for them.
JARGON = [
    (
        "system",
        None,
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    ("system", "example_user", "New synergies will help drive top-line growth."),
    ("system", "example_assistant", "Things working well together will increase revenue."),
    (
        "system",
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    ),
    ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
    ("user", None, "This late pivot means we don't have time to boil the ocean for the client deliverable."),
]
MESSAGES = [{"role": role, "name": name, "content": content} for role, name, content in JARGON]
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}

# Texts, and how many tokens they are in o200k_base and cl100k_base.
COUNTS = {"English": (96, 97), "German": (117, 158), "Chinese": (118, 186), "code": (129, 129)}
SAMPLES = {
    "English": (
        "The village market opens at six, long before the first bus arrives from the coast. Traders who came the "
        "evening before have already slept under their carts, and by sunrise the price of bread is settled. Nobody "
        "writes it down; everyone remembers what was paid on the previous Saturday and starts from there. When it "
        "rains, the fishermen stay away and the price of vegetables rises by a third. A careful observer would "
        "notice that the loudest seller is rarely the one who sells the most."
    ),
    "German": (
        "Der Markt im Dorf öffnet um sechs, lange bevor der erste Bus von der Küste eintrifft. Händler, die schon "
        "am Vorabend gekommen sind, haben unter ihren Wagen geschlafen, und bei Sonnenaufgang steht der Brotpreis "
        "fest. Niemand schreibt ihn auf; jeder erinnert sich, was am vergangenen Samstag bezahlt wurde, und "
        "beginnt von dort aus zu verhandeln. Bei Regen bleiben die Fischer weg, und die Gemüsepreise steigen um "
        "ein Drittel. Aufmerksame Beobachter bemerken, dass der lauteste Verkäufer selten derjenige ist, der am "
        "meisten verkauft."
    ),
    "Chinese": (
        "村里的集市早上六点开门，那时从海边来的第一班公共汽车还没有到。前一天晚上就到了的商人在自己的车下面睡了一夜，太阳出来的时候，"
        "面包的价格已经定好了。没有人把它写下来，大家都记得上个星期六付了多少钱，然后从那里开始讨价还价。下雨的时候渔民不来，"
        "蔬菜的价格就会上涨三分之一。细心的人会发现，叫卖声最大的人往往不是卖得最多的人。"
    ),
    "code": (
        "def settle(offers: list[Offer], opening: float) -> dict[str, float]:\n"
        '    """Return the price at which each item changes hands."""\n'
        "    prices: dict[str, float] = {}\n"
        "    for offer in sorted(offers, key=lambda o: (o.item, -o.price)):\n"
        "        if offer.item not in prices and offer.price >= 0.75 * opening:\n"
        "            prices[offer.item] = round(offer.price, 2)\n"
        "        elif offer.urgent:\n"
        "            prices.setdefault(offer.item, opening)\n"
        "    return {item: price for item, price in prices.items() if price > 0}\n"
    ),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start each test without a vocabulary of tiktoken's, and fail whatever opens a socket."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "nothing"))
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def bpe() -> None:
    """Skip where the extra ``offline`` is not installed."""
    pytest.importorskip("bpe_openai", reason="needs the extra `offline`")


@pytest.fixture(scope="module")
def real_vocabularies() -> Path:
    """Find the true files of o200k_base and cl100k_base under the names that tiktoken gives them."""
    spec = importlib.util.find_spec("llama_index")
    folders = [
        Path(folder, "core/_static/tiktoken_cache")
        for folder in (spec.submodule_search_locations if spec else None) or ()
    ]
    named = os.environ.get("LLMCALL_TEST_VOCABULARIES")
    for folder in [Path(named)] if named else folders:
        if (folder / O200K).exists() and (folder / CL100K).exists():
            return folder
    pytest.skip("needs LLMCALL_TEST_VOCABULARIES, a folder with tiktoken's files, or an installed llama-index-core")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Make o200k_base a vocabulary of single bytes, found nowhere yet; every text has as many tokens as bytes."""
    pytest.importorskip("tiktoken")
    import base64

    data = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
    vocabulary = tokens._Vocabulary("tiny", hashlib.sha256(data).hexdigest(), r"[\s\S]+")
    monkeypatch.setattr(tokens, "_VOCABULARIES", {"o200k_base": vocabulary, "p50k_base": vocabulary})
    monkeypatch.setattr(tokens, "_bpe_openai", lambda name: None)
    monkeypatch.setattr(tokens, "_SHIPPED_IN", {})
    return data


@pytest.mark.parametrize(("estimated", "shown"), [(False, "12"), (True, "~12")])
def test_token_count(estimated: bool, shown: str) -> None:
    """A count is an ``int`` that shows whether it is an estimate and survives copying and pickling."""
    count = TokenCount(12, estimated)
    assert (count, count.estimated, repr(count), str(count), f"{count}", json.dumps(count)) == (
        12,
        estimated,
        shown,
        "12",
        "12",
        "12",
    )
    for other in (pickle.loads(pickle.dumps(count)), copy.copy(count), copy.deepcopy(count)):
        assert (other, other.estimated, isinstance(other, TokenCount)) == (12, estimated, True)
    assert type(count + 1) is type(sum([count, count])) is int
    assert hash(count) == hash(12)


@pytest.mark.parametrize("language", SAMPLES)
def test_text_is_exact(language: str, bpe: None) -> None:
    """Texts are counted exactly in the encoding of the model, or the one that is given."""
    expected = COUNTS[language]
    for count, tokens_expected in zip(
        (count_tokens(SAMPLES[language], model) for model in ("gpt-4o", "gpt-4")), expected, strict=True
    ):
        assert (count, count.estimated) == (tokens_expected, False)
    assert count_tokens(SAMPLES[language], "some-model", encoding="cl100k_base") == expected[1]
    assert count_tokens(SAMPLES[language], "gpt-oss-20b") == expected[0], "o200k_harmony differs in special tokens only"


@pytest.mark.parametrize("language", SAMPLES)
def test_estimate_is_near(language: str) -> None:
    """The estimate is within a fifth of o200k_base in each language, which a quarter of the length is not."""
    count = count_tokens(SAMPLES[language], "some-model")
    assert count.estimated
    assert abs(count / COUNTS[language][0] - 1) < 0.2


def test_estimate_beats_a_quarter_of_the_length() -> None:
    """The worst error of the estimate is far below that of the usual rule of thumb."""
    worst = max(abs(count_tokens(SAMPLES[name], "some-model") / COUNTS[name][0] - 1) for name in SAMPLES)
    assert worst < max(abs(len(SAMPLES[name]) / 4 / COUNTS[name][0] - 1) for name in SAMPLES) / 3


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-3.5-turbo", 129),
        ("gpt-4-0613", 129),
        ("gpt-4", 129),
        ("gpt-4o", 124),
        ("gpt-4o-mini", 124),
        ("gpt-3.5-turbo-0301", 127),
    ],
)
def test_framing_as_the_api_counted(model: str, expected: int, bpe: None) -> None:
    """Messages are framed as OpenAI's cookbook says; 127 is its published count for gpt-3.5-turbo-0301."""
    count = count_tokens(MESSAGES, model)
    assert (count, count.estimated) == (expected, False)


@pytest.mark.parametrize(
    ("model", "expected"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)]
)
def test_tools_as_the_api_counted(model: str, expected: int, bpe: None) -> None:
    """Tools cost what the API counted in OpenAI's cookbook, and are called an estimate."""
    assert repr(count_tokens(WEATHER, model, tools=[WEATHER_TOOL])) == f"~{expected}"


def test_nested_and_custom_tools() -> None:
    """Nested properties and tools of other kinds count, and nothing in a schema is required."""
    plain = {"type": "function", "function": {"name": "f"}}
    nested = {"properties": {"a": {"type": "array", "items": {"properties": {"b": {"type": ["string", "null"]}}}}}}
    counts = [
        count_tokens([], "gpt-4o", tools=chosen)
        for chosen in (
            None,
            [plain],
            [{"function": {"name": "f", "parameters": nested}}],
            [plain, {"type": "custom", "custom": {"name": "lark"}}],
        )
    ]
    assert counts[0] == 3
    assert counts[0] < counts[1] < min(counts[2:])


@pytest.mark.parametrize("model", ["gpt-5", "o1", "llama3", ""])
def test_unpublished_framing_is_an_estimate(model: str, bpe: None) -> None:
    """Messages are an estimate where the framing is unpublished, although the text itself may be exact."""
    assert count_tokens(WEATHER, model).estimated
    assert count_tokens("Hello", "gpt-5").estimated is False
    assert count_tokens(WEATHER, "llama3", encoding="o200k_base").estimated


def test_reply_counts_as_its_message(bpe: None) -> None:
    """A reply is counted as the message that it is."""
    message = {"role": "assistant", "content": "Yes, at once."}
    reply = Reply(message)
    assert count_tokens([reply], "gpt-4o") == count_tokens([message], "gpt-4o") == 3 + 3 + 1 + 5


@pytest.mark.parametrize(
    ("model", "part", "expected"),
    [
        ("gpt-4o", {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}, 85),
        ("gpt-4o", {"type": "image_url", "image_url": {"url": "https://a/b.png"}}, 765),
        ("gpt-4o", {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "high"}}, 765),
        ("gpt-4o-mini-2024-07-18", {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}, 2833),
        ("gpt-4o-mini", {"type": "image_url", "image_url": {"url": "u", "detail": "high"}}, 25501),
        ("gpt-4o", {"type": "file", "file": {"file_id": "f"}}, 765),
        ("gpt-audio", {"type": "input_audio", "input_audio": {"data": "A" * 64000, "format": "wav"}}, 11),
    ],
)
def test_parts_that_are_no_text(model: str, part: dict[str, Any], expected: int) -> None:
    """Images, files and audio cost a documented constant, which is an estimate."""
    without = count_tokens([{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}], model)
    count = count_tokens([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}], model)
    assert (count - without, count.estimated) == (expected, True)


def test_text_parts_are_exact(bpe: None) -> None:
    """A message in parts of text counts like one with their texts, and a refusal counts."""
    parts = [{"type": "text", "text": "Yes,"}, {"type": "refusal", "refusal": " at once."}]
    count = count_tokens([{"role": "assistant", "content": parts}], "gpt-4o")
    assert (count, count.estimated) == (3 + 3 + 1 + 5, False)
    assert count_tokens([{"role": "assistant", "content": None, "refusal": "No."}], "gpt-4o") == 3 + 3 + 1 + 2


def test_part_of_unknown_kind_is_not_free() -> None:
    """A part of a kind that is not known counts by its JSON."""
    empty = count_tokens([{"role": "user", "content": []}], "gpt-4o")
    assert count_tokens([{"role": "user", "content": [{"type": "video", "url": "a b c d"}]}], "gpt-4o") > empty + 5


@pytest.mark.parametrize(
    "calls",
    [
        {
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "the sky"}'}}
            ]
        },
        {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "look", "input": '{"at": "the sky"}'}}]},
        {"function_call": {"name": "look", "arguments": '{"at": "the sky"}'}},
    ],
)
def test_tool_calls_count(calls: dict[str, Any], bpe: None) -> None:
    """The calls in a message count by name and arguments, as an estimate."""
    bare = count_tokens([{"role": "assistant", "content": None}], "gpt-4o")
    count = count_tokens([{"role": "assistant", "content": None, **calls}], "gpt-4o")
    assert (count - bare, count.estimated) == (3 + 1 + count_tokens('{"at": "the sky"}', "gpt-4o"), True)


@pytest.mark.parametrize("wrong", [["text"], [3], [{"role": "user", "content": ["text"]}]])
def test_wrong_messages(wrong: Any) -> None:
    """What is no message is a TypeError that says so."""
    with pytest.raises(TypeError, match="expected a dictionary"):
        count_tokens(wrong, "gpt-4o")


@pytest.mark.parametrize("wrong", [5, None, b"text", {"role": "user", "content": "text"}])
def test_neither_text_nor_messages(wrong: Any) -> None:
    """What cannot be counted is a TypeError that says what can."""
    with pytest.raises(TypeError, match=f"a text or a list of messages, not of the type {type(wrong).__name__}"):
        count_tokens(wrong, "gpt-4o")


def test_special_tokens_are_text(bpe: None) -> None:
    """The name of a special token is ordinary text, in each encoding."""
    assert [count_tokens("<|endoftext|>", model) for model in ("gpt-4o", "gpt-4", "gpt-oss-20b")] == [7, 7, 7]


def test_lone_surrogates_count(bpe: None) -> None:
    """A text that is no valid Unicode is counted, not refused."""
    assert count_tokens("a\ud800b", "gpt-4o") == count_tokens("a\ufffdb", "gpt-4o")
    assert count_tokens("a\ud800b", "some-model") > 0


def test_long_text_is_exact(bpe: None) -> None:
    """A text of more than a million characters and 200,000 tokens is counted exactly."""
    count = count_tokens(" word" * 210_000, "gpt-4o")
    assert (count, count.estimated) == (210_000, False)


@given(st.text(), st.sampled_from(["gpt-4o", "gpt-6-astra", "x", "o1", "gpt-4-vision-preview"]))
@settings(deadline=None)
def test_any_text_is_counted(text: str, model: str) -> None:
    """Every text has a count for every model; only the empty one has none."""
    assert (count_tokens(text, model) > 0) is bool(text)


def test_file_in_the_cache_folder(tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary is found where tiktoken keeps it, by the first of its two variables, once asked again."""
    assert count_tokens("größer", "gpt-4o").estimated
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
        monkeypatch.delenv({"DATA_GYM_CACHE_DIR": "TIKTOKEN_CACHE_DIR"}.get(variable, ""), raising=False)
        (tmp_path / "tiny").write_bytes(tiny)
        assert count_tokens("größer", "gpt-4o").estimated, "looked for once"
        forget()
        count = count_tokens("größer", "gpt-4o")
        assert (count, count.estimated) == (8, False)
        assert count_tokens("größer", "x", encoding="p50k_edit") == 8
        assert os.listdir(tmp_path) == ["tiny"]
        (tmp_path / "tiny").unlink()
        forget()
        assert count_tokens("größer", "gpt-4o").estimated


def test_file_in_the_folder_for_temporary_files(tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a variable, tiktoken's folder is the one for temporary files; an empty variable means none."""
    (tmp_path / "data-gym-cache").mkdir()
    (tmp_path / "data-gym-cache" / "tiny").write_bytes(tiny)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    assert repr(count_tokens("größer", "gpt-4o")) == "8"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    forget()
    assert count_tokens("größer", "gpt-4o").estimated


@pytest.mark.parametrize("damage", [b"", b"x", b"not base64 at all\n"])
def test_damaged_file_is_left_alone(
    damage: bytes, tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file with other content is neither used nor removed, and named once in the log."""
    content = tiny[: -len(damage) or None] + damage if damage else b""
    (tmp_path / "tiny").write_bytes(content)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert [count_tokens("größer", "gpt-4o").estimated for _ in range(2)] == [True, True]
    assert (tmp_path / "tiny").read_bytes() == content
    assert os.listdir(tmp_path) == ["tiny"]
    assert caplog.text.count(str(tmp_path / "tiny")) == 1


def test_damaged_file_does_not_hide_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpe: None) -> None:
    """Where tiktoken's file is damaged, the extra ``offline`` still counts exactly."""
    (tmp_path / O200K).write_bytes(b"damaged")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert repr(count_tokens("tiktoken is great!", "gpt-4o")) == "6"
    assert (tmp_path / O200K).read_bytes() == b"damaged"


def test_folder_in_place_of_the_file(tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is passed over."""
    (tmp_path / "tiny").mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert count_tokens("größer", "gpt-4o").estimated


@pytest.mark.parametrize(
    ("package", "inside"),
    [("llama_index", "core/_static/tiktoken_cache"), ("litellm", "litellm_core_utils/tokenizers")],
)
def test_file_in_another_package(
    package: str, inside: str, tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary that another package ships is used without importing that package."""
    monkeypatch.setattr(tokens, "_SHIPPED_IN", {package: inside})
    folder = tmp_path / package / inside
    folder.mkdir(parents=True)
    (folder / "tiny").write_bytes(tiny)
    (tmp_path / package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package, raising=False)
    assert repr(count_tokens("größer", "gpt-4o")) == "8"


def test_stand_in_for_a_package(tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that somebody put into ``sys.modules`` by hand is passed over."""
    monkeypatch.setattr(tokens, "_SHIPPED_IN", {"stand_in": "."})
    monkeypatch.setitem(sys.modules, "stand_in", type(sys)("stand_in"))
    assert count_tokens("größer", "gpt-4o").estimated


def test_threads_load_once(tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that count at the same time share one load and agree."""
    (tmp_path / "tiny").write_bytes(tiny)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    loads: list[str] = []
    load = tokens._ranks

    def loading(path: str, digest: str) -> dict[bytes, int] | None:
        loads.append(path)
        return load(path, digest)

    monkeypatch.setattr(tokens, "_ranks", loading)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: count_tokens("größer", "gpt-4o"), range(64)))
    assert (set(counts), len(loads)) == ({8}, 1)


def test_threads_with_the_extra(bpe: None) -> None:
    """The extra's counter may be used by every thread."""
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: count_tokens(SAMPLES["German"], "gpt-4o"), range(64))) == {117}


def test_names_and_digests_are_those_of_tiktoken() -> None:
    """The files' names, their digests and the oldest pattern are what the installed tiktoken says."""
    public = pytest.importorskip("tiktoken_ext.openai_public")
    source = Path(public.__file__).read_text(encoding="utf-8")
    for name, vocabulary in tokens._VOCABULARIES.items():
        address = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
        assert vocabulary.file == hashlib.sha1(address.encode()).hexdigest()
        assert address in source
        assert vocabulary.digest in source
    assert tokens._VOCABULARIES["r50k_base"].pattern == public.r50k_pat_str


@pytest.fixture(scope="module", params=["o200k_base", "cl100k_base"])
def rivals(request: pytest.FixtureRequest, real_vocabularies: Path, bpe: None) -> list[Callable[[str], int]]:
    """Give three counters of one encoding: ours on tiktoken's file, the extra's, and tiktoken as it comes."""
    tiktoken = pytest.importorskip("tiktoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(real_vocabularies))
        official = tiktoken.get_encoding(request.param)
    ours = tokens._tiktoken(request.param, str(real_vocabularies))
    extra = tokens._bpe_openai(request.param)
    assert ours is not None
    assert extra is not None
    return [ours, extra, lambda text: len(official.encode_ordinary(text))]


@given(text=st.text(max_size=80) | st.text(alphabet="aB'sé ß\n\t\r 0123/!.,中あ한й🙂\u200d\u0301", max_size=60))
@settings(
    deadline=None, max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_all_counters_agree(rivals: list[Callable[[str], int]], text: str) -> None:
    """On any Unicode text the sources agree with tiktoken, and so it does not matter which one is at hand."""
    ours, extra, official = (count(text) for count in rivals)
    assert ours == extra == official


def test_real_file_counts(real_vocabularies: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With tiktoken's true files, texts and messages are exact without the extra, and no file is touched."""
    pytest.importorskip("tiktoken")
    for name in (O200K, CL100K):
        shutil.copy(real_vocabularies / name, tmp_path)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tokens, "_bpe_openai", lambda name: None)
    assert [repr(count_tokens(MESSAGES, model)) for model in ("gpt-4o", "gpt-4")] == ["124", "129"]
    assert sorted(os.listdir(tmp_path)) == sorted([O200K, CL100K])


@given(st.integers(0, 10**9), st.lists(st.text(max_size=30), min_size=1, max_size=20))
def test_shares(total: int, texts: list[str]) -> None:
    """Shares sum to the total, and each is the exact proportion rounded down or up."""
    parts, whole = shares(total, texts), sum(map(len, texts))
    assert sum(parts) == total
    for part, text in zip(parts, texts, strict=True):
        weight, of = (len(text), whole) if whole else (1, len(texts))
        assert total * weight // of <= part <= -(-total * weight // of)


@pytest.mark.parametrize(
    ("total", "texts", "expected"),
    [(10, ["aa", "b"], [7, 3]), (5, ["", ""], [3, 2]), (0, [], []), (3, ["a", "", "b"], [2, 0, 1]), (0, ["a"], [0])],
)
def test_shares_by_largest_remainder(total: int, texts: list[str], expected: list[int]) -> None:
    """The tokens left over go to the largest remainders, the earlier text first."""
    assert shares(total, texts) == expected


@pytest.mark.parametrize(("total", "texts"), [(-1, ["a"]), (1, [])])
def test_shares_that_cannot_be(total: int, texts: list[str]) -> None:
    """A negative total, or tokens without a text, is a ValueError."""
    with pytest.raises(ValueError, match="cannot share"):
        shares(total, texts)


def test_import_and_estimate_are_light() -> None:
    """Neither the import nor an estimate imports tiktoken or the extra."""
    code = (
        "import sys, llmcall.models.tokens as t; assert t.count_tokens('hello', 'some-model').estimated;"
        "assert not {'tiktoken', 'bpe_openai', 'requests', 'openai', 'logging', 'tempfile'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
