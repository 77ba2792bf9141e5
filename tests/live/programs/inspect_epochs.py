"""An evaluation by inspect_ai: three epochs, so that each question is asked three times at once."""

from __future__ import annotations

import json
import sys

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

QUESTIONS = ("Name a fruit.", "Name a bird.", "Name a town.")

if __name__ == "__main__":
    changed = "changed" in sys.argv
    questions = [q.replace("town", "big town") if changed else q for q in QUESTIONS]
    task = Task(
        dataset=[Sample(input=question, target="x") for question in questions],
        solver=generate(),
        epochs=3,
    )
    [log] = eval(task, model="openai/gpt-4o-mini", display="none", log_dir="logs", temperature=1)
    assert log.status == "success", log.error
    print(
        json.dumps(
            {
                f"{sample.id} in {sample.epoch}": sample.output.completion
                for sample in log.samples or ()
            },
            sort_keys=True,
        )
    )
