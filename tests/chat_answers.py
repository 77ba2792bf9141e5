"""A hundred answers as chat models write them, and what each should be read as."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

AGAIN: Any = object()  # what is not plainly the value is asked again


class Mood(enum.Enum):
    """A feeling, as a customer has it."""

    GOOD = "good"
    VERY_GOOD = "very good"
    BAD = "bad"


class Effort(enum.IntEnum):
    """How much work something is."""

    LOW = 1
    HIGH = 2


class Offer(BaseModel):
    """What a seller offers."""

    item: str
    price: float = Field(gt=0)
    tags: list[str] = []


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
Unsure = Literal["yes", "no", "I don't know"]
Grade = Literal[1, 2, 3, 4, 5]
Language = Literal["C", "C++", "C#"]
OFFER = '{"item": "bread", "price": 2.5}'
BREAD = Offer(item="bread", price=2.5)

ANSWERS: list[tuple[Any, str, Any]] = [
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
    # whole numbers
    (int, "42", 42),
    (int, "-5", -5),
    (int, "Answer: 7", 7),
    (int, "1,250,000", 1_250_000),
    (int, "Each of the 3 friends pays 4 coins.\n\n12", 12),
    (int, "First, 3 × 4 = 12.\nThen 12 + 5 = 17.\n\n**Answer: 17**", 17),
    (int, "<think>3 or 4? 4.</think>4", 4),
    (int, '{"value": 30}', 30),
    (int, "```\n7\n```", 7),
    (int, '```json\n{"value": 7}\n```', 7),
    (int, "45.000", AGAIN),
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
    (Grade, "4", 4),
    (Grade, '{"value": 4}', 4),
    (Language, "C#", "C#"),
    (Trade, "Action: wait\nReason: prices fall", AGAIN),
    (Trade, "buy or wait", AGAIN),
    (Trade, "hold", AGAIN),
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
    (Effort, "HIGH", Effort.HIGH),
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
