"""Record the answers that the examples and the documentation replay, from the small model (the
extra ``local``).

The tests replay them, so you need this only after a question has changed. Recorded answers stay as
they are.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

import llmcall

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("first_call.py", "typed_answers.py")
sys.path.insert(0, str(FOLDER.parent / "tests"))

from pages import ANSWERS, PAGES, TUTORIAL, answers_of, run_docstrings, run_page  # noqa: E402 - found on the path above


def main() -> None:
    """Run everything against the model, and export its answers."""
    os.environ["LLMCALL_API_TYPE"] = "local"
    for answers, pages in (
        (ANSWERS, [page for page in PAGES if page != TUTORIAL]),
        (answers_of(TUTORIAL), [TUTORIAL]),
    ):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LLMCALL_CACHE_PATH"] = f"{folder}/cache"
            llmcall.reset()
            if answers.exists():
                llmcall.client().cache.load(answers)
            shutil.copytree(FOLDER, Path(folder) / "examples")  # pages write into it
            with llmcall.track() as usage:
                if answers == ANSWERS:
                    for script in SCRIPTS:
                        runpy.run_path(str(FOLDER / script), run_name="__main__")
                    os.chdir(folder)
                    run_docstrings()
                for page in pages:
                    llmcall.reset()  # what one page configures or forces is not the next one's
                    os.chdir(folder)
                    run_page(page)
            os.chdir(FOLDER)
            llmcall.reset()
            count = llmcall.client().cache.export(answers)
            print(f"{count} answers in {answers.name}, {usage.calls} of them new")


if __name__ == "__main__":
    main()
