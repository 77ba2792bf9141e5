"""The README of a package, made from its manifest."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ...display.formatting import money
from ...records.served import served_words
from ...review.marks import ASKED_AGAIN
from .manifest import ABOUT, CODE, DATA, RECORDING, RESULT

if TYPE_CHECKING:
    from ...records.served import Served
    from .manifest import Manifest

README = "README.md"
READER = Path(__file__).with_name("data") / "read_cassette.py"
TITLES = {
    CODE: "Code",
    DATA: "Data that the program reads",
    RECORDING: "Recorded answers",
    RESULT: "Results that the program writes",
    ABOUT: "About the package",
}
PROOF = (
    "A successful check proves that these results follow from these answers and this code. It does not "
    "prove who gave the answers; a DOI or a signed tag gives the date."
)


def text(manifest: Manifest, served: Served) -> str:
    """Return the README of a package.

    :param served: the models that answered, with their days.
    """
    parts = [
        _check(manifest),
        _answers(manifest, served),
        _run(manifest),
        _files(manifest),
        _without_llmcall(),
    ]
    return "\n\n".join(parts) + "\n"


def _check(manifest: Manifest) -> str:
    return f"""# A study and its recorded answers

Check it in this folder, with Python {manifest.python} or a similar version:

    python -m pip install -r requirements.txt
    llmcall verify .

The first command installs what the program needs; with uv, it is
`uv pip install -r requirements.txt`. The second one runs the author's code from the recorded
answers and compares the results. It needs no key and no network.

{PROOF}"""


def _answers(manifest: Manifest, served: Served) -> str:
    counts = dict(manifest.answers)
    total = counts.pop("answers")
    asked_again = counts.pop(ASKED_AGAIN)
    marks = ", ".join(f"{count:,} {mark}" for mark, count in counts.items())
    cost = "unknown" if manifest.cost is None else money(manifest.cost)
    asked_models = ", ".join(manifest.asked) or "none"
    served_models = ", ".join(served_words(served)) or "no model"
    return f"""## The answers

- Models asked for: {asked_models}
- Answered by (first and last day, UTC): {served_models}
- Answers: {total:,} ({marks}, {asked_again:,} asked again by an `LLMCall`); llmcall can't tell whether
  other code asks again
- Cost when they were made: {cost}"""


def _run(manifest: Manifest) -> str:
    variables = "\n".join(f"    {name}={value}" for name, value in manifest.environment.items())
    program = ["python"]
    for recording in manifest.recordings:
        if recording.around:
            program = ["llmcall", "run", "--cassette", recording.path, "--mode", "none"]
    return f"""## The run

    {shlex.join([*program, *manifest.command])}

It runs in a folder in which each file has the path listed below without the first folder (`code/`,
`data/`, `recordings/`, `results/`), with these variables, which fix the randomness:

{variables}

What it printed is in `manifest.json`."""


def _files(manifest: Manifest) -> str:
    lines = ["## The files"]
    for role, title in TITLES.items():
        files = manifest.files_with_role(role)
        if files:
            lines += ["", f"{title}:", ""]
            lines += [
                f"- `{each.file}` ({each.bytes:,} bytes)" for each in files if each.file != README
            ]
    if manifest.excluded:
        left_out = ", ".join(f"`{each}`" for each in manifest.excluded)
        lines += ["", f"Left out by the author, and not compared: {left_out}"]
    return "\n".join(lines)


def _without_llmcall() -> str:
    return """## Without llmcall

`report.html` shows every conversation in a browser. `python read_cassette.py recordings/FILE` prints
a recording, and needs Python alone. `manifest.json` has the SHA-256 of every file."""
