"""Answers as models write them, read as the type that was asked for, or refused."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import subprocess
import sys
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from llmcall.errors import OutputError
from llmcall.outputs.parse import correction, describe, read, read_structured
from llmcall.requests.schemas import response_format

Action = Literal["buy", "sell", "wait"]
MaybeInt = Optional[int]  # noqa: UP045  both spellings are read


class Mood(enum.Enum):
    """A feeling."""

    VERY_GOOD = "very good"
    GOOD = "good"
    BAD = "bad"


class Level(enum.IntEnum):
    """A level of effort."""

    LOW = 1
    HIGH = 2


class Offer(BaseModel):
    """An offer at the market."""

    price: float = Field(gt=0)
    goods: list[str] = []
    action: Action = "wait"


@dataclasses.dataclass
class Buyer:
    """Somebody at the market."""

    name: str
    age: int = 30


class Visit(TypedDict):
    """One visit."""

    day: str
    coins: int


ACCEPTED = [
    (str, "  As I said:\n", "  As I said:\n"),
    (bool, "Yes, because there is no bread at home.", True),
    (bool, "No.", False),
    (bool, "**Yes**", True),
    (bool, "Answer: no", False),
    (bool, "Hmm... yes.", True),
    (bool, "```\nyes\n```", True),
    (bool, "<think>No, wait. Is 5 fair? No.</think>\nYes", True),
    (int, "42 coins", 42),
    (int, "about 7", 7),
    (int, "3.0", 3),
    (int, "It's 7. Definitely 7!", 7),
    (int, '{"price": 7}', 7),
    (int, "```json\n12\n```", 12),
    (float, "$1,234.50", 1234.5),
    (float, "I would pay 3 coins.", 3.0),
    (Action, "buy", "buy"),
    (Action, "I would choose: BUY.", "buy"),
    (Action, "Action: **wait**\nReason: prices fall", "wait"),
    (Mood, "very good", Mood.VERY_GOOD),
    (Mood, "VERY_GOOD", Mood.VERY_GOOD),
    (Mood, "I feel good today.", Mood.GOOD),
    (Level, "High", Level.HIGH),
    (Level, "2", Level.HIGH),
    (list, 'Here: ["a", 1, null]', ["a", 1, None]),
    (list[int], "```json\n[1, 2, 3,]\n```", [1, 2, 3]),
    (list[int], "['1', 2.0]", [1, 2]),
    (list[str], 'My list is ["bread", "salt"], as you asked.', ["bread", "salt"]),
    (list[bool], "[true, False, 'no']", [True, False, False]),
    (list[Action], '["BUY", "wait"]', ["buy", "wait"]),
    (list[Mood], '["good", "BAD"]', [Mood.GOOD, Mood.BAD]),
    (list[Offer], '[{"price": 1}, {"price": 2}]', [Offer(price=1), Offer(price=2)]),
    (dict, "{'a': 1, 'b': True, 'c': None}", {"a": 1, "b": True, "c": None}),
    (dict, 'I filled in {name}: {"name": "Lisa"}', {"name": "Lisa"}),
    (dict, '[12:30] {"a": 1}', {"a": 1}),
    (dict[str, int], '{"bread": 3, "salt": "4"}', {"bread": 3, "salt": 4}),
    (Offer, '{"price": 2.5, "goods": ["bread"], "action": "buy"}', Offer(price=2.5, goods=["bread"], action="buy")),
    (Offer, "Sure!\n```json\n{'price': 2, // coins\n 'goods': [],}\n```\nAnything else?", Offer(price=2)),
    (Offer, '{"price": 3} I repeat: {"price": 3}', Offer(price=3)),
    (Offer, 'The old one was [1]. {"price": 3}', Offer(price=3)),
    (Buyer, "{'name': 'Lisa', 'age': 28}", Buyer("Lisa", 28)),
    (Visit, '\ufeff{"day": "Monday", "coins": 3}', {"day": "Monday", "coins": 3}),
    (MaybeInt, "None", None),
    (MaybeInt, "5 coins", 5),
    (Offer | None, '{"price": 1}', Offer(price=1)),
    (Offer | None, "null", None),
    (Literal["none", "some"] | None, "none", "none"),
    (int | list[int], "[1]", [1]),
    (int | str, "many", "many"),
    (datetime.date, "**2026-11-20**", datetime.date(2026, 11, 20)),
    (Annotated[int, Field(ge=1, le=5)], "I rate it 4.", 4),
]

REFUSED = [
    (bool, "", "neither yes nor no"),
    (bool, "Yes and no", "both"),
    (bool, "yes... actually no", "both"),
    (bool, "I'm not sure", "neither"),
    (bool, "maybe", "neither"),
    (bool, "No idea.", "neither"),
    (bool, "Yes, but I'm not sure.", "undecided"),
    (bool, "1", "neither"),
    (int, "three", "no number in digits"),
    (int, "between 3 and 5", "different numbers, 3, 5"),
    (int, "3.5", "no whole number"),
    (int, "8 out of 10", "different"),
    (int, "[1, 2]", "different"),
    (int, '{"price": 12', "cut off"),
    (float, "NaN", "no number"),
    (float, "1.234,56", "more than one way"),
    (float, "1e999", "too large"),
    (Action, "buy or sell", "more than one option: buy, sell"),
    (Action, "I don't buy", "negation"),
    (Action, "Should I buy? Yes.", "question"),
    (Action, "steal", "none of the options"),
    (Mood, "not good", "negation"),
    (Level, "3", "none of the options"),
    (list, "bread and salt", "no JSON array"),
    (list[int], "[1, 2] or [3]", "2 different JSON values"),
    (list[int], "[1, x]", "line 1, column 5"),
    (list[int], "[1.5]", "element 0"),
    (list[int], "[true]", "element 0: it is no number"),
    (list[str], "[1]", "element 0: it is no string"),
    (dict, '{"a": NaN, "b": {"c": 1}}', "NaN"),
    (dict, '{"a": 1, "b": {"c": 2}, ...}', "line 1, column 25"),
    (dict, '{"a": {"b": 1}', "cut off"),
    (dict, '{"a": 1, "a": 2}', "two values"),
    (dict, '["a"]', "no JSON object"),
    (dict[str, int], '{"bread": "many"}', "bread: Input should be a valid integer"),
    (Offer, '{"price": 1} or {"price": 2}', "2 different"),
    (Offer, '{"price": -1}', "price: Input should be greater than 0"),
    (Offer, '{"offer": {"price": 1}}', "price: Field required"),
    (Buyer, '{"age": 3}', "name: Field required"),
    (Visit, "{}", "coins: Field required; day: Field required"),
    (MaybeInt, "nothing", "no number"),
    (int | float, "nan", "no number"),
    (datetime.date, "soon", "valid date"),
    (Annotated[int, Field(ge=1, le=5)], "7", "less than or equal to 5"),
]
TYPES = list(dict.fromkeys(output_type for output_type, *_ in ACCEPTED))


def named(value: Any) -> str:
    """Name a type in a test's id without an address."""
    return str(getattr(value, "__name__", value))[:40]


@pytest.mark.parametrize(("output_type", "text", "value"), ACCEPTED, ids=named)
def test_reads_what_has_one_meaning(output_type: Any, text: str, value: Any) -> None:
    """An answer with one meaning is read, whatever is around it."""
    found = read(text, output_type)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("output_type", "text", "reason"), REFUSED, ids=named)
def test_refuses_what_has_no_one_meaning(output_type: Any, text: str, reason: str) -> None:
    """An answer with two meanings, or none, is refused with the reason, the text and what is expected."""
    with pytest.raises(OutputError) as caught:
        read(text, output_type)
    assert reason in str(caught.value)
    assert caught.value.text == text
    assert caught.value.expected == describe(output_type)


DESCRIBED = [
    (str, ""),
    (bool, "Answer with yes or no."),
    (int, "Answer with only a whole number."),
    (float, "Answer with only a number."),
    (Action, "Answer with exactly one of: buy, sell, wait."),
    (Mood, "Answer with exactly one of: very good, good, bad."),
    (Level, "Answer with exactly one of: LOW, HIGH."),
    (Literal["a, b", "c"], 'Answer with exactly one of: "a, b", "c".'),
    (list, "Answer with only a JSON array."),
    (list[str], "Answer with only a JSON array of strings."),
    (dict, "Answer with only a JSON object."),
    (MaybeInt, "Answer with null, or with only a whole number."),
    (
        list[Action],
        "Answer with only a JSON array that fits this JSON schema: "
        '{"items": {"enum": ["buy", "sell", "wait"], "type": "string"}, "type": "array"}',
    ),
    (
        Buyer,
        "Answer with only a JSON object that fits this JSON schema: "
        '{"description": "Somebody at the market.", "properties": {"name": {"type": "string"}, '
        '"age": {"default": 30, "type": "integer"}}, "required": ["name"], "type": "object"}',
    ),
]


@pytest.mark.parametrize(("output_type", "sentence"), DESCRIBED, ids=named)
def test_describes_what_to_answer(output_type: Any, sentence: str) -> None:
    """The sentence for the prompt is fixed, since it is part of the request's key."""
    assert describe(output_type) == sentence


def test_correction_says_why_and_what() -> None:
    """The message that asks again gives the reason and the expectation."""
    with pytest.raises(OutputError) as caught:
        read("between 3 and 5", int)
    assert correction(caught.value) == (
        "I cannot use that answer: it is not a whole number: it holds different numbers, 3, 5.\n"
        "Answer with only a whole number."
    )


STRUCTURED = [
    (bool, '{"value": true}', True),
    (int, '{"value": 7}', 7),
    (float, '{"value": 7}', 7.0),
    (Action, '{"value": "sell"}', "sell"),
    (Mood, '{"value": "very good"}', Mood.VERY_GOOD),
    (Level, '{"value": "HIGH"}', Level.HIGH),
    (list[str], '{"value": ["a", "b"]}', ["a", "b"]),
    (list[Offer], '{"value": [{"price": 1}]}', [Offer(price=1)]),
    (MaybeInt, '{"value": null}', None),
    (str | None, '{"value": "null"}', "null"),
    (int | str, '{"value": "5"}', "5"),
    (datetime.date, '{"value": "2026-11-20"}', datetime.date(2026, 11, 20)),
    (Offer, '{"price": 2}', Offer(price=2)),
    (dict, '{"value": 3}', {"value": 3}),
    (bool, "No, thanks.", False),
    (str, '{"value": 1}', '{"value": 1}'),
]


@pytest.mark.parametrize(("output_type", "text", "value"), STRUCTURED, ids=named)
def test_reads_structured_answers(output_type: Any, text: str, value: Any) -> None:
    """What structured output wraps is unwrapped; an answer in words is read all the same."""
    found = read_structured(text, output_type)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ['{"value": "many"}', '{"value": [1', '{"value": true}', '{"value": 1.5}'])
def test_refuses_structured_answers_of_another_type(text: str) -> None:
    """A wrapped value is read as strictly as any other."""
    with pytest.raises(OutputError):
        read_structured(text, int)


@settings(max_examples=40, deadline=None)
@given(st.text() | st.text(alphabet="[]{}\"':,\\ \n`0123456789.-+eyesno truefalsnbuygod<>/*#“”’$%"))
def test_raises_nothing_but_output_errors(text: str) -> None:
    """Any text is read or refused, for every type; no text is an accident."""
    for output_type in TYPES:
        for reader in (read, read_structured):
            try:
                reader(text, output_type)
            except OutputError as error:
                assert error.text == text


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
AROUND = st.sampled_from(
    [
        "{}",
        "```json\n{}\n```",
        "Here you are:\n\n```\n{}\n```\nGood luck!",
        "It's {} indeed.",
        "\ufeff {} ",
        "~~~\n{}\n~~~",
    ]
)


def put(around: str, text: str) -> str:
    """Put a text into its surroundings."""
    before, _, after = around.partition("{}")
    return before + text + after


@settings(deadline=None)
@example({"</think>": {"<think>": 'a "quoted" one\n</think>\\'}, "": {}}, "Here it is: {}", False)
@given(st.dictionaries(st.text(), PLAIN, max_size=5), AROUND, st.booleans())
def test_objects_come_back(value: dict[str, Any], around: str, ascii_only: bool) -> None:
    """An object written as JSON, in fences or among words, reads back the same."""
    assert read(put(around, json.dumps(value, ensure_ascii=ascii_only)), dict) == value


@settings(deadline=None)
@given(st.lists(PLAIN, max_size=5), AROUND)
def test_arrays_come_back(value: list[Any], around: str) -> None:
    """An array written as JSON, in fences or among words, reads back the same."""
    assert read(put(around, json.dumps(value, indent=1)), list) == value


@settings(deadline=None)
@given(st.lists(PLAIN, max_size=5), AROUND)
def test_python_literals_come_back(value: list[Any], around: str) -> None:
    """An array written as Python writes it reads back the same, where its texts need no escapes of Python's own."""
    text = repr(value)
    if "\\x" not in text and "\\U" not in text:
        assert read(put(around, text), list) == value


@given(st.integers(), AROUND)
def test_integers_come_back(value: int, around: str) -> None:
    """Every whole number reads back the same, with thousands separators too."""
    assert read(put(around, str(value)), int) == value
    assert read(put(around, f"{value:,}"), int) == value


@given(st.floats(allow_nan=False, allow_infinity=False), AROUND)
def test_floats_come_back(value: float, around: str) -> None:
    """Every finite float reads back the same."""
    assert read(put(around, repr(value)), float) == value


@given(st.booleans(), AROUND)
def test_booleans_come_back(value: bool, around: str) -> None:
    """JSON's and Python's booleans read back the same in fences."""
    around = "{}" if "It's" in around else around
    assert read(put(around, json.dumps(value)), bool) is read(put(around, str(value)), bool) is value


@settings(deadline=None)
@given(st.builds(Offer, price=st.floats(min_value=0.1, max_value=1e6), goods=st.lists(st.text())), AROUND)
def test_models_come_back(value: Offer, around: str) -> None:
    """A pydantic model's JSON reads back as an equal model."""
    assert read(put(around, value.model_dump_json()), Offer) == value


@pytest.mark.parametrize(
    "unit", ["[", '{"a":', "[1,", '["', "{", "- 1 ", "yes no ", "not buy. ", "```\n", "1.1", "/*", "'"]
)
@pytest.mark.parametrize("output_type", [bool, int, Action, list, dict, Offer], ids=named)
def test_refuses_hostile_lengths_and_depths(unit: str, output_type: Any) -> None:
    """Five thousand levels, or repetitions, are refused like any other nonsense."""
    text = unit * 5_000 + " so."
    with pytest.raises(OutputError):
        read(text, output_type)


def test_is_not_misled_by_a_deep_value() -> None:
    """Nesting that pydantic's own parser refuses is an OutputError, not a RecursionError."""
    with pytest.raises(OutputError, match="more than 100 levels"):
        read("[" * 100_000 + "]" * 100_000, list)


@pytest.mark.parametrize("unreadable", [object, lambda: None, 3], ids=["object", "function", "number"])
def test_unknown_types_are_type_errors(unreadable: Any) -> None:
    """A type that nothing can be read as is the caller's mistake."""
    with pytest.raises(TypeError):
        read("{}", unreadable if unreadable is not object else type("Opaque", (), {}))


def test_simple_types_import_no_pydantic() -> None:
    """Reading, describing and asking for simple types costs no import of pydantic."""
    code = (
        "import sys\nfrom typing import Literal\nfrom llmcall.outputs.parse import describe, read\n"
        "from llmcall.requests.schemas import response_format\n"
        "for kind, text in ((str, 'a'), (bool, 'yes'), (int, '1'), (float, '1'), (Literal['a'], 'a'), (list, '[]'),"
        " (list[int], '[1]'), (dict, '{}')):\n    read(text, kind), describe(kind), response_format(kind)\n"
        "print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("output_type", [bool, int, float, Action, Mood, list[int], Offer, MaybeInt], ids=named)
def test_every_structured_type_has_a_format(output_type: Any) -> None:
    """Types whose answers are unwrapped are types that are asked for as structured output."""
    assert response_format(output_type) is not None
