"""The buyers at a market whom the programs here let speak, in any order: each in a thread or in a task of its own."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

BUYERS = {"Lisa": "a thrifty student", "Oscar": "a generous baker", "Emma": "a busy doctor", "Noah": "a shy painter"}


def shuffled(seed: int) -> list[str]:
    """Return the buyers' names in an order that the seed decides."""
    names = list(BUYERS)
    random.Random(seed).shuffle(names)
    return names


def in_threads(visit: Callable[[str], list[str]], seed: int) -> dict[str, list[str]]:
    """Return what each buyer said in a thread; they come in the order of the seed."""
    names = shuffled(seed)
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(sorted(zip(names, pool.map(visit, names), strict=True)))


async def in_tasks(visit: Callable[[str], Awaitable[list[str]]], seed: int) -> dict[str, list[str]]:
    """Return what each buyer said in a task; they come in the order of the seed."""
    names = shuffled(seed)
    return dict(sorted(zip(names, await asyncio.gather(*map(visit, names)), strict=True)))
