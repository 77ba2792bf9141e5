"""Random programs of actors, and three ways to run them: one after the other, in threads, and in
tasks.

A step is a tuple: its kind, and what it needs. A tag tells where in the program it stands, also in
a longer program.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest

import llmcall
from llmcall import APIError, recorded, scope
from llmcall.testing import ScriptedClient

TEXTS = ("a", "b", "long " * 120)
NAMES = ("x", "y")
FAILING = "!"  # what a text begins with that the model refuses

ASKS = st.tuples(
    st.sampled_from(["ask", "stream", "function", "refused"]), st.sampled_from(TEXTS)
) | st.tuples(st.just("sampled"), st.sampled_from(TEXTS))
STEPS = st.recursive(
    ASKS | st.tuples(st.just("embed"), st.sampled_from(TEXTS)),
    lambda inner: st.tuples(
        st.sampled_from(["scope", "again", "raise"]), st.sampled_from(NAMES), st.lists(inner)
    ),
    max_leaves=8,
)
PROGRAMS = st.lists(st.lists(STEPS, max_size=5), min_size=2, max_size=4)


class Tagged(NamedTuple):
    """A step that is known by its tag."""

    tag: str
    kind: str
    text: str
    inside: tuple[Tagged, ...] = ()


def tagged(steps: Sequence[Any], tag: str = "") -> tuple[Tagged, ...]:
    """Return steps with tags."""
    return tuple(
        Tagged(f"{tag}.{index}", kind, text, tagged(inside[0], f"{tag}.{index}") if inside else ())
        for index, (kind, text, *inside) in enumerate(steps)
    )


class Model(ScriptedClient):
    """A model whose answers are numbered, or are a function of the sample and of what is asked.

    :param pure: whether they are such a function.
    :param pause: called in the middle of each call, with nothing locked.
    """

    def __init__(
        self, *, pure: bool = False, pause: Callable[[], None] = lambda: None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.pause = pause
        self.pure = pure
        self.asked = 0

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer, or refuse what begins with ``!``."""
        with self._lock:
            self.asked += 1
            number = self.asked
        if request.kind == "embedding":  # without a pause: another actor may wait for the same text
            texts = request.body["input"]
            return {
                "data": [
                    {"index": index, "embedding": vector(text)} for index, text in enumerate(texts)
                ]
            }
        self.pause()
        text = request.messages[-1]["content"]
        if text.startswith(FAILING):
            raise APIError("refused")
        said = digest(request.sample, text) if self.pure else f"answer {number}"
        message = {"role": "assistant", "content": said}
        return {
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }

    async def asend(self, request: Any, timeout: float | None) -> Any:
        """Answer, after letting other tasks go on."""
        for _ in range(ORDER.randrange(3)):
            await asyncio.sleep(0)
        return self.send(request, timeout)


ORDER = random.Random(0)  # of tasks; seeded again by each run


def digest(*values: Any) -> str:
    """Return a text that is a function of some values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def vector(text: str) -> list[float]:
    """Return the embedding of a text."""
    return [len(text) / 7, 1.5]


class Actor:
    """Run steps, and keep what came of each.

    :ivar told: tag and outcome, in the order of the steps.
    """

    def __init__(
        self, name: str, steps: Sequence[Tagged], model: Model, pause: Callable[[], None]
    ) -> None:
        self.name = name
        self.steps = steps
        self.model = model
        self.pause = pause
        self.told: list[tuple[str, Any]] = []
        self._kept = {name: scope(name) for name in NAMES}
        number = iter(range(10**6))
        self._function = recorded(name="look")(lambda text: self._look(text, next(number)))
        self._afunction = recorded(name="look")(self._alook)

    def _look(self, text: str, number: int) -> Any:
        self.model.pause()
        return {
            "seen": text[:3],
            "by": digest(self.name, text) if self.model.pure else (self.name, number),
        }

    async def _alook(self, text: str) -> Any:
        await asyncio.sleep(0)
        return self._look(text, len(self.told))

    def run(self) -> None:
        """Run all steps in the actor's scope, by calls that block: the coroutine never waits."""
        with pytest.raises(StopIteration):
            self.arun(self._do).send(None)

    async def arun(self, do: Callable[[Tagged], Any] | None = None) -> None:
        """Run all steps in the actor's scope, without blocking."""
        with scope(self.name):
            await self._run(self.steps, do or self._ado)

    async def _run(self, steps: Sequence[Tagged], do: Callable[[Tagged], Any]) -> None:
        for step in steps:
            if step.inside or step.kind in ("scope", "again", "raise"):
                try:
                    with self._around(step):
                        await self._run(step.inside, do)
                        if step.kind == "raise":
                            raise ZeroDivisionError
                except ZeroDivisionError:
                    self.told.append((step.tag, "raised"))
            else:
                self.told.append((step.tag, await do(step)))

    def _around(self, step: Tagged) -> Any:
        if step.kind == "scope":
            return scope(step.text)
        return self._kept[step.text] if step.kind == "again" else nullcontext()

    async def _do(self, step: Tagged) -> Any:
        self.pause()
        if step.kind == "function":
            return self._function(step.text)
        if step.kind == "embed":
            return self.model.get_embedding(step.text)
        if step.kind == "stream":
            stream = self.model.stream_message(step.text)
            return "".join(stream), stream.reply and stream.reply.sample
        return outcome(self.model.send_message(said_by(step), sample=given(step)))

    async def _ado(self, step: Tagged) -> Any:
        for _ in range(ORDER.randrange(3)):
            await asyncio.sleep(0)
        if step.kind == "function":
            return await self._afunction(step.text)
        if step.kind == "embed":
            return await self.model.aget_embedding(step.text)
        if step.kind == "stream":
            stream = self.model.astream_message(step.text)
            return "".join([piece async for piece in stream]), stream.reply and stream.reply.sample
        return outcome(await self.model.asend_message(said_by(step), sample=given(step)))


def said_by(step: Tagged) -> str:
    """Return what a step asks."""
    return FAILING + step.text if step.kind == "refused" else step.text


def given(step: Tagged) -> str | None:
    """Return the sample that a step gives itself."""
    return "given" if step.kind == "sampled" else None


def outcome(reply: Any) -> Any:
    """Return what is compared of a reply."""
    return reply and (reply.sample, reply.content)


class Turns:
    """Threads that go on one at a time, in an order that a seed decides, whenever one of them
    pauses.
    """

    def __init__(self, seed: int) -> None:
        self._order = random.Random(seed)
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._running = 0
        self._turn: int | None = None

    def pause(self) -> None:
        """Wait for the next turn."""
        me = threading.get_ident()
        with self._changed:
            self._running -= 1
            self._waiting.add(me)
            self._choose()
            assert self._changed.wait_for(lambda: self._turn == me, 60)
            self._turn = None
            self._waiting.discard(me)
            self._running += 1

    def begin(self, threads: int) -> None:
        """Begin a number of threads; each pauses first."""
        self._running = threads

    def leave(self) -> None:
        """Have no turn any more."""
        with self._changed:
            self._running -= 1
            self._choose()

    def _choose(self) -> None:
        if not self._running and self._waiting:
            self._turn = self._order.choice(sorted(self._waiting))
            self._changed.notify_all()


def told(actors: Sequence[Actor]) -> dict[str, Any]:
    """Return what came of each step of all actors, in an order of its own for each actor."""
    return {actor.name: actor.told for actor in actors}


def actors_of(
    program: Sequence[Any], model: Model, pause: Callable[[], None] = lambda: None
) -> list[Actor]:
    """Return the actors of a program."""
    return [
        Actor(
            f"actor-{index}",
            steps if steps and isinstance(steps[0], Tagged) else tagged(steps),
            model,
            pause,
        )
        for index, steps in enumerate(program)
    ]


def in_sequence(program: Sequence[Any], seed: int = 0, **settings: Any) -> dict[str, Any]:
    """Run the actors one after the other in one thread."""
    actors = actors_of(program, Model(**settings))
    for actor in actors:
        actor.run()
    return told(actors)


def in_threads(program: Sequence[Any], seed: int = 0, **settings: Any) -> dict[str, Any]:
    """Run the actors in a thread each; at every step and within every call, the seed decides who
    goes on.
    """
    turns = Turns(seed)
    actors = actors_of(program, Model(pause=turns.pause, **settings), turns.pause)
    turns.begin(len(actors))

    def run(actor: Actor) -> None:
        try:
            turns.pause()
            actor.run()
        finally:
            turns.leave()

    with ThreadPoolExecutor(len(actors)) as executor:
        for each in [executor.submit(llmcall.bind(run), actor) for actor in actors]:
            each.result(60)
    return told(actors)


def in_tasks(program: Sequence[Any], seed: int = 0, **settings: Any) -> dict[str, Any]:
    """Run the actors in a task each; the seed decides how often each lets the others go on."""
    ORDER.seed(seed)
    actors = actors_of(program, Model(**settings))

    async def run() -> None:
        tasks = [
            asyncio.create_task(actor.arun())
            for actor in random.Random(seed).sample(actors, len(actors))
        ]
        await asyncio.gather(*tasks)

    asyncio.run(run())
    return told(actors)
