"""Answers as models write them, read as the type that was asked for, or refused: asking again beats
a wrong reading.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import ran
from pydantic import AliasChoices, AliasPath, BaseModel, Field, RootModel, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from llmcall import LLMCall, OutputError
from llmcall.testing import ScriptedClient

Action = Literal["buy", "sell", "wait"]
MaybeInt = Optional[int]  # noqa: UP045  both spellings are read


class Mood(enum.Enum):
    """A feeling."""

    VERY_GOOD = "very good"
    GOOD = "good"
    BAD = "bad"


class Level(enum.IntEnum):
    """A level of effort, one of them with two names."""

    LOW = 1
    HIGH = 2
    TOP = 2


class Size(enum.Enum):
    """A size with a name that is another's value."""

    SMALL = "s"
    LARGE = "xl"
    XL = "xxl"


class Side(enum.Enum):
    """A side in a debate, and its number."""

    AGAINST = -1
    NEUTRAL = 0
    FOR = 1


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


class Treaty(BaseModel):
    """A treaty, and when it was signed."""

    signed: datetime.datetime


class Founded(BaseModel):
    """When a firm was founded."""

    when: datetime.datetime = Field(alias="year")


@dataclasses.dataclass
class Room:
    """A room in metres."""

    width: float


class Visit(TypedDict):
    """One visit."""

    day: str
    coins: int


Agreement = Literal["strongly disagree", "disagree", "neutral", "agree", "strongly agree"]
Chinese = Literal["同意", "不同意", "中立"]
EASTERN = datetime.datetime(2026, 11, 20, 9, tzinfo=datetime.timezone(datetime.timedelta(hours=-5)))


class Person(BaseModel):
    """Somebody in a text, who may have no name there."""

    name: str | None = None
    age: int | None = None
    friend: Person | None = None


class Renamed(BaseModel):
    """Somebody, by keys in any case."""

    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def lower(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the keys in lower case."""
        return {name.lower(): value for name, value in values.items()}


class Summed(BaseModel):
    """A bill, checked by a validator that takes both its parts for given."""

    net: float

    @model_validator(mode="before")
    @classmethod
    def added(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Add the parts."""
        return {"net": values["net"] + values["tax"]}


class Seen(BaseModel):
    """When something was seen, under one of two names."""

    when: datetime.date | None = Field(None, validation_alias=AliasChoices("at", "on"))


class Camel(BaseModel, alias_generator=to_camel):
    """Somebody, by keys as JavaScript writes them."""

    first_name: str | None = None


class Full(BaseModel):
    """Somebody, by a name of two words."""

    first_name: str | None = None
    age: int | None = None


class Claim(BaseModel):
    """What somebody answers."""

    answer: str


class Doubt(BaseModel):
    """Why somebody gives no answer."""

    problem: str


class OpenForm(BaseModel, extra="allow"):
    """What a model finds, by names of its own."""

    name: str | None = None


class Dated(BaseModel):
    """An event under one of two names."""

    when: datetime.datetime = Field(validation_alias=AliasChoices("at", "on"))


# Its name has another name in JSON.
Labelled: Any = dataclasses.make_dataclass(
    "Labelled", [("name", Annotated[str, Field(alias="label")], "?")]
)


@dataclasses.dataclass
class Guess:
    """Whether somebody buys, by default not."""

    buy: bool = False


class Trip(TypedDict, total=False):
    """Where somebody went, and when, if that is known."""

    town: str
    year: int


class Journey(BaseModel):
    """Where a journey went, and what each thing cost there."""

    trip: Trip
    prices: dict[str, int] = {}


class Calendar(BaseModel):
    """What happened when, by numbers."""

    events: dict[int, datetime.datetime]


class Moments(RootModel[list[datetime.datetime]]):
    """When something happened."""


class Inner(BaseModel):
    """A moment that stands in an object of its own."""

    when: datetime.datetime = Field(validation_alias=AliasPath("event", "at"))


Born: Any = dataclasses.make_dataclass(
    "Born",
    [
        ("when", Annotated[datetime.date, Field(alias="year")]),
        ("age", int, 3),
    ],
)


class Stay(TypedDict):
    """Since when somebody stays, and for how many nights."""

    since: Annotated[datetime.date, Field(alias="from")]
    nights: int


class Noted(BaseModel):
    """What somebody noted, and when, by default now."""

    text: str
    when: datetime.datetime = datetime.datetime(2026, 11, 20)


class Effort(BaseModel):
    """How much effort something takes, and its price."""

    level: Level = Level.LOW
    price: float = 0


class Named(BaseModel, populate_by_name=True):
    """Somebody, by either of two names."""

    name: str | None = Field(None, alias="label")


ANSWERS: list[Any] = []
CLIENT = ScriptedClient(
    lambda messages: {"role": "assistant", "content": ANSWERS[-1]}, model="gpt-3.5-turbo"
)
STRUCTURED = ScriptedClient(
    lambda messages: {"role": "assistant", "content": ANSWERS[-1]}, model="gpt-4o"
)


def read(text: str, output_type: Any, client: ScriptedClient = CLIENT) -> Any:
    """Read an answer as an LLMCall does."""
    ANSWERS[:] = [text]
    return LLMCall(user="?", output_type=output_type, output_retries=0, client=client)()


def prompt_for(output_type: Any) -> str:
    """Return what an LLMCall tells a model without structured output of the type."""
    ANSWERS[:] = ["?"]
    CLIENT.requests.clear()
    LLMCall(user="?", output_type=output_type, output_retries=0, client=CLIENT, on_error="return")()
    return CLIENT.requests[-1].messages[0]["content"].removeprefix("?\n\n")  # type: ignore[no-any-return]


ACCEPTED = [
    (str, "  As I said:\n", "  As I said:\n"),
    *(
        (bool, text, True)
        for text in (
            "yes",
            "YES!",
            "true",
            '"Yes."',
            "**Yes**",
            "- Yes",
            "Hmm... yes.",
            "```\nyes\n```",
            "I like bread.\n\nYes",
            "Yes - there is bread",
            "Well, yes, I would.",
            "Yes, I know.",
            "Would I buy it, yes or no? Yes.",
            "My answer is: **Yes**",
            "The answer is yes.",
            "Final decision: yes\nThank you",
            "*smiles* Yes, I'd buy it.",
            "So the answer is **yes**.",
            "<think>No, wait. Is 5 fair? No.</think>\nYes",
            "[THINK]Is 5 fair? No.[/THINK]Yes",
            "<|channel|>analysis<|message|>No?<|end|><|start|>assistant<|channel|>final<|message|>Yes",
        )
    ),
    *(
        (bool, text, False)
        for text in (
            "no",
            "No, I would not.",
            "FALSE",
            "The answer is no.",
            "no\n\nIt is too expensive for me",
            "No. No one would.",
            "Answer: no",
        )
    ),
    *(
        (int, text, 7)
        for text in (
            "7",
            "7.",
            "**7**",
            "(7)",
            "€ 7",
            "7€",
            "7 (seven)",
            "Price: 7, I repeat: 7.0",
            "<answer>7</answer>",
            "Answer: <7>",
            "Score -> 7",
            "Score -> (7)",
            "My rating: (7)",
            "So => 7",
            "<|begin_of_box|>7<|end_of_box|>",
            '<b class="price">7</b>',
            "The answer is 7. Definitely: 7!",
            "7.0",
            '{"price": 7}',
            "```json\n7\n```",
            "**Answer:** `7`",
            "The correct answer is **7**.",
            "$\\boxed{7}$",
            "\\textbf{7}",
            "$\\mathbf{7}$",
            "\\[ \\boxed{\\text{7}} \\]",
            "$\\boxed{\\text{Answer: 7}}$",
            "\\(7\\)",
            "* 7",
            "I would rate it **7**.",
            "The total is **7**.",
            "It is good. **7**",
            "« 7 »",
            "**7** – Strongly agree",
            "<answer>7</answer> I think so.",
            '{"answer": 7, "reason": "I like it."}',
            '{"reason": "I like it.", "answer": 7}',
            '{"answer": 7, "reason": null}',
            '{"name": "Ann", "answer": 7}',
            '{"price": 7, "currency": "EUR"}',
            '{"persona": "Ann", "price": 7}',
            '{"price": 7, "comment": null}',
            '{"reason": "价格合理", "price": 7}',
            '{"Q1": 7}',
            "{'offer': {'price': 7},}",
            "$\\boxed{7}$. This is so since",
        )
    ),
    *((int, text, -5) for text in ("-5", "−5", "-$5")),
    *(
        (int, text, 1234)
        for text in (
            "1,234",
            "1 234",
            "1_234",
            "1\u202f234",
            "1\u00a0234",
            "+1234",
            "1,234.00",
            "1.234e3",
        )
    ),
    (float, "1,234,567.89", 1234567.89),
    (int, "9007199254740993", 9007199254740993),
    (float, ".5", 0.5),
    (float, "I would pay: $3", 3.0),
    (Action, "I would choose: BUY.", "buy"),
    (Action, "Action: **wait**\nReason: prices fall", "wait"),
    (Action, '{"action": "wait", "confidence": "high"}', "wait"),
    (Action, "Wait. It is no must-buy.", "wait"),
    (Action, "Sell at 3.5 coins? No: buy.", "buy"),
    (Literal["买", "卖"], "买？卖。", "卖"),
    (Literal["A", "B", "C"], "I would vote for B", "B"),
    (Literal["A*", "A", "B"], "A*)", "A*"),
    (dict, '{"a": 1, "b": 2} or {"b": 2, "a": 1}', {"b": 2, "a": 1}),
    (dict, '```json\n{"a": 1}\n```\nIt was {"a": 2', {"a": 1}),
    (list[int], "[3,4]", [3, 4]),
    (Mood, "VERY_GOOD", Mood.VERY_GOOD),
    (Level, "top", Level.HIGH),
    (Level, "Level: 2", Level.HIGH),
    *((Side, text, Side.AGAINST) for text in ("-1", "−1", "Answer: -1", '{"value": -1}', "[-1]")),
    *((Side, text, Side.FOR) for text in ("1", "Score: 1", "(1)")),
    (Size, "xl", Size.LARGE),
    (Size, "SMALL", Size.SMALL),
    *(
        (Agreement, text, "strongly agree")
        for text in ("Strongly **agree**", "**Strongly** agree.", "My view: *strongly agree*")
    ),
    (Agreement, "**Agree**, since it is good", "agree"),
    *(
        (Literal["A", "B", "C"], text, "B")
        for text in ("I choose **B**.", "Therefore, the correct option is (B).", "*nods slowly* B")
    ),
    (Literal["A", "B", "C"], "The best option is **B**", "B"),
    *((Chinese, text, "同意") for text in ("同意。", "答案：同意", "「同意」", "同意，因为很好。")),
    *((int, text, 7) for text in ("7。", "答案：7", "Hmm... 7", "Answer: (7)")),
    *((bool, text, True) for text in ("Yes。", "\u200fYes\u200e", "¡Yes!")),
    (Literal["C", "C++", "C#"], "Language: `C++`", "C++"),
    *((Literal["C", "C++", "C#"], text, "C#") for text in ("C#", "C#.", "**C#**", "c#!")),
    *((Literal["A*", "A", "B"], text, "A*") for text in ("A*", '"A*"', "**A***", "a*.")),
    *((Literal["A*", "A", "B"], text, "A") for text in ("A", "**A**", "(A)", "*A*", "`a`.", "A)")),
    *((Literal["A", "A-"], text, "A-") for text in ("A-", "a-.", "A–", "**A−**")),
    *((Literal["50", ">50", "<50"], text, ">50") for text in (">50", ">50.", "**>50**")),
    (Literal["18–24", "25–34"], "Age: 18-24.", "18–24"),
    *(
        (Literal["A", "B", "I"], text, "B")
        for text in ("b", "(B)", "My answer: B.", "B) because it is a good one")
    ),
    (Literal["good", "not good"], "It is: not good.", "not good"),
    *(
        (Literal[-1, 0, 1], text, -1)
        for text in ("-1", "−1", "–1", "Score: -1", "Score: –1", "**-1**", "-1 (against)")
    ),
    *((Literal[1, 2, 3], text, 2) for text in ("- 2", "My score - 2", "<score>2</score>")),
    (Literal["US", "us"], "Country: US", "US"),
    (Literal["yes", "no"], "No, because yes-men bore me", "no"),
    (Literal["don't know", "buy"], "Don’t know.", "don't know"),
    (Literal["buy now", "wait"], "So, Buy_Now!", "buy now"),
    (list, 'Here: ["a", 1, null]', ["a", 1, None]),
    (list[int], "```json\n[1, 2, 3,]\n```", [1, 2, 3]),
    (list[int], "['1', 2.0]", [1, 2]),
    (list[bool], "[true, False, 'no']", [True, False, False]),
    (list[Action], '["BUY", "wait"]', ["buy", "wait"]),
    (dict, "{'a': 1, 'b': True, 'c': None}", {"a": 1, "b": True, "c": None}),
    (dict, '[12:30] {"a": 1}', {"a": 1}),
    (dict[str, int], '{"bread": 3, "salt": "4"}', {"bread": 3, "salt": 4}),
    (
        Offer,
        "Sure!\n```json\n{'price': 2, // coins\n 'goods': [],}\n```\nAnything else?",
        Offer(price=2),
    ),
    (Offer, 'The old one was [1]. {"price": 3} I repeat: {"price": 3}', Offer(price=3)),
    (Buyer, "{'name': 'Lisa', 'age': 28}", Buyer("Lisa", 28)),
    (Visit, '\ufeff{"day": "Monday", "coins": 3}', {"day": "Monday", "coins": 3}),
    (MaybeInt, "None", None),
    (MaybeInt, "5.", 5),
    (Offer | None, "null", None),
    (Literal["none", "some"] | None, "none", "none"),
    (int | list[int], "[1]", [1]),
    (int | str, "many", "many"),
    (datetime.date, "**2026-11-20**", datetime.date(2026, 11, 20)),
    (datetime.time, "10:30", datetime.time(10, 30)),
    *(
        (datetime.date, text, datetime.date(2026, 11, 20))
        for text in (
            '```json\n"2026-11-20"\n```',
            "Answer: 2026-11-20",
            "The answer is **2026-11-20**.",
            '{"value": "2026-11-20"}',
        )
    ),
    (datetime.datetime, "2026-11-20T09:00-05:00", EASTERN),
    *((Decimal, text, Decimal("0.75")) for text in ("**.75**", "(.75)", "The answer is .75.")),
    *(
        (int | None, text, None)
        for text in ("Answer: null", "The answer is null.", "```\nnull\n```", '{"value": null}')
    ),
    (Person, '{"name": "Ann"}', Person(name="Ann")),
    (Full, '{"first_name": "Ann", "First_Name": "Bob"}', Full(first_name="Ann")),
    (Person, '{"name": "Ann", "mood": "good"}', Person(name="Ann")),
    (Person, "{}", Person()),
    (Renamed, '{"Name": "Ann"}', Renamed(name="Ann")),
    (OpenForm, '{"town": "Rome"}', OpenForm(town="Rome")),
    (Labelled, '{"label": "Ann"}', Labelled("Ann")),
    (
        Person,
        '{\n  // the customer\n  "name": "Ann", "friend": {"name": "Bob"}\n}',
        Person(name="Ann", friend=Person(name="Bob")),
    ),
    (dict, '{"answer": "It\\\'s"}', {"answer": "It's"}),
    (list[int], "The numbers are [1, 2].", [1, 2]),
    (list[int], "Answer: [1]", [1]),
    *(
        (list[str], text, [])
        for text in ("There are none. []", "**Answer:** []", "The answer is [].", "[] (no names)")
    ),
    *((list[int], text, [2019]) for text in ("**Years:** [2019]", "- [2019]", "Years = [2019]")),
    (list[int], "The answer is $\\boxed{[1, 2]}$.", [1, 2]),
    (list[int], "[1,2, 3]", [1, 2, 3]),
    (list[int], "[1995,1996, 1997]", [1995, 1996, 1997]),
    (Claim | Doubt, '{"answer": "yes"}', Claim(answer="yes")),
    (dict | str, '{"answer": "yes"}', {"answer": "yes"}),
    (dict, '{{"a": 1}}', {"a": 1}),
    (Camel, '{"firstName": null}', Camel()),
    (Seen, '{"on": "2026-11-20"}', Seen.model_validate({"at": datetime.date(2026, 11, 20)})),
    *((Decimal, text, Decimal("1.10")) for text in ("1.10", "**1.10**", "Answer: 1.10")),
    (datetime.timedelta, "90", datetime.timedelta(seconds=90)),
    (
        Treaty,
        '{"signed": "1648-10-24T12:00:00"}',
        Treaty(signed=datetime.datetime(1648, 10, 24, 12)),
    ),
    (Annotated[int, Field(ge=1, le=5)], "I rate it: 4.", 4),
    (dict[int, datetime.date], '{"7": "2026-11-20"}', {7: datetime.date(2026, 11, 20)}),
    (Moments, '["2026-11-20T09:00"]', Moments([datetime.datetime(2026, 11, 20, 9)])),
    (
        Inner,
        '{"event": {"at": "2026-11-20T09:00"}}',
        Inner.model_validate({"event": {"at": datetime.datetime(2026, 11, 20, 9)}}),
    ),
    (Born, '{"age": 28, "year": "2026-11-20"}', Born(datetime.date(2026, 11, 20), 28)),
    (
        Stay,
        '{"nights": 86400, "from": "2026-11-20"}',
        {"since": datetime.date(2026, 11, 20), "nights": 86400},
    ),
    (Guess, '{"buy": true}', Guess(buy=True)),
    (Noted, '{"text": "Rain"}', Noted(text="Rain")),
    (set[int], '[1, "2", 2]', {1, 2}),
    (set[bool], "[true]", {True}),
    (Trip, '{"town": "Rome", "mood": "good"}', {"town": "Rome"}),
    (Journey, '{"trip": {}, "prices": {"Town": 3}}', Journey(trip={}, prices={"Town": 3})),
    *((Named, f'{{"{key}": "Ann"}}', Named(name="Ann")) for key in ("name", "label")),
    (dict, '{"a": "\\\\frac{1}{2}"}', {"a": "\\frac{1}{2}"}),
    (dict, '{"a": {"b": 1, "c": 2}, "a": {"c": 2, "b": 1}}', {"a": {"c": 2, "b": 1}}),
    # JSON that is none, but can mean one thing only
    (list, "{'a': 'it\\'s', \"b\": 'say \"hi\"'} [1]", [1]),
    (dict, '{"a": 1 // one\n, # two\n "b": /* three , } */ 2}', {"a": 1, "b": 2}),
    (dict, '{"a": "two\nlines\tand a tab"}', {"a": "two\nlines\tand a tab"}),
    (dict, '{"code": "```python\\nprint()\\n```"}', {"code": "```python\nprint()\n```"}),
    (
        list,
        "[True, False, None, true, false, null, -0, -1.5e3]",
        [True, False, None, True, False, None, 0, -1500.0],
    ),
    *(
        (dict, text + ' so: {"a": 1}', {"a": 1})
        for text in (
            "{name}",
            "[see below]",
            "[",
            "{{ name }}",
            "[ ] a [x] b",
            "{1, 2}",
            "{'set'}",
            "```1``` inline",
            "{3} and {4}",
        )
    ),
    # a fence goes before the words around it, however it is made; without a value in it, the words
    # count
    (dict, 'As in {"a": 0}:\n```json\n{"a": 1}\n```', {"a": 1}),
    (dict, '{"a": 0}\n> ~~~\r\n{"a": 1}\r\n> ~~~', {"a": 1}),
    (dict, '{"a": 0}\n````\n```\n{"a": 1}\n```\n````', {"a": 1}),
    (dict, '```\nnothing\n```\n{"a": 0}', {"a": 0}),
    (int, '{"value":7}', 7),
    (bool, '{"value":true}', True),
]
REFUSED = [
    *(
        (bool, text, "none of the options by itself")
        for text in (
            "perhaps",
            "y",
            "1",
            "Definitely!",
            "No bread is worth that",
            "No preference",
            "There is no way to know.",
            "It's true that bread is nice, but I will pass.",
            "I'm not sure",
            "maybe",
            "No idea.",
            "yesterday",
            "no-one",
            "The bread is no good.",
            "That is not true.",
            "I would not say yes.",
            "It depends: yes if I am hungry.",
            "Yes/No",
            "Yes or no?",
            "Yes?",
        )
    ),
    *(
        (bool, text, "more than one option: yes, no")
        for text in ("Yes, no", "Yes. No thanks.", "yes... actually no")
    ),
    *((int, text, "no number in digits") for text in ("three", "½", "nan", "infinity")),
    *((int, text, "different") for text in ("[1, 2]", "3 (5)", "3, or: 4", '{"a":1,"b":234}')),
    *(
        (int, text, "by itself|different numbers")
        for text in ("between 3 and 5", "8 out of 10", "about 5", "5 coins", "1. I pay 7")
    ),
    *(
        (float, text, "by itself|no number in digits|different numbers|number too large")
        for text in (
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
            "$-5",
            "minus 5",
            "<5",
            "> 5",
            "<0.001",
            "p >= .05",
            "> $5",
            "> € 5",
            "<$5",
            "price <$5",
            "< $ 5",
            "not 7",
            "I wouldn't pay 7",
            "1. I pay 7",
            "9" * 5000,
        )
    ),
    *((int, text, "mean 45000") for text in ("45.000", "-45.000 €", "I earn: 45.000.")),
    *((int, text, "no whole number") for text in ("3.5", "1e300", "9007199254740993.0")),
    *((int, text, "cut off") for text in ('{"price": 12', '{"value": [1')),
    *(
        (int, f'{{"value": {value}}}', "no number|no whole number")
        for value in ('"many"', "true", "1.5")
    ),
    *(
        (int, text, "no number")
        for text in (
            '{"rating": null, "scale": 10}',
            '{"answer": "I pass.", "round": 10}',
            "{'price': None, 'year': 2024}",
            '{"7": "x"}',
        )
    ),
    *(
        (bool, text, reason)
        for text, reason in (
            ('{"answer": null, "likes_bread": true}', "neither true nor false"),
            ('{"no": true}', "a key of its JSON"),
            ('{"vote": {"no": true}}', "a key of its JSON"),
            ('[{"no": true}]', "a key of its JSON"),
        )
    ),
    (Action, '{"buy": 3}', "a key of its JSON"),
    (Action, "Buy. I will not sell.", "more than one option: buy, sell"),
    *(
        (Action, text, "none of the options")
        for text in (
            "buy or sell",
            "I don't buy",
            "I refuse to buy",
            "buy or not",
            "Should I buy? Yes.",
            "Buy? Not at all.",
            "steal",
            "sell-off",
        )
    ),
    (Mood, "I never feel very good", "none of the options"),
    *(
        (Literal[1, 2, 3], text, "none of the options")
        for text in ("-3", "−3", "–3", "Score: -3", "<3", "> 3")
    ),
    (Literal["50", ">50", "<50"], "> 50", "none of the options"),
    (Literal["A*", "A"], "Grade: A*", "more than one option"),
    (Literal["A", "A-"], "A -", "more than one option"),
    (Literal["AAA", "AA", "A"], "AA-", "none of the options"),
    (Literal["<5%", "5%"], "< 5%", "none of the options"),
    *((Literal["$50", ">$50", "<$50"], text, "none of the options") for text in ("> $50", "< $50")),
    (Literal[-1, 0, 1], "> −1", "none of the options"),
    *(
        (kind, text, "ends within the model's reasoning")
        for kind, text in (
            (bool, "<think>\nWould she buy it? I think: yes"),
            (int, "<think>Price: 3. Hmm"),
            (Action, " <think>The options: buy"),
            (Offer, '<think>Perhaps {"price": 1}. But'),
            (MaybeInt, "<think>None?"),
            (list[int], "<think>[1, 2]"),
            *(
                (int, f"{mark}Price: 3. Hmm")
                for mark in (
                    "<thinking>",
                    "<thought>",
                    "<reasoning>",
                    "<scratchpad>",
                    "[THINK]",
                    "<|begin_of_thought|>",
                    "◁think▷",
                    "<|channel|>analysis<|message|>",
                )
            ),
        )
    ),
    *(
        (Literal[-1, 0, 1], text, "more than one option")
        for text in ("- 1", "Score - 1", "Between -1 and 0: -1 or 0: 0, -1")
    ),
    *(
        (Literal["A", "B", "I"], text, "none of the options|more than one option")
        for text in (
            "A better offer is needed",
            "A or B.",
            "A better offer would be B.",
            "So I think",
            "I and B",
        )
    ),
    (Literal["US", "us"], "Us", "more than one option"),
    (list, "bread and salt", "no JSON array"),
    (list[int], "[1, 2] or [3]", "2 different JSON values"),
    *(
        (bool, text, "none of the options by itself")
        for text in (
            "That is **not** **true**.",
            'The claim "true" is wrong.',
            "I disagree with the answer `yes`.",
            "not <b>true</b>",
            "not <strong>true</strong>",
            *(
                f"*{words}* Yes"
                for words in ("everything but this", "neither", "hardly", "anything")
            ),
            "*shrugs* no",
            "**No answer**",
        )
    ),
    *(
        (Agreement, text, "none of")
        for text in (
            "somewhat *agree*",
            "strongly (agree)",
            "*Not* Agree",
            "(dis)agree",
            "Strongly (Dis)agree",
            "~~Agree~~",
        )
    ),
    *(
        (float, text, "by itself|in brackets")
        for text in (
            "**8.3** million",
            "**50**%",
            "about **5**",
            "less than `5`",
            "about (5)",
            "approx. 5",
            "The number is unknown [2].",
            "It is not stated. (2023)",
            "—5",
            "Sept. 5",
            "<strong>8.3</strong> million",
            "1,234 567",
            "1 234,567",
            "5E",
            "\\boxed{7}\\%",
            "$\\boxed{7}\\%$",
            "\\boxed{7} million",
            "$\\boxed{\\text{7}}$ million",
            "\\boxed{7}\\,\\text{km}",
            "<answer>5</answer> million",
            "<answer> 5 </answer>%",
            "<|begin_of_box|>5<|end_of_box|> million",
            "~~7~~",
            "\\sqrt{16}",
            "\\frac{2}{2}",
            "2**2",
            "3 * 3",
        )
    ),
    (Literal[1, 2, 3, 4, 5], "3.5? Hard to say.", "none of the options"),
    (Summed, '{"net": 1}', "a validator raised KeyError: 'tax'"),
    (Person, '{"person": {"name": "Ann"}}', r"none of its keys \(person\) is a field"),
    (Person, '{"error": "no text"}', "none of its keys"),
    (Person, '{"Name": "Ann", "age": 3}', "its key 'Name' should be 'name'"),
    (list[Person], '[{"NAME": "Ann"}]', "none of its keys"),
    *(
        (Full, f'{{"{key}": "Ann", "age": 3}}', "should be 'first_name'")
        for key in ("firstName", "First Name", "first-name")
    ),
    (Person, '{"name": "Ann", "friend": {"who": "Bob"}}', "none of its keys"),
    (Guess, '{"Buy": true}', "none of its keys"),
    (Camel, '{"first_name": "Ann"}', r"they are firstName"),
    *(
        (kind, text, r"none of its keys \(Town\) is a field")
        for kind, text in (
            (Trip, '{"Town": "Rome"}'),
            (list[Trip], '[{"Town": "Rome"}]'),
            (dict[str, list[Trip]], '{"Ann": [{"Town": "Rome"}]}'),
            (Trip | int, '{"Town": "Rome"}'),
            (Journey, '{"trip": {"Town": "Rome"}}'),
        )
    ),
    (Trip, '{"Town": "Rome", "year": 3}', "its key 'Town' should be 'town'"),
    (Journey, '{"trip": {"Town": "Rome", "year": 3}}', "its key 'Town' should be 'town'"),
    *(
        (Person, text, "object that begins at line 1")
        for text in (
            '{“name”: “Ann”, "friend": {"name": "Bob"}}',
            '{“name”: “Ann”, "friend": {"name": "Bob"}',
            '{"name" = "Ann", "friend": {"name": "Bob"}, "mood": "go',
        )
    ),
    (dict, '```json\n{"a": 1}\n```\nNo, it is {"a": 2}', "2 different JSON values"),
    *(
        (list[int], text, "no JSON array")
        for text in (
            "No such year is in the text [1].",
            "It is there. [1]",
            "See [2](https://example.org).",
            "- [2](https://example.org)",
            "xs[3] is out of range.",
            "int[] xs",
            "- [ ] Buy milk\n- [ ] Call Bob",
            "1. [ ] Buy milk",
        )
    ),
    *(
        (list[float], text, "write numbers without")
        for text in ("[1,250, 1,300]", "[950, 1,250]", "[1,5, 2,5]")
    ),
    *(
        (dict, f'{{"a": "{text}"}}', "LaTeX")
        for text in (
            "\\frac{1}{2}",
            "2 \\times 3",
            "\\frac12",
            "\\beta_1",
            "\\times10",
            "\\textbf{x}",
            "a \\rightarrow b",
            "(1\\right)",
            "\\boxed{7}",
        )
    ),
    *(
        (datetime.time, text, "a range of times")
        for text in ("09:00-17:00", "14:30-15:00", "09:00−12:00", "09:00-1700", "09:00+14:30")
    ),
    (datetime.datetime, "2026-11-20 09:00:00-17:00", "is in no time zone"),
    (datetime.datetime, "2026-11-20 09:00-12:00", "a range of times"),
    (datetime.datetime, "2026-11-20, 09:00", "valid datetime"),
    (datetime.datetime, "1.7e9", "is a number"),
    (set[datetime.datetime], "[1990, 2000]", "is a number"),
    (dict[datetime.date, int], '{"86400": 1}', "is a number"),
    (dict[int, datetime.datetime], '{"1": 1998}', "1998 is a number"),
    (dict[int, datetime.datetime], '{"1": "1998"}', "'1998' is a number"),
    (Calendar, '{"events": {"1": 1998}}', "1998 is a number"),
    (Moments, "[1998]", "1998 is a number"),
    (Born, '{"year": 86400}', "86400 is a number"),
    (Inner, '{"event": {"at": 1998}}', "1998 is a number"),
    (set[int], "[true, 5]", "true is no number"),
    (frozenset[int], '["45.000"]', "mean 45000"),
    (Effort, '{"level": true}', "true is no number"),
    (Effort, '{"price": true}', "true is no number"),
    (Dated, '{"at": 1998}', "is a number"),
    (dict[str, int], '{"n": true}', "true is no number"),
    (dict[str, int], '{"n": "45.000"}', "mean 45000"),
    *((Decimal, text, "valid decimal") for text in ("~5", ">5", "> 5", "about **5**")),
    (list[int], "[1.5]", "element 0"),
    (list[int], "[true]", "element 0: it is no number"),
    (list[str], "[1]", "element 0: it is no string"),
    (dict, '["a"]', "no JSON object"),
    (Offer, '{"price": 1} or {"price": 2}', "2 different"),
    (Offer, '{"price": -1}', "price: Input should be greater than 0"),
    (Offer, '{"offer": {"price": 1}}', "price: Field required"),
    (Visit, "{}", "coins: Field required; day: Field required"),
    (list[Visit], "[{}, {}, {}, {}]", "; and 3 more"),
    (MaybeInt, "nothing", "no number"),
    (MaybeInt, "about 5, or else: null", "by itself"),
    (datetime.date, "From: 2026-11-20, to: 2026-11-25", "different values"),
    (Decimal, "Price: 1.10, before: 2.20", "different values"),
    (int | float, "nan", "no number"),
    (int | float, "1e999", "no number"),
    (dict[str, float], '{"price": "Infinity"}', "inf is no number"),
    (Offer, '{"price": "NaN"}', "greater than 0|nan is no number"),
    (Room, '{"width": "nan"}', "nan is no number"),
    *(
        (Treaty, f'{{"signed": "{number}"}}', f"'{number}' is a number, and no date or time")
        for number in ("1648", "-5")
    ),
    (Treaty, '{"signed": "1.7e9"}', "'1.7e9' is a number|valid datetime"),  # of pydantic 2.1
    (list[Treaty], '[{"signed": 1648}]', "1648 is a number, and no date or time"),
    (Founded, '{"year": "1998"}', "'1998' is a number, and no date or time"),
    (datetime.datetime, "2024", "2024 is a number, and no date or time"),
    (datetime.time, "10", "10 is a number, and no date or time"),
    (datetime.date, "soon", "valid date"),
    (Annotated[str, Field(pattern="^A[0-9]$")] | int, "Code: A5", "should match pattern"),
    (Annotated[int, Field(ge=1, le=5)], "7", "less than or equal to 5"),
    # broken JSON is refused with its place
    *(
        (kind, text, "holds NaN, a number too large to read, or half of a surrogate")
        for kind, text in (
            (dict, 'So:\n{"a": NaN}'),
            (dict, '{"a": -Infinity, "b": {"c": 1}}'),
            (dict, "{'a': 1e999,}"),
            (list, "[" + "9" * 5000 + "]"),
            (list, '["\\ud83d"]'),
        )
    ),
    (dict, 'So:\n{"a": 01}', "line 2, column 8"),
    (dict, "{a: 1}", "line 1, column 2"),
    (dict, "{'a': 'it's fine'}", "line 1, column 2"),
    (list, "[1 2]", "line 1, column 4"),
    (dict, '{"a": "say "hi""}', "line 1, column 13"),
    (dict, '{"a": 1, "a": 2}', "two values"),
    (dict, '{"a": 0, "a": false}', "two values"),
    (dict, '{"a": /* b', "line 1, column 7"),
    (list, "[" * 100_000 + "]" * 100_000, "nested too deeply"),
]
TYPES = list(dict.fromkeys(output_type for output_type, *_ in ACCEPTED))


def named(value: Any) -> str:
    """Name a type in a test's id without an address."""
    return str(getattr(value, "__name__", value))[:40]


# What structured output wraps is unwrapped, and read as strictly as any other.
WRAPPED: list[Any] = [
    (bool, '{"value": true}', True),
    (Action, '{"value": "sell"}', "sell"),
    (Level, '{"value": "HIGH"}', Level.HIGH),
    (list[Offer], '{"value": [{"price": 1}]}', [Offer(price=1)]),
    (MaybeInt, '{"value": null}', None),
    (str | None, '{"value": "null"}', "null"),
    (int | str, '{"value": "5"}', "5"),
    (datetime.date, '{"value": "2026-11-20"}', datetime.date(2026, 11, 20)),
    (dict, '{"value": 3}', {"value": 3}),
    (str, '{"value": 1}', '{"value": 1}'),
]


@pytest.mark.parametrize(
    ("output_type", "text", "value", "clients"),
    [(*case, (CLIENT, STRUCTURED)) for case in ACCEPTED]
    + [(*case, (STRUCTURED,)) for case in WRAPPED],
    ids=named,
)
def test_what_has_one_meaning_is_read(
    output_type: Any, text: str, value: Any, clients: tuple[ScriptedClient, ...]
) -> None:
    """Whatever is around it, also if structured output was asked for."""
    for client in clients:
        found = read(text, output_type, client)
        assert found == value
        assert (type(found), str(found)) == (type(value), str(value))  # 1.10 equals 1.1


@pytest.mark.parametrize(("output_type", "text", "reason"), REFUSED, ids=named)
def test_what_has_no_one_meaning_is_refused(output_type: Any, text: str, reason: str) -> None:
    """With two meanings, or none: the error has the reason, the text and what is expected."""
    for client in (CLIENT, STRUCTURED):
        with pytest.raises(OutputError) as caught:
            read(text, output_type, client)
        assert re.search(reason, str(caught.value).partition("\n")[0])
        assert (caught.value.text, caught.value.expected) == (text, prompt_for(output_type))


@pytest.mark.parametrize(
    ("output_type", "sentence"),
    [
        (bool, "yes or no."),
        (int, "only a whole number."),
        (float, "only a number."),
        (list, "only a JSON array."),
        (Action, "exactly one of: buy, sell, wait."),
        (Mood, "exactly one of: very good, good, bad."),
        (Level, "exactly one of: LOW, HIGH."),
        (Literal["a, b", "c"], 'exactly one of: "a, b", "c".'),
        (Literal["a", 1, True, None], "exactly one of: a, 1, true, null."),
        (dict, "only a JSON object."),
        (list[str], "only a JSON array of strings."),
        (MaybeInt, "null, or with only a whole number."),
    ],
    ids=named,
)
def test_the_sentence_that_tells_the_type_is_fixed(output_type: Any, sentence: str) -> None:
    """It stands in the prompt, and so in the request's key."""
    assert prompt_for(output_type) == f"Answer with {sentence}"


@pytest.mark.newest_only
@settings(max_examples=20)
@given(
    st.text(min_size=1)
    | st.text("[]{}\"':,\\ \n`0123456789.-+eyesno truefalsnbuygod<>/*#“”’$%", min_size=1)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text is an accident, for no type."""
    for output_type in TYPES:
        for client in (CLIENT, STRUCTURED):
            try:
                read(text, output_type, client)
            except OutputError as error:
                assert error.text == text


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        '{"a":',
        "[1,",
        '["',
        "{",
        "- 1 ",
        "yes no ",
        "not buy. ",
        "```\n",
        "1.1",
        "/*",
        " ",
    ],
)
def test_an_answer_that_repeats_itself_is_refused(unit: str) -> None:
    """Twenty thousand levels, or repetitions, are like any other nonsense."""
    for output_type in (bool, int, Action, list, dict, Offer):
        with pytest.raises(OutputError):
            read(unit * 20_000 + " so.", output_type)


@pytest.mark.parametrize(
    "gap", [" ", "\n", "\t", "_", "<", "> ", "**", "<a", " - ", "</", "1</a> ", "\\boxed{", "(a"]
)
def test_an_answer_with_a_long_gap_is_refused(gap: str) -> None:
    """A model that loops writes such."""
    for output_type in (bool, int, Action, list, dict, Offer):
        with pytest.raises(OutputError):
            read("So" + gap * 20_000 + "a", output_type)


SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | SCALARS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = "Here you are:\n\n```\n{}\n```\nGood luck!"
AROUND = st.sampled_from(
    ["{}", "```json\n{}\n```", WORDS, "It's: {}, indeed.", "\ufeff {} ", "~~~\n{}\n~~~"]
)


@example({"</think>": {"<think>": 'a "quoted" one\n</think>\\'}, "": {}}, "Here it is: {}", False)
@given(
    st.dictionaries(st.text(), PLAIN, max_size=5) | st.lists(PLAIN, max_size=5) | SCALARS,
    AROUND,
    st.booleans(),
)
def test_a_value_written_as_json_reads_back_the_same(
    value: Any, around: str, ascii_only: bool
) -> None:
    """In fences or among words."""
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
        sys.modules["genai_prices"] = None  # needs pydantic
        from typing import Literal
        for kind, text in ((str, "a"), (bool, "yes"), (int, "1"), (float, "1"), (Literal["a"], "a"), (list, "[]"),
                           (list[int], "[1]"), (dict, "{}")):
            for model in ("gpt-3.5-turbo", "gpt-4o"):
                client = ScriptedClient([{"role": "assistant", "content": text}], model=model)
                llmcall.LLMCall(user="?", output_type=kind, client=client)()
        print("pydantic" in sys.modules, "jinja2" in sys.modules)
    """
    assert ran(program) == "False False"
