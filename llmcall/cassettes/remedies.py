"""How to record the answers that a cassette lacks."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cassette import Cassette


def remedy_of(cassette: Cassette) -> str:
    """Return how to record missing answers: a command, and on the next line what it does."""
    mode = "once" if cassette.stored is None else "new"
    if not cassette.write_at_end:
        remedy = recording_command(mode)
    elif cassette.command:
        remedy = f"{cassette.command} --cassette {shlex.quote(str(cassette.path))} --mode {mode} …"
    elif cassette.is_named_by_settings:
        remedy = f"LLMCALL_CASSETTE_MODE={mode}"
    else:
        remedy = f"llmcall.cassette({str(cassette.path)!r}, mode={mode!r})"
    return (
        f"{remedy}\nkeeps recorded answers and asks only for missing ones (the mode "
        f"{cassette.mode!r} allows no calls)"
    )


def recording_command(mode: str) -> str:
    """Return the command that records the running test."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    return f"pytest --llm-record={mode} {shlex.quote(test) if test else ''}".rstrip()
