"""The contract of gates."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from ..apis.usage import TokenUsage
from ..config.endpoints import Endpoint
from ..core.seams import Used
from ..support.blocking import run_blocking
from . import rules
from .rules import THREADS, holds, made, run_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..core.seams import Gate


def check_gate(make: Callable[[], Gate]) -> None:
    """Check that a gate keeps the contract of :class:`llmcall.types.Gate`: whatever becomes of a send, it lets the
    next one in.

    :param make: returns a new gate for one send, to one place.
    :raises AssertionError: if it breaks a rule; the message names the class.

    >>> llmcall.testing.check_gate(llmcall.types.Gate)
    """
    name = type(made(make)).__name__
    in_thread, in_loop = partial(_run_in_thread, name), partial(_run_in_loop, name)
    for run in (in_thread, in_loop):
        for _ in range(THREADS):
            run(_pass(make()))
        for error in (ValueError("a send that fails"), asyncio.CancelledError()):
            run(_fail(make(), error))
            run(_pass(make()))
    in_loop(_leave_a_wait(make))
    in_thread(_pass(make()))
    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(lambda _: in_thread(_pass(make())), range(THREADS)))


async def _pass(gate: Gate) -> None:
    async with gate:
        endpoint = await gate.acquire()
        holds(
            gate, isinstance(endpoint, Endpoint), f"acquire returned {endpoint!r:.60}, no Endpoint"
        )
        gate.answer_began()
        gate.answer_began()
        used = gate.reckon({}, endpoint, is_part=False)
        holds(gate, isinstance(used, Used), f"reckon returned {used!r:.60}, not Used")
        gate.settle(TokenUsage(), None, 1)
        seconds = gate.rest(endpoint, 0.0, is_asked=False)
        holds(gate, seconds >= 0, f"rest returned {seconds!r}, not seconds")


async def _fail(gate: Gate, error: BaseException) -> None:
    try:
        async with gate:
            await gate.acquire()
            raise error
    except BaseException as caught:
        if caught is not error:
            raise
        return
    holds(gate, False, "it swallows the error of a send")


async def _leave_a_wait(make: Callable[[], Gate]) -> None:
    """One who waits is cancelled while another is in."""
    async with make() as first:
        await first.acquire()
        waiting = asyncio.ensure_future(_pass(make()))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(_pass(make()), rules.LONGEST)


def _run_in_loop(name: str, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in an event loop, for some time at most."""
    try:
        run_in_loop(coroutine)
    except asyncio.TimeoutError:
        raise _lets_nobody_in(name) from None


def _lets_nobody_in(name: str) -> AssertionError:
    return AssertionError(f"{name}: it lets nobody in after {rules.LONGEST:.0f} s")


def _run_in_thread(name: str, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread that it may block, for some time at most."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            run_blocking(coroutine)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(rules.LONGEST)
    if thread.is_alive():
        raise _lets_nobody_in(name)
    for error in errors:
        raise error
