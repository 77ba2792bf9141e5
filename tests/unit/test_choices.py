"""Yes or no, and one option among several, in the words that models use."""

from __future__ import annotations

import enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.errors import OutputError
from llmcall.outputs.choices import choice, verdict
from llmcall.requests.schemas import is_choice, labels

YES = [
    "yes",
    "YES!",
    "true",
    '"Yes."',
    "- Yes",
    "Yes, there is no bread at home, and no money is lost.",
    "Well, yes, I would.",
    "Would I buy it? Yes.",
    "I like bread.\n\nYes",
    "I would say yes, because I like it.",
    "My answer is: **Yes**",
    "The statement is true.",
    "Final decision: yes\nThank you",
    "I'm not hungry, but my answer is yes.",
]
NO = [
    "no",
    "No, I would not.",
    "No thanks",
    "No because it is dear",
    "FALSE",
    "Of course no.",
    "The answer is no.",
    "no\n\nIt is too expensive for me",
    "No. No one would.",
]
UNDECIDED = [
    "",
    "perhaps",
    "y",
    "Definitely!",
    "Yes/No",
    "Yes or no?",
    "No, yes",
    "Yes. No thanks.",
    "No bread is worth that",
    "No preference",
    "There is no way to know.",
    "It's true that bread is nice, but I will pass.",
    "That is not true.",
    "I would not say yes.",
    "Yes, maybe.",
    "It depends: yes if I am hungry.",
    "yesterday",
    "no-one",
    "The bread is no good.",
]


@pytest.mark.parametrize(("text", "value"), [(text, True) for text in YES] + [(text, False) for text in NO])
def test_reads_verdicts(text: str, value: bool) -> None:
    """A plain yes or no is read, whatever reasons come with it."""
    assert verdict(text) is value


@pytest.mark.parametrize("text", UNDECIDED)
def test_refuses_what_decides_nothing(text: str) -> None:
    """Neither, both, hedged or negated is refused."""
    with pytest.raises(OutputError):
        verdict(text)


class Size(enum.Enum):
    """A size with a name that is another's value."""

    SMALL = "s"
    LARGE = "xl"
    XL = "xxl"


class Grade(enum.IntEnum):
    """A grade with an alias."""

    POOR = 1
    FINE = 2
    OKAY = 2


Languages = Literal["C", "C++", "C#"]
Answers = Literal["A", "B", "I"]
Moods = Literal["good", "very good", "not good"]
Signs = Literal[-1, 0, 1]
Cases = Literal["US", "us"]

CHOSEN = [
    (Languages, "C#", "C#"),
    (Languages, "I use C++.", "C++"),
    (Answers, "b", "B"),
    (Answers, "(A)", "A"),
    (Answers, "I'd say B.", "B"),
    (Answers, "B) because it is a good one", "B"),
    (Moods, "I feel very good!", "very good"),
    (Moods, "It is not good.", "not good"),
    (Moods, "Very_Good", "very good"),
    (Signs, "-1", -1),
    (Signs, "I'd say 0.", 0),
    (Cases, "us", "us"),
    (Cases, "I mean the US.", "US"),
    (Size, "xl", Size.LARGE),
    (Size, "SMALL", Size.SMALL),
    (Grade, "okay", Grade.FINE),
    (Grade, "a grade of 2", Grade.FINE),
    (Literal["yes", "no"], "No, because yes-men bore me", "no"),
    (Literal[True, False], "Yes, please", True),
    (Literal[None, "x"], "null", None),
    (Literal["", "x"], "", ""),
    (Literal["don't know", "buy"], "I don’t know", "don't know"),
    (Literal["buy now", "wait"], "Let us buy\nnow!", "buy now"),
]
NOT_CHOSEN = [
    (Languages, "Java"),
    (Answers, "A better offer is needed"),
    (Answers, "A or B."),
    (Answers, "A better offer would be B."),
    (Answers, "So I think"),
    (Answers, "A is better than B."),
    (Answers, "I and B"),
    (Moods, "good and very good"),
    (Moods, "I never feel very good"),
    (Signs, "2"),
    (Signs, "between -1 and 1"),
    (Cases, "Us"),
    (Grade, "3"),
    (Literal["buy", "sell"], "I refuse to buy"),
    (Literal["buy", "sell"], "Buy? Not at all."),
    (Literal["buy", "sell"], "buy or not"),
    (Literal["buy", "sell"], "sell-off"),
    (Literal[1, 2], "-1"),
    (Literal[1, 2], "1.5"),
    (Literal["straße"], "STRASSE"),
]


@pytest.mark.parametrize(("output_type", "text", "value"), CHOSEN)
def test_reads_one_option(output_type: Any, text: str, value: Any) -> None:
    """One option, in any case and by value or name, is read, the longest where one holds another."""
    assert choice(text, output_type) is value or choice(text, output_type) == value


@pytest.mark.parametrize(("output_type", "text"), NOT_CHOSEN)
def test_refuses_no_or_several_options(output_type: Any, text: str) -> None:
    """None, several, a negated or an asked option is refused."""
    with pytest.raises(OutputError):
        choice(text, output_type)


def test_labels_name_options_as_prompts_do() -> None:
    """A string is its own label, an Enum's other values go by their names."""
    assert labels(Literal["a", 1, True, None]) == {"a": "a", "1": 1, "true": True, "null": None}
    assert list(labels(Grade)) == ["POOR", "FINE"]
    assert list(labels(Size)) == ["s", "xl", "xxl"]


def test_bytes_are_no_option() -> None:
    """A model answers in text."""
    with pytest.raises(TypeError, match="bytes"):
        labels(Literal[b"x"])


@pytest.mark.parametrize(("output_type", "told"), [(Size, True), (Answers, True), (str, False), (list[Size], False)])
def test_tells_choices_from_other_types(output_type: Any, told: bool) -> None:
    """Only a Literal or an Enum is a choice."""
    assert is_choice(output_type) is told


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique_by=lambda text: text.strip()))
def test_every_option_is_read_as_written(options: list[str]) -> None:
    """An option's own text always names it, whatever characters it has."""
    options = [option for option in options if option.strip() == option]
    if options:
        output_type = Literal[tuple(options)]  # type: ignore[valid-type]
        for option in options:
            assert choice(option, output_type) == option
