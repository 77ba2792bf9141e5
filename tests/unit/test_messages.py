"""Messages: checked by name and place, copied, and digested for the key."""

from __future__ import annotations

import base64
import copy
import math
import re
from collections import UserDict
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llmcall.requests.messages import ROLES, asked_messages, check_messages
from llmcall.requests.plain_data import plain

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), min_size=1, max_size=3)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(sorted(ROLES)), "content": TEXT | PARTS}, optional={"name": TEXT}),
    min_size=1,
    max_size=4,
)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def user(content: Any, **fields: Any) -> list[dict[str, Any]]:
    """Return a conversation in which the second message has this content."""
    return [{"role": "system", "content": "Be short."}, {"role": "user", "content": content, **fields}]


def endless() -> dict[str, Any]:
    """Return a message that holds itself."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    message["tool_calls"].append(message)
    return message


# Messages, the error, and what it must name.
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "messages"),
    (5, TypeError, "messages"),
    (b"Hello", TypeError, "messages"),
    ({"role": "user", "content": "Hello"}, TypeError, "messages"),
    (iter(user("Hello")), TypeError, "messages"),
    ({"Hello"}, TypeError, "messages"),
    ([], ValueError, "messages"),
    ((), ValueError, "messages"),
    (["Hello"], TypeError, "messages[0]"),
    ([*user("Hello"), None], TypeError, "messages[2]"),
    ([("user", "Hello")], TypeError, "messages[0]"),
    ([{}], ValueError, "messages[0] has no role"),
    ([{"content": "Hello"}], ValueError, "messages[0] has no role"),
    ([{"role": None, "content": "Hello"}], ValueError, "messages[0] has no role"),
    ([{"role": 1, "content": "Hello"}], TypeError, "messages[0].role"),
    ([{"role": ["user"], "content": "Hello"}], TypeError, "messages[0].role"),
    ([{"role": b"user", "content": "Hello"}], TypeError, "messages[0].role"),
    ([{"role": "User", "content": "Hello"}], ValueError, "messages[0].role"),
    ([{"role": "bot", "content": "Hello"}], ValueError, "messages[0].role"),
    ([{"role": "user"}], ValueError, "messages[0] has no content"),
    (user(None), ValueError, "messages[1] has no content"),
    ([{"role": "system", "content": None}], ValueError, "messages[0] has no content"),
    ([{"role": "tool", "content": None, "tool_call_id": "c1"}], ValueError, "messages[0] has no content"),
    (user(5), TypeError, "messages[1].content"),
    (user(True), TypeError, "messages[1].content"),
    (user(math.nan), TypeError, "messages[1].content"),
    (user(b"Hello"), TypeError, "messages[1].content"),
    (user({"text": "Hello"}), TypeError, "messages[1].content"),
    (user([]), ValueError, "messages[1].content"),
    (user(["Hello"]), TypeError, "messages[1].content[0]"),
    (user([{"text": "Hello"}]), ValueError, "messages[1].content[0] has no type"),
    (user([{"type": 1, "text": "Hello"}]), ValueError, "messages[1].content[0] has no type"),
    (user([{"type": "text"}]), TypeError, "messages[1].content[0].text"),
    (user([{"type": "text", "text": "a"}, {"type": "text", "text": 5}]), TypeError, "messages[1].content[1].text"),
    (user([{"type": "text", "text": b"a"}]), TypeError, "messages[1].content[0].text"),
    (user([{"type": "image_url", "image_url": {"url": b"x"}}]), TypeError, "messages[1].content[0].image_url.url"),
    (user("Hello", name=5), TypeError, "messages[1].name"),
    (user("Hello", weight=math.nan), ValueError, "messages[1].weight"),
    (user("Hello", weight=-math.inf), ValueError, "messages[1].weight"),
    (user("Hello", extra=object()), TypeError, "messages[1].extra"),
    (user("Hello", extra={1: "x"}), TypeError, "messages[1].extra"),
    (user("Hello", extra={"a": [{"b": {1, 2}}]}), TypeError, "messages[1].extra.a[0].b"),
    ([endless()], ValueError, "messages[0]"),
]


@pytest.mark.parametrize(("messages", "kind", "place"), REFUSED)
def test_what_is_refused(messages: Any, kind: type[Exception], place: str) -> None:
    """What is no list of messages is refused, naming the message and the field."""
    with pytest.raises(kind, match=re.escape(place) + r"[ ,;]") as caught:
        check_messages(messages)
    assert type(caught.value) is kind


@pytest.mark.parametrize("role", sorted(ROLES))
def test_every_role(role: str) -> None:
    """Every role of the API is known."""
    assert check_messages([{"role": role, "content": "Hello"}]) == [{"role": role, "content": "Hello"}]


@pytest.mark.parametrize("role", ["assistant", "function"])
def test_a_message_without_content(role: str) -> None:
    """An assistant that called a tool said nothing, and the content may be left out."""
    message = {"role": role, "name": "f", "tool_calls": [{"id": "c1", "type": "function", "function": {}}]}
    assert check_messages([message, {**message, "content": None}]) == [message, {**message, "content": None}]


def test_one_string() -> None:
    """One string is one user message."""
    assert check_messages("Hello") == [{"role": "user", "content": "Hello"}]


def test_other_mappings() -> None:
    """A message may be any mapping, and the list a tuple; what comes out are dicts and a list."""
    message = {"role": "user", "content": "Hello"}
    checked = check_messages((MappingProxyType(message), UserDict({**message, "name": "Lisa"})))
    assert checked == [message, {**message, "name": "Lisa"}]
    assert {type(item) for item in checked} == {dict}


@given(MESSAGES)
def test_nothing_is_changed_or_shared(messages: list[dict[str, Any]]) -> None:
    """The messages stay as they were, come out equal, and a later change of them changes no copy."""
    before = copy.deepcopy(messages)
    checked = check_messages(messages)
    assert messages == checked == before
    for message in messages:
        message["content"] = "changed"
    assert checked == before


@given(MESSAGES)
def test_dedenting_takes_common_blanks(messages: list[dict[str, Any]]) -> None:
    """Dedented twice is dedented once, and no text gets longer."""
    once = check_messages(messages, dedent=True)
    assert check_messages(once, dedent=True) == once
    assert len(repr(once)) <= len(repr(messages))


def test_dedenting() -> None:
    """The common indentation goes, of strings and of text parts; the given messages keep it."""
    messages = [
        {"role": "system", "content": "\n    You sell:\n      - apples\n    "},
        {
            "role": "user",
            "content": [{"type": "text", "text": "  a\n  b"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {"role": "assistant", "content": None},
    ]
    before = copy.deepcopy(messages)
    system, user_message, assistant = check_messages(messages, dedent=True)
    assert system["content"] == "\nYou sell:\n  - apples\n"
    assert user_message["content"][0]["text"] == "a\nb"
    assert assistant["content"] is None
    assert messages == before


def test_numbers_have_one_form() -> None:
    """A number that is whole is an int, however it was written; others stay what they are."""
    numbers = [1.0, 1, True, -0.0, 0.5, 1e3, Fraction(1, 2), Fraction(4, 2)]
    plained = plain(numbers, "x")
    assert plained == [1, 1, True, 0, 0.5, 1000, 0.5, 2]
    assert [type(number) for number in plained] == [int, int, bool, int, float, int, float, int]


@pytest.mark.parametrize("value", [b"x", {1}, object(), Decimal(1), 1j, range(3), iter("x"), {("a",): 1}])
def test_what_is_no_plain_data(value: Any) -> None:
    """Anything that JSON has no form for is refused with its place."""
    with pytest.raises(TypeError, match=re.escape("x[1].y")):
        plain([0, {"y": value}], "x")


@given(DATA)
def test_plain_data_is_kept(value: Any) -> None:
    """JSON-like data comes out equal, as a copy, and twice plain is once plain."""
    plained = plain(value, "x")
    assert plained == value
    assert plain(plained, "x") == plained


def asked(content: Any) -> Any:
    """Return a content as it enters the key."""
    return asked_messages(check_messages(user(content)), None)[1]["content"]


@given(st.binary(min_size=1, max_size=40))
def test_media_enter_by_their_bytes(data: bytes) -> None:
    """An image in a data URL enters by its bytes: padding, line ends and the case of its type do not matter."""
    text = base64.b64encode(data).decode()
    spellings = [f"data:image/png;base64,{text}", f"data:IMAGE/PNG;base64,{text.rstrip('=')}"]
    spellings.append(f"data:image/png;base64,{text[:3]}\n{text[3:]}")
    keyed = [asked([{"type": "image_url", "image_url": {"url": url}}]) for url in spellings]
    assert keyed[0] == keyed[1] == keyed[2]
    assert keyed[0] != asked([{"type": "image_url", "image_url": {"url": spellings[0].replace("png", "gif")}}])
    assert keyed[0] != asked([{"type": "image_url", "image_url": {"url": spellings[0].replace(text, "QUJD" + text)}}])


def test_audio_enters_by_its_bytes() -> None:
    """Audio enters by its bytes and its format; another address stays the text that it is."""
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    keyed = asked([part])
    assert keyed == asked([{**part, "input_audio": {"data": "UklGRg", "format": "wav"}}])
    assert keyed[0]["input_audio"]["data"].startswith("sha256,")
    assert keyed != asked([{**part, "input_audio": {"data": "UklGRg==", "format": "mp3"}}])
    link = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    assert asked(link) == link


def test_none_fields_do_not_matter() -> None:
    """A field that is None enters the key no more than one that is not there."""
    given_messages = [{"role": "assistant", "content": None, "refusal": None, "tool_calls": [{"id": "1"}]}]
    assert asked_messages(check_messages(given_messages), None) == [{"role": "assistant", "tool_calls": [{"id": "1"}]}]


def test_normalizing_leaves_roles_and_types() -> None:
    """A normalizer sees every text of a message but its role and the types of its parts."""
    messages = user([{"type": "text", "text": "user said text"}], name="text")
    normalized = asked_messages(check_messages(messages), lambda text: text.replace("text", "*").replace("user", "*"))
    assert normalized[1] == {"role": "user", "content": [{"type": "text", "text": "* said *"}], "name": "*"}
