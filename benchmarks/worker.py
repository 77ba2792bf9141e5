"""The process in which one contestant is measured: ``python -I worker.py``, which the runner
starts.

It reads one JSON line that says what to measure, then one line for each round, and answers each
with one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Measure what the first line of the input names, a round for every further line."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    subject = import_module(f"benchmarks.{order['module']}")
    measure = getattr(import_module(f"benchmarks.cases.{order['case']}"), order["measure"])
    rounds = measure(subject, **order["parameters"])
    next(rounds)  # everything up to the first round
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(next(rounds)), file=answers, flush=True)


if __name__ == "__main__":
    main()
