"""The benchmark that counts which actors get an answer of their own, whose counts README.rst shows."""

from __future__ import annotations

import itertools
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pages import ROOT


class Contestant:
    """A library that gives each call another answer, and replays by the order of the calls."""

    def __init__(self, folder: str, address: str) -> None:
        self.numbers = itertools.count()

    def prepared(self, messages: list[dict[str, str]]) -> str:
        """Return what is asked."""
        return str(messages)

    def ask_as(self, actor: str, question: str) -> str:
        """Return the next answer."""
        return f"answer {next(self.numbers)}"

    def text(self, answer: str) -> str:
        """Return an answer's text."""
        return answer

    def tell_draws_apart(self) -> None:
        """Do nothing."""

    def settle(self) -> None:
        """Replay from the first answer on."""
        self.numbers = itertools.count()

    def close(self) -> None:
        """Do nothing."""


class Cache(Contestant):
    """One answer to each question."""

    def ask_as(self, actor: str, question: str) -> str:
        """Return the answer that all get."""
        return "answer 0"


class ByActor(Contestant):
    """An answer to each actor's question."""

    def ask_as(self, actor: str, question: str) -> str:
        """Return the actor's answer."""
        return f"answer to {actor}"


@pytest.mark.parametrize(
    ("contestant", "count"),
    [(Cache, 0), (Contestant, 1), (ByActor, 5)],
    ids=["a cache", "by the order of the calls", "by actor"],
)
def test_actors_who_share_an_answer_have_none_of_their_own(
    contestant: type[Any], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an answer that no other actor has, given again, counts."""
    monkeypatch.syspath_prepend(ROOT)
    actors = import_module("benchmarks.cases.actors")
    rounds = actors.own_answers(SimpleNamespace(Contestant=contestant), str(tmp_path), "unused")
    assert [next(rounds), next(rounds)] == [None, count]
