"""The buyers at a market speak by a program beside this one: ``market.py PROGRAM SEED``.

A program has a function ``visit``, which returns what one buyer says, in a thread of its own, or in
a task where it is asynchronous; or ``play``, which lets all of them speak, in the order in which
they are named.
"""

import asyncio
import importlib
import inspect
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor

BUYERS = {
    "Lisa": "a thrifty student",
    "Oscar": "a generous baker",
    "Emma": "a busy doctor",
    "Noah": "a shy painter",
}


def main(program: str, seed: int) -> dict[str, list[str]]:
    """Return what each buyer says; they come in an order that the seed decides."""
    module = importlib.import_module(program)
    names = list(BUYERS)
    random.Random(seed).shuffle(names)

    async def in_tasks() -> list[list[str]]:
        return await asyncio.gather(*map(module.visit, names))

    if hasattr(module, "play"):
        answers = module.play(names)
    elif inspect.iscoroutinefunction(module.visit):
        answers = asyncio.run(in_tasks())
    else:
        with ThreadPoolExecutor(len(names)) as pool:
            answers = pool.map(module.visit, names)
    return dict(sorted(zip(names, answers, strict=True)))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
