"""Errors by their words, each on the line that Python shows last in a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

Row = tuple[str, Callable[[], object]]


def error_table(*rows: Row) -> Any:
    """Parametrize a test by ``line`` and ``call``, for :func:`check_error`."""
    named = [pytest.param(line, call, id=line[:70]) for line, call in rows]
    return pytest.mark.parametrize(("line", "call"), named)


def check_error(line: str, call: Callable[[], object]) -> None:
    """Check the type and the beginning of the words of the error that a call raises.

    :param line: ``TypeError: the words``; three dots stand for any words.
    """
    with pytest.raises(Exception) as caught:
        call()
    said = f"{type(caught.value).__name__}: {caught.value}"
    assert re.match(".*".join(map(re.escape, line.split("..."))), said, re.DOTALL), said
