"""The report: a page of a run, or of two side by side, and the checklist of a published study."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(commands={"report": "features.report.command:report"})
