"""A test of the village, replayed from ``cassettes``: no key, no model, no network."""

import pytest
from solar import play


@pytest.mark.llm
def test_the_village_is_divided() -> None:
    """Somebody says yes, and somebody no."""
    assert set(play().values()) == {"yes", "no"}
