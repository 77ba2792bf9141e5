"""The one number of an answer in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.errors import OutputError
from llmcall.outputs.choices import number, whole_number

READ = [
    ("7", 7),
    ("7.", 7),
    ("**7**", 7),
    ("(7)", 7),
    ("~7", 7),
    ("-5", -5),
    ("−5", -5),
    ("-$5", -5),
    ("$-5", -5),
    ("+5", 5),
    ("€ 7", 7),
    ("7€", 7),
    ("US$7", 7),
    ("USD 7", 7),
    ("20kg", 20),
    ("1,234", 1234),
    ("1,234,567.89", 1234567.89),
    ("1 234", 1234),
    ("1\u202f234\u202f567", 1234567),
    ("1_000", 1000),
    (".5", 0.5),
    ("3.0", 3.0),
    ("1e3", 1000.0),
    ("2.5E-3", 0.0025),
    ("7 (seven)", 7),
    ("Answer - 7", 7),
    ("Price: 7 coins. I repeat: 7.0", 7),
    ("<answer>7</answer>", 7),
    ("I pay \\$7", 7),
    ("99999999999999999999999", 99999999999999999999999),
]
REFUSED = [
    "",
    "seven",
    "½",
    "nan",
    "infinity",
    "1e999",
    "2½",
    "10²",
    "3 to 5",
    "3-5",
    "5-5",
    "5 – 5",
    "7/10",
    "12:12",
    "2^2",
    "3 x 3",
    "3x",
    "50%",
    "50 percent",
    "5k",
    "5 million",
    "3 dozen",
    "2nd",
    "7pm",
    "3 and a half",
    "1,5",
    "0,234",
    "1,23",
    "1.234,56",
    "1,234,56",
    "1.2.3",
    "1'234",
    "GPT-4",
    "GPT4",
    "0x1F",
    "Rs.500",
    "well...7",
    "٣",
    "7 or ٣",
    "- 5",
    "Answer: - 5",
    "–5",
    "+-5",
    "-$-5",
    "minus 5",
    "not 7",
    "I wouldn't pay 7",
    "1. I pay 7",
    "9" * 5000,
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_reads_one_number(text: str, value: float) -> None:
    """Separators, currencies, units and words around a number do not matter."""
    assert number(text) == value
    assert type(number(text)) is type(value)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_refuses_what_is_not_one_number(text: str) -> None:
    """No number, several, or one that can be read in two ways is refused."""
    with pytest.raises(OutputError):
        number(text)


@pytest.mark.parametrize(("text", "value"), [("3.0", 3), ("1e3", 1000), ("-0.0", 0), ("1,000.00", 1000)])
def test_reads_whole_numbers(text: str, value: int) -> None:
    """A fraction of nothing but zeros is whole."""
    assert whole_number(text) == value
    assert type(whole_number(text)) is int


@pytest.mark.parametrize("text", ["3.5", "1e300", "9007199254740993.0", "0.1"])
def test_refuses_what_is_not_whole(text: str) -> None:
    """A fraction, or a float too large to be exact, is no whole number."""
    with pytest.raises(OutputError):
        whole_number(text)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_two_numbers_are_never_one(first: int, second: int) -> None:
    """Two numbers are read only if they are the same."""
    text = f"{first} or {second}"
    if first == second:
        assert number(text) == first
    else:
        with pytest.raises(OutputError):
            number(text)
