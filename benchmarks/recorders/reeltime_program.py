"""reeltime: ``tape run`` and ``tape replay``; a span names an actor."""

from __future__ import annotations

import sys
from pathlib import Path

TAPE = str(Path(sys.executable).with_name("tape"))
RECORD = (TAPE, "run", sys.executable)
REPLAY = (TAPE, "replay")  # the last command that was recorded, with its arguments

if __name__ == "__main__":
    import reeltime
    from program import main

    main(actor=reeltime.span)
