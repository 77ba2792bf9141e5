"""kinescope: a client of its own for the SDK, and a recorded run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUN_ID = Path("run_id")


@contextmanager
def recording(replays: bool) -> Iterator[None]:
    """Record a run, or replay it."""
    import kinescope

    if replays:
        with kinescope.replay(RUN_ID.read_text(encoding="utf-8")):
            yield
    else:
        with kinescope.record("actors") as run:
            yield
        RUN_ID.write_text(run.run_id, encoding="utf-8")


if __name__ == "__main__":
    import kinescope
    from program import main

    main(recording, options=lambda: {"http_client": kinescope.http_client()})
