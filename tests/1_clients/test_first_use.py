"""What several threads may do at the same time when it is done for the first time in a process."""

from __future__ import annotations

import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from programs import LONGEST, PAUSED_IMPORT, ran

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only


def asked_beside(import_it: str, pause: str, program: str, **environment: str) -> list[str]:
    """Return the lines that a program prints while another thread imports something.

    :param import_it: what the other thread imports.
    :param pause: a module that this import needs, before which it pauses: until the program is done,
        or for a second, since the program may have to wait for it.
    :param program: what comes before the import, ``# beside``, what comes beside it, and, if there
        is more, ``# afterwards``.
    """
    before, _, rest = textwrap.dedent(program).partition("# beside\n")
    beside, _, afterwards = rest.partition("# afterwards\n")
    lines = [
        before,
        f"def import_it():\n    {import_it}\n    print('imported')",
        PAUSED_IMPORT,
        "thread = begin(import_it, sys.argv[1], 1)",
        beside,
        "is_asked.set()",
        "thread.join()",
        afterwards,
    ]
    return ran("\n".join(lines), pause, **environment).splitlines()


def test_two_threads_may_use_two_names_of_the_package_first() -> None:
    """Each gets its name, also if both need the same modules."""
    program = """
        # beside
        print(llmcall.choice.__name__)
    """
    found = asked_beside("llmcall.LLMCall", "llmcall.typed.llm_call", program)
    assert sorted(found) == ["choice", "imported"]


def test_threads_that_call_first_share_one_transport() -> None:
    """``make_transport`` is called once for an endpoint, however many threads need it at once."""
    made = []

    class Slow(ScriptedClient):
        def make_transport(self, endpoint: llmcall.types.Endpoint) -> Any:
            """Return the client itself, after a while in which other threads get here, too."""
            made.append(endpoint)
            time.sleep(0.05)
            return self

    client, threads = Slow(lambda _: "yes"), 8
    barrier = threading.Barrier(threads, timeout=LONGEST)

    def ask(number: int) -> str | None:
        barrier.wait()
        reply = client.send_message(str(number))
        assert reply is not None
        return reply.content

    with ThreadPoolExecutor(threads) as executor:
        assert list(executor.map(ask, range(threads))) == ["yes"] * threads
    assert len(made) == 1
