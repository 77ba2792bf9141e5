"""What several threads may do at the same time when it is done for the first time in a process."""

from __future__ import annotations

import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import LONGEST, PAUSED_IMPORT, ROOT, ran

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


def test_a_scope_may_open_while_another_thread_imports_multiprocessing() -> None:
    """Neither the scope nor the import fails."""
    program = """
        # beside
        with llmcall.scope("s"):
            print(ScriptedClient(["yes"]).send_message("Hello").sample)
    """
    found = asked_beside("import multiprocessing", "multiprocessing", program)
    assert sorted(found) == ["imported", "s#0"]


def test_two_threads_may_use_two_names_of_the_package_first() -> None:
    """Each gets its name, also if both need the same modules."""
    program = """
        # beside
        print(llmcall.choice.__name__)
    """
    found = asked_beside("llmcall.LLMCall", "llmcall.typed.llm_call", program)
    assert sorted(found) == ["choice", "imported"]


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_call_may_fail_while_another_thread_imports_an_http_library(library: str) -> None:
    """Its error is the one that it has alone, whichever library the SDK uses."""
    program = """
        import openai
        client = llmcall.OpenAIClient(
            base_url="http://127.0.0.1:9/v1", retry_max_attempts=1, on_error="raise"
        )
        # beside
        try:
            client.send_message("Hello")
        except llmcall.ServiceError as error:
            print(type(error).__name__)
    """
    found = asked_beside(f"import {library}", f"{library}._client", program)
    assert sorted(found) == ["ServiceError", "imported"]


def test_a_map_may_run_while_another_thread_imports_ipython(tmp_path: Path) -> None:
    """It looks whether it runs in a notebook, and finds that it does not."""
    (tmp_path / "IPython").mkdir()
    (tmp_path / "IPython" / "__init__.py").write_text(
        "import colorsys\ndef get_ipython(): ...\n", encoding="utf-8"
    )
    program = """
        # beside
        print(llmcall.map(str, [1, 2]))
    """
    found = asked_beside("import IPython", "colorsys", program, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert sorted(found) == ["['1', '2']", "imported"]


def test_maps_with_bars_leave_pythons_warnings_as_they_were() -> None:
    """Also two of two threads, the first that show a bar."""
    program = """
        import warnings
        filters = list(warnings.filters)
        # beside
        llmcall.map(str, [1], progress=True)
        # afterwards
        print(warnings.filters == filters)
    """
    show_bar = "llmcall.map(str, [1], progress=True)"
    assert asked_beside(show_bar, "tqdm.auto", program) == ["imported", "True"]


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
