"""``python -m llmcall``: the command line."""

from __future__ import annotations

from .cli.main import main

main()
