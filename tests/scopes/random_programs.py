"""Random programs: whatever calls can stand in, run against a model whose answers are left to chance.

A program is plain data: a list of steps, each a kind, a text, and the steps inside. The result
of each step has its tag, which says where in the program it stands. As a script, in a process of
its own: ``random_programs.py PROGRAM.json PLAN RESULTS.json``.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import hashlib
import importlib
import json
import os
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import openai
from servers import chunks_of, completion, event

import llmcall
from llmcall import LLMClient, bind, recorded, scope

BASE = next(base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
# httpx for openai 1 and 2, httpx2 for openai 3
http: Any = importlib.import_module(BASE.__module__.partition(".")[0])
TEXTS = ("a", "b", "long " * 120)
NAMES = ("x", "y")
# Steps that ask; those that hold others; those that run others at the same time, each in a scope of
# its own. The members of a crowd ask the same in one scope; ``run`` and ``patched`` tell them apart.
ASKS = ("ask", "stream", "embed", "function", "asking function", "sampled")
TROUBLES = ("flaky", "dropped", "typed", "fallback")
BLOCKS = ("scope", "kept", "raise", "none", "held", "arms")
TOGETHER = ("thread", "threads", "tasks", "map", "failing map")
IN_A_LOOP = ("gather", "tasks", "group", "anyio group", "as completed")
CROWDS = (*IN_A_LOOP, "threads", "pool", "batch", "in turn")
MODEL = "gpt-4o-mini"


class Interruption(Exception):
    """The end of a program that is interrupted."""


class Plan(NamedTuple):
    """The way in which a program is run.

    :param seed: of the pauses.
    :param is_pure: whether an answer is a function of what is asked and of its sample, and not left
        to chance.
    :param is_dead: whether nothing may be asked.
    :param calls_left: after how many calls of the model the program is interrupted.
    :param signal: what its process sends itself then, if anything.
    :param has_budget: whether a budget is open: then no call is made while the same actor holds a
        stream, whose reservation it could wait for.
    :param is_changed: whether the open cassette may have another program's draws, of which a caller gets its own first.
    """

    seed: int = 0
    is_pure: bool = False
    is_dead: bool = False
    calls_left: int | None = None
    signal: int = 0
    has_budget: bool = False
    is_changed: bool = False


class Chance:
    """The chance that a plan leaves: pauses, failures and answers; any thread may use it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.asked = 0
        self._dice = random.Random(plan.seed)
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Chance, (self.plan,)

    def pause(self) -> float:
        """Return how long to wait, in seconds: mostly not at all."""
        with self._lock:
            return max(0.0, self._dice.random() - 0.7) / 200

    def happens(self, share: float) -> bool:
        """Return whether something happens that does so in a share of cases."""
        with self._lock:
            return self._dice.random() < share

    def answer(self, *question: Any) -> str:
        """Count a call of the model, and return a new answer."""
        assert not self.plan.is_dead, f"a replay asked {question}"
        with self._lock:
            self.asked += 1
            if self.plan.calls_left is not None and self.asked > self.plan.calls_left:
                if self.plan.signal and self.asked == self.plan.calls_left + 1:
                    os.kill(os.getpid(), self.plan.signal)
                raise Interruption
        if self.plan.is_pure:
            return hashlib.sha256(repr(question).encode()).hexdigest()[:12]
        return os.urandom(6).hex()


class Model(LLMClient):
    """Answer by chance. The context of ``small`` is always too small, and a question for an integer
    is not always answered by one.
    """

    api_type = "random"

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        super().__init__(
            model=MODEL,
            fallbacks={"small": ("large",)},
            prices={MODEL: (1.0, 2.0), "large": (1.0, 2.0)},
            retry_waiting_time=0,
            retry_max_attempts=20,  # no call of thousands fails each time
            on_error="raise",
        )

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer, after a pause."""
        time.sleep(self.chance.pause())
        return self._answer(request)

    async def asend(self, request: Any, timeout: float | None) -> Any:
        """Answer, after letting others go on."""
        await asyncio.sleep(self.chance.pause())
        return self._answer(request)

    def _answer(self, request: Any) -> Any:
        if request.kind == "embedding":
            texts = request.body["input"]
            self.chance.answer(texts)
            vectors = [{"index": i, "embedding": [len(text) / 7]} for i, text in enumerate(texts)]
            return {"model": request.model, "data": vectors}
        if request.model == "small":
            raise llmcall.ContextLengthError("the prompt is too long")
        if not self.chance.plan.is_dead and self.chance.happens(0.1):
            raise llmcall.ServiceError("overloaded")  # which the client tries again
        question = request.messages[-1]["content"]
        if "flaky" in question and not self.chance.plan.is_dead and self.chance.happens(0.5):
            raise llmcall.InvalidRequestError("not now")
        answer = self.chance.answer(request.model, request.messages, request.sample)
        if "response_format" in request.body:
            answer = json.dumps({"value": int(answer, 16) if answer[0] < "a" else answer})
        message = {"role": "assistant", "content": answer}
        return {
            "model": request.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 3},
        }


COUNTING = threading.Lock()


class Counts:
    """Draws as a stranger would count them: by outermost scope, path and question, the numbers
    taken, each with the arms that took it (``None``: the scope itself).
    """

    def __init__(self) -> None:
        self.taken: defaultdict[Any, dict[int, set[str | None]]] = defaultdict(dict)

    def take(self, position: Position, question: Any) -> str | None:
        """Take the lowest number that is free, and return the sample that it makes."""
        if position.path is None:
            return None
        with COUNTING:
            numbers = self.taken[position.outermost, position.path, question]
            number = 0
            while position.is_taken(numbers.get(number, set())):
                number += 1
            numbers.setdefault(number, set()).add(position.arm)
        return f"{position.path}#{number}"

    def copy(self) -> Counts:
        """Return a copy."""
        with COUNTING:
            return copy.deepcopy(self)

    def add(self, others: Counts) -> None:
        """Add what another process counted."""
        with COUNTING:
            for key, numbers in list(others.taken.items()):
                for number, arms in numbers.items():
                    self.taken[key].setdefault(number, set()).update(arms)


class Position(NamedTuple):
    """Where a step stands.

    :param outermost: what tells its outermost scope from others.
    :param path: its scope path, or ``None`` outside any scope.
    :param arm: the arm, if it stands in one.
    """

    outermost: Any = None
    path: str | None = None
    arm: str | None = None

    def inside(self, name: str, opened: Any = None) -> Position:
        """Return the position in a scope that is opened here.

        :param opened: what tells the scope from others, if it is not a new one.
        """
        if self.path is None:
            return Position(opened or os.urandom(8), name)
        return self._replace(path=f"{self.path}/{name}")

    def is_taken(self, arms: set[str | None]) -> bool:
        """Return whether a number that some arms took is not free here."""
        return bool(arms) if self.arm is None else bool(arms & {None, self.arm})


class Actor:
    """Runs steps one after the other.

    :param position: where it begins.
    :param counts: the draws so far.
    :param is_async: whether it never blocks.
    :param holds: whether it stands in a stream that is held.
    :ivar results: the result of each step, by its tag.
    """

    def __init__(
        self,
        chance: Chance,
        position: Position = Position(),  # noqa: B008 - never changed
        counts: Counts | None = None,
        executor: Executor | None = None,
        *,
        is_async: bool = False,
        holds: bool = False,
    ) -> None:
        self.chance = chance
        self.model = Model(chance)
        self.position = position
        self.counts = Counts() if counts is None else counts
        self.executor = executor
        self.is_async = is_async
        self.holds = holds
        self.results: dict[str, Any] = {}
        self._kept_scopes: dict[str, tuple[Any, bytes]] = {}
        self._look = recorded(name="look")(lambda text: chance.answer("look", text))
        self._alook = recorded(name="look, async")(self._look_async)
        self._ask = recorded(name="ask")(lambda text: self.model.send_message(text).content)

    async def _look_async(self, text: str) -> str:
        await asyncio.sleep(self.chance.pause())
        return self.chance.answer("look", text)

    def run(self, steps: Sequence[Any], tag: str = "") -> dict[str, Any]:
        """Run steps by calls that block, and return the results: the coroutine never waits."""
        try:
            self.steps(steps, tag).send(None)
        except StopIteration:
            return self.results
        raise AssertionError("an actor that blocks waited")

    async def steps(self, steps: Sequence[Any], tag: str) -> None:
        """Run steps, each with a tag of its own."""
        for index, step in enumerate(steps):
            if step[0] == "new":  # put in between: it moves no tag
                await self.ask("new", step[1])
            else:
                await self.step(
                    step[0], step[1], step[2], f"{tag}.{step[3] if step[3:] else index}"
                )

    async def step(self, kind: str, text: str, inside: Any, tag: str) -> None:
        """Run a step."""
        if kind in ASKS or kind in TROUBLES:
            self.results[tag] = await self.ask(kind, text)
        elif kind in BLOCKS:
            await getattr(self, "_" + kind)(text, inside, tag)
        elif self.is_async and kind == "tasks":
            await self._in_tasks(inside, tag)
        elif self.is_async:  # nothing blocks the loop
            block = getattr(self, "_" + kind.replace(" ", "_"))
            await asyncio.to_thread(block, text, inside, tag)
        else:
            getattr(self, "_" + kind.replace(" ", "_"))(text, inside, tag)

    # Steps that ask

    async def ask(self, kind: str, text: str) -> Any:
        """Make the call or calls of a step, and return what came of them."""
        if kind == "new":
            text = f"new {text}"
        if kind == "function":
            return await self._alook(text) if self.is_async else self._look(text)
        # Outside any scope nothing tells where a function's own calls stand in the file.
        if kind == "asking function" and self.position.path is not None:
            return self._ask(text) if not self.is_async else await self._alook(text)
        if kind == "embed":
            get, aget = self.model.get_embedding, self.model.aget_embedding
            return await aget(text) if self.is_async else get(text)
        if kind == "typed":
            return await self._typed(text)
        if kind == "sampled":
            return (await self._sent(text, sample="given")).content
        if kind == "dropped":
            await self._drop(text)
        if kind in ("stream", "dropped"):
            return self.checked(text, await self._streamed(text))
        model = "small" if kind == "fallback" else MODEL
        question = f"flaky {text}" if kind == "flaky" else text
        while True:
            try:
                reply = await self._sent(question, model=model)
            except llmcall.InvalidRequestError:  # gives its draw back
                continue
            return self.checked((model, question) if model != MODEL else question, reply)

    async def _sent(self, text: str, **arguments: Any) -> Any:
        if self.is_async:
            return await self.model.asend_message(text, **arguments)
        return self.model.send_message(text, **arguments)

    async def _streamed(self, text: str) -> Any:
        if self.is_async:
            async with self.model.astream_message(text) as astream:
                streamed = "".join([piece async for piece in astream])
            reply = astream.reply
        else:
            with self.model.stream_message(text) as stream:
                streamed = "".join(stream)
            reply = stream.reply
        assert streamed == reply.content
        return reply

    async def _drop(self, text: str) -> None:
        """Begin a stream and leave it: its number is free again."""
        if self.is_async:
            async with self.model.astream_message(text) as astream:
                async for _ in astream:
                    break
        else:
            with self.model.stream_message(text) as stream:
                next(stream)

    async def _typed(self, text: str) -> Any:
        call: Any = llmcall.LLMCall(
            user="Which number, {{ text }}?", output_type=int, output_retries=5, client=self.model
        )
        try:
            return await call.acall(text=text) if self.is_async else call.call(text=text)
        except llmcall.OutputError as error:
            return f"unread: {error.text}"

    def checked(self, question: Any, reply: Any) -> Any:
        """Return the result of a reply whose draw has the number that a stranger counts."""
        sample = self.counts.take(self.position, question)
        assert reply.sample == sample or self.chance.plan.is_changed, (reply.sample, sample)
        return [reply.sample, reply.content]

    # Steps that hold others

    async def _within(self, manager: Any, position: Position, inside: Any, tag: str) -> None:
        before, self.position = self.position, position
        try:
            with manager:
                await self.steps(inside, tag)
        finally:
            self.position = before

    async def _scope(self, name: str, inside: Any, tag: str) -> None:
        await self._within(scope(name), self.position.inside(name), inside, tag)

    async def _kept(self, name: str, inside: Any, tag: str) -> None:
        if name not in self._kept_scopes:  # one that nobody enters would say so when it goes
            self._kept_scopes[name] = scope(name), os.urandom(8)
        opened, number = self._kept_scopes[name]
        await self._within(opened, self.position.inside(name, number), inside, tag)

    async def _raise(self, name: str, inside: Any, tag: str) -> None:
        try:
            with scope("raising"):
                position = self.position.inside("raising").inside(name)
                await self._within(scope(name), position, inside, tag)
                raise ZeroDivisionError
        except ZeroDivisionError:
            self.results[tag] = "raised"

    async def _none(self, _: str, inside: Any, tag: str) -> None:
        if self.holds:  # an equal request could wait for the stream that is held
            await self.steps(inside, tag)
        else:
            await self._within(scope(None), Position("none is meant"), inside, tag)

    async def _held(self, text: str, inside: Any, tag: str) -> None:
        """Begin a stream, run steps, and read it to its end."""
        if self.position.path is None or self.chance.plan.has_budget:
            await self.steps(inside, tag)
            return
        was_held, self.holds = self.holds, True
        with self.model.stream_message(text) as stream:
            streamed = next(stream)
            sample = self.counts.take(self.position, text)
            await self.steps(inside, tag)
            streamed += "".join(stream)
        self.holds = was_held
        assert stream.reply is not None
        assert stream.reply.sample == sample
        self.results[tag] = [sample, streamed]

    async def _arms(self, name: str, inside: Any, tag: str) -> None:
        """Run the same steps in two arms, and in the second one more."""
        if self.position.arm is not None:
            await self._scope(name, inside, tag)
            return
        position = self.position.inside(f"{name}{tag}")
        with scope(f"{name}{tag}"):
            for arm in ("control", "treated"):
                there = position._replace(arm=arm)
                more = [["ask", "treated", [], "more"]] if arm == "treated" else []
                await self._within(llmcall.arm(arm), there, [*inside, *more], f"{tag}.{arm}")

    def _bound(self, function: Any) -> Any:
        """Return a function that stands where this actor does, in any thread."""
        return function if self.position == Position() else bind(function)

    # Steps that run others at the same time

    def _copy(self, position: Position, *, is_async: bool = False) -> Actor:
        return Actor(
            self.chance, position, self.counts, self.executor, is_async=is_async, holds=self.holds
        )

    def _actors(self, inside: Any, tag: str, *, is_async: bool) -> list[tuple[str, Actor, Any]]:
        """Return an actor for each step, with a scope of its own."""
        actors = []
        for index, step in enumerate(inside):
            number = step[3] if step[3:] else f"new{index}" if step[0] == "new" else index
            name = f"actor{tag}.{number}"
            actor = self._copy(self.position.inside(name), is_async=is_async)
            actors.append((name, actor, [*step[:3], number]))
        return actors

    def _threads(self, _: str, inside: Any, tag: str) -> None:
        actors = self._actors(inside, tag, is_async=False)

        def run(name: str, actor: Actor, step: Any) -> None:
            time.sleep(self.chance.pause())
            with scope(name):
                actor.run([step], tag)

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(self._bound(run), *actor) for actor in actors]:
                future.result()
        for _, actor, _ in actors:
            self.results |= actor.results

    def _tasks(self, _: str, inside: Any, tag: str) -> None:
        asyncio.run(self._in_tasks(inside, tag))

    async def _in_tasks(self, inside: Any, tag: str) -> None:
        actors = self._actors(inside, tag, is_async=True)

        async def run(name: str, actor: Actor, step: Any) -> None:
            await asyncio.sleep(self.chance.pause())
            with scope(name):
                await actor.steps([step], tag)

        await asyncio.gather(*(run(*actor) for actor in actors))
        for _, actor, _ in actors:
            self.results |= actor.results

    def _thread(self, _: str, inside: Any, tag: str) -> None:
        """Run steps in a thread to which the scope is carried; nothing else goes on meanwhile."""
        actor = self._copy(self.position)
        with ThreadPoolExecutor(1) as thread:
            self.results |= thread.submit(self._bound(actor.run), inside, tag).result()

    def _map(self, name: str, inside: Any, tag: str) -> None:
        """Run the same steps for each of three items, two of which have one name, twice."""
        job = Job(self, inside)
        items = list(enumerate([name, "z", name]))
        results = llmcall.map(
            job, items, key=job.key, scope="map", repeats=2, workers=3, executor=self.executor
        )
        for item, repeats in enumerate(results):
            for repeat, (by_step, counts) in enumerate(repeats):
                self.results |= {
                    f"{tag}/{item}/{repeat}{inner}": by_step[inner] for inner in by_step
                }
                self.counts.add(counts)

    def _failing_map(self, name: str, inside: Any, tag: str) -> None:
        """Run a map that ends early: all its numbers are free again."""
        job = Job(self, inside, fails=True)
        try:
            llmcall.map(job, [(0, name)], key=job.key, scope="map", workers=1)
        except ZeroDivisionError:
            self.results[tag] = "raised"

    def _crowd(self, way: str, inside: Any, tag: str) -> None:
        Crowd(self.chance, self.results).play(way, inside, tag)


class Job:
    """Steps that a map runs for each item, in whatever thread or process."""

    def __init__(self, actor: Actor, steps: Any, *, fails: bool = False) -> None:
        self.chance = actor.chance
        self.position = actor.position.inside("map")
        self.counts = actor.counts.copy()
        self.holds = actor.holds
        self.steps = steps
        self.fails = fails

    def key(self, item: tuple[int, str]) -> str:
        """Return the name of an item."""
        return item[1]

    def __call__(self, item: tuple[int, str]) -> Any:
        """Run the steps, and return the results and the counts."""
        index, name = item
        position = self.position.inside(f"{name}~1" if index == 2 else name)
        if seed_of(position.path) != llmcall.seed():
            position = position.inside("~1")  # the second repeat
        assert seed_of(position.path) == llmcall.seed()
        actor = Actor(self.chance, position, self.counts, holds=self.holds)
        results = actor.run(self.steps)
        if self.fails:
            raise ZeroDivisionError
        return results, actor.counts


def seed_of(path: str | None) -> int:
    """Return the seed of a scope path, as anybody can compute it."""
    return int.from_bytes(hashlib.sha256(f"seed\n{path}".encode()).digest()[:8], "big")


class Crowd:
    """Tasks and threads that ask the same in one scope, through the OpenAI SDK.

    :param results: what each was answered, by who it is.
    """

    def __init__(self, chance: Chance, results: dict[str, Any]) -> None:
        self.chance = chance
        self.results = results
        transport = http.MockTransport(self._respond)
        self.client = openai.OpenAI(**ADDRESS, http_client=http.Client(transport=transport))

    def _respond(self, request: Any) -> Any:
        time.sleep(self.chance.pause())
        body = json.loads(request.content)
        text = self.chance.answer(body)
        if body.get("stream"):
            content = b"".join(map(event, [*chunks_of(text[:5], text[5:]), b"[DONE]"]))
            headers = {"content-type": "text/event-stream"}
            return http.Response(200, headers=headers, content=content)
        return http.Response(200, json=completion(text))

    async def _respond_async(self, request: Any) -> Any:
        await asyncio.sleep(self.chance.pause())
        return self._respond(request)

    def ask(self, who: str, text: str) -> None:
        """Ask once, whole or streamed."""
        time.sleep(self.chance.pause())
        create: Any = self.client.chat.completions.create
        if text == "a":
            self.results[who] = create(**asked(text)).choices[0].message.content
        else:
            self.results[who] = "".join(map(text_of, create(**asked(text), stream=True)))

    async def ask_async(self, who: str, text: str, client: Any) -> None:
        """Ask once, whole or streamed."""
        await asyncio.sleep(self.chance.pause())
        create = client.chat.completions.create
        if text == "a":
            self.results[who] = (await create(**asked(text))).choices[0].message.content
        else:
            chunks = await create(**asked(text), stream=True)
            self.results[who] = "".join([text_of(chunk) async for chunk in chunks])

    def play(self, way: str, members: Any, who: str) -> None:
        """Let each member ask, play with members of its own, and ask again."""
        if way in IN_A_LOOP:
            asyncio.run(self._in_a_loop(way, members, who))
            return
        jobs = self._jobs(members, who)
        if way == "threads":
            threads = [threading.Thread(target=job) for job in jobs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        elif way == "pool":
            with ThreadPoolExecutor(2) as pool:
                for future in [
                    pool.submit(contextvars.copy_context().run, job) if i % 2 else pool.submit(job)
                    for i, job in enumerate(jobs)
                ]:
                    future.result()
        elif way == "batch":
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(in_any_context(len(jobs)), jobs))
        else:
            for job in jobs:
                job()

    def _jobs(self, members: Any, who: str) -> list[Any]:
        return [
            functools.partial(self.member, member, f"{who}.{index}")
            for index, member in enumerate(members)
        ]

    def member(self, member: Any, who: str) -> None:
        """Be one member."""
        way, text, members = member
        self.ask(f"{who} first", text)
        self.play(way, members, who)
        self.ask(f"{who} last", text)

    async def _in_a_loop(self, way: str, members: Any, who: str) -> None:
        transport = http.MockTransport(self._respond_async)
        async with openai.AsyncOpenAI(
            **ADDRESS, http_client=http.AsyncClient(transport=transport)
        ) as client:
            await self.play_async(way, members, who, client)

    async def play_async(self, way: str, members: Any, who: str, client: Any) -> None:
        """Do the same in tasks; threads are made by ``to_thread`` and in an executor."""
        if way not in IN_A_LOOP:
            run = asyncio.get_running_loop().run_in_executor
            jobs = self._jobs(members, who)
            if way == "batch":
                in_context = in_any_context(len(jobs))
                jobs = [functools.partial(in_context, job) for job in jobs]
            await asyncio.gather(
                *(asyncio.to_thread(job) if way == "threads" else run(None, job) for job in jobs)
            )
            return
        coroutines = [
            self.member_async(member, f"{who}.{index}", client)
            for index, member in enumerate(members)
        ]
        if way == "gather":
            await asyncio.gather(*coroutines)
        elif way == "as completed":
            for done in asyncio.as_completed(coroutines):
                await done
        elif way == "tasks":
            tasks = []
            for coroutine in coroutines:
                tasks.append(asyncio.create_task(coroutine))
                await asyncio.sleep(self.chance.pause())
            for task in tasks:
                await asyncio.wait_for(task, 60)
        elif way == "group" and sys.version_info >= (3, 11):
            async with asyncio.TaskGroup() as group:
                for coroutine in coroutines:
                    group.create_task(coroutine)
        else:
            async with anyio.create_task_group() as anyio_group:
                for coroutine in coroutines:
                    anyio_group.start_soon(awaited, coroutine)

    async def member_async(self, member: Any, who: str, client: Any) -> None:
        """Be one member."""
        way, text, members = member
        await self.ask_async(f"{who} first", text, client)
        await self.play_async(way, members, who, client)
        await self.ask_async(f"{who} last", text, client)


async def awaited(coroutine: Any) -> None:
    """Wait for a coroutine: anyio makes its own."""
    await coroutine


ADDRESS: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1", "api_key": "none", "max_retries": 0}


def in_any_context(count: int) -> Callable[[Callable[[], None]], None]:
    """Return a function that runs a job in one of so many copies of this context, as LangChain does."""
    contexts = [contextvars.copy_context() for _ in range(count)]
    return lambda job: contexts.pop().run(job)


def asked(text: str) -> dict[str, Any]:
    """Return what is asked of the SDK."""
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "temperature": 1}


def text_of(chunk: Any) -> str:
    """Return the text in a chunk of a stream."""
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def main(program: str, plan: str, path: str) -> None:
    """Run a program in the scope ``play``, and write the results."""
    actor = Actor(Chance(Plan(**json.loads(plan))), Position("play", "play"))
    results = actor.run(json.loads(Path(program).read_text(encoding="utf-8")))
    Path(path).write_text(json.dumps(results, sort_keys=True), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
