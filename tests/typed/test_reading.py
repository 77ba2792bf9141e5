"""Answers, read as the type that was asked for, by one rule; what it does not read is asked again."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from commands import ran
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PositiveInt, ValidationError
from typing_extensions import TypedDict

from llmcall import LLMCall, OutputError
from llmcall.testing import ScriptedClient

# A hundred answers as chat models write them, and the values that they should be read as.
AGAIN: Any = object()  # what is not plainly the value is asked again


class Mood(enum.Enum):
    """A feeling, as a customer has it."""

    GOOD = "good"
    VERY_GOOD = "very good"
    BAD = "bad"


class Effort(enum.IntEnum):
    """The amount of work of something."""

    LOW = 1
    HIGH = 2


class Offer(BaseModel):
    """A seller's offer."""

    item: str
    price: float = Field(gt=0)
    tags: list[str] = []


class Pair(NamedTuple):
    """An item and its price."""

    item: str
    price: int


@dataclass
class Person:
    """Somebody whom a text mentions."""

    name: str
    age: int | None = None


class Visit(TypedDict):
    """One visit to the market."""

    day: str
    coins: int


Scale = Literal["strongly disagree", "disagree", "neutral", "agree", "strongly agree"]
Letter = Literal["A", "B", "C"]
Trade = Literal["buy", "sell", "wait"]
Age = Literal["18-24", "25-34"]
Unsure = Literal["yes", "no", "I don't know"]
Grade = Literal[1, 2, 3, 4, 5]
Language = Literal["C", "C++", "C#"]
OFFER = '{"item": "bread", "price": 2.5}'
BREAD = Offer(item="bread", price=2.5)

CHAT_ANSWERS: list[tuple[Any, str, Any]] = [
    # yes or no
    (bool, "Yes", True),
    (bool, "No.", False),
    (bool, "**Yes**", True),
    (bool, '"No"', False),
    (bool, "Answer: Yes", True),
    (bool, "True", True),
    (bool, "I have enough bread at home, and 3 coins is a lot for me.\n\nNo.", False),
    (bool, "<think>\nIs 3 fair? No, wait. It is.\n</think>\n\nYes", True),
    (bool, '{"value": true}', True),
    (bool, '```json\n{"value": false}\n```', False),
    (bool, "Yes!", True),
    (bool, "Yes, I would buy the bread for 3 coins.", AGAIN),
    (bool, "It depends on how fresh the bread is.", AGAIN),
    (bool, "Yes and no.", AGAIN),
    (bool, "As an AI language model, I don't buy bread, but a baker might say yes.", AGAIN),
    (bool, "Probably.", AGAIN),
    (bool, '{"value": "yes"}', AGAIN),
    (bool, "1", AGAIN),
    (bool, " \n", AGAIN),
    # whole numbers
    (int, "42", 42),
    (int, "\n\n", AGAIN),
    (int, "-5", -5),
    (int, "+2", 2),
    (int, "Answer: 7", 7),
    (int, "1,250,000", 1_250_000),
    (int, "Each of the 3 friends pays 4 coins.\n\n12", 12),
    (int, "First, 3 × 4 = 12.\nThen 12 + 5 = 17.\n\n**Answer: 17**", 17),
    (int, "<think>3 or 4? 4.</think>4", 4),
    (int, '{"value": 30}', 30),
    (int, "```\n7\n```", 7),
    (int, '```json\n{"value": 7}\n```', 7),
    (int, "45.000", AGAIN),
    (int, "+45.000", AGAIN),
    (int, "007", AGAIN),
    (int, ".5", AGAIN),
    (int, "1,250", AGAIN),
    (int, "7.0", AGAIN),
    (int, "about 5", AGAIN),
    (int, "5-7", AGAIN),
    (int, "7/10", AGAIN),
    (int, "5 coins", AGAIN),
    (int, "twelve", AGAIN),
    (int, "$\\boxed{7}$", AGAIN),
    (int, '{"value": "45.000"}', AGAIN),
    # numbers
    (float, "2.5", 2.5),
    (float, "3", 3.0),
    (float, "-0.75", -0.75),
    (float, ".75", 0.75),
    (float, "-.5", -0.5),
    (float, "1,250.50", 1250.5),
    (float, "1,250,000", 1_250_000.0),
    (float, "1.5e-7", 1.5e-7),
    (float, "**Answer: 0.125**", 0.125),
    (float, "The bread is worth 3 coins, the salt 1.25.\n4.25", 4.25),
    (float, '{"value": 45.5}', 45.5),
    (float, "2.500 €", AGAIN),
    (float, "3.141", AGAIN),
    (float, "1,250", AGAIN),
    (float, "2,5", AGAIN),
    (float, "$3.50", AGAIN),
    (float, "1.250,50", AGAIN),
    (float, "50%", AGAIN),
    (float, "NaN", AGAIN),
    (float, "\t", AGAIN),
    # one of some texts
    (Trade, "buy", "buy"),
    (Trade, '"wait"', "wait"),
    (Trade, "**Buy**.", "buy"),
    (Trade, "The price has fallen for three days.\n\nI keep my bread.\n\n**Answer:** wait", "wait"),
    (Trade, '{"value": "sell"}', "sell"),
    (Trade, "<think>buy? No: sell.</think>\nwait", "wait"),
    (Scale, "Strongly agree", "strongly agree"),
    (Trade, "buy\nsell", AGAIN),
    (Letter, "B", "B"),
    (Unsure, "I don’t know.", "I don't know"),
    *((Age, f"18{dash}24", "18-24") for dash in "‐‑‒–—−"),
    (Age, '{"value": "18‑24"}', "18-24"),
    (list[Age], '["18–24"]', ["18-24"]),
    (str, " Yes.\n", " Yes.\n"),
    (Annotated[Mood, "a remark"], "**Very good**.", Mood.VERY_GOOD),
    (Annotated[str, "a remark"], "Yes, if it is fresh.", "Yes, if it is fresh."),
    (Annotated[str, Field(max_length=3)], "Yes", "Yes"),
    (Annotated[str, Field(max_length=3)], "Maybe", AGAIN),
    (Pair, '{"item": "salt", "price": 2}', AGAIN),
    (Iterable[int], "[1, 2]", [1, 2]),
    (Grade, "4", 4),
    (Grade, '{"value": 4}', 4),
    (Language, "C#", "C#"),
    (Trade, "Action: wait\nReason: prices fall", AGAIN),
    (Trade, "buy or wait", AGAIN),
    (Trade, "hold", AGAIN),
    (Trade, "  ", AGAIN),
    (Scale, "(strongly) agree", AGAIN),
    (Scale, "**Agree**, since it is good for the town.", AGAIN),
    (Letter, "A: I don't know.", AGAIN),
    (Letter, "B) because it is cheaper", AGAIN),
    (Grade, "4/5", AGAIN),
    (Unsure, "Yes, but I don't know.", AGAIN),
    (Mood, "very good", Mood.VERY_GOOD),
    (Mood, "VERY_GOOD", AGAIN),
    (Mood, '{"value": "bad"}', Mood.BAD),
    (Mood, "The mood is good.", AGAIN),
    (Effort, "2", Effort.HIGH),
    (Effort, "Answer: 2.", Effort.HIGH),
    # JSON
    (list[str], '["bread", "salt"]', ["bread", "salt"]),
    (list[str], 'Here is the list:\n\n```json\n["bread", "salt"]\n```', ["bread", "salt"]),
    (list[str], '{"value": []}', []),
    (list[str], "- bread\n- salt", AGAIN),
    (list[int], "The numbers are [3, 1, 2].", [3, 1, 2]),
    (list[int], "[1, 2, 3,]", AGAIN),
    (dict, '{"a": 1, "b": [true, null]}', {"a": 1, "b": [True, None]}),
    (dict, "{'a': 1}", AGAIN),
    (Offer, OFFER, BREAD),
    (Offer, f"Sure! Here is my offer:\n\n```json\n{OFFER}\n```\n\nDo you like it?", BREAD),
    (Offer, f"<think>\n{{price: 3}}? No.\n</think>\n{OFFER}", BREAD),
    (Offer, '{"item": "bread", "price": "2.500 €"}', AGAIN),
    (Offer, '{"item": "bread", "price": 2.5, "currency": "EUR"}', AGAIN),
    (Offer, '{"offer": {"item": "bread", "price": 2.5}}', AGAIN),
    (Offer, '{"item": "bread", "pri', AGAIN),
    (Offer, f'{OFFER} or {{"item": "bread", "price": 3}}', AGAIN),
    (Person, '{"name": "Maria", "age": 34}', Person("Maria", 34)),
    (Person, '{"name": "Maria"}', Person("Maria")),
    (Person, '{"name": "Maria", "age": "34"}', AGAIN),
    (Visit, '{"day": "Monday", "coins": 3}', {"day": "Monday", "coins": 3}),
    (Visit, '{"day": "Monday", "coins": 3.5}', AGAIN),
]

ANSWERS: list[Any] = []


def last_answer(messages: list[Any]) -> Any:
    """Give the last of the answers."""
    return {"role": "assistant", "content": ANSWERS[-1]}


CLIENT = ScriptedClient(last_answer, model="gpt-3.5-turbo")
STRUCTURED = ScriptedClient(last_answer, model="gpt-4o")


def read(text: str, output_type: Any, client: ScriptedClient = CLIENT) -> Any:
    """Read an answer as an LLMCall does."""
    ANSWERS[:] = [text]
    return LLMCall(user="?", output_type=output_type, output_retries=0, client=client)()


def is_asked_again(text: str, output_type: Any) -> bool:
    """Return whether an answer is not read, with structured output or without."""
    for client in (CLIENT, STRUCTURED):
        with pytest.raises(OutputError) as caught:
            read(text, output_type, client)
        assert (caught.value.text, caught.value.expected) == (text, prompt_for(output_type))
    return True


@pytest.mark.parametrize(
    "output_type", dict.fromkeys(asked_type for asked_type, _, _ in CHAT_ANSWERS), ids=str
)
def test_what_chat_models_write_is_read_as_meant_or_asked_again(output_type: Any) -> None:
    """None is read wrong; of what is asked again, the error has the text and what was expected."""
    for text, value in [case[1:] for case in CHAT_ANSWERS if case[0] == output_type]:
        if value is AGAIN:
            assert is_asked_again(text, output_type), text
            continue
        for client in (CLIENT, STRUCTURED):
            found = read(text, output_type, client)
            assert (type(found), found) == (type(value), value), text


AROUND_WORDS = st.sampled_from(
    ["{}", "{}.", "**{}**", '"{}"', "“{}”", "`{}`", "Answer: {}", "**Answer:** {}", "Answer: **{}.**",
     "ANSWER: {}", "**Answer: {}**", "I have thought about it.\n\n{}", "<think>\n1 or 2?\n</think>\n{}"]
)  # fmt: skip


@given(st.integers(), AROUND_WORDS)
def test_a_whole_number_as_python_writes_it_reads_back(value: int, around: str) -> None:
    """By itself or in the last line, after "Answer:" or not, in quotes, bold or with a stop."""
    assert read(around.format(value), int) == value


@given(st.floats(allow_nan=False, allow_infinity=False), AROUND_WORDS)
def test_a_number_as_python_writes_it_reads_back(value: float, around: str) -> None:
    """But one that is thousands in another language."""
    whole, _, fraction = repr(abs(value)).partition(".")
    if len(fraction) == 3 and fraction.isdigit() and len(whole) <= 3 and whole != "0":
        assert is_asked_again(around.format(value), float)
    else:
        assert repr(read(around.format(value), float)) == repr(value)


@given(st.integers(min_value=1000), st.sampled_from(["", ".5", ".250"]))
def test_commas_between_groups_of_three_are_read_where_they_can_mean_nothing_else(
    value: int, fraction: str
) -> None:
    """There are two groups, or a point follows."""
    text = f"{value:,}{fraction}"
    if value < 1_000_000 and not fraction:
        assert is_asked_again(text, float)
    else:
        assert read(text, float) == float(f"{value}{fraction}")
    if not fraction and value >= 1_000_000:
        assert read(text, int) == value


@pytest.mark.parametrize(
    ("output_type", "text", "value"),
    [
        (bool, '{"value": true}', True),
        (int, 'Sure: {"value": 45}', 45),
        (Effort, '{"value": 2}', Effort.HIGH),
        (list[Offer], '{"value": [{"item": "salt", "price": 1}]}', [Offer(item="salt", price=1)]),
        (int | None, '{"value": null}', None),
        (str | None, '{"value": "null"}', "null"),
        (dict, '{"value": 3}', {"value": 3}),
        (str, '{"value": 1}', '{"value": 1}'),
    ],
)
def test_a_value_that_is_no_json_object_is_read_from_an_object_around_it(
    output_type: Any, text: str, value: Any
) -> None:
    """Structured output wraps it as {"value": …}."""
    assert read(text, output_type, STRUCTURED) == value


@pytest.mark.parametrize(
    ("output_type", "text", "value"),
    [
        (int | None, "null", None),
        (int | None, "**5**", 5),
        (Trade | None, "Buy.", "buy"),
        (str | None, "Paris", "Paris"),
        (Annotated[int, Field(ge=1, le=5)], "Answer: 4", 4),
        (Annotated[int, Field(ge=1, le=5)] | None, "Answer: 4", 4),
        (datetime.date, '"2026-11-20"', datetime.date(2026, 11, 20)),
    ],
)
def test_a_type_that_may_be_missing_or_is_bounded_is_read_as_the_type_itself(
    output_type: Any, text: str, value: Any
) -> None:
    """In plain words, too; any other type from its JSON."""
    assert read(text, output_type) == value
    if value != "Paris":
        assert is_asked_again("-9.5", output_type)


def test_a_number_that_no_float_holds_is_asked_again() -> None:
    for text, output_type in (
        ("9" * 400, float),
        ("1e999", float),
        (f"[{'9' * 400}]", list[float]),
    ):
        assert is_asked_again(text, output_type)


class Found(BaseModel, extra="allow"):
    """The values of a text, by names of its own."""

    offer: Offer | None = None


def test_unknown_keys_are_read_by_a_model_that_allows_them() -> None:
    """Not by a class in its fields that does not."""
    found = read('{"offer": {"item": "salt", "price": 1}, "town": "Rye"}', Found)
    assert (found.offer, found.town) == (Offer(item="salt", price=1), "Rye")
    assert is_asked_again('{"offer": {"item": "salt", "price": 1, "town": "Rye"}}', Found)


def test_a_set_is_read_from_an_array_that_repeats_an_element() -> None:
    """As pydantic reads it strictly: schemas that servers enforce cannot forbid it."""

    class Basket(BaseModel):
        items: set[str]

    assert read('{"items": ["salt", "bread", "salt"]}', Basket) == Basket(items={"bread", "salt"})
    assert read("[1, 1, 2]", set[int]) == {1, 2}
    assert is_asked_again('{"items": ["salt"], "town": "Rye"}', Basket)


class Guest(BaseModel):
    """Somebody at a feast, with fields of the usual kinds."""

    name: str
    mood: Literal["good", "bad"] = "good"
    rounds: int | None = None
    prices: list[float] = []
    friend: Guest | None = None


class OnlyGuest(Guest, extra="forbid"):
    """The same, as pydantic itself refuses unknown keys."""

    friend: OnlyGuest | None = None


FIELDS = st.fixed_dictionaries(
    {"name": st.sampled_from(["Ann", 1])},
    optional={
        "mood": st.sampled_from(["good", "bad", "well"]),
        "rounds": st.sampled_from([1, 1.5, True, None, "1"]),
        "prices": st.lists(st.sampled_from([1, 2.5, "2.5", None]), max_size=2),
        "town": st.just("Rye"),
    },
)


@given(st.lists(FIELDS, min_size=1, max_size=3))
@settings(max_examples=4 * settings.default.max_examples)
def test_a_model_reads_what_pydantic_takes_strictly_without_unknown_keys(
    chain: list[dict[str, Any]],
) -> None:
    """At any depth."""
    value: Any = None
    for fields in chain:
        value = {**fields, "friend": value}
    text = json.dumps(value)
    try:
        expected = OnlyGuest.model_validate_json(text, strict=True).model_dump()
    except ValidationError:
        assert is_asked_again(text, Guest)
    else:
        assert read(text, Guest).model_dump() == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ann", "friend": {"name": "Bob"}, "mo',
        '{“name”: “Ann”, "friend": {"name": "Bob"}}',
        '{"name": NaN}',
        "{}\n\n{}",
    ],
)
def test_json_within_broken_json_or_beside_other_json_is_not_read(text: str) -> None:
    """The object in an answer that was cut is a part of another."""
    assert is_asked_again(text, dict)


@pytest.mark.parametrize(
    "reasoning",
    [
        "<think>{}</think>",
        "{}</think>",
        "<reasoning>\n{}\n</reasoning>",
        "<think>{}<think>{}</think><think>{}</think>",
        "[THINK]{}[/THINK]",
        "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    ],
)
def test_reasoning_in_tags_is_left_out(reasoning: str) -> None:
    """Reasoning may hold anything; an answer that ends in it has no value, and a text is the rest."""
    assert read(reasoning.replace("{}", "No.") + "\n\nYes.", str) == "Yes."
    assert read(reasoning.replace("{}", 'No. {"a": 1} 5') + '\n{"b": 2}', dict) == {"b": 2}
    if not reasoning.startswith("{}"):
        assert is_asked_again(reasoning.partition("{}")[0] + "\nYes", bool)


def test_the_words_of_a_correction_are_fixed() -> None:
    """It holds nothing of the answer or of an error, and repeats what the question said."""
    client = ScriptedClient(["Well.", '{"value": 0.5}', "7"], model="gpt-3.5-turbo")
    assert LLMCall(user="How many?", output_type=int, client=client)() == 7
    asked = [request.messages[-1]["content"] for request in client.requests]
    correction = (
        "I cannot use that answer: it is not in the form that I asked for.\n"
        "Answer with only a whole number."
    )
    assert asked == ["How many?\n\nAnswer with only a whole number.", correction, correction]


def prompt_for(output_type: Any) -> str:
    """Return what an LLMCall tells a model without structured output of the type."""
    ANSWERS[:] = ["?"]
    CLIENT.requests.clear()
    LLMCall(user="?", output_type=output_type, output_retries=0, client=CLIENT, on_error="return")()
    return CLIENT.requests[-1].messages[0]["content"].removeprefix("?\n\n")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("output_type", "sentence"),
    [
        (bool, "yes or no."),
        (int, "only a whole number."),
        (float, "only a number."),
        (list, "only a JSON array."),
        (Trade, "exactly one of: buy, sell, wait."),
        (Mood, "exactly one of: good, very good, bad."),
        (Effort, "exactly one of: 1, 2."),
        (Literal["a, b", "c"], 'exactly one of: "a, b", "c".'),
        (Literal["a", 1, True, None], "exactly one of: a, 1, true, null."),
        (dict, "only a JSON object."),
        (list[str], "only a JSON array of strings."),
        (int | None, "null, or with only a whole number."),
        (Annotated[int, Field(ge=0, le=100)], "only a whole number from 0 to 100."),
        (Annotated[float, Field(ge=-0.5, le=1)], "only a number from -0.5 to 1."),
        (Annotated[int, Field(ge=1)], "only a whole number that is at least 1."),
        (Annotated[int, Field(le=-1)], "only a whole number that is at most -1."),
        (PositiveInt, "only a whole number that is more than 0."),
        (Annotated[float, Field(lt=2.5)], "only a number that is less than 2.5."),
        (Annotated[float, Field(gt=0, lt=1)], "only a number that is more than 0 and less than 1."),
        (
            Annotated[int, Field(ge=0, lt=7)],
            "only a whole number that is at least 0 and less than 7.",
        ),
        (
            Annotated[int, Field(ge=0, le=9)] | None,
            "null, or with only a whole number from 0 to 9.",
        ),
    ],
)
def test_the_sentence_in_the_prompt_about_the_type_is_fixed(
    output_type: Any, sentence: str
) -> None:
    """It stands in the prompt, and so in the request's key."""
    assert prompt_for(output_type) == f"Answer with {sentence}"


@pytest.mark.parametrize(
    "field", [Field(multiple_of=5, ge=0), Field(description="in coins", ge=0), Field(strict=True)]
)
def test_a_type_constrained_by_more_than_bounds_is_sent_as_a_schema(field: Any) -> None:
    """A sentence would leave out a part of it."""
    assert "JSON schema: {" in prompt_for(Annotated[int, field])


FITTING = 'a text that fits this JSON schema: {"maxLength": 3, "type": "string"}'


@pytest.mark.parametrize(
    ("kind", "answers", "value", "asked"),
    [
        (Annotated[int, Field(ge=0, le=100)], ["101", "Answer: 100"], 100, "a whole number from 0 to 100."),
        (Annotated[str, Field(max_length=3)], ["Maybe", "Yes"], "Yes", FITTING),
    ],
)  # fmt: skip
def test_a_value_that_breaks_its_constraint_is_asked_again_with_it(
    kind: Any, answers: list[str], value: Any, asked: str
) -> None:
    """A text as text: a model that was asked for JSON would put quotes around it."""
    client = ScriptedClient(answers, model="my-model")
    assert LLMCall(user="?", output_type=kind, client=client)() == value
    assert client.requests[1].messages[-1]["content"].endswith(f"\nAnswer with only {asked}")


COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


class Place(enum.Enum):
    """Where one meets, as a questionnaire from a Mac writes it."""

    CAFE = DECOMPOSED
    PARK = "park"


class Meeting(BaseModel):
    """A model with such an option."""

    place: Literal[DECOMPOSED, "park"]  # type: ignore[valid-type]
    places: list[Place] = []
    note: str = ""


@pytest.mark.parametrize(
    ("option", "answer"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (DECOMPOSED, DECOMPOSED)]
)
def test_an_option_matches_in_its_composed_form(option: str, answer: str) -> None:
    """In plain words and in JSON; it is the value as the type spells it."""
    options = Literal[option, "park"]  # type: ignore[valid-type]
    assert read(answer.upper(), options) == option
    assert read(json.dumps({"value": answer}), options, STRUCTURED) == option
    assert read(json.dumps([answer, "park"]), list[options]) == [option, "park"]  # type: ignore[valid-type]


def test_options_within_a_model_match_in_their_composed_form() -> None:
    """A text that is no option stays as it came."""
    note = f"{COMPOSED}!"
    answer = json.dumps({"place": COMPOSED, "places": [COMPOSED, "park"], "note": note})
    meeting = read(answer, Meeting)
    assert meeting == Meeting(place=DECOMPOSED, places=[Place.CAFE, Place.PARK], note=note)


def test_two_spellings_of_one_text_are_two_options() -> None:
    options = Literal[COMPOSED, DECOMPOSED]  # type: ignore[valid-type]
    assert read(COMPOSED, options) == COMPOSED
    assert read(DECOMPOSED, options) == DECOMPOSED
    assert is_asked_again(DECOMPOSED.upper(), options)


TYPES = [str, bool, int, float, Trade, Mood, Effort, list, list[int], dict, Offer, Person, Visit]


@pytest.mark.newest_only
@settings(max_examples=20)
@given(
    st.text(min_size=1)
    | st.text("[]{}\"':,\\ \n`0123456789.-+eyesno truefalsnbuygod<>/*#“”’$%", min_size=1)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text is an accident, for no type."""
    for output_type in [*TYPES, int | None, str | None]:
        for client in (CLIENT, STRUCTURED):
            try:
                read(text, output_type, client)
            except OutputError as error:
                assert error.text == text


@pytest.mark.parametrize("unit", ["[", '{"a":', "```\n"])
def test_an_answer_that_repeats_itself_is_refused(unit: str) -> None:
    """Twenty thousand levels, or repetitions, are like any other nonsense."""
    for output_type in (bool, int, Trade, list, dict, Offer):
        with pytest.raises(OutputError):
            read(unit * 20_000 + " so.", output_type)


SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | SCALARS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
AROUND = st.sampled_from(["{}", "```json\n{}\n```", "Here it is:\n\n```\n{}\n```\nGood luck!"])


@given(
    st.dictionaries(st.text(), PLAIN, max_size=5) | st.lists(PLAIN, max_size=5),
    AROUND,
    st.booleans(),
)
def test_a_value_written_as_json_reads_back_the_same(
    value: Any, around: str, ascii_only: bool
) -> None:
    """By itself, or in the one fenced block."""
    text = around.replace("{}", json.dumps(value, ensure_ascii=ascii_only), 1)
    assert repr(read(text, type(value))) == repr(value)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique_by=lambda text: text.strip()))
def test_every_option_is_read_as_written(options: list[str]) -> None:
    """An option's own text always names it, whatever characters it has."""
    options = [option for option in options if option.strip() == option]
    for option in options:
        assert read(option, Literal[tuple(options)]) == option  # type: ignore[valid-type]


@pytest.mark.parametrize(
    "unreadable", [enum, object(), Literal[b"x"]], ids=["a module", "an object", "bytes"]
)
def test_a_type_that_nothing_can_be_read_as_is_refused(unreadable: Any) -> None:
    """It is the caller's mistake."""
    with pytest.raises(TypeError):
        read("{}", unreadable)


def test_simple_types_import_no_pydantic() -> None:
    """Asking for and reading simple types costs no import of pydantic, a plain text none of Jinja2."""
    program = """
        from typing import Literal
        for kind, text in ((str, "a"), (bool, "yes"), (int, "1"), (float, "1"), (Literal["a"], "a"), (list, "[]"),
                           (list[int], "[1]"), (dict, "{}")):
            for model in ("gpt-3.5-turbo", "gpt-4o"):
                client = ScriptedClient([{"role": "assistant", "content": text}], model=model, prices={model: (0, 0)})
                llmcall.LLMCall(user="?", output_type=kind, client=client)()
        print("pydantic" in sys.modules, "jinja2" in sys.modules)
    """
    assert ran(program) == "False False"
