"""Keys: pinned digests, what matters to a key, and what does not. Run as a program, it prints the
pinned ones.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pydantic
import pytest
from commands import LONGEST
from hypothesis import given
from hypothesis import strategies as st

import llmcall
from llmcall.testing import ScriptedClient

HISTORY = [
    {"role": "system", "content": "You sell bread. Käse gibt es nebenan: 🧀"},
    {"role": "user", "content": "How much?"},
    {"role": "assistant", "content": "3 coins."},
    {"role": "user", "content": "Cafe\u0301, Caf\u00e9,\tspäť\r\n"},
]
IMAGES = (
    {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
    {"url": "https://example.com/a.png"},
)
PICTURE = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What is this?"},
        *({"type": "image_url", "image_url": image} for image in IMAGES),
    ],
}
PARAMETERS = {
    "type": "object",
    "required": ["item"],
    "properties": {
        "item": {"type": "string"},
        "count": {"type": "integer", "minimum": 1.0, "default": None},
    },
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "price_of", "description": "Look up a price.", "parameters": PARAMETERS},
}
CALLED = [
    {
        "id": "c1",
        "type": "function",
        "function": {"name": "price_of", "arguments": '{"item":"bread"}'},
    }
]
USED_TOOL = [
    {"role": "user", "content": "Bread?"},
    {"role": "assistant", "content": None, "tool_calls": CALLED},
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
]
SAMPLING = {
    "temperature": 0.7,
    "max_tokens": 50,
    "top_p": 0.95,
    "frequency_penalty": -0.5,
    "presence_penalty": 1,
    "stop": ["\n", "END"],
    "seed": 42,
    "n": 2,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 3,
}
PNG = base64.b64encode(bytes(range(200))).decode()
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, max_size=12)
DATA = st.recursive(
    st.integers(-1000, 1000) | st.floats(-1000, 1000) | TEXTS | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1, max_length=40)
    price: float = pydantic.Field(gt=0, le=1000)


class Decision(pydantic.BaseModel):
    """Decide what to buy."""

    buys: bool
    items: list[Item]
    mood: Mood = Mood.GLAD
    words: str | None = pydantic.Field(default=None, description="What is said aloud")


def buy(
    baskets: dict[str, set[str]] = {"Ada": {"bread", "salt", "fish"}},  # noqa: B006
    most: float = math.inf,
) -> str:
    """Buy some baskets."""
    raise NotImplementedError


def price_of(item: str, count: int = 1) -> float:
    """Look up a price."""
    raise NotImplementedError


def asked(messages: Any = "Hello", settings: Any = None, **arguments: Any) -> str:
    """Return the key of a request to a named model; that of its second call, which uses what the first prepared."""
    client = ScriptedClient(**(settings or {}))
    arguments = {"model": "gpt-4o-mini", **arguments}
    client.build_request("another", **arguments)
    return client.build_request(messages, **arguments).cache_key


def embedded(text: str, **arguments: Any) -> str:
    """Return the key of an embedding, likewise."""
    client = ScriptedClient([[1.0]] * 2)
    for asked_text in ("another", text):
        client.get_embedding(asked_text, "text-embedding-3-small", **arguments)
    return client.requests[1].cache_key


def drawn() -> str:
    """Return the key of the second of two equal requests in a nested scope."""
    client = ScriptedClient(["one"])
    with llmcall.scope("trial-3"), llmcall.scope("lisa"):
        client.send_message("Hello", model="gpt-4o-mini")
        return client.build_request("Hello", model="gpt-4o-mini").cache_key


# A change here makes every recorded answer unfindable: raise KEY_VERSION.
GOLDEN: dict[str, tuple[Callable[[], str], str]] = {
    "one message": (asked, "3ac4e67215523b6c531162ff45ae1f6709e49d8da22602ab90fb471767797bbf"),
    "a history in several scripts": (
        lambda: asked(HISTORY),
        "cde8b9dd86c09fa51db7d18f3fbf330ecebd7e9427a8a63921a83a3764a60427",
    ),
    "sampling parameters": (
        lambda: asked(**SAMPLING),
        "32442c0dfebe310fce7ed68cbacd4863e3084e98266effc67527fd81eb411bcd",
    ),
    "a tool": (
        lambda: asked(tools=[TOOL], tool_choice="auto"),
        "c9e907c4c55393fa6081938e90078e01d7472c663ec0fae8abe9127d67dd61ab",
    ),
    "a used tool": (
        lambda: asked(USED_TOOL, tools=[TOOL]),
        "e0f75e73fca12e8a73cb18db1304d9a14381dd04162b340f6e748f20bb02a501",
    ),
    "images": (
        lambda: asked([PICTURE]),
        "a40d85830ee75a19cd0267c48f0f6734d0d1e0366f0fcf5854c66898f4ecb23a",
    ),
    "audio": (
        lambda: asked(sound("UklGRg==")),
        "4e16385835bf747d565fec230519848de01b5348bb8b9279c79bc65d365a5c9b",
    ),
    "JSON and a server's own parameters": (
        lambda: asked(
            response_format={"type": "json_object"}, extra_body={"top_k": 40, "min_p": 0.05}
        ),
        "96f60e360e6e8291a2e42bab37cb5ce0817df0d783487dba356587c82920081f",
    ),
    "reasoning": (
        lambda: asked(model="o3-mini", reasoning_effort="high", max_completion_tokens=500),
        "840bdc2fa14786a78ec3804f96c46c5bf0058b6eb13da3f9430db777d99914aa",
    ),
    "a given sample": (
        lambda: asked(sample=1),
        "980a3a65c8eb8a229085c83720f102a2dd4baad733ce82b0cdcc8cd7436b8994",
    ),
    "a second draw in a nested scope": (
        drawn,
        "dc45f1040389417ba42a2abe68f2c994d3cda0a54ea72aa739b0172cb299a338",
    ),
    "a namespace": (
        lambda: asked(settings={"cache_namespace": "local llama"}),
        "94db097fdb55c0e83e93d1456bd720fe6d25d586a2d9011ca3620978e9e1df9d",
    ),
    "a text without its times": (
        lambda: asked("It is 12:30.", {"cache_normalize": ["times"]}),
        "9d530ba3283f9110b7defc8a23e8e30155ab53d2b67a2f33aa8f48fc3b405ae3",
    ),
    "an embedding": (
        lambda: embedded("Käse 🧀"),
        "942701ddffc1b17fac329b5551828e5ca7bfec45361115994a465f50825de949",
    ),
    "a short embedding": (
        lambda: embedded("cheese", dimensions=256),
        "f5b3d5f7300360dd5ae0b6c76c267f7d4175320164211c58467f8c25d6ac5daf",
    ),
    "a pydantic model": (
        lambda: asked(response_format=Decision),
        "f58ed2804890505c6a2c00d55d1444bba9ef3573f3e4f3c07ec00e6367abccde",
    ),
    "a function as a tool": (
        lambda: asked(tools=[price_of]),
        "2a50ddd047588b56b29ac8d0c1498c23cd64dfc60cea7081a4c4daf71f8344bf",
    ),
    "a function with defaults that hold sets, or are no JSON": (
        lambda: asked(tools=[buy]),
        "a9ae0a99c05162e31de35224e7d79064ca36e4ccd4c4c18ce320f4ae1f5fa3be",
    ),
    "a pydantic model as a tool": (
        lambda: asked(tools=[Decision]),
        "84148f2e00b90614db61e6044e1b7a8660514d091d740d22af1f8853dd582bde",
    ),
}


def sound(data: str, form: str = "wav") -> list[dict[str, Any]]:
    """Return messages with audio in base64."""
    part = {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    return [{"role": "user", "content": [part]}]


def image(data: str, detail: str | None = None, kind: str = "image/png") -> list[dict[str, Any]]:
    """Return messages with a picture in a data URL."""
    url = {"url": f"data:{kind};base64,{data}", **({"detail": detail} if detail else {})}
    return [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_key_never_changes_unnoticed(name: str) -> None:
    """The digests stand in recorded caches."""
    key, pinned = GOLDEN[name]
    assert key() == pinned


def test_another_process_makes_the_same_keys() -> None:
    """The seed of its hashes does not matter."""
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        check=True,
        env=environment,
        timeout=LONGEST,
    )
    assert json.loads(run.stdout) == {name: pinned for name, (_, pinned) in GOLDEN.items()}


@pytest.mark.parametrize(("scope", "sample"), [("lisa", '"lisa#0"'), (None, "null")])
def test_a_key_is_the_digest_of_a_text_that_anybody_can_write_down(
    scope: str | None, sample: str
) -> None:
    """It is canonical JSON, under SHA-256."""
    text = (
        '{"key":1,"kind":"chat","request":{"messages":[{"content":"Hellö","role":"user"}],'
        f'"model":"m","temperature":1}},"sample":{sample}}}'
    )
    with llmcall.scope(scope):
        key = asked("Hellö", model="m", temperature=1.0)
    assert key == hashlib.sha256(text.encode()).hexdigest()


@given(
    st.lists(st.text(), min_size=1),
    st.dictionaries(st.sampled_from(["logprobs", "max_tokens", "seed"]), st.integers(1, 9)),
)
def test_a_client_makes_the_same_key_for_each_of_equal_requests(
    texts: list[str], parameters: dict[str, int]
) -> None:
    """Its second call uses what the first prepared."""
    messages = [{"role": "user", "content": text} for text in texts]
    request = {"model": "m", "messages": messages, **parameters}
    text = json.dumps(
        {"key": 1, "kind": "chat", "request": request, "sample": None},
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    client = ScriptedClient()
    keys = {client.build_request(messages, model="m", **parameters).cache_key for _ in range(3)}
    assert keys == {hashlib.sha256(text.encode()).hexdigest()}


def respelt(value: Any) -> Any:
    """Copy data with every dict in the opposite order, and every whole number written the other
    way.
    """
    if isinstance(value, dict):
        return {name: respelt(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return [respelt(item) for item in value]
    if type(value) is int:
        return float(value)
    return int(value) if type(value) is float and value.is_integer() else value


@given(st.dictionaries(TEXTS, DATA, min_size=1, max_size=4))
def test_neither_the_order_of_keys_nor_the_spelling_of_numbers_matters(
    data: dict[str, Any],
) -> None:
    """1 is 1.0, however deep and wherever data may stand."""
    for arguments in (
        {"tools": [{**TOOL, "function": {**TOOL["function"], "parameters": data}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": data}}},
        {"extra_body": data},
        {"logit_bias": data},
        {"messages": [{"role": "user", "content": "Hello", "extra": data}]},
    ):
        assert asked(**respelt(arguments)) == asked(**arguments)


def two_calls(first: Any, second: Any, answered: Any) -> list[dict[str, Any]]:
    """Return messages with two calls of a tool, and the result of one of them."""
    calls = [{**CALLED[0], "id": first}, {**CALLED[0], "id": second}]
    return [
        {"role": "user", "content": "Bread?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": answered, "content": "3"},
    ]


def test_ids_of_tool_calls_do_not_enter_the_key() -> None:
    """A program that makes ids of its own asks the same in each run."""
    assert asked(two_calls("a", "b", "b")) == asked(two_calls("call_9f3", "a", "a"))
    typeless = [{"id": "z", "function": CALLED[0]["function"]}]
    answers = [{"role": "assistant", "tool_calls": typeless}, {**USED_TOOL[2], "tool_call_id": "z"}]
    renamed = [{**answers[0], "tool_calls": [{**typeless[0], "id": "y"}]}]
    assert asked(answers) == asked([*renamed, {**answers[1], "tool_call_id": "y"}])


def test_a_key_depends_on_which_tool_call_a_result_belongs_to() -> None:
    """Ids count as the numbers of their first appearance."""
    assert asked(two_calls("a", "b", "a")) != asked(two_calls("a", "b", "b"))
    assert asked(two_calls("a", "a", "a")) != asked(two_calls("a", "b", "a"))
    assert asked(two_calls("a", "b", "c")) != asked(two_calls("a", "b", "b"))


def test_ids_of_tool_calls_are_numbered_before_texts_are_normalized() -> None:
    """A normalizer would make two ids the same."""
    one, other = (f"call_{digit * 8}-0000-4000-8000-000000000000" for digit in "12")
    settings = {"cache_normalize": ["uuids"]}
    keys = {asked(two_calls(one, other, last), settings) for last in (one, other)}
    assert len(keys) == 2


def test_ids_of_tool_calls_are_sent_as_they_were_given() -> None:
    """Only the recorded request has numbers, which are ids that every API takes."""
    messages = two_calls("a", "b", "b")
    request = ScriptedClient().build_request(messages, model="gpt-4o-mini")
    assert request.messages == two_calls("a", "b", "b") == messages
    assert request.hashed["messages"][2]["tool_call_id"] == "call00002"


USER = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        (dict.fromkeys(SAMPLING), {}),
        ({"n": 1}, {}),
        ({"stop": []}, {}),
        ({"tools": []}, {}),
        ({"logit_bias": {50256: -1}}, {"logit_bias": {"50256": -1}}),
        ({"temperature": 0}, {"temperature": -0.0}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"sample": 1}, {"sample": "1"}),
        ({"messages": (USER,)}, {}),
        ({"messages": [{**USER, "name": None, "refusal": None}]}, {}),
        ({"messages": "  a\n  b", "dedent_messages": True}, {"messages": "a\nb"}),
        ({"messages": sound("UklGRg")}, {"messages": sound("UklGRg==")}),
        ({"messages": image(PNG, kind="IMAGE/PNG")}, {"messages": image(PNG)}),
        ({"settings": {"temperature": 0.5}, "temperature": 0.25}, {"temperature": 0.25}),
        ({"settings": {"max_tokens": 9}, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"settings": {"aliases": {"cheap": "gpt-4o-mini"}}, "model": "cheap"}, {}),
    ],
    ids=str,
)
def test_two_spellings_of_one_question_share_its_key(
    arguments: dict[str, Any], same: dict[str, Any]
) -> None:
    """A default may be given or not, by an argument or by a setting."""
    assert asked(**arguments) == asked(**same)


@pytest.mark.parametrize(
    "arguments",
    [
        {"user": "u1"},
        {"metadata": {"run": "1"}},
        {"store": True},
        {"service_tier": "flex"},
        {"safety_identifier": "s"},
        {"prompt_cache_key": "p"},
        {"prompt_cache_options": {"ttl": "1h"}},
        {"prompt_cache_retention": "24h"},
        {"extra_body": {"user": "u1", "serviceTier": "flex"}},
        {"extra_headers": {"X-Run": "1"}},
        {"extra_query": {}},
        {"extra_query": {"key": "k", "api_key": "k", "code": "k"}},
        {"timeout": 3},
        {"deadline": 9},
        {"max_attempts": 2},
        {"waiting_time": 0.5},
        {"exponential_backoff_factor": 3},
        {"cache": False},
        {"on_error": "raise"},
        {"echo": True},
        {"enable_pydantic_model_return": True},
        {"settings": {"api_key": "sk-one"}},
        {"settings": {"base_url": "http://localhost:1/v1"}},
        {"settings": {"timeout": 3}},
        {"settings": {"organization": "o"}},
        {"settings": {"cache_mode": "refresh"}},
        {"settings": {"retry_max_attempts": 9}},
        {"settings": {"azure_endpoint": "https://a.example"}},
    ],
    ids=str,
)
def test_what_does_not_change_the_question_is_no_part_of_its_key(arguments: dict[str, Any]) -> None:
    """An argument or a setting that says for whom, how long and how often is asked, who pays, and who is asked."""
    assert asked(**arguments) == asked()


def test_every_parameter_and_its_value_enter_the_key() -> None:
    """No two of these requests share a key."""
    other = {
        "temperature": 0.8,
        "max_tokens": 51,
        "top_p": 0.9,
        "frequency_penalty": 0,
        "presence_penalty": 0.5,
        "stop": ["\n"],
        "seed": 43,
        "n": 3,
        "logit_bias": {"7": 1},
        "logprobs": False,
        "top_logprobs": 2,
    }
    requests: list[dict[str, Any]] = [
        *({name: values[name]} for values in (SAMPLING, other) for name in SAMPLING),
        {},
        {"model": "gpt-4o"},
        {"messages": "hello"},
        {"messages": "Hello "},
        {"messages": "Hello\n"},
        {"messages": "Hello\r\n"},
        {"messages": "Caf\u00e9"},
        {"messages": "Cafe\u0301"},
        {"messages": "\ufb01"},
        {"messages": [{**USER, "role": "system"}]},
        {"messages": [{**USER, "name": "lisa"}]},
        {"messages": [USER, USER]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": "None"},
        {"messages": "fi"},
        {"tools": [TOOL]},
        {"tools": [TOOL, TOOL]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
        {"reasoning_effort": "low"},
        {"verbosity": "low"},
        {"seed": 0},
        {"parallel_tool_calls": False},
        {"extra_body": {"top_k": 1}},
        {"extra_body": {"top_k": True}},
        {"extra_body": {}},
        {"extra_query": {"preset": "a"}},
        {"extra_query": {"preset": "b"}},
        {"extra_query": {"preset": ["b"]}},
        {"temperature": 0},
        {"temperature": 0.1},
        {"temperature": 0.1 + 2**-54},
        {"stop": ["a", "b"]},
        {"stop": ["b", "a"]},
        {"sample": 0},
        {"sample": "a"},
        {"settings": {"cache_namespace": "a"}},
        {"settings": {"cache_namespace": "b"}},
        {"messages": image(PNG)},
        {"messages": image(PNG[4:])},
        {"messages": image(PNG, "low")},
        {"messages": image(PNG, kind="image/jpeg")},
        {"messages": image("!")},
        {"messages": image("?")},
        {"messages": sound("UklG")},
        {"messages": sound("UklG", "mp3")},
        {"messages": sound("UklH")},
    ]
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": f"https://e.x/{name}"}} for name in "ab"
    ]
    # what is said is compared letter by letter, also where it looks like a data URL
    parts += [{"type": "text", "text": f"data:image/png;base64,{text}"} for text in ("QQ==", "QQ")]
    requests += [{"messages": [{"role": "user", "content": [part]}]} for part in parts]
    keys = [asked(**request) for request in requests] + [
        embedded("Hello"),
        embedded("Hello", dimensions=8),
    ]
    assert len(set(keys)) == len(keys)


WRAPPED = st.builds(
    lambda width, between, padded: (
        between.join(PNG[start : start + width] for start in range(0, len(PNG), width)).rstrip("=")
        + "=" * padded
    ),
    st.integers(1, 70),
    st.sampled_from(["\n", "\r\n", " "]),
    st.booleans(),
)


@given(WRAPPED)
def test_the_key_of_an_image_depends_on_its_decoded_bytes_alone(wrapped: str) -> None:
    """Its base64 may be wrapped, padded or not. It is sent as it was given: only its digest enters the key."""
    assert asked(image(wrapped)) == asked(image(PNG))
    request = ScriptedClient().build_request(image(wrapped), model="gpt-4o-mini")
    assert wrapped in request.messages[0]["content"][0]["image_url"]["url"]
    assert "base64" not in str(request.hashed)
    assert "sha256," in str(request.hashed)


@pytest.mark.parametrize(
    ("messages", "arguments", "field"),
    [
        ("a\ud800", {}, "request.messages[0].content"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "\ud83d"}]}],
            {},
            "messages[0].content[0].text",
        ),
        ([{**USER, "name": "\udc00"}], {}, "request.messages[0].name"),
        ("x", {"stop": ["a", "\ud800"]}, "request.stop[1]"),
        ("x", {"extra_body": {"\ud800": 1}}, "request.extra_body"),
        ("x", {"sample": "\ud800"}, "sample"),
    ],
)
def test_half_a_character_is_refused_before_anything_is_sent(
    messages: Any, arguments: dict[str, Any], field: str
) -> None:
    """The error names its place."""
    client = ScriptedClient(["never"])
    client.build_request("Hello")
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        client.send_message(messages, **arguments)
    assert field in str(caught.value)
    assert not client.requests


# Texts that one normalizer makes the same, and texts that it leaves different.
SAME: dict[str, list[tuple[str, str]]] = {
    "times": [
        ("It is 12:30.", "It is 9:05."),
        ("at 9:05 pm", "at 10:15 a.m."),
        ("1999-01-01T08:35:00.123456-0500", "2026-11-20T08:35Z"),
        ("[2026-11-20 08:35:00,123] buy", "[2026-11-21 18:05:59,001] buy"),
        ("Wednesday, March 5th, 2025", "Fri, 7 Nov 2025"),
        ("今天是2026年11月27日。", "今天是2025年3月5日。"),
        ("Am 27. November 2026.", "Am 5. März 2025."),
        ("le 27 novembre 2026", "le 5 août 2025"),
        ("el 27 de noviembre de 2026", "el 5 de mayo de 2025"),
        # as babel 2.19 writes them
        ("Freitag, 27. November 2026", "Mittwoch, 5. März 2025"),
        ("vendredi 27 novembre 2026", "mercredi 5 mars 2025"),
        ("viernes, 27 de noviembre de 2026", "miércoles, 5 de marzo de 2025"),
        ("venerdì 27 novembre 2026", "mercoledì 5 marzo 2025"),
        ("sexta-feira, 27 de novembro de 2026", "quarta-feira, 5 de março de 2025"),
        ("vrijdag 27 november 2026", "woensdag 5 maart 2025"),
        ("пятница, 27 ноября 2026 г.", "среда, 5 марта 2025 г."),
        ("piątek, 27 listopada 2026", "środa, 5 marca 2025"),
        ("2026년 11월 27일 금요일", "2025년 3월 5일 수요일"),
        ("2026年11月27日金曜日", "2025年3月5日水曜日"),
        ("2026年11月27日星期五", "2025年3月5日星期三"),
        ("27-Nov-2026", "05-Mar-2025"),
        ("run_20261127_090503.csv", "run_20250305_180102.csv"),
        ("20261127T090503Z", "20250305T180102Z"),
        ("at 1795770303", "at 1741194062"),
        ("at 1795770303.25", "at 1741194062.5"),
        ("at 1795770303123", "at 1741194062001"),
        ("in 2026-W48", "in 2025-W10"),
        ("on 05/03/2025.", "on 31.12.2024."),
        ("now: Wed Mar  5 12:30:01 CET 2025", "now: Fri Nov 20 20:39:15 UTC 2026"),
        ("Wed, 05 Mar 2025 12:30:01 +0100", "Fri, 20 Nov 2026 20:39:15 GMT"),
        *(
            (
                f"now {datetime(2025, 3, 5, 9, 1):{form}}.",
                f"now {datetime(2026, 11, 20, 8):{form}}.",
            )
            for form in ("%c", "%B %d, %Y", "%d/%m/%Y %H:%M", "%A, %d %B %Y", "%Y/%m/%d")
        ),
    ],
    "uuids": [
        (
            "urn:uuid:123E4567-E89B-12D3-A456-426614174000",
            "urn:uuid:223e4567-e89b-12d3-a456-426614174000",
        ),
        ("123e4567e89b12d3a456426614174000", "223e4567e89b12d3a456426614174000"),
        (
            "thread_123e4567-e89b-12d3-a456-426614174000",
            "thread_223e4567-e89b-12d3-a456-426614174000",
        ),
        ("id 01ARZ3NDEKTSV4RRFFQ69G5FAV", "id 01BX5ZZKBKACTAV9WEVGEMMVRZ"),
    ],
    "addresses": [
        ("<Agent object at 0x7f3a5c0b1d30>", "<Agent object at 0x7F3A5C0B1D31>"),
        ("<Agent object at 0x00000217F0A3B5D0>", "<Agent object at 0x10af>"),
    ],
    "temporary_paths": [
        ("see /tmp/tmpab12cd/x.csv", "see /tmp/pytest-of-lisa/y"),
        ("/var/folders/xy/ab_c/T/tmp1/x", "/private/var/folders/zz/dd/T/tmp2/x"),
        (r"C:\Users\Lisa\AppData\Local\Temp\tmp1\x", r"C:\Users\Oscar\AppData\Local\Temp\tmp2"),
        ("(/tmp/a)", "(/var/tmp/b)"),
    ],
}
DIFFERENT: dict[str, list[tuple[str, str]]] = {
    "times": [
        ("It is 12:30.", "It was 12:30."),
        ("3 coins", "4 coins"),
        ("12.30", "12.31"),
        ("2026", "2027"),
        ("1:2", "1:3"),
        ("May 3 people enter?", "May 4 people enter?"),
        ("1/2", "1/3"),
        ("3/4/5", "3/4/6"),
        ("10/20/3025", "10/20/3026"),
        ("march 5, 2025", "march 6, 2025"),
        ("room 5 2025", "room 6 2025"),
        ("1,795,770,303 people", "1,795,770,304 people"),
        ("2795770303 coins", "2795770304 coins"),
        ("20261127", "20261128"),
    ],
    "uuids": [
        (
            "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
            "commit 1fceb02d0ae598e95dc970b74767f19372d61af8",
        ),
        ("a-b", "a-c"),
    ],
    "addresses": [
        ("0xFF", "0xFE"),
        ("at 7f3a5c0b1d30", "at 7f3a5c0b1d31"),
        ("0x7f3a end", "0x7f3a END"),
    ],
    "temporary_paths": [
        ("/home/lisa/a", "/home/lisa/b"),
        ("/tmp/a is big", "/tmp/a is small"),
        ("/tmpx/a", "/tmpx/b"),
    ],
}


def normalized(text: Any, *names: str) -> str:
    """Return the key of a text under some normalizers."""
    return asked(text, {"cache_normalize": list(names)})


same_under_one = pytest.mark.parametrize(
    ("name", "one", "other"), [(name, *pair) for name in SAME for pair in SAME[name]]
)


@same_under_one
def test_what_a_normalizer_names_makes_no_difference(name: str, one: str, other: str) -> None:
    """Two texts that differ only in that share a key."""
    assert normalized(one, name) == normalized(other, name)


@same_under_one
def test_what_no_normalizer_names_makes_a_difference(name: str, one: str, other: str) -> None:
    """The normalizer is off, or only the others are on."""
    others = [known for known in SAME if known != name]
    assert asked(one) != asked(other)
    assert normalized(one, *others) != normalized(other, *others)


@pytest.mark.parametrize(
    ("name", "one", "other"), [(name, *pair) for name in DIFFERENT for pair in DIFFERENT[name]]
)
def test_a_normalizer_leaves_what_only_looks_alike(name: str, one: str, other: str) -> None:
    """It still makes a difference."""
    assert normalized(one, name) != normalized(other, name)


def test_a_regular_expression_is_a_normalizer() -> None:
    """It stands beside the names, in any order."""
    one, other = "run 12 at 9:05", "run 7 at 10:15"
    assert normalized(one, r"run \d+", "times") == normalized(other, "times", r"run \d+")
    assert normalized(one, r"run \d+") != normalized(other, r"run \d+")


def test_the_same_question_at_another_time_gets_the_recorded_answer() -> None:
    """An embedding does, too. Only the key is normalized: what is sent stays, and so do the caller's messages."""
    timeless = ScriptedClient(
        ["yes", [1.0]], cache_normalize=["times"], cache_mode="auto", on_error="raise"
    )
    messages = [{"role": "user", "content": "It is 12:30."}]
    timeless.send_message(messages)
    sent = timeless.requests[0].messages
    assert sent == messages == [{"role": "user", "content": "It is 12:30."}]
    assert timeless.send_message("It is 12:31.").cached  # type: ignore[union-attr]
    assert timeless.get_embedding("12:30") == timeless.get_embedding("12:31") == [1.0]
    assert len(timeless.requests) == 2


if __name__ == "__main__":
    print(json.dumps({name: key() for name, (key, _) in GOLDEN.items()}))
