"""agenttape: a cassette around the program, whose mode says whether it records."""

from __future__ import annotations

if __name__ == "__main__":
    import agenttape
    from program import main

    main(lambda replays: agenttape.use_cassette("run", mode="none" if replays else "record"))
