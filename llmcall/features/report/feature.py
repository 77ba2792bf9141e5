"""What the report adds."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(commands={"report": "features.report.command:report"})
