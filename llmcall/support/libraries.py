"""The libraries that llmcall uses, each imported where it is first needed.

Some draw from the program's random numbers while they are imported: httpx imports rich where that is
installed, and rich draws one. A replay needs fewer libraries than the run that it repeats, so a
seeded program would continue with other numbers. Therefore nothing else imports them, and the numbers
are put back after each import. Rejected: to import all with llmcall, which costs every program a
second; to put the numbers back after each call, in which the program's own code may draw. What
another thread draws during an import is drawn once more.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .system import ProcessLock, unwatched

if TYPE_CHECKING:  # these may be imported from here
    import azure.identity
    import bpe_openai._bindings
    import click
    import diskcache
    import dotenv.parser
    import genai_prices
    import httpx
    import httpx as any_httpx
    import jinja2.meta
    import jinja2.sandbox
    import jsonschema.exceptions
    import openai
    import pandas
    import pydantic.json_schema
    import pydantic_core
    import pystache.context
    import pystache.parser
    import redis.backoff
    import redis.exceptions
    import redis.retry
    import referencing.exceptions
    import scipy.stats
    import tabulate
    import tenacity
    import tiktoken
    import tqdm.auto
    import typing_extensions
    import uvicorn
    import xllamacpp
    import yaml

# The modules of a library that are used, where these are others than its own.
_MODULES = {
    "azure": "azure.identity",
    "bpe_openai": "bpe_openai._bindings",
    "diskcache": "diskcache.core",
    "dotenv": "dotenv.parser",
    "jinja2": "jinja2.meta jinja2.sandbox",
    "jsonschema": "jsonschema.exceptions",
    "pydantic": "pydantic.json_schema",
    "pystache": "pystache.context pystache.parser",
    "redis": "redis.backoff redis.exceptions redis.retry",
    "referencing": "referencing.exceptions",
    "scipy": "scipy.stats",
    "tqdm": "tqdm.auto",
}
importing = ProcessLock()
# The libraries of one module that were imported, by whichever thread
_whole: dict[str, object] = {}


class _Keeping(threading.local):
    """A thread's flag while it keeps random numbers: generators made meanwhile do not belong to the program."""

    is_on = False


keeping_random_numbers = _Keeping()


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Put the state of ``random`` and of NumPy's global generator back after a block."""
    with importing, unwatched():  # else a thread could keep what another's import has moved
        before, keeping_random_numbers.is_on = keeping_random_numbers.is_on, True
        state = random.getstate()
        numpy: Any = import_module("numpy.random") if "numpy.random" in sys.modules else None
        numpy_state = None if numpy is None else numpy.get_state(legacy=False)
        try:
            yield
        finally:
            random.setstate(state)
            if numpy is not None:
                numpy.set_state(numpy_state)
            keeping_random_numbers.is_on = before


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Return a library, imported; for ``any_httpx``, httpx2 or else httpx.

        :raises ImportError: if it is not installed.
        """
        if name == "any_httpx":
            # openai 3, which uses httpx2, looks for httpx in sys.modules for each request, and fails while another
            # thread imports it.
            try:
                return __getattr__("httpx2")
            except ImportError:
                name = "httpx"
        whole = _whole.get(name)
        if whole is not None and sys.modules.get(name) is whole:
            return whole
        if name.startswith("__"):  # Python looks for such names in any module
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # The package comes first: a module of it may be whole while another thread still imports it.
        modules = (name, *_MODULES.get(name, "").split())
        is_imported = sys.modules.keys() >= {*modules}
        with nullcontext() if is_imported else random_numbers_kept():
            for module in modules:
                import_module(module)  # also waits for another thread that imports it
        library = sys.modules[name]
        if name not in _MODULES:
            _whole[name] = library
        return library
