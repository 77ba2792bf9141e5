"""The functions that a recorded and a missing answer pass: ``python -m benchmarks.route [-v]``.

A warm process makes each call once under a profiler, with the openai SDK and a server on loopback. Counted
are the package's functions, each once, and the files in which they stand; comprehensions, which have been
no functions since Python 3.12, do not count.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import llmcall

from .stub import base_url, stub_server

PACKAGE = str(Path(llmcall.__file__).parent)
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")
# By label: the name of the scope.
ROUTES = {
    "a miss": None,
    "a hit": None,
    "a miss in a scope": "trial",
    "a hit in a scope": "trial",
}


def passed(call: Callable[[], Any]) -> dict[tuple[str, str], None]:
    """Return the package's functions that a call passes, by file and qualified name, in order."""
    functions: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        is_function = event == "call" and code.co_name not in COMPREHENSIONS
        if is_function and code.co_filename.startswith(PACKAGE):
            name = getattr(code, "co_qualname", code.co_name)
            functions[str(Path(code.co_filename).relative_to(PACKAGE)), name] = None

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return functions


def around(name: str | None) -> AbstractContextManager[object]:
    """Return a scope; without a name nothing, since ``scope(None)`` takes another route."""
    return nullcontext() if name is None else llmcall.scope(name)


def main() -> None:
    """Print how many functions in how many files a hit and a miss pass; with -v, which."""
    with tempfile.TemporaryDirectory() as folder, stub_server() as address:
        client = llmcall.OpenAIClient(base_url=base_url(address), api_key="none", cache_path=folder)

        def ask(text: str) -> Any:
            return client.send_message(text, on_error="raise")

        for name in (None, "warm") * 2:  # imports, connections, and what is said once
            with around(name):
                ask("warm")
        for label, name in ROUTES.items():
            with around(name):
                functions = passed(lambda: ask("asked"))
            files = {file for file, _ in functions}
            print(f"{label}: {len(functions)} functions in {len(files)} files")
            if "-v" in sys.argv:
                for file, name in functions:
                    print(f"    {file}: {name}")


if __name__ == "__main__":
    main()
