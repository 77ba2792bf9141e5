"""llmcall: ``llmcall run``; a scope names an actor."""

from __future__ import annotations

import sys

RECORD = (sys.executable, "-m", "llmcall", "run", "--cassette", "run.jsonl")

if __name__ == "__main__":
    from program import main

    import llmcall

    main(actor=llmcall.scope)
