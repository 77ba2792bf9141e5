"""Libraries that record a program's calls: llmcall, vcrpy, and recorders made for agents.

Each module is the same program under one of them, as its documentation shows; ``COMMANDS`` has those that are
started by a command of their own.
"""

from __future__ import annotations

from ..contestants import Entry

RECORDERS = (
    Entry("vcrpy", "vcr_program", "vcrpy"),
    Entry("promptecho", "promptecho_program", "promptecho"),
    Entry("agenttape", "agenttape_program", "agenttape"),
    Entry("kinescope", "kinescope_program", "kinescope"),
    Entry("reeltime", "reeltime_program", "reeltime"),
    Entry("llmcall", "llmcall_program", "llmcall"),
)
