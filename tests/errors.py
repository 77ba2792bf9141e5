"""Errors by their words, each on a line as Python shows it last in a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest


def error_table(*rows: tuple[str, Callable[[], object]]) -> Any:
    """Parametrize a test by ``line`` and ``call``, for :func:`check_error`."""
    named = [pytest.param(line, call, id=line[:70]) for line, call in rows]
    return pytest.mark.parametrize(("line", "call"), named)


def check_error(line: str, call: Callable[[], object]) -> Any:
    """Check the error that a call raises, and return it.

    :param line: its type, or the built-in one that this is, and how its words begin: ``TypeError: the words``. Three
        dots stand for any words.
    """
    kind, _, words = line.partition(": ")
    with pytest.raises(Exception) as caught:
        call()
    builtin = [base for base in type(caught.value).__mro__ if base.__module__ == "builtins"]
    assert kind in [base.__name__ for base in (type(caught.value), *builtin)], caught.value
    pattern = ".*".join(map(re.escape, words.split("...")))
    assert re.match(pattern, str(caught.value), re.DOTALL), caught.value
    return caught.value
