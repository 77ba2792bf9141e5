"""Record the answers that the examples and the documentation replay, from the small model of the extra ``local``.

The tests replay them, so this is needed only where a question changed. Answers that are recorded stay as they are.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path

import llmcall

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("first_call.py", "typed_answers.py")
sys.path.insert(0, str(FOLDER.parent / "tests"))

from pages import ANSWERS, PAGES, run_page  # noqa: E402


def main() -> None:
    """Play everything against the model, and export what it answered."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(LLMCALL_API_TYPE="local", LLMCALL_CACHE_PATH=f"{folder}/cache")
        cache = llmcall.client().cache
        if ANSWERS.exists():
            cache.load(ANSWERS)
        (Path(folder) / "examples").symlink_to(FOLDER)
        os.chdir(folder)
        with llmcall.track() as used:
            for script in SCRIPTS:
                runpy.run_path(str(FOLDER / script), run_name="__main__")
            for page in PAGES:
                run_page(page)
        print(f"{cache.export(ANSWERS)} answers in {ANSWERS.name}, {used.calls} of them new")
        os.chdir(FOLDER)


if __name__ == "__main__":
    main()
