"""Seed a program's own random numbers, so that a replay draws the same ones as the run.

Generators that the program seeds keep their seeds. Each generator that it makes without a seed gets
one of its own. That seed depends on the run's seed, on the task or thread and the module and function
that make the generator, and on how many generators these made before. So timing decides nothing, and
a further generator in one function changes no seed in another.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib
import os
import random
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from types import FrameType
from typing import Any

from .. import askers

HASH_SEED = "PYTHONHASHSEED"
LARGEST = 2**32 - 1  # the largest seed that Python's hashes and NumPy take
# Nobody may guess the names of temporary files.
UNSEEDED = ("tempfile",)
_own_modules = (__name__, "random")  # modules whose frames stand between the program and a seed


class _Seeds:
    """Gives seeds to generators that are made without one.

    :param seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counts: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._lock = threading.Lock()

    def next(self, bits: int) -> int | None:
        """Return the next seed for the calling function; ``None`` if its numbers stay random."""
        caller = _caller_outside(sys._getframe(1))
        if caller.partition(":")[0] in UNSEEDED:
            return None
        maker = (*_asker(), caller)
        with self._lock:
            number = self._counts[maker]
            self._counts[maker] += 1
        name = "\n".join([str(self._seed), *maker, str(number)])
        digest = hashlib.shake_256(name.encode()).digest(bits // 8 + 1)
        return int.from_bytes(digest, "big") & ((1 << bits) - 1)


def _asker() -> tuple[str, ...]:
    """Return the name of the task or thread that runs here; nothing for the main program."""
    asker = askers.current()
    return () if asker is None or asker.name == askers.MAIN else (asker.name,)


def _caller_outside(frame: FrameType | None) -> str:
    """Return the module and the function that use Python's own ``random``: ``"module:function"``."""
    while frame is not None and frame.f_globals.get("__name__") in _own_modules:
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{frame.f_globals.get('__name__')}:{frame.f_code.co_name}"


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the random numbers of the process for a block: ``random``, NumPy, and generators without a
    seed.

    What is meant to be secret (``secrets``, ``os.urandom``, ``uuid4``) stays so. The hash seed is
    fixed before Python starts: see :func:`has_hash_seed`.
    """
    seeds = _Seeds(seed)
    with contextlib.ExitStack() as undo:
        _replace(random.Random, "seed", _seed_method(seeds), undo)
        _replace(random, "seed", _seed_function(seeds), undo)
        state = random.getstate()
        undo.callback(random.setstate, state)
        random.seed(seed)
        if find_spec("numpy"):
            _seed_numpy(seed, seeds, undo)
        yield


def _replace(owner: Any, name: str, value: Any, undo: contextlib.ExitStack) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _seed_method(seeds: _Seeds) -> Any:
    """Return ``random.Random.seed`` for generators that may be made without a seed."""
    set_seed = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        """Initialize the generator's state."""
        set_seed(self, seeds.next(128) if a is None else a, version)

    return seed


def _seed_function(seeds: _Seeds) -> Any:
    """Return a new ``random.seed``: Python's own is bound to the method that was replaced."""
    set_seed = random.seed

    def seed(a: Any = None, version: int = 2) -> None:
        """Initialize the state of the module's own generator."""
        set_seed(seeds.next(128) if a is None else a, version)

    return seed


def _seed_numpy(seed: int, seeds: _Seeds, undo: contextlib.ExitStack) -> None:
    """Seed NumPy's global generator, and the random bits from which its other generators start."""
    numpy: Any = importlib.import_module("numpy")
    bit_generator = importlib.import_module("numpy.random.bit_generator")
    draw_bits = bit_generator.randbits

    def randbits(bits: int) -> int:
        """Return random bits."""
        value = seeds.next(bits)
        return draw_bits(bits) if value is None else value

    _replace(bit_generator, "randbits", randbits, undo)
    undo.callback(numpy.random.set_state, numpy.random.get_state())
    numpy.random.seed(seed)


def has_hash_seed(seed: int) -> bool:
    """Return whether this process was started with a seed of its hashes."""
    return os.environ.get(HASH_SEED) == str(seed) and not sys.flags.ignore_environment
