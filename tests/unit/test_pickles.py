"""Pickles as plain data: what they hold is read, and nothing that they ask for is done."""

from __future__ import annotations

import datetime
import enum
import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pydantic
import pytest
from hypothesis import given

from llmcall.cache.pickles import Room, Unbuilt, plain, read

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("abcäß€😀"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=20,
)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Inner(pydantic.BaseModel):
    """Be a pydantic model in another."""

    model_config = pydantic.ConfigDict(extra="allow")

    text: str


class Outer(pydantic.BaseModel):
    """Be a pydantic model."""

    inner: list[Inner]
    missing: int | None = None


class Colour(enum.Enum):
    """Be an enumeration."""

    RED = "red"


class Touch:
    """Make a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@given(data=DATA, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back(data: Any, protocol: int) -> None:
    """Plain data is what it was, whatever the protocol."""
    pickled = pickle.dumps(data, protocol)
    assert plain(read(pickled), Room(1000)) == data
    assert read(pickletools.optimize(pickled)) == data


@given(data=st.binary(max_size=200) | DATA.map(pickle.dumps).flatmap(lambda whole: st.just(whole[: len(whole) // 2])))
def test_rubbish(data: bytes) -> None:
    """Bytes that are no pickle are a ValueError, or some data; nothing else."""
    try:
        read(data)
    except ValueError as error:
        assert str(error)


@given(data=DATA, position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_damage(data: Any, position: float, byte: int) -> None:
    """A pickle with a wrong byte likewise."""
    damaged = bytearray(pickle.dumps(data))
    damaged[int(position * len(damaged))] = byte
    try:
        plain(read(bytes(damaged)), Room(10_000))
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sequences_become_lists(protocol: int) -> None:
    """Tuples and, where they need no code, sets become lists."""
    data = ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [(5,)])
    assert read(pickle.dumps(data, protocol)) == [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [[5]]]
    if protocol >= 4:
        assert read(pickle.dumps([{1}, frozenset({2})], protocol)) == [[1], [2]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_values(protocol: int) -> None:
    """What a pickle holds once and refers to again is found in both places."""
    shared = ["a"]
    assert read(pickle.dumps({"x": shared, "y": [shared, shared]}, protocol)) == {"x": ["a"], "y": [["a"], ["a"]]}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_models_become_their_fields(protocol: int) -> None:
    """A pydantic model becomes its fields, and those that it was given beyond them."""
    made = Outer(inner=[Inner.model_validate({"text": "a", "more": 1}), Inner(text="b")])
    found = plain(read(pickle.dumps(made, protocol)), Room(1000))
    assert found == {"inner": [{"text": "a", "more": 1}, {"text": "b"}], "missing": None}


@pytest.mark.parametrize("value", [datetime.date(2026, 1, 1), Colour.RED, OrderedDict(), Path("a"), print, Outer, 1j])
def test_other_objects(value: Any) -> None:
    """What is no pydantic model is not built, and is no plain data."""
    found = read(pickle.dumps(["before", value, "after"]))
    assert (found[0], found[2]) == ("before", "after") and isinstance(found[1], Unbuilt)
    with pytest.raises(ValueError, match="no pydantic model"):
        plain(found, Room(100))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_runs(protocol: int, tmp_path: Path) -> None:
    """What would be called by loading is not called by reading."""
    hostile = pickle.dumps([Touch(str(tmp_path / "made"))], protocol)
    assert isinstance(read(hostile)[0], Unbuilt)
    assert not (tmp_path / "made").exists()
    pickle.loads(hostile)
    assert (tmp_path / "made").exists(), "the pickle would have run"


HOSTILE = {
    "a tuple that is deep to hash": b"\x80\x04})" + b"\x85" * 200_000 + b"K\x01s.",
    "an index of the memo": b"\x80\x04]Nr\xff\xff\xff\x7f0.",
    "an index of the memo as a text": b"]Np99999999999999\n0.",
    "a text longer than the file": b"\x80\x04X\xff\xff\xff\x7fab.",
    "bytes longer than any memory": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",
    "a byte array longer than the file": b"\x80\x05\x96\xff\xff\xff\xff\x00\x00\x00\x00ab.",
    "a frame longer than the file": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",
    "a number of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "a reference outside": b"\x80\x04X\x01\x00\x00\x00aQ.",
    "a buffer outside": b"\x80\x05\x97.",
    "an unknown opcode": b"\x80\x04\xff.",
    "no end": b"\x80\x04]",
    "nothing": b"",
    "nothing on the stack": b"\x80\x04.",
    "no mark": b"\x80\x04]e.",
    "a list filled as a dict": b"\x80\x04]K\x01K\x02s.",
    "a dict filled as a list": b"\x80\x04}K\x01a.",
    "a list filled as an object": b"\x80\x04]}b.",
    "an odd number of items": b"\x80\x04}(K\x01u.",
    "a memory that is not there": b"\x80\x04h\x05.",
    "a class built by its attributes": b"cbuiltins\ndict\n(N}X\x01\x00\x00\x00aK\x01sub.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(name: str) -> None:
    """Each either is harmless or a ValueError that says what is wrong; none takes memory, time or the process."""
    try:
        plain(read(HOSTILE[name]), Room(1000))
    except ValueError as error:
        assert str(error)
    else:
        assert "memo" in name or name.startswith("a frame")


def test_values_that_refer_to_one_another() -> None:
    """A pickle of a hundred bytes that means a terabyte is refused, as is one that holds itself."""
    bomb: Any = ["boom"]
    for _ in range(40):
        bomb = [bomb, bomb]
    with pytest.raises(ValueError, match="far more than its size"):
        plain(read(pickle.dumps(bomb)), Room(10_000))
    loop: Any = []
    loop.append(loop)
    with pytest.raises(ValueError, match="levels deep"):
        plain(read(pickle.dumps(loop)), Room(10_000))


def test_long_texts_many_times() -> None:
    """The room counts the characters of a text each time that it stands."""
    with pytest.raises(ValueError, match="far more"):
        plain(read(pickle.dumps(["a" * 1000] * 100)), Room(10_000))


@pytest.mark.parametrize("depth", [200, 100_000])
def test_depth(depth: int) -> None:
    """What is nested too deeply is refused, however deep."""
    with pytest.raises(ValueError, match="levels deep"):
        plain(read(b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."), Room(10**6))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), b"bytes", bytearray(b"x"), {1: 2}, {None: 2}, "\ud800", {"\ud800": 1}],
    ids=repr,
)
def test_what_json_cannot_hold(value: Any) -> None:
    """Plain data is what JSON and UTF-8 can hold."""
    with pytest.raises(ValueError):
        plain(read(pickle.dumps([value])), Room(100))


def test_a_text_with_an_unknown_escape() -> None:
    """Python's own reader warns of it; here it is read in silence, whatever the filter for warnings."""
    assert read(b"S'a\\Gb'\n.") == "a\\Gb"
