"""Record the answers that the examples and the README replay, from the small model of the extra ``local``.

The tests replay them, so this is needed only where a question changed. Answers that are recorded stay as they are.
"""

from __future__ import annotations

import doctest
import runpy
from pathlib import Path

import llmcall

FOLDER = Path(__file__).resolve().parent
ANSWERS = FOLDER / "answers.jsonl"
SCRIPTS = ("first_call.py", "typed_answers.py")


def main() -> None:
    """Play everything against the model, and export what it answered."""
    with llmcall.configured(api_type="local", cache_path=FOLDER / ".llmcall" / "cache"):
        cache = llmcall.client().cache
        if ANSWERS.exists():
            cache.load(ANSWERS)
        with llmcall.track() as used:
            for script in SCRIPTS:
                runpy.run_path(str(FOLDER / script), run_name="__main__")
            doctest.testfile(str(FOLDER.parent / "README.rst"), module_relative=False)
        print(f"{cache.export(ANSWERS)} answers in {ANSWERS.name}, {used.calls} of them new")


if __name__ == "__main__":
    main()
