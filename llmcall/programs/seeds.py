"""Seeds of a program's own random numbers, so that a replay draws the same ones as the run.

Generators that the program seeds keep their seeds. Each generator that it makes without a seed gets
one of its own, which depends on the run's seed, on the task or thread that makes the generator, and
on how many it made before. So timing decides nothing. A generator that is made while a call is answered
counts apart: a transport makes it where it sends, and a replay sends nothing.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

from ..scopes.callers import current_caller
from ..support.libraries import keeping_random_numbers
from ..support.request_origin import llmcall_sends
from .replacing import replace, when_imported

IN_CALL = " in a call"  # behind a maker's name


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the random numbers of the process for a block: ``random``, NumPy's global generator, and
    generators that are made without a seed.

    What is meant to be secret (``secrets``, ``os.urandom``, ``uuid4``) stays so. The hash seed is
    fixed before Python starts.
    """
    counts: collections.Counter[str] = collections.Counter()

    def next_seed(bits: int) -> int:
        if keeping_random_numbers.is_on:  # a library's own, which a replay may not import
            return 0
        caller = current_caller()
        maker = "" if caller is None else caller.name
        if llmcall_sends():
            maker += IN_CALL
        number = counts[maker]
        counts[maker] += 1
        digest = hashlib.shake_256(f"{seed}\n{maker}\n{number}".encode()).digest(bits // 8 + 1)
        return int.from_bytes(digest, "big") & ((1 << bits) - 1)

    def seed_method(
        set_seed: Any, generator: random.Random, a: object = None, version: int = 2
    ) -> None:
        set_seed(generator, next_seed(128) if a is None else a, version)

    def seed_function(set_seed: Any, a: object = None, version: int = 2) -> None:
        set_seed(next_seed(128) if a is None else a, version)

    def seed_numpy(numpy_random: Any) -> None:
        undo.callback(numpy_random.set_state, numpy_random.get_state())
        numpy_random.seed(seed)
        # Only now: the generator that NumPy made for itself while it was imported counts in no seed.
        replace(undo, numpy_random.bit_generator, "randbits", lambda _, bits: next_seed(bits))

    with contextlib.ExitStack() as undo:
        undo.callback(random.setstate, random.getstate())
        random.seed(seed)
        replace(undo, random.Random, "seed", seed_method)
        replace(undo, random, "seed", seed_function)
        when_imported(undo, {"numpy.random": seed_numpy})
        yield
