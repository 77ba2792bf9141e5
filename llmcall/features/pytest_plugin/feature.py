"""What the pytest plugin adds: nothing that the core lists. pytest finds it by its entry point in setup.cfg."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature()
