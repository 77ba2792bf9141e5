"""JSON as models write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcall.errors import OutputError
from llmcall.outputs.json_scan import containers, fenced_blocks, scalar

MENDED = [
    ('{"a": 1,}', {"a": 1}),
    ("[1, 2, ]", [1, 2]),
    ("{'a': 'it\\'s'}", {"a": "it's"}),
    ("{'a': 'say \"hi\"'}", {"a": 'say "hi"'}),
    ("[True, False, None, true, false, null]", [True, False, None, True, False, None]),
    ('{"a": 1 // one\n, # two\n "b": /* three , } */ 2}', {"a": 1, "b": 2}),
    ('{"a": "two\nlines\tand a tab"}', {"a": "two\nlines\tand a tab"}),
    ('["\\ud83d\\ude00", "\\u00e9\\n\\/"]', ["😀", "é\n/"]),
    ("[-0, -1.5e3, 0.1]", [0, -1500.0, 0.1]),
    ('{"a": {}, "b": []}', {"a": {}, "b": []}),
    ('{"a": 1, "a": 1}', {"a": 1}),
    ('{"code": "```python\\nprint()\\n```"}', {"code": "```python\nprint()\n```"}),
    ('{"url": "http://x/#y", "c": "/* no */"}', {"url": "http://x/#y", "c": "/* no */"}),
]
BROKEN = [
    ('{"a": NaN}', "holds NaN"),
    ('{"a": -Infinity}', "holds -Infinity"),
    ('{"a": 1e999}', "too large"),
    ("{'a': 1e999,}", "too large"),
    ('{"a": 01}', "line 2, column 8"),
    ('{"a": 1 "b": 2}', "line 2, column 9"),
    ('{"a": 1, ...}', "line 2, column 10"),
    ("{a: 1}", "line 2, column 2"),
    ("{'a': 'it's fine'}", "line 2, column 11"),
    ('{"a": "say "hi""}', "line 2, column 13"),
    ('{"a": "\\d"}', "line 2, column 8"),
    ('{"a": "\\ud83d"}', "surrogate"),
    ('{"a": 1, "a": 2}', "two values"),
    ("[1, 2", "cut off"),
    ('{"a": "b', "cut off"),
    ('{"a": /* b', "cut off"),
    ("[[1], [2, x]]", "line 2, column 11"),
    ("[" * 101 + "]" * 101, "more than 100 levels"),
    ("[" * 100_000, "levels|cut off"),
    ("[" + "9" * 5000 + "]", "digits"),
]
PROSE = ["", "no JSON", "{name}", "[see below]", "[", "{{ name }}", "[ ] a [x] b", "{1, 2}", "{'set'}"]


@pytest.mark.parametrize(("text", "value"), MENDED)
def test_mends_what_has_one_meaning(text: str, value: Any) -> None:
    """Forms that are no JSON but can mean one thing only are read."""
    assert containers(text) == [value]


@pytest.mark.parametrize(("text", "problem"), BROKEN, ids=lambda found: str(found)[:20])
def test_refuses_broken_json_with_its_place(text: str, problem: str) -> None:
    """JSON that cannot be read is refused with line and column."""
    with pytest.raises(OutputError, match=problem):
        containers("As you asked:\n" + text)


@pytest.mark.parametrize("text", PROSE)
def test_passes_over_brackets_of_prose(text: str) -> None:
    """Brackets that begin no JSON are prose, and what comes after them is read."""
    assert [value for value in containers(text) if value] == []
    assert {"a": 1} in containers(text + ' so: {"a": 1}')


def test_lists_values_in_order() -> None:
    """Only the outermost values count, in the order of the text, of the wanted kind."""
    text = '{"a": {"b": 1}} and [1, {"c": 2}] and {"d": 3}'
    assert containers(text) == [{"a": {"b": 1}}, [1, {"c": 2}], {"d": 3}]
    assert containers(text, "{") == [{"a": {"b": 1}}, {"d": 3}]
    assert containers(text, "[") == [[1, {"c": 2}]]


def test_fences_go_before_prose() -> None:
    """Where a fence holds a wanted value, values in the prose are left out; else they count."""
    assert containers('As in {"a": 0}:\n```json\n{"a": 1}\n```') == [{"a": 1}]
    assert containers('```\nnothing\n```\n{"a": 0}') == [{"a": 0}]


FENCES = [
    ("```json\n1\n```", ["1"]),
    ("a\n~~~\n1\n2\n~~~\nb\n```\n3", ["1\n2", "3"]),
    ("````\n```\n1\n```\n````", ["```\n1\n```"]),
    ("> ```\r\n1\r\n```\r\n", ["1\r"]),
    ("inline ```1``` code", []),
]


@pytest.mark.parametrize(("text", "blocks"), FENCES)
def test_finds_fenced_blocks(text: str, blocks: list[str]) -> None:
    """Fences are those of Markdown: a line of three or more marks, closed by as many, or by the end."""
    assert fenced_blocks(text) == blocks


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 1 ", 1),
        ("'a'", "'a'"),
        ("True", True),
        ("null", None),
        ('"a" b', '"a" b'),
        ("NaN", "NaN"),
        ("'a", "'a"),
        ("", ""),
    ],
)
def test_reads_scalars(text: str, value: Any) -> None:
    """A text that is one JSON scalar is that scalar, any other is a string."""
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(VALUES, max_size=4) | st.dictionaries(st.text(), VALUES, max_size=4),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_reads_json_as_json_does(value: Any, ascii_only: bool, indent: int | None) -> None:
    """Whatever is JSON is read as the standard library reads it."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert repr(containers(text)) == repr([json.loads(text)])
