"""A random program full of equal requests, run under ``llmcall run``: ``crowd.py SEED``.

The seed decides what its tasks and threads do; how long each takes is left to chance. It prints
what every one of them was answered, in an order of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

DEEPEST = 3
MOST = 3  # children of one maker
TEXTS = ("Name a fruit.", "Toss a coin.")
chance = random.SystemRandom()  # of the delays
address = {"base_url": os.environ["MODEL_AT"], "api_key": "none", "max_retries": 0}
client = openai.OpenAI(**address, timeout=60)  # type: ignore[arg-type]
Answers = dict[str, str]


def pause() -> float:
    """Return a delay of chance, in seconds."""
    return chance.random() * 0.004


def request(plan: random.Random) -> dict[str, Any]:
    """Choose what is asked."""
    messages = [{"role": "user", "content": plan.choice(TEXTS)}]
    return {"model": "gpt-4o-mini", "messages": messages, "temperature": 1}


def text_of(chunk: Any) -> str:
    """Return the text in a chunk of a stream."""
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def ask(who: str, plan: random.Random, answers: Answers) -> None:
    """Ask once, whole or streamed."""
    time.sleep(pause())
    create: Any = client.chat.completions.create
    if plan.random() < 0.3:
        chunks = create(**request(plan), stream=True)
        answers[who] = "".join(map(text_of, chunks))
    else:
        answers[who] = create(**request(plan)).choices[0].message.content


async def ask_async(who: str, plan: random.Random, answers: Answers, aclient: Any) -> None:
    """Ask once, whole or streamed."""
    await asyncio.sleep(pause())
    create = aclient.chat.completions.create
    if plan.random() < 0.3:
        text = ""
        async for chunk in await create(**request(plan), stream=True):
            text += text_of(chunk)
        answers[who] = text
    else:
        answers[who] = (await create(**request(plan))).choices[0].message.content


def parts(who: str, plan: random.Random) -> list[tuple[str, random.Random]]:
    """Return the children of a maker, each with a plan of its own."""
    return [(f"{who}.{n}", random.Random(plan.random())) for n in range(plan.randint(1, MOST))]


def in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own."""
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_pool(jobs: list[Callable[[], None]]) -> None:
    """Run them in a pool that is smaller than they are many; some in copies of this context."""
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(*(contextvars.copy_context().run for _ in range(n % 3)), job)
            for n, job in enumerate(jobs)
        ]
        for future in futures:
            future.result()


def in_turn(jobs: list[Callable[[], None]]) -> None:
    """Run one after the other."""
    for job in jobs:
        job()


def play(who: str, plan: random.Random, answers: Answers, depth: int = 0) -> None:
    """Ask, and let children ask."""
    ask(f"{who} first", plan, answers)
    if depth < DEEPEST:
        way = plan.choice([in_threads, in_pool, in_turn, None])
        children = parts(who, plan)
        if way is None:
            asyncio.run(play_async(f"{who}.loop", plan, answers, depth + 1))
        else:
            way(
                [
                    functools.partial(play, child, mine, answers, depth + 1)
                    for child, mine in children
                ]
            )
    ask(f"{who} last", plan, answers)


async def play_async(
    who: str, plan: random.Random, answers: Answers, depth: int, aclient: Any = None
) -> None:
    """Ask, and let children ask."""
    if aclient is None:
        # Without certificates to load, a client is made in no time.
        http_client = openai.DefaultAsyncHttpxClient(verify=False)
        async with openai.AsyncOpenAI(**address, http_client=http_client, timeout=60) as aclient:  # type: ignore[arg-type]
            await play_async(who, plan, answers, depth, aclient)
        return
    await ask_async(f"{who} first", plan, answers, aclient)
    if depth < DEEPEST:
        children = parts(who, plan)
        way = plan.choice(["gather", "tasks", "threads", "executor", "as_completed", "group"])
        if way in ("threads", "executor"):
            jobs = [
                functools.partial(play, child, mine, answers, depth + 1) for child, mine in children
            ]
            loop = asyncio.get_running_loop()
            futures = [
                asyncio.to_thread(job) if way == "threads" else loop.run_in_executor(None, job)
                for job in jobs
            ]
            await asyncio.gather(*futures)
        else:
            coroutines = [
                play_async(child, mine, answers, depth + 1, aclient) for child, mine in children
            ]
            await GROUPS[way](coroutines)
    await ask_async(f"{who} last", plan, answers, aclient)


async def in_gather(coroutines: list[Any]) -> None:
    """Gather them."""
    await asyncio.gather(*coroutines)


async def in_tasks(coroutines: list[Any]) -> None:
    """Make tasks, with delays between, and wait for each for a while."""
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.create_task(coroutine))
        await asyncio.sleep(pause())
    for task in tasks:
        await asyncio.wait_for(task, 60)


async def in_group(coroutines: list[Any]) -> None:
    """Run them in a task group, if this Python has any; else in anyio's."""
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
        return
    await in_anyio_group(coroutines)


async def in_anyio_group(coroutines: list[Any]) -> None:
    """Run them in anyio's task group."""
    import anyio

    async def wait_for(coroutine: Any) -> None:
        await coroutine

    async with anyio.create_task_group() as group:
        for coroutine in coroutines:
            group.start_soon(wait_for, coroutine)


async def as_completed(coroutines: list[Any]) -> None:
    """Wait for them as they finish."""
    for coroutine in asyncio.as_completed(coroutines):
        await coroutine


GROUPS: dict[str, Callable[[list[Any]], Any]] = {
    "gather": in_gather,
    "tasks": in_tasks,
    "group": in_group,
    "as_completed": as_completed,
}
if sys.version_info >= (3, 11):
    GROUPS["group"] = in_anyio_group


def main(seed: str) -> None:
    """Play, and print the answers."""
    answers: Answers = {}
    for number in range(2):
        play(f"act {number}", random.Random(f"{seed} {number}"), answers)
        asyncio.run(
            play_async(f"loop {number}", random.Random(f"{seed} loop {number}"), answers, 0)
        )
    for who in sorted(answers):
        print(who, answers[who])


if __name__ == "__main__":
    main(sys.argv[1])
