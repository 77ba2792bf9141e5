"""Normalizers: what in a text does not matter to the key; what is sent stays as it is."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from golden_requests import asked, embedded
from hypothesis import given
from hypothesis import strategies as st

from llmcall.requests.keys import NORMALIZERS, normalizer
from llmcall.testing import ScriptedClient

SAME: dict[str, list[tuple[str, str]]] = {
    "times": [
        ("It is 12:30.", "It is 9:05."),
        ("It is 12:30:01 now", "It is 12:30:02.123456 now"),
        ("at 9:05 pm", "at 10:15 a.m."),
        ("2026-11-20", "1999-01-01"),
        ("on 2026-11-20T08:35:00Z,", "on 2026-11-20 08:35:00.123456+01:00,"),
        ("[2026-11-20 08:35:00,123] buy", "[2026-11-21 18:05:59,001] buy"),
        ("2026-11-20T08:35:00-0500", "2026-11-20T08:35Z"),
        ("Today is March 05, 2025.", "Today is December 31, 1999."),
        ("Wednesday, March 5th, 2025", "Fri, 7 Nov 2025"),
        ("on 05/03/2025.", "on 31.12.2024."),
        ("05/03/2025, 12:30:01", "2025/3/5 9:05 PM"),
        ("now: Wed Mar  5 12:30:01 2025", "now: Fri Nov 20 20:39:15 2026"),
        ("now: Wed Mar  5 12:30:01 CET 2025", "now: Fri Nov 20 20:39:15 UTC 2026"),
        ("Wed, 05 Mar 2025 12:30:01 +0100", "Fri, 20 Nov 2026 20:39:15 GMT"),
    ],
    "uuids": [
        ("id 123e4567-e89b-12d3-a456-426614174000!", "id 00000000-0000-0000-0000-00000000000A!"),
        ("urn:uuid:123E4567-E89B-12D3-A456-426614174000", "urn:uuid:223e4567-e89b-12d3-a456-426614174000"),
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
}  # fmt: skip
DIFFERENT: dict[str, list[tuple[str, str]]] = {
    "times": [("It is 12:30.", "It was 12:30."), ("3 coins", "4 coins"), ("12.30", "12.31"), ("2026", "2027"),
    ("1:2", "1:3"), ("May 3 people enter?", "May 4 people enter?"), ("1/2", "1/3"), ("3/4/5", "3/4/6"),
    ("10/20/3025", "10/20/3026"), ("march 5, 2025", "march 6, 2025"), ("room 5 2025", "room 6 2025")],
    "uuids": [("123e4567e89b12d3a456426614174000", "223e4567e89b12d3a456426614174000"), ("a-b", "a-c")],
    "addresses": [("0xFF", "0xFE"), ("at 7f3a5c0b1d30", "at 7f3a5c0b1d31"), ("0x7f3a end", "0x7f3a END")],
    "temporary_paths": [("/home/lisa/a", "/home/lisa/b"), ("/tmp/a is big", "/tmp/a is small"), ("/tmpx/a", "/tmpx/b")],
}  # fmt: skip


def pairs(table: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str, str]]:
    """List a table's pairs with the name of their normalizer."""
    return [(name, *pair) for name, found in table.items() for pair in found]


def key(text: Any, *normalizers: str) -> str:
    """Return the key of a text under some normalizers."""
    return asked(text, {"cache_normalize": list(normalizers)}).cache_key


def test_the_names_are_those_of_the_contract() -> None:
    """There are four named normalizers, and each has its cases here."""
    assert NORMALIZERS.keys() == SAME.keys() == DIFFERENT.keys() == {"times", "uuids", "addresses", "temporary_paths"}


@pytest.mark.parametrize(("name", "one", "other"), pairs(SAME))
def test_what_they_name_makes_no_difference(name: str, one: str, other: str) -> None:
    """Two texts that differ only in what is named share a key, but not without the normalizer or with another."""
    assert key(one, name) == key(other, name)
    assert key(one) != key(other)
    others = [known for known in NORMALIZERS if known != name]
    assert key(one, *others) != key(other, *others)
    assert embedded(one).cache_key != embedded(other).cache_key


@pytest.mark.parametrize(("name", "one", "other"), pairs(DIFFERENT))
def test_everything_else_does(name: str, one: str, other: str) -> None:
    """What is not named still makes a difference."""
    assert key(one, name) != key(other, name)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="0123456789"), max_size=40))
def test_texts_without_digits_keep_their_key(text: str) -> None:
    """Times, UUIDs and addresses have digits: a text without one is left alone."""
    assert key(text, "times", "addresses") == key(text)


@given(
    st.datetimes(),
    st.datetimes(),
    st.sampled_from(["T", " "]),
    st.sampled_from(["auto", "minutes", "seconds", "milliseconds"]),
)
def test_every_iso_time_is_a_time(one: Any, other: Any, between: str, spec: str) -> None:
    """Whatever isoformat() writes is taken whole."""
    texts = [f"Now: {when.isoformat(between, spec)}Z; go on." for when in (one, other)]
    assert key(texts[0], "times") == key(texts[1], "times")


@given(st.uuids(), st.uuids())
def test_every_uuid_is_a_uuid(one: Any, other: Any) -> None:
    """Whatever the standard library writes is taken whole."""
    assert key(f"run {one}, go", "uuids") == key(f"run {other}, go", "uuids")


def test_own_expressions() -> None:
    """A regular expression of one's own stands beside the names; what it matches makes no difference."""
    assert key("run 12 at 9:05", r"run \d+", "times") == key("run 7 at 10:15", "times", r"run \d+")
    assert key("run 12 at 9:05", r"run \d+") != key("run 7 at 10:15", r"run \d+")
    assert key(r"a\1b", r"\d") == key(r"a\2b", r"\d")
    assert normalizer([r"\d"])("a1") == "a<…>"  # type: ignore[misc]


def test_what_is_sent_stays_as_it_is() -> None:
    """The body and the caller's messages keep their times."""
    client = ScriptedClient(["yes"], cache_normalize=["times"])
    messages = [{"role": "user", "content": "It is 12:30."}]
    client.send_message(messages)
    assert client.requests[0].messages == messages == [{"role": "user", "content": "It is 12:30."}]


def test_the_recorded_answer_is_found_at_another_time() -> None:
    """Asked again later, the same question gets the recorded answer, for embeddings too."""
    client = ScriptedClient(["yes", [1.0]], cache_normalize=["times"], cache_mode="auto")
    client.send_message("It is 12:30.")
    later = client.send_message("It is 12:31.")
    assert later is not None
    assert later.cached
    assert client.get_embedding("12:30") == client.get_embedding("12:31") == [1.0]
    assert len(client.requests) == 2


def test_parts_and_arguments_of_tools_are_texts() -> None:
    """Every text of a message is normalised, role and type apart."""

    def messages(clock: str) -> list[dict[str, Any]]:
        function = {"name": "log", "arguments": f'{{"at": "{clock}"}}'}
        return [
            {"role": "user", "content": [{"type": "text", "text": f"It is {clock}"}], "name": f"at {clock}"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": function}],
            },
        ]

    assert key(messages("9:05"), "times") == key(messages("10:15"), "times")
    assert key([{"role": "user", "content": "a"}], "user|a") != key([{"role": "system", "content": "a"}], "user|a")


def test_an_image_is_no_text() -> None:
    """No expression makes two images the same, whatever it matches in their digests."""

    def messages(data: bytes) -> list[dict[str, Any]]:
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    assert key(messages(b"one"), "[0-9a-f]{8,}") != key(messages(b"other"), "[0-9a-f]{8,}")
