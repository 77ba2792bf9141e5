"""The numbers of draws: random programs of scopes against a plain model."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import llmcall
from llmcall import InvalidRequestError, bind, scope
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# A program is a list of steps, a step a tuple: its kind, and what it needs.
DROPPED = " after one that is dropped"  # what a text ends with if a stream for it is begun and left
TEXTS = st.sampled_from(["a", "b"])
NAMES = st.sampled_from(["x", "y"])
KEPT = 2  # scopes that a program keeps in variables
CALLS = st.tuples(st.sampled_from(["ask", "fail", "hold"]), TEXTS)
RELEASES = st.tuples(st.sampled_from(["drop", "finish"]), st.integers(0, 3))
MAPS = st.tuples(
    st.sampled_from(["map in threads", "map in workers", "map that fails"]),
    st.lists(NAMES, min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", "b", f"a{DROPPED}"]), max_size=3),
    st.integers(1, 2),
)
STEPS = st.recursive(
    CALLS | CALLS | RELEASES | MAPS,
    lambda inner: (
        st.tuples(st.sampled_from(["scope", "left by a failure"]), NAMES, st.lists(inner))
        | st.tuples(st.just("kept scope"), st.integers(0, KEPT - 1), st.lists(inner))
        | st.tuples(st.sampled_from(["thread", "no scope"]), st.none(), st.lists(inner))
    ),
    max_leaves=12,
)


class PlainDraws:
    """Draws as a stranger would count them: the numbers taken, of each outermost scope, path and
    text.
    """

    def __init__(self) -> None:
        self.taken: defaultdict[tuple[Any, str, str], set[int]] = defaultdict(set)

    def take(self, outermost: Any, path: str, text: str) -> int:
        """Take the lowest number that is not taken."""
        taken = self.taken[outermost, path, text]
        number = min(set(range(len(taken) + 1)) - taken)
        taken.add(number)
        return number

    def give_back(self, outermost: Any, path: str, text: str, number: int) -> None:
        """Make a number free again."""
        self.taken[outermost, path, text].remove(number)


def ask_all(texts: Sequence[str]) -> list[str | None]:
    """Ask several texts and return their samples; ``"fail"`` is a failure of the program's own."""
    client = ScriptedClient(lambda messages: "yes")
    samples = []
    for text in texts:
        if text == "fail":
            raise ZeroDivisionError
        asked = text.removesuffix(DROPPED)
        dropped = client.stream_message(asked) if asked != text else None
        samples.append(client.send_message(asked, on_error="raise").sample)
        if dropped is not None:
            dropped.close()
    return samples


class Row(str):
    """An item of a map: its text is the key, and it brings what is asked of it."""

    texts: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        return _row, (str(self), self.texts)


def _row(name: str, texts: tuple[str, ...]) -> Row:
    row = Row(name)
    row.texts = texts
    return row


def ask_row(row: Row) -> list[str | None]:
    """Ask what an item of a map brings."""
    return ask_all(row.texts)


class Program:
    """Runs steps, and compares the sample of each draw with that of the model."""

    def __init__(self, workers: Executor) -> None:
        self.workers = workers
        self.model = PlainDraws()
        self.kept = [scope("kept") for _ in range(KEPT)]
        self.held: list[tuple[Any, tuple[Any, str, str, int] | None]] = []
        # The outermost scope that the program stands in, and the path.
        self.at: tuple[Any, str] | None = None

    def run(self, steps: Sequence[Any]) -> None:
        """Run steps one after the other."""
        for kind, *arguments in steps:
            getattr(self, "run_" + kind.replace(" ", "_"))(*arguments)

    def taken(self, text: str) -> tuple[Any, str, str, int] | None:
        """Take a number of the model's, here."""
        if self.at is None:
            return None
        return (*self.at, text, self.model.take(*self.at, text))

    @staticmethod
    def sample(taken: tuple[Any, str, str, int] | None) -> str | None:
        """Return the sample that a number of the model's makes."""
        return None if taken is None else f"{taken[1]}#{taken[3]}"

    def run_ask(self, text: str) -> None:
        """Make a call that succeeds."""
        assert ask_all([text]) == [self.sample(self.taken(text))]

    def run_fail(self, text: str) -> None:
        """Make a call that fails: its number is free again."""
        client = ScriptedClient([InvalidRequestError("no")])
        assert client.send_message(text) is None

    def run_hold(self, text: str) -> None:
        """Begin a call that ends later, wherever the program stands then."""
        stream = ScriptedClient(lambda messages: "yes").stream_message(text)
        self.held.append((stream, self.taken(text)))

    def run_drop(self, index: int) -> None:
        """Leave a call that was begun: its number is free again."""
        if index < len(self.held):
            stream, taken = self.held.pop(index)
            stream.close()
            if taken is not None:
                self.model.give_back(*taken)

    def run_finish(self, index: int) -> None:
        """Bring a call to its end that was begun."""
        if index < len(self.held):
            stream, taken = self.held.pop(index)
            list(stream)
            assert stream.reply.sample == self.sample(taken)

    def run_scope(self, name: str, steps: Sequence[Any], kept: Any = None) -> None:
        """Run steps in a scope."""
        opened = kept or scope(name)
        before = self.at
        self.at = (opened, name) if before is None else (before[0], f"{before[1]}/{name}")
        try:
            with opened:
                self.run(steps)
        finally:
            self.at = before

    def run_kept_scope(self, index: int, steps: Sequence[Any]) -> None:
        """Run steps in a scope that is kept, and may have been entered before."""
        self.run_scope("kept", steps, self.kept[index])

    def run_left_by_a_failure(self, name: str, steps: Sequence[Any]) -> None:
        """Run steps in a scope that an exception leaves."""
        with suppress(ZeroDivisionError):
            self.run_scope(name, [*steps, ("raise",)])

    def run_raise(self) -> None:
        """Fail for a reason of the program's own."""
        raise ZeroDivisionError

    def run_thread(self, _: None, steps: Sequence[Any]) -> None:
        """Run steps in a thread, to which the scope is carried."""
        carried = bind(self.run)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(Context().run, carried, steps).result()

    def run_no_scope(self, _: None, steps: Sequence[Any]) -> None:
        """Run steps for which no scope is meant."""
        before, self.at = self.at, None
        try:
            with scope(None):
                self.run(steps)
        finally:
            self.at = before

    def run_map_in_threads(self, names: Any, texts: Any, repeats: int, **how: Any) -> None:
        """Ask the same of each item of a map."""
        rows = [_row(name, tuple(texts)) for name in names]
        key = None if self.at is None else str
        found = llmcall.map(ask_row, rows, key=key, repeats=repeats, **how)
        assert found == self.map_samples(names, texts, repeats)

    def run_map_in_workers(self, names: Any, texts: Any, repeats: int) -> None:
        """Ask the same of each item of a map, in other processes."""
        self.run_map_in_threads(names, texts, repeats, executor=self.workers)

    def run_map_that_fails(self, names: Any, texts: Any, repeats: int) -> None:
        """Run a map that ends early: all its numbers are free again."""
        rows = [_row(name, (*texts, "fail")) for name in names]
        with pytest.raises(ZeroDivisionError):
            key = None if self.at is None else str
            llmcall.map(ask_row, rows, key=key, repeats=repeats, executor=self.workers)

    def map_samples(self, names: Any, texts: Any, repeats: int) -> list[Any]:
        """Return the samples that a map's calls have by the model."""
        samples = []
        for index, name in enumerate(names):
            occurrence = names[:index].count(name)
            item = f"{name}~{occurrence}" if occurrence else name
            of_repeats = [self.repeat_samples(item, repeat, texts) for repeat in range(repeats)]
            samples.append(of_repeats if repeats > 1 else of_repeats[0])
        return samples

    def repeat_samples(self, item: str, repeat: int, texts: Any) -> list[str | None]:
        """Return the samples of one repeat of an item: outside any scope, only later repeats have
        one, each of its own.
        """
        if self.at is None:
            outermost, path = object(), ""
        else:
            outermost, path = self.at[0], f"{self.at[1]}/{item}"
        if repeat:
            path = f"{path}/~{repeat}".lstrip("/")
        if not path:
            return [None] * len(texts)
        samples: list[str | None] = []
        for text in texts:
            draw = outermost, path, text.removesuffix(DROPPED)
            dropped = self.model.take(*draw) if text.endswith(DROPPED) else None
            samples.append(f"{path}#{self.model.take(*draw)}")
            if dropped is not None:
                self.model.give_back(*draw, dropped)
        return samples


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    """Two processes."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as made:
        yield made


@pytest.mark.newest_only
@settings(max_examples=100)
@given(st.lists(STEPS, max_size=8))
def test_draws_are_numbered_as_a_plain_count_numbers_them(
    workers: Executor, steps: list[Any]
) -> None:
    """Each draw takes the lowest number that is not taken of its outermost scope, path and request,
    whatever is nested, entered again, left by a failure, given back, or drawn by workers.
    """
    program = Program(workers)
    program.run(steps)
    for stream, _ in program.held:
        stream.close()


def test_what_a_worker_gave_back_is_drawn_next(workers: Executor) -> None:
    """A number below one that a worker took is free in the parent process, too, if the worker gave it back."""
    rows = [_row("x", (f"a{DROPPED}",))]
    with scope("s"):
        samples = [llmcall.map(ask_row, rows, key=str, executor=workers) for _ in range(3)]
    assert samples == [[["s/x#1"]], [["s/x#2"]], [["s/x#3"]]]


@pytest.mark.parametrize(("one", "other"), [(42680262, 224873581), (111367981, 214425848)])
def test_requests_whose_digests_are_alike_are_counted_apart(one: int, other: int) -> None:
    """The digests of these two begin with the same 13 digits; only equal requests share a count."""
    client = ScriptedClient(lambda messages: "yes", model="gpt-4o-mini")
    texts = [f"Question {one}", f"Question {other}"]
    first, second = (client.build_request(text).cache_key for text in texts)
    assert first[:13] == second[:13]
    with scope("s"):
        assert ask_all(texts * 2) == ["s#0", "s#0", "s#1", "s#1"]
