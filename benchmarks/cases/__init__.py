"""The cases that are measured.

Each module has ``run(bench)``, and the functions that its workers run: generators that set up,
yield once when they are ready, and then yield a round's value each time.
"""

from __future__ import annotations

from importlib import import_module

from ..bench import Bench
from ..figures import Group

CASES = {
    "hits": "hits: in the process that recorded, and in another one",
    "threads": "hits from 1, 2, 4, 8 and 32 threads of a user's own, against one thread",
    "first_answer": "from starting Python to the first replayed answer: time and peak memory",
    "recorded_call": "a call that is recorded, against the plain SDK's call",
    "unchanged_program": "a program on the OpenAI SDK: a replayed call and a recorded one, against the SDK alone",
    "many_calls": "400 calls by 32 workers; 500 asynchronous ones at once",
    "limits": "2,000 calls to a server that takes 40 at once: the number found, against fixed numbers",
    "identical": "calls sent for 32 identical requests at once",
    "actors": "five actors who ask the same: their answers, and who gets which in another order",
    "recorders": "five actors of a program, named, in threads and in children: who gets which in its replay",
    "large_store": "open, hit, record, delete, stats, ls and the nearest record for a miss in a large store",
    "routes": "replayed calls on the routes that users travel, against bare look-ups, and their memory",
    "simulation": "1,000 personas, ten rounds, typed decisions, replayed from a cassette in a new process",
    "cassette": "loading a cassette and answering the first call, against json.loads of its lines",
}


def run(name: str, bench: Bench) -> list[Group]:
    """Measure a case."""
    groups: list[Group] = import_module(f"{__name__}.{name}").run(bench)
    return groups
