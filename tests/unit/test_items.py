"""The items of a map: the names of their scopes, whatever stands around them."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import pathlib
import random
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmcall
from llmcall.parallel.items import ItemNames, digest, key_function

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
KEYS = st.text("ab~1", min_size=1, max_size=4)


class Colour(enum.Enum):
    """Be an enumeration."""

    RED = 1
    GREEN = 2


class Word(str, enum.Enum):
    """Be an enumeration of texts."""

    RED = "red"


@dataclass
class Person:
    """Be a dataclass."""

    name: str
    age: int


class Place(NamedTuple):
    """Be a named tuple."""

    x: int
    y: int


def names(items: list[Any], **how: Any) -> list[str]:
    """Name the items, one after the other."""
    naming = ItemNames(**how)
    return [naming.name(item, index) for index, item in enumerate(items)]


def shuffled(items: list[Any], seed: int) -> list[Any]:
    """Return the items in another order."""
    return random.Random(seed).sample(items, len(items))


@given(st.lists(PLAIN, max_size=6), st.integers())
def test_the_order_does_not_matter(items: list[Any], seed: int) -> None:
    """Sorted in any way, the same items have the same names."""
    assert Counter(names(items)) == Counter(names(shuffled(items, seed)))


@given(st.lists(PLAIN, max_size=6), PLAIN)
def test_more_items_rename_none(items: list[Any], more: Any) -> None:
    """An item put in at the front changes no name but those of its equals, of which there is one more."""
    assert Counter(names([more, *items])) - Counter(names(items)) == Counter([names([*items, more])[-1]])


@given(st.lists(PLAIN, max_size=6))
def test_no_two_items_share_a_name(items: list[Any]) -> None:
    """Equal items are told apart by their occurrence, others by their digest."""
    assert len(set(names(items))) == len(items)


@given(st.lists(KEYS, max_size=8))
def test_no_two_keys_share_a_name(keys: list[str]) -> None:
    """A key that looks like another's second occurrence is told from it."""
    assert len(set(names(keys, key=lambda item: item))) == len(keys)


@given(PLAIN)
def test_a_name_is_a_scope_s(item: Any) -> None:
    """A digest has 16 hexadecimal digits, the same in any process, behind a mark that no user's scope begins with."""
    (name,) = names([item])
    assert name[0] == "~" and len(name) == 17
    assert set(name[1:]) <= set("0123456789abcdef")
    with pytest.raises(ValueError, match=r"is one that .* gives to items"):
        llmcall.scope(name)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_the_order_of_columns_does_not_matter(row: dict[str, Any]) -> None:
    """A row's digest does not depend on the order of its keys."""
    assert digest(row, 0) == digest(dict(reversed(row.items())), 0)


def test_digests_stay_what_they_are() -> None:
    """The digest is pinned: another one would make every item a new one, and pay for it again."""
    assert digest("bread", 0) == "010de3fa8c734349"
    assert digest({"name": "Lisa", "age": 30, "tags": ["a", None]}, 0) == digest(
        {"tags": ("a", None), "age": 30.0, "name": "Lisa"}, 5
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        ((1, 2), [1, 2]),
        ({1, 2, 3}, {3, 2, 1}),
        ({2: "b", 1: "a"}, {1: "a", 2: "b"}),
        (float("nan"), float("nan")),
        (pathlib.PurePosixPath("a/b"), pathlib.PurePosixPath("a/b")),
        (Person("Lisa", 30), Person("Lisa", 30)),
        (Place(1, 2), (1, 2)),
        (Word.RED, "red"),
        (b"ab", bytearray(b"ab")),
        (decimal.Decimal("1.10"), decimal.Decimal("1.10")),
    ],
)
def test_equal_items(one: Any, other: Any) -> None:
    """What is the same item has the same digest."""
    assert digest(one, 0) == digest(other, 0)


def test_different_items() -> None:
    """What looks alike but is not the same has another digest."""
    day = datetime.datetime(2020, 1, 1)
    items = [
        1, "1", True, None, "None", [1], ["1"], {"1": 1}, {1: 1}, b"1", {"a": float("nan")}, {"a": "nan"}, Colour.RED,
        Colour.GREEN, "RED", day, day.date(), str(day), decimal.Decimal(1), uuid.UUID(int=1), Person("Lisa", 30),
        {"name": "Lisa", "age": 30}, float("inf"), {1, 2}, [1, 2], pathlib.PurePosixPath("1"), datetime.timedelta(1),
    ]  # fmt: skip
    assert len({digest(item, 0) for item in items}) == len(items)


@pytest.mark.parametrize("item", [object(), [object()], {"a": len}, Person, {"a": {"b": iter([])}}])
def test_what_is_no_plain_data(item: Any) -> None:
    """An object has no digest; the error says which item, what it holds, and the remedy."""
    with pytest.raises(TypeError, match=r"item 3 holds .* which is not plain data: give a key="):
        digest(item, 3)


def test_too_deep() -> None:
    """A list that holds itself is refused in words."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="item 0 is nested too deeply"):
        digest(endless, 0)


def test_keys() -> None:
    """A key function's texts and whole numbers name the scopes; their repetition is counted."""
    key = key_function(lambda item: item["id"])
    found = names([{"id": "lisa"}, {"id": 7}, {"id": "lisa"}, {"id": "lisa"}], key=key)
    assert found == ["lisa", "7", "lisa~1", "lisa~2"]
    assert names([{"id": "a~1"}], key=key) == ["a~~1"]


def test_columns() -> None:
    """A column's name stands for a function that takes it of the row."""
    assert names([{"id": 1, "x": 2}, {"id": 3}], key=key_function("id")) == ["1", "3"]


@pytest.mark.parametrize(
    ("key", "item", "error", "words"),
    [
        (3, {}, TypeError, "key is 3; it must be a function of the item, or the name of a column"),
        ("id", "lisa", TypeError, "key='id' names a column, but an item is str"),
        ("id", {"name": 1}, ValueError, "key='id' names a column that a row lacks; it has name"),
        (lambda item: 1.5, {}, TypeError, "the key of item 0 is 1.5; it must be a text or a whole number"),
        (lambda item: None, {}, TypeError, "the key of item 0 is None"),
        (lambda item: True, {}, TypeError, "the key of item 0 is True"),
        (lambda item: "a/b", {}, ValueError, "the key of item 0 is 'a/b'; it names a scope"),
        (lambda item: "a#b", {}, ValueError, "must not be empty or hold '/' or '#'"),
        (lambda item: "", {}, ValueError, "must not be empty"),
    ],
)
def test_wrong_keys(key: Any, item: Any, error: type[Exception], words: str) -> None:
    """A key that names no scope is refused, naming the item and what it may be."""
    with pytest.raises(error) as caught:
        names([item], key=key_function(key))
    assert words in str(caught.value)


def test_only_a_part_tells_items_apart() -> None:
    """What is digested may be less than the item."""
    rows = [{"name": "Lisa", "note": "x"}, {"name": "Lisa", "note": "y"}, {"name": "Bart"}]
    first, second, third = names(rows, identity=lambda row: row["name"])
    assert second == f"{first}~1"
    assert third not in (first, second)


@pytest.mark.parametrize("kind", ["int64", "float32", "str_", "bool_"])
def test_numbers_of_numpy(kind: str) -> None:
    """NumPy's values are the items that Python's are."""
    numpy = pytest.importorskip("numpy")
    value = getattr(numpy, kind)(1)
    assert digest(value, 0) == digest(value.item(), 0)
    assert digest(numpy.array([value, value]), 0) == digest([value.item()] * 2, 0)


def test_digests_of_json(tmp_path: pathlib.Path) -> None:
    """Rows written to a file and read again are the same items."""
    rows = [{"name": "Zoë", "age": 3, "score": 1.5, "none": None, "tags": ["a"]}]
    assert names(json.loads(json.dumps(rows))) == names(rows)
