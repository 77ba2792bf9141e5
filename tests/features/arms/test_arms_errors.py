"""Errors of studies with arms, by their words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from errors import check_error, error_table

import llmcall

API: Any = llmcall  # called here as no type checker allows
A_FUNCTION = "it must be a function"


def arms(**options: Any) -> Any:
    """Run a study with wrong arguments."""
    return API.arms(lambda: {"arm": 1}, **{"arms": {"a": {}, "b": {}}, "scope": "app", **options})


def without_a_record() -> object:
    """Run a study that could share nothing."""
    with llmcall.configured(cache_mode="off"):
        return arms()


@error_table(
    ("TypeError: scope is None", lambda: arms(scope=None)),
    ("ValueError: ...each its own name", lambda: arms(arms={1: {}, "1": {}})),
    ("ValueError: ...at least one arm", lambda: arms(arms={})),
    ("ConfigError: ...cannot share answers", without_a_record),
    ("KeyError: ...the arms are a, b", lambda: arms().compare("a", "c")),
    (f"TypeError: measure is 'adoption'; {A_FUNCTION}", lambda: arms().table("adoption")),
    (
        f"TypeError: measure is 'adoption'; {A_FUNCTION}",
        lambda: arms().effect("adoption", "a", "b"),
    ),
    ("TypeError: arms is ['low']; it must be a dict", lambda: arms(arms=["low"])),
)
def test_an_error_says_what_is_wrong_and_what_to_do(line: str, call: Callable[[], object]) -> None:
    """It is raised whatever ``on_error`` says."""
    check_error(line, call)
