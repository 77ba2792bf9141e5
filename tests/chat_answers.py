"""Types that answers are read as."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict


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
