"""What matters to a key, as a user meets it: the second call is answered from the cache, or is not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llmcall.testing import ScriptedClient


def is_one_call(first: dict[str, Any], second: dict[str, Any], path: Path, **overrides: Any) -> bool:
    """Tell whether a second call is answered by the first one's record."""
    client = ScriptedClient(["one", "two"], cache_mode="auto", cache_path=path, on_error="raise", **overrides)
    client.send_message(**first)
    return client.send_message(**second).cached


@pytest.mark.parametrize("empty", [[], ()])
def test_no_stop_is_no_stop(empty: Any, tmp_path: Path) -> None:
    """An empty list of stops stops nothing, and is not sent."""
    client = ScriptedClient(["one"], cache_mode="auto", cache_path=tmp_path)
    client.send_message("Hi", stop=empty)
    assert "stop" not in client.requests[0].body
    assert is_one_call({"current_messages": "Hi"}, {"current_messages": "Hi", "stop": empty}, tmp_path / "other")


@pytest.mark.parametrize("form", ["%c", "%B %d, %Y", "%d/%m/%Y", "%d/%m/%Y %H:%M", "%A, %d %B %Y", "%Y/%m/%d"])
def test_times_in_the_forms_of_strftime(form: str, tmp_path: Path) -> None:
    """``[Cache] NORMALIZE = times`` takes out what ``strftime`` writes of a date with its year."""
    first, second = (
        f"It is {moment:{form}} now." for moment in (datetime(2025, 3, 5, 9, 1), datetime(2026, 11, 20, 8))
    )
    asked = {"current_messages": first}, {"current_messages": second}
    assert is_one_call(*asked, tmp_path / "normalized", cache_normalize=["times"])
    assert not is_one_call(*asked, tmp_path / "as it is")
