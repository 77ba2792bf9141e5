"""The pytest plugin: cassettes of tests."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature()
