"""A package's README and requirements, the run that its report shows, and what must not be published in it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import textwrap
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

from ...errors import LLMCallError
from ...review.runs import RecordedRun
from ...stores.records.reader import read
from ...support.display import counted
from ...support.secrets import find, find_setting
from ..report.facts import RunFacts, study_facts
from ..report.page import page
from ..report.reporting import BLANK, GUIDE, TITLE, as_markdown, checklist
from .observed_run import PACKAGE, files_below, run_options
from .package import (
    ABOUT,
    CODE,
    DATA,
    DISTRIBUTION,
    FOLDERS,
    RECORDING,
    RESULT,
    Manifest,
    zip_entry,
)

HOME = r"(?:/home/|/Users/)[^\s/\\\"'<>:]+"
MAIL = r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
WIDTH = 100  # of a README's line
# The endings of configuration files' names
CONFIGURATION = (".cfg", ".conf", ".env", ".ini", ".json", ".properties", ".toml", ".yaml", ".yml")


def credentials(folder: Path, files: Iterable[str], allow: Sequence[str]) -> Iterator[str]:
    """Yield the locations of apparent credentials, without the credentials.

    :param files: paths below the folder.
    :param allow: regular expressions; a match that one of them covers passes.
    """
    for file in files:
        text = read_text(folder / file)
        name = file.lower().rpartition("/")[2]
        is_configuration = name.startswith(".env") or name.endswith(CONFIGURATION)
        match = find(text, allow)
        setting = find_setting(text, allow) if is_configuration else None
        if match is not None:
            location = f"{file}:{_line_number(text, match.start)}"
            yield f"{location} contains what looks like {match.kind} ({match.beginning}…)"
        elif setting is not None:
            yield (
                f"{file}:{_line_number(text, setting.start)} contains {setting.kind}; replace it by a reference such "
                "as ${NAME}, and set that variable in the environment. If it is not a secret, set "
                "[Cassette] ALLOW to a regular expression that matches it"
            )


def personal_lines(name: str, text: str) -> Iterator[str]:
    """Yield the home folders and e-mail addresses in a text, each once, with its first location.

    :param name: the text's name.
    """
    own_home = re.escape(os.path.expanduser("~").rstrip("/")) or HOME  # a container's may be /
    for words in dict.fromkeys(re.findall(rf"{own_home}\b|{HOME}|{MAIL}", text)):
        yield f"look at {name}:{_line_number(text, text.index(words))}: {words}"


def read_text(file: Path) -> str:
    """Return a file's text, as Latin-1 if it is not UTF-8: credentials are ASCII in most encodings."""
    data = file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _line_number(text: str, start: int) -> int:
    return text.count("\n", 0, start) + 1


README, REPORT, REQUIREMENTS = "README.md", "report.html", "requirements.txt"
REPORTING = "REPORTING.md"
READER = Path(__file__).with_name("data") / "read_cassette.py"
PAGES = (REPORT, REPORTING, README)
PROOF = (
    "This code gives these results with these answers. That does not prove who gave the answers; a DOI or a signed tag "
    "gives the date."
)
SHUFFLED = (
    "The program also runs with shuffled answers: those of each form change places, and half of its records get the "
    "rarest one. Requests that quote them are answered from the same form. llmcall counts the numbers in each result "
    "that change, and so come from the answers."
)
TITLES = {
    CODE: "Code",
    DATA: "Data that the program reads",
    RECORDING: "Recorded answers",
    RESULT: "Results that the program writes",
    ABOUT: "About the package",
}


def merged_run(package: Path, manifest: Manifest) -> RecordedRun:
    """Return the recordings of a package as one run; of several, all scopes are below the recordings'
    names.
    """
    paths = manifest.recordings
    files = {path: read(package / FOLDERS[RECORDING] / path) for path in paths}
    records = [
        record
        if len(paths) == 1
        else record.replace(sample=f"{path}{'/' * bool(record.scope)}{record.sample or ''}")
        for path, file in files.items()
        for record in file
    ]
    headers = tuple(file.header for file in files.values())
    return RecordedRun(
        "the packed recordings",
        records,
        {},
        headers=headers,
        pruned=tuple(manifest.pruned.values()),
    )


def write_pages(folder: Path, package: Path, manifest: Manifest) -> None:
    """Write the pages about a study to a folder. They follow from its recordings and its manifest."""
    recorded = merged_run(package, manifest)
    found = RunFacts(recorded)
    pages = {
        REPORT: page(recorded),
        REPORTING: reporting(manifest, found),
        README: readme(package, manifest, found),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def reporting(manifest: Manifest, found: RunFacts) -> str:
    """Return the reporting checklist of a package.

    :param found: what the recordings say.
    """
    packages = ", ".join(f"{name} {version}" for name, version in manifest.packages.items())
    code = [
        f"The program, `{shlex.join(manifest.command)}`, is in this package, with its recorded answers; "
        "`llmcall verify` runs it again (README.md).",
        f"It ran on Python {manifest.python}, with {packages}.",
    ]
    items = as_markdown(checklist(found, code))
    return f"# {TITLE}\n\n{REPORTING_HEAD}\n\n{items}"


def packed_facts(found: RunFacts, manifest: Manifest) -> dict[str, str]:
    """Return what a reviewer must know of the packed recordings, by label."""
    unused = sum(manifest.unused.values())
    words = f"{unused:,} of {counted(len(found.run.records), 'record')}" if unused else ""
    evidence = {"packed as evidence, not used by the program": words} if unused else {}
    return {**study_facts(found), **evidence}


def readme(package: Path, manifest: Manifest, found: RunFacts) -> str:
    """Return the README of a package.

    :param found: what the recordings say.
    """
    answers = "\n".join(
        textwrap.fill(f"- {label[0].upper()}{label[1:]}: {words}", WIDTH, subsequent_indent="  ")
        for label, words in packed_facts(found, manifest).items()
    )
    options = run_options(package / FOLDERS[RECORDING], manifest.recordings)
    program = ["llmcall", "run", *options] if options else ["python"]
    variables = "\n".join(f"    {name}={value}" for name, value in manifest.environment.items())
    files = ""
    for role, title in TITLES.items():
        names = [file.file for file in manifest.files_with_role(role) if file.file != README]
        if names:
            files += "\n".join(["", f"{title}:", "", *(f"- `{name}`" for name in names), ""])
    return f"""# A study and its recorded answers

Check it in this folder, with Python {manifest.python} or a similar version:

    python -m pip install -r requirements.txt
    llmcall verify .

The first command installs what the program needs, and llmcall from the wheel in this folder; with
uv, it is `uv pip install -r requirements.txt`. The second one runs the author's code from the
recorded answers and compares the results. It needs no key and no network.

## What a successful check proves

{textwrap.fill(PROOF, WIDTH)}

{textwrap.fill(SHUFFLED, WIDTH)}

A program that recognizes such a run can deceive it: read the code.

## The answers

{answers}

## The run

    {shlex.join([*program, *manifest.command])}

It runs in a folder in which each file has the path listed below without the first folder (`code/`,
`data/`, `recordings/`, `results/`), with these variables, which fix the randomness:

{variables}

What it printed is in `manifest.json`.

## The files
{files}
## Without llmcall

`report.html` shows every conversation in a browser. `python read_cassette.py recordings/FILE` prints
a recording, and needs Python alone. `manifest.json` has the SHA-256 of every file.
"""


REPORTING_HEAD = f"""The 14 items of {GUIDE},
and two of its optional ones, filled from the recorded answers. What they do not
show is marked **{BLANK}**. Fill in a copy, for the paper's supplement:
`llmcall verify` names a file that was changed here."""


# The requirements, with the wheel of this llmcall

# The metadata files that are packed; the others are about this installation.
METADATA = ("METADATA", "entry_points.txt", "top_level.txt", "LICENSE", "licenses/LICENSE")
FORMAT = "Wheel-Version: 1.0\nGenerator: llmcall\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_requirements(folder: Path, manifest: Manifest) -> None:
    """Write the requirements for pip: the wheel of llmcall, which is written, too, and what the program imported."""
    packages = manifest.packages.items()
    pins = [f"{name}=={version}\n" for name, version in packages if name != DISTRIBUTION]
    text = "".join([f"./{_write_wheel(folder)}\n", *pins])
    (folder / REQUIREMENTS).write_text(text, encoding="utf-8", newline="\n")


def _write_wheel(folder: Path) -> str:
    """Write a wheel of this llmcall, installed or a checkout, and return the file's name.

    :raises LLMCallError: if llmcall is not installed.
    """
    # Not a build's leftover in a checkout: llmcall_sim.egg-info has no METADATA.
    own = (found for found in distributions(name=DISTRIBUTION) if found.read_text("METADATA"))
    distribution = next(own, None)
    if distribution is None:
        raise LLMCallError(f"llmcall is not installed; python -m pip install -e {PACKAGE.parent}")
    project = f"{DISTRIBUTION.replace('-', '_')}-{distribution.version}"
    metadata = {name: distribution.read_text(name) for name in METADATA} | {"WHEEL": FORMAT}
    files = {
        f"{PACKAGE.name}/{path}": (PACKAGE / path).read_bytes() for path in files_below(PACKAGE)
    }
    files |= {
        f"{project}.dist-info/{name}": text.encode() for name, text in metadata.items() if text
    }
    record = f"{project}.dist-info/RECORD"
    lines = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    name = f"{project}-py3-none-any.whl"
    # Not compressed, so that the bytes do not depend on the version of zlib.
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, data in files.items():
            archive.writestr(zip_entry(path), data)
    return name
