"""The pytest plugin: tests that call a model replay a cassette of their own, and reach no model unless told to.

PYTEST_DONT_REWRITE: there is no assertion in it.
"""

from __future__ import annotations

from .plugin import (
    llm_cassette,
    llm_cassette_name,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_deselected,
    pytest_make_collect_report,
    pytest_testnodedown,
)

__all__ = [
    "llm_cassette",
    "llm_cassette_name",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_deselected",
    "pytest_make_collect_report",
    "pytest_testnodedown",
]
