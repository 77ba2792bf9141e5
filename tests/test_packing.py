"""``llmcall pack`` and ``llmcall verify``: a study handed to others, and checked by them."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import math
import os
import py_compile
import shutil
import stat
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands import done, run
from disks import read_only
from programs import ASK, LONGEST, ROOT
from pytest_httpserver import HTTPServer
from servers import NumberedServer

import llmcall
from llmcall.study.packing.verify import DIFFERS, OK, Verification

SCRIPT = "run räte.py"
TAPE = "tapes/täglich 1.jsonl"
PROGRAM = """
import csv, json, pathlib, sys
import llmcall
from persons import persons

def rate():
    return float(pathlib.Path("data/rate.txt").read_text())

def main():
    rows = []
    for name, trade in persons():
        with llmcall.scope(name):
            text = f"You are {name}, a {trade}. What do you pay?"
            reply = llmcall.client().send_message(text, temperature=1, on_error="raise")
        rows.append((name, reply.content, len(reply.content) * rate()))
    with open("out/table.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("name", "answer", "price"), *rows])
    pathlib.Path("out/all.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    print(len(rows), "answers", *sys.argv[1:])

with llmcall.cassette("tapes/täglich 1.jsonl"):
    main()
"""
PERSONS = """
def persons():
    for line in open("data/people of Köln.csv", encoding="utf-8"):
        yield line.strip().split(",")
"""
FILES = {
    SCRIPT: PROGRAM,
    "persons.py": PERSONS,
    "data/people of Köln.csv": "Ada,nurse\nBela,baker\nÇem,driver\n",
    "data/rate.txt": "1.1\n",
    "notes.txt": "never read\n",
    "out/.keep": "",
    "LICENSE": "Free for all.\n",
}


def written(folder: Path, files: dict[str, str]) -> None:
    """Write files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was run once against a server that records."""
    project = tmp_path_factory.mktemp("study") / "my stüdy"
    written(project, FILES)
    with HTTPServer() as server:
        model = NumberedServer(server)
        environment = {"OPENAI_BASE_URL": model.address, "OPENAI_API_KEY": "none"}
        subprocess.run(
            [sys.executable, SCRIPT],
            cwd=project,
            check=True,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=LONGEST,
        )
    return project


@pytest.fixture(scope="module")
def packed(recorded: Path) -> Path:
    """The packed study."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(recorded)
        package = recorded.parent / "das Päckchen"
        told = done(
            "pack", package, "--cassette", TAPE, "--zip", "../p.zip", "--", SCRIPT, "--n", 3
        )
    assert "data       data/data/people of Köln.csv" in told
    return package


@pytest.fixture
def project(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recorded project, as the working directory."""
    copy = tmp_path / "project"
    shutil.copytree(recorded, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def package(packed: Path, tmp_path: Path) -> Path:
    """A copy of the package."""
    return Path(shutil.copytree(packed, tmp_path / "package"))


def edited(file: Path, old: str, new: str) -> None:
    """Replace a text in a file."""
    data = file.read_bytes()  # the ends of lines stay as they are
    assert old.encode() in data
    file.write_bytes(data.replace(old.encode(), new.encode()))


def mend(package: Path) -> None:
    """Write new sums of the files, and of the recordings' lines, into the manifest."""
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    for each in manifest["files"]:
        data = (package / each["file"]).read_bytes()
        each.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    for each in manifest["recordings"]:
        lines = (package / "recordings" / each["path"]).read_bytes().splitlines()
        each["lines"] = [hashlib.sha256(line).hexdigest()[:12] for line in lines]
        each["records"] = sum(line.startswith(b'{"kind"') for line in lines)
    (package / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def failed(found: Verification) -> dict[str, str]:
    """Return the checks that failed, with their details."""
    return {
        check.name: " | ".join(check.details) for check in found.checks if check.status == DIFFERS
    }


def packing(*options: Any, code: int = 1) -> str:
    """Pack the working directory's study, and return what is printed."""
    return done("pack", "../made", "--cassette", TAPE, *options, "--", SCRIPT, code=code)


# What is in a package


def test_a_package_verifies(packed: Path) -> None:
    """Each check is said on a line, and the exit code is 0."""
    told = done("verify", packed)
    assert told.startswith("verify runs the author's code")
    assert "result out/table.csv: the same" in told
    assert DIFFERS not in told
    assert "who gave the answers" in told.splitlines()[-1]


def test_a_zip_file_verifies(packed: Path) -> None:
    """As its folder does, and the result may be JSON."""
    # An old click gives standard error, which says that code will run, before standard output.
    said = run("verify", packed.parent / "p.zip", "--json").stdout
    result = json.loads(said[said.index("{") :])
    assert result["ok"]
    assert {check["status"] for check in result["checks"]} == {OK}


def test_a_package_holds_what_the_run_used(packed: Path) -> None:
    """The files that the program read and wrote are there, and no others."""
    files = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    assert files == {
        f"code/{SCRIPT}",
        "code/persons.py",
        "data/data/people of Köln.csv",
        "data/data/rate.txt",
        f"recordings/{TAPE}",
        "results/out/table.csv",
        "results/out/all.json",
        *("LICENSE", "README.md", "manifest.json", "read_cassette.py", "report.html"),
        "requirements.txt",
    }


def test_the_readme_says_who_asked_again(packed: Path) -> None:
    """Only the corrections of an LLMCall are known: a program's own second questions are not."""
    readme = (packed / "README.md").read_text(encoding="utf-8")
    assert "0 asked again by an `LLMCall`); llmcall can't tell whether" in readme


@pytest.mark.newest_only
def test_the_same_study_gives_the_same_bytes(packed: Path, project: Path) -> None:
    """Packing again, elsewhere, gives the same ZIP file."""
    (project.parent / "again").mkdir()
    options = ("--cassette", TAPE, "--zip", "../again.zip")
    done("pack", f"../again/{packed.name}", *options, "--", SCRIPT, "--n", 3)
    assert Path("../again.zip").read_bytes() == (packed.parent / "p.zip").read_bytes()


def test_the_recording_is_read_without_llmcall(packed: Path) -> None:
    """``read_cassette.py`` prints the questions and answers with the standard library alone."""
    printed = subprocess.run(
        [sys.executable, "-I", "-S", packed / "read_cassette.py", packed / "recordings" / TAPE],
        capture_output=True,
        check=True,
        timeout=LONGEST,
    ).stdout.decode()
    assert "You are Bela, a baker. What do you pay?" in printed
    assert "answer 1" in printed


@pytest.mark.newest_only
def test_a_run_of_an_unchanged_program_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording of ``llmcall run`` is opened around the program, with the options in its header."""
    monkeypatch.chdir(tmp_path)
    program = "import random\nprint(random.random(), [ask('Bread?') for _ in range(2)])"
    written(tmp_path, {"project/sim/__init__.py": "", "project/sim/play.py": f"{ASK}{program}"})
    monkeypatch.chdir("project")
    with HTTPServer() as server:
        monkeypatch.setenv("MODEL_AT", NumberedServer(server).address)
        command = [sys.executable, "-m", "llmcall", "run", "--cassette", "run.jsonl", "--seed", "5"]
        subprocess.run(
            [*command, "-m", "sim.play"], check=True, capture_output=True, timeout=LONGEST
        )
    options = ("--cassette", "run.jsonl", "--env", "MODEL_AT")
    done("pack", "../made", *options, "--", "-m", "sim.play")
    found = llmcall.verify("../made")
    assert found.ok
    assert "['answer 0', 'answer 1']" in Path("../made/manifest.json").read_text(encoding="utf-8")
    readme = Path("../made/README.md").read_text(encoding="utf-8")
    assert "    llmcall run --cassette run.jsonl --mode none -m sim.play\n" in readme


@pytest.mark.newest_only
def test_a_program_with_an_event_loop_packs(project: Path) -> None:
    """The sockets inside a process, such as those of an event loop, are no network."""
    loop = "    __import__('asyncio').run(__import__('asyncio').sleep(0))\n"
    edited(project / SCRIPT, "    rows = []\n", f"    rows = []\n{loop}")
    packing(code=0)


# What verify finds


@pytest.mark.newest_only
def test_changed_missing_and_new_files_are_named(package: Path) -> None:
    """Without mended sums, each of them, and a changed record."""
    edited(package / "recordings" / TAPE, "answer 1", "answer 9")
    edited(package / "data/data/people of Köln.csv", "nurse", "doctor")
    (package / "results/out/all.json").unlink()
    written(package, {"code/more.py": "1"})
    found = failed(llmcall.verify(package))
    assert "people of Köln.csv was changed" in found["files"]
    assert "results/out/all.json is missing" in found["files"]
    assert found["result out/all.json"] == "it is not in the package"
    assert "the record Bela#0 was changed" in found["recordings"]
    assert found["other files"] == "code/more.py"


def test_what_a_readers_own_tools_put_beside_the_study_is_no_change(package: Path) -> None:
    """An environment with a link, version control, caches and a desktop's file."""
    written(
        package,
        {
            ".venv/pyvenv.cfg": "",
            ".git/HEAD": "ref: refs/heads/main",
            "code/__pycache__/persons.pyc": "",
            "data/.DS_Store": "",
        },
    )
    if os.name == "posix":
        (package / ".venv/lib64").symlink_to("/lib")
    assert llmcall.verify(package).ok


def without_line(package: Path, text: str) -> None:
    """Drop the lines of the recording that contain a text."""
    tape = package / "recordings" / TAPE
    lines = tape.read_text(encoding="utf-8").splitlines(keepends=True)
    tape.write_text("".join(line for line in lines if text not in line), encoding="utf-8")


def with_line_again(package: Path, sample: str) -> None:
    """Write the last record once more, under the name of a draw."""
    tape = package / "recordings" / TAPE
    last = tape.read_text(encoding="utf-8").splitlines()[-1]
    with open(tape, "a", encoding="utf-8") as file:
        file.write(last.replace("Çem#0", sample) + "\n")


def in_code(old: str, new: str) -> Callable[[Path], None]:
    """Return a change of the program."""
    return lambda package: edited(package / "code" / SCRIPT, old, new)


def in_file(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Return a change of another file."""
    return lambda package: edited(package / name, old, new)


LIVE = """
    import socket
    try:
        socket.create_connection(("127.0.0.1", 9))
    except OSError:
        pass
"""
CHILD = """
    import subprocess
    subprocess.run([sys.executable, "-c", ""])
"""
PEOPLE = "data/data/people of Köln.csv"


class Change(NamedTuple):
    """A change of a package, and what verify says of it.

    :param apply: makes the change.
    :param check: the check that fails, also if the manifest's sums were mended.
    :param words: some of its details.
    :param changed: the file whose sum tells the change, if nothing was mended.
    """

    apply: Callable[[Path], None]
    check: str
    words: str
    changed: str


CHANGES = {
    "an answer": Change(
        in_file(f"recordings/{TAPE}", "answer 1", "answer 11"),
        "result out/table.csv",
        "row 3, column 'answer': 'answer 1' became 'answer 11'",
        f"recordings/{TAPE}",
    ),
    "a record dropped": Change(
        lambda package: without_line(package, "Bela#0"),
        "replay",
        "in scope 'Bela'",
        f"recordings/{TAPE}",
    ),
    "a record doubled": Change(
        lambda package: with_line_again(package, "Çem#0"),
        "recordings",
        "occurs twice: the record Çem#0",
        f"recordings/{TAPE}",
    ),
    "a draw more": Change(
        lambda package: with_line_again(package, "Çem#1"),
        "replay",
        "no call used the record Çem#1",
        f"recordings/{TAPE}",
    ),
    "a persona": Change(
        in_file(PEOPLE, "baker", "thief"), "replay", "no call used the record Bela#0", PEOPLE
    ),
    "the prompt": Change(
        in_code("do you pay", "would you pay"),
        "replay",
        "no call used the record Ada#0",
        f"code/{SCRIPT}",
    ),
    "the analysis": Change(
        in_code("* rate()", "* rate() * 2"),
        "result out/all.json",
        "rows[0][2]: 8.8 became 17.6",
        f"code/{SCRIPT}",
    ),
    "a result": Change(
        in_file("results/out/all.json", "answer 2", "answer 3"),
        "result out/all.json",
        "rows[2][1]: 'answer 3' became 'answer 2'",
        "results/out/all.json",
    ),
    "a result that is not written": Change(
        in_code('pathlib.Path("out/all.json").write_text', "str"),
        "result out/all.json",
        "the program did not write it",
        f"code/{SCRIPT}",
    ),
    "a result more": Change(
        in_code("    print(", "    pathlib.Path('out/more.txt').write_text('')\n    print("),
        "results",
        "out/more.txt",
        f"code/{SCRIPT}",
    ),
    "a data file": Change(
        in_file("data/data/rate.txt", "1.1", "1.2"),
        "result out/table.csv",
        "row 2, column 'price': '8.8' became '9.6'",
        "data/data/rate.txt",
    ),
    "what is printed": Change(
        in_code('"answers"', '"replies"'),
        "printed text",
        "line 1: '3 answers --n 3' became '3 replies --n 3'",
        f"code/{SCRIPT}",
    ),
    "white space that is printed": Change(
        in_code('"answers"', '"answers "'),
        "printed text",
        "'3 answers --n 3' became '3 answers  --n 3' (only white space differs)",
        f"code/{SCRIPT}",
    ),
    "a line more that is printed": Change(
        in_code("*sys.argv[1:])", '*sys.argv[1:])\n    print("more")'),
        "printed text",
        "line 2 is new: 'more'",
        f"code/{SCRIPT}",
    ),
    "a hidden input": Change(
        in_code("    rows = []\n", f"    rows = []\n    open({str(Path(__file__))!r}).read()\n"),
        "files read",
        "test_packing.py",
        f"code/{SCRIPT}",
    ),
    "a live call": Change(
        in_code("    rows = []\n", f"    rows = []\n{LIVE}"),
        "network",
        "127.0.0.1:9",
        f"code/{SCRIPT}",
    ),
    "a child process": Change(
        in_code("    rows = []\n", f"    rows = []\n{CHILD}"),
        "child processes",
        "python",
        f"code/{SCRIPT}",
    ),
}
# "make test" runs one change for each check; the others take seconds together.
QUICK = (
    "an answer",
    "a record doubled",
    "a persona",
    "a hidden input",
    "a live call",
    "a child process",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_with_the_old_sums_is_found(package: Path, name: str) -> None:
    """The sum in the manifest names the file that was changed, and the replay finds what it does."""
    change = CHANGES[name]
    change.apply(package)
    found = failed(llmcall.verify(package))
    assert (
        found["files"] == f"{change.changed} was changed: its SHA-256 is not that of the manifest"
    )
    assert change.words in found[change.check]


@pytest.mark.newest_only
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CHANGES],
)
def test_a_change_with_mended_sums_is_found(package: Path, name: str) -> None:
    """If the manifest's sums were mended, too, the replay finds the change."""
    change = CHANGES[name]
    change.apply(package)
    mend(package)
    found = failed(llmcall.verify(package))
    assert "files" not in found
    assert change.words in found[change.check]


# A change of what the package says of itself, and what verify says of it.
DESCRIPTIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "the report": (
        in_file("report.html", "answer 1", "answer 11"),
        "report.html is not what llmcall makes of the recordings",
    ),
    "the README": (
        in_file("README.md", "asked for: gpt-4o-mini", "asked for: gpt-9"),
        "README.md is not what llmcall makes of the recordings",
    ),
    "the requirements": (
        in_file("requirements.txt", f"=={llmcall.__version__}", "==99"),
        "requirements.txt is not what llmcall makes",
    ),
    "the models": (
        in_file("manifest.json", '"asked": [\n  "gpt-4o-mini"', '"asked": [\n  "gpt-9"'),
        "'asked' is ['gpt-9'], and the recordings say ['gpt-4o-mini']",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_false_description_is_found(package: Path, name: str) -> None:
    """What the package says of its recordings is compared with them, also if sums were mended."""
    change, words = DESCRIPTIONS[name]
    change(package)
    mend(package)
    found = failed(llmcall.verify(package))
    assert set(found) == {"description"}
    assert words in found["description"]


# A change of the recording, and the line that names the record.
RECORD_CHANGES = {
    "an answer": "1.jsonl:3: the record Bela#0 was changed or added",
    "a record dropped": "contains 2 records, but the manifest says 3",
    "a record doubled": "occurs twice: the record Çem#0",
    "a draw more": "1.jsonl:5: the record Çem#1 was changed or added",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORD_CHANGES)
def test_a_changed_record_is_named(package: Path, name: str) -> None:
    """The sums of a recording's lines name the record that was changed, by its line and draw."""
    CHANGES[name].apply(package)
    assert RECORD_CHANGES[name] in failed(llmcall.verify(package))["recordings"]


@pytest.mark.newest_only
def test_a_changed_version_is_a_note(package: Path) -> None:
    """A version that differs is told, and fails nothing."""
    edited(
        package / "manifest.json",
        f'"llmcall-sim": "{llmcall.__version__}"',
        '"llmcall-sim": "0.0.1"',
    )
    told = done("verify", package)
    assert f"llmcall-sim {llmcall.__version__} (packed with 0.0.1)" in told


NUMBERS = {
    "JSON": ("results/out/all.json", "8.8", "8.9", "0.1"),
    "CSV": ("results/out/table.csv", "8.8", "8.9", "0.1"),
    "printed text": ("manifest.json", "3 answers", "3.00000000001 answers", "1e-9"),
}


@pytest.mark.newest_only
@pytest.mark.parametrize("name", NUMBERS)
def test_a_tolerance_lets_numbers_differ(package: Path, name: str) -> None:
    """Numbers in CSV, JSON and printed text may differ within ``--tolerance``, and only then."""
    file, old, new, tolerance = NUMBERS[name]
    edited(package / file, old, new)
    mend(package)
    assert run("verify", package).exit_code == 1
    told = done("verify", package, "--tolerance", tolerance)
    assert f"the same within the tolerance of {float(tolerance):g}\n" in told


@pytest.mark.newest_only
@pytest.mark.parametrize(
    ("old", "new"),
    [("8.8", "Infinity"), ("8.8", '"8.8"'), ("8.8", "true"), ("8.8", "8" * 400)],
    ids=["an infinite number", "a text", "a truth value", "a number beyond all floats"],
)
def test_no_tolerance_lets_a_number_become(package: Path, old: str, new: str) -> None:
    """What is no number near it differs with any ``--tolerance``."""
    edited(package / "results/out/all.json", old, new)
    mend(package)
    assert "result out/all.json" in failed(llmcall.verify(package, tolerance=1e9))


@pytest.mark.newest_only
def test_two_values_that_are_no_number_are_the_same(package: Path) -> None:
    """``NaN`` in both versions of a JSON result is no difference beside the one that there is."""
    edited(package / "data/data/rate.txt", "1.1", "nan")
    edited(package / "results/out/all.json", "8.8", "NaN")
    edited(package / "results/out/all.json", "answer 1", "answer one")
    mend(package)
    differences = failed(llmcall.verify(package))["result out/all.json"]
    assert differences == "rows[1][1]: 'answer one' became 'answer 1'"


@pytest.mark.newest_only
def test_long_texts_are_quoted_where_they_differ(package: Path) -> None:
    """A line of a regression's output may be long, and differ at its end."""
    edited(package / f"code/{SCRIPT}", '"answers"', f'"{"b" * 100} answers"')
    edited(package / "manifest.json", "3 answers", f"3 {'b' * 100} replies")
    mend(package)
    differences = failed(llmcall.verify(package))["printed text"]
    assert "bbb replies --n 3' became '…bbb" in differences
    assert "bbb answers --n 3'" in differences


@pytest.mark.newest_only
def test_a_program_that_ends_early_is_told_before_what_it_left_unused(package: Path) -> None:
    """The records that no call used follow from it, and only some are named."""
    edited(package / f"code/{SCRIPT}", "    rows = []\n", "    raise SystemExit(3)\n")
    mend(package)
    lines = failed(llmcall.verify(package))["replay"].split("\n")
    assert "exit code 3" in lines[0]
    assert "no call used" in lines[-1]


@pytest.mark.newest_only
def test_a_null_that_is_gone_is_named(package: Path) -> None:
    """A field of a JSON result with the value ``null`` is not the same as no such field."""
    edited(package / "results/out/all.json", '{"rows"', '{"tax": null, "rows"')
    mend(package)
    differences = failed(llmcall.verify(package))["result out/all.json"]
    assert differences == "tax: None became nothing"


@pytest.mark.newest_only
@pytest.mark.parametrize("tolerance", [-0.1, math.nan])
def test_a_tolerance_below_zero_is_refused(tolerance: float) -> None:
    """So is one that is no number: it would let everything differ."""
    with pytest.raises(ValueError, match="it must be 0 or more"):
        llmcall.verify("study", tolerance=tolerance)


@pytest.mark.newest_only
def test_a_tolerance_lets_no_text_differ(package: Path) -> None:
    """An answer that became another one differs with any ``--tolerance``."""
    edited(package / "results/out/table.csv", "answer 1", "answer one")
    mend(package)
    assert run("verify", package, "--tolerance", "1").exit_code == 1


@pytest.mark.newest_only
def test_a_tolerance_lets_only_numbers_differ(package: Path) -> None:
    """A decimal comma is read between semicolons; codes, names and lists differ with any tolerance."""
    code = package / f"code/{SCRIPT}"
    edited(code, "csv.writer(file)", 'csv.writer(file, delimiter=";")')
    edited(
        code, "len(reply.content) * rate()", 'str(len(reply.content) * rate()).replace(".", ",")'
    )
    edited(code, "print(", 'print("0,05", "01001", "1_12", "[1,20]", sep="\\n")\n    print(')
    edited(package / "manifest.json", "3 answers", r"0,5\n1001\n11_2\n[1,2]\n3 answers")
    edited(package / "results/out/table.csv", ",", ";")
    edited(package / "results/out/table.csv", "8.8", "8,8000000000001")
    edited(package / "results/out/all.json", " 8.8", ' "8,8"')
    mend(package)
    found = failed(llmcall.verify(package, tolerance=1e-9))
    assert {*found} == {"printed text", "description"}  # a result's size is in the README
    assert found["printed text"].count("became") == 4


@pytest.mark.newest_only
def test_two_verifies_at_once_do_not_disturb_each_other(packed: Path) -> None:
    """Both of one package succeed."""
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(llmcall.verify, [packed, packed]))
    assert [each.ok for each in found] == [True, True]


@pytest.mark.newest_only
def test_verify_changes_nothing_in_the_package(packed: Path) -> None:
    """A package holds the same bytes after a verify as before, and no more files."""
    before = {path: path.read_bytes() for path in packed.rglob("*") if path.is_file()}
    assert llmcall.verify(packed).ok
    assert before == {path: path.read_bytes() for path in packed.rglob("*") if path.is_file()}


@pytest.mark.newest_only
@pytest.mark.parametrize("name", ["package", "p.zip"])
def test_a_package_on_a_read_only_disk_verifies(packed: Path, tmp_path: Path, name: str) -> None:
    """A package on a disk that nobody can write to verifies, as a folder and as a ZIP file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    shutil.copytree(packed, disk / "package")
    shutil.copy(packed.parent / "p.zip", disk)
    with read_only(disk):
        assert llmcall.verify(disk / name).ok


def test_names_with_blanks_and_umlauts_are_kept(packed: Path, tmp_path: Path) -> None:
    """The names in a ZIP file are those of the project, and the ZIP file may have such a name."""
    file = tmp_path / "für Gutachter 1.zip"
    shutil.copy(packed.parent / "p.zip", file)
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
    expected = {f"code/{SCRIPT}", PEOPLE, f"recordings/{TAPE}"}
    assert {f"{packed.name}/{each}" for each in expected} <= names
    assert llmcall.verify(file).ok


# Packages that are unsafe


def link(archive: zipfile.ZipFile) -> None:
    """Add a symbolic link."""
    entry = zipfile.ZipInfo("package/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc")


UNSAFE: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "a parent path": lambda archive: archive.writestr("package/../../escaped.txt", ""),
    "an absolute path": lambda archive: archive.writestr("/escaped.txt", ""),
    "Windows' parent path": lambda archive: archive.writestr("..\\escaped.txt", ""),
    "a link": link,
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_zip_file_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    """A ZIP file whose entries lead out of its folder is refused before anything is unpacked."""
    file = Path(shutil.copy(packed.parent / "p.zip", tmp_path / "p.zip"))
    with zipfile.ZipFile(file, "a") as archive:
        UNSAFE[name](archive)
    assert "nothing was unpacked" in done("verify", file, code=1)


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_package_with_a_link_is_refused(package: Path) -> None:
    """It would lead the program to a file of this machine."""
    (package / "data/more.txt").symlink_to("/etc/hosts")
    assert "is a symbolic link. A package contains no links, so nothing was run" in done(
        "verify", package, code=1
    )


@pytest.mark.parametrize("path", ["../escaped.txt", "/etc/passwd", "..\\escaped.txt", "C:\\a.txt"])
def test_a_manifest_that_names_files_elsewhere_is_refused(package: Path, path: str) -> None:
    """A path in the manifest that points outside the package is refused, and nothing is run."""
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][0]["path"] = path
    (package / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "points outside the package" in done("verify", package, code=1)


def test_a_manifest_in_which_two_files_take_one_place_is_refused(package: Path) -> None:
    """Otherwise one file would be shown as the code, and another one would run."""
    written(package, {f"data/{SCRIPT}": PROGRAM.replace("* rate()", "* 2")})
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"].append({"path": SCRIPT, "role": "data", "file": f"data/{SCRIPT}"})
    (package / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    mend(package)
    assert f"two files have the path '{SCRIPT}'" in done("verify", package, code=1)


def test_compiled_code_that_python_would_run_instead_is_refused(package: Path) -> None:
    """A file in ``__pycache__`` would run in place of the code that is shown."""
    file = package / "code/__pycache__/persons.cpython-311.pyc"
    source = package / "code/persons.py"
    py_compile.compile(
        os.fspath(source), file, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    path = file.relative_to(package / "code").as_posix()
    manifest["files"].append({"path": path, "role": "code", "file": f"code/{path}"})
    (package / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    mend(package)
    said = done("verify", package, code=1)
    assert "persons.cpython-311.pyc' lies where Python and llmcall write for themselves" in said


def test_a_zip_file_that_does_not_fit_is_refused(packed: Path, tmp_path: Path) -> None:
    """A ZIP file that is larger than the disk when it is unpacked is refused before."""
    file = Path(shutil.copy(packed.parent / "p.zip", tmp_path / "p.zip"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("package/zeros.bin", b"0")
        archive.infolist()[-1].file_size = 1 << 60
    assert "nothing was unpacked" in done("verify", file, code=1)


def test_windows_separators_in_a_manifest_are_read(package: Path) -> None:
    """A manifest whose paths have backslashes between folders is read as with slashes."""
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    for each in (*manifest["files"], *manifest["recordings"]):
        each["path"] = each["path"].replace("/", "\\")
    manifest["folders"] = [each.replace("/", "\\") for each in manifest["folders"]]
    (package / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert llmcall.verify(package).ok


def test_what_is_no_package_is_wrong_usage(tmp_path: Path) -> None:
    """A folder without a manifest gives the exit code 2."""
    assert "not a packed study" in done("verify", tmp_path, code=2)


# What pack refuses


@pytest.fixture
def with_unused_record(project: Path) -> str:
    """The name of a record that no call of the project uses."""
    written(project, {"data/people of Köln.csv": "Ada,nurse\nBela,baker\n"})
    return "Çem#0"


@pytest.mark.newest_only
def test_an_unused_record_stops_the_packing(with_unused_record: str) -> None:
    """It is named."""
    assert f"1 record that no call used: {with_unused_record}" in packing()


@pytest.mark.newest_only
def test_prune_leaves_an_unused_record_out_of_the_package(with_unused_record: str) -> None:
    """The project's own recording keeps it."""
    packing("--prune", code=0)
    packed_tape = Path("../made/recordings", TAPE).read_text(encoding="utf-8")
    assert with_unused_record not in packed_tape
    assert with_unused_record in Path(TAPE).read_text(encoding="utf-8")


@pytest.mark.newest_only
def test_a_miss_stops_the_packing(project: Path) -> None:
    """No record answers a call, and the program catches its error."""
    more = "with llmcall.scope('Ada'):\n        llmcall.client().send_message('More?')"
    caught = f"    main()\n    try:\n      {more}\n    except Exception: pass"
    edited(project / SCRIPT, "    main()", caught)
    assert "in scope 'Ada'" in packing()
    assert not Path("../made").exists()


FAILING = """
from llmcall.testing import ScriptedClient
failing = ScriptedClient([llmcall.ServiceError("broken")] * 9)
failing.send_message("More?", on_error="return")
"""


@pytest.mark.newest_only
def test_a_call_after_the_recording_stops_the_packing(project: Path) -> None:
    """Nothing records or answers it, and the program catches its error."""
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write("try:\n    llmcall.client().send_message('More?')\nexcept Exception: pass\n")
    assert "had no recorded answer" in packing()


@pytest.mark.newest_only
def test_a_failed_call_stops_the_packing(project: Path) -> None:
    """It failed for good, and the program goes on."""
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write(FAILING)
    assert "failed for good" in packing()


@pytest.fixture
def doubled(project: Path) -> str:
    """The line that a recording has twice."""
    last = Path(TAPE).read_text(encoding="utf-8").splitlines()[-1]
    with open(TAPE, "a", encoding="utf-8") as file:
        file.write(f"{last}\n")
    return last


@pytest.mark.newest_only
@pytest.mark.usefixtures("doubled")
def test_a_doubled_record_stops_the_packing() -> None:
    """The message says that it is there twice."""
    assert "twice" in packing()


@pytest.mark.newest_only
def test_prune_packs_a_doubled_record_once(doubled: str) -> None:
    """The package has the line once."""
    packing("--prune", code=0)
    assert Path("../made/recordings", TAPE).read_text(encoding="utf-8").count(doubled) == 1


@pytest.mark.newest_only
def test_an_unnamed_cassette_stops_the_packing(project: Path) -> None:
    """A cassette that the program opens must be named."""
    other = Path(shutil.copy(TAPE, "other.jsonl"))
    said = done("pack", "../made", "--cassette", other, "--", SCRIPT, code=1)
    assert f"opens the cassette {TAPE}; name it with --cassette" in said


KEY = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT"
CREDENTIALS = {
    "the code": ("persons.py", "def persons", f"KEY = {KEY!r}\ndef persons", "code/persons.py:2"),
    "the data": (
        "data/people of Köln.csv",
        "Çem,driver\n",
        f"Çem,driver\n# {KEY}\n",
        "people of Köln.csv:4",
    ),
    "what is printed": (SCRIPT, '"answers"', f'"sk-proj-" + {KEY[8:]!r}', "manifest.json"),
}


@pytest.mark.newest_only
@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_credential_stops_the_packing(project: Path, name: str) -> None:
    """Text that looks like one, in any file; it is not shown."""
    file, old, new, place = CREDENTIALS[name]
    edited(project / file, old, new)
    if name == "the data":  # a line that is not a person
        edited(project / "persons.py", "    for line in open", "    for line in list(open")
        edited(project / "persons.py", 'encoding="utf-8"):', 'encoding="utf-8"))[:3]:')
    said = packing()
    assert place in said
    assert "what looks like an OpenAI API key" in said
    assert KEY not in said


@pytest.mark.newest_only
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_credential_in_a_file_of_windows_stops_the_packing(project: Path, encoding: str) -> None:
    """Its programs write UTF-16, with a mark of the order of the bytes."""
    mark = b"" if encoding == "utf-16" else codecs.BOM_UTF16_BE
    Path("data/notes.txt").write_bytes(mark + f"the key\n{KEY}\n".encode(encoding))
    said = packing("--add", "data/notes.txt")
    assert "data/notes.txt:2 contains what looks like an OpenAI API key" in said


@pytest.mark.newest_only
def test_a_compressed_file_is_told(project: Path) -> None:
    """What it contains is not searched, and the author should know."""
    with gzip.open("data/more.csv.gz", "wt") as file:
        file.write(KEY)
    with zipfile.ZipFile("data/more.xlsx", "w") as archive:
        archive.writestr("sheet.xml", KEY)
    said = packing("--add", "data/more.csv.gz", "--add", "data/more.xlsx", code=0)
    for name in ("more.csv.gz", "more.xlsx"):
        assert f"{name}: it is compressed, so llmcall did not search it for credentials" in said


@pytest.mark.newest_only
def test_an_incomplete_recording_stops_the_packing(project: Path) -> None:
    """An exception ended it."""
    edited(project / TAPE, '{"llmcall": 1,', '{"llmcall": 1, "complete": false,')
    assert "is an incomplete recording" in packing()


@pytest.mark.newest_only
def test_a_large_file_stops_the_packing(project: Path) -> None:
    """One over ``--max-size``."""
    assert "more than --max-size allows" in packing("--max-size", "0.00001")


@pytest.mark.newest_only
def test_a_file_outside_the_project_stops_the_packing(project: Path) -> None:
    """One that is read elsewhere, or by an absolute path."""
    written(project.parent, {"elsewhere.txt": "1"})
    absolute = str(project / "notes.txt")
    reading = f"    open({str(project.parent / 'elsewhere.txt')!r})\n    open({absolute!r})\n"
    edited(project / SCRIPT, "    rows = []\n", f"    rows = []\n{reading}")
    said = packing()
    assert "elsewhere.txt, which is outside the project" in said
    assert "notes.txt by an absolute path into the project" in said


@pytest.mark.newest_only
def test_a_program_that_changes_its_folder_packs(project: Path) -> None:
    """The program may change the working directory while its cassette is open."""
    edited(project / SCRIPT, "    main()", "    main()\n    __import__('os').chdir('out')")
    packing(code=0)


@pytest.mark.newest_only
@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_linked_folder_of_the_project_is_followed(project: Path) -> None:
    """What is read through a link to another folder of the project is packed under the link's name;
    a link that leads back is no trap.
    """
    (project / "data").rename(project / "people")
    (project / "data").symlink_to("people")
    (project / "people/back").symlink_to("..")
    packing(code=0)
    assert Path("../made/data/data/rate.txt").read_text(encoding="utf-8") == "1.1\n"


@pytest.mark.newest_only
@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_linked_folder_outside_the_project_stops_it(project: Path) -> None:
    """If the program reads a file through a link to a folder outside the project, it is not packed."""
    written(project.parent, {"elsewhere/1.txt": "one"})
    (project / "more").symlink_to("../elsewhere")
    packing(code=0)
    shutil.rmtree("../made")
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write("for file in pathlib.Path('more').glob('*.txt'):\n    file.read_text()\n")
    assert "elsewhere/1.txt, which is outside the project" in packing()
    packing("--add", "more", code=0)
    assert Path("../made/data/more/1.txt").read_text(encoding="utf-8") == "one"


@pytest.mark.newest_only
@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_linked_file_outside_the_project_is_packed_only_if_it_is_named(project: Path) -> None:
    """Restricted data are often linked into a project; ``--add`` says that they are to be packed."""
    written(project.parent, {"elsewhere.txt": "one"})
    (project / "more.txt").symlink_to("../elsewhere.txt")
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write("open('more.txt').read()\n")
    said = packing()
    assert "elsewhere.txt, which is outside the project" in said
    assert "--add" in said
    packing("--add", "more.txt", code=0)
    assert Path("../made/data/more.txt").read_text(encoding="utf-8") == "one"


SEARCH = """
for folder in pathlib.Path(__file__).resolve().parents:
    if (folder / ".env").is_file():
        (folder / ".env").read_text()
"""


@pytest.mark.newest_only
def test_a_program_that_searches_the_folders_above_packs(project: Path) -> None:
    """Programs look for ``.env`` or ``.git`` in the folders above them. While the program is packed,
    the project is not among them: whoever verifies the package doesn't have it.
    """
    written(project, {".env": "OPENAI_API_KEY=dough-and-butter\n"})
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write(SEARCH)
    done("pack", "made", "--cassette", TAPE, "--", SCRIPT)


WALK = """
for path in pathlib.Path().rglob("*"):
    if path.is_file():
        path.read_bytes()
"""


def packed_files(package: str) -> list[str]:
    """Return the paths of a package's files in its project, sorted."""
    manifest = json.loads(Path(package, "manifest.json").read_text(encoding="utf-8"))
    return sorted(each["path"] for each in manifest["files"])


@pytest.mark.slow
def test_a_temporary_folder_in_the_project_is_not_packed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pack writes to the temporary folder meanwhile is no part of the project."""
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write(WALK)
    packing(code=0)
    (project / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(project / "temporary"))
    done("pack", "../inside", "--cassette", TAPE, "--", SCRIPT)
    assert packed_files("../inside") == packed_files("../made")


KILLED = """
import os, sys
import llmcall

def kill(event, arguments):
    if event == "os.rename" and os.path.basename(arguments[1]) == sys.argv[1]:
        os._exit(9)

sys.addaudithook(kill)
llmcall.pack("killed", [sys.argv[2]], cassettes=[sys.argv[3]], zip="killed.zip")
"""


@pytest.mark.slow
@pytest.mark.parametrize("written_last", ["killed.zip", "killed"])
def test_what_a_killed_pack_left_is_not_packed(project: Path, written_last: str) -> None:
    """If pack is killed before a file or folder gets its name, the next pack in the same project
    gives the same package as without.
    """
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write(WALK)
    packing(code=0)
    before = set(os.listdir())
    command = [sys.executable, "-c", KILLED, written_last, SCRIPT, TAPE]
    environment = {**os.environ, "TMPDIR": str(project.parent)}
    assert subprocess.run(command, env=environment, check=False, timeout=LONGEST).returncode == 9
    assert set(os.listdir()) - before, "it left nothing"
    Path("killed.zip").unlink(missing_ok=True)
    done("pack", "../again", "--cassette", TAPE, "--", SCRIPT)
    assert packed_files("../again") == packed_files("../made")


NAMES = r"""
open("out/a\\b.txt", "w").close()
open(b"out/caf\xe9.txt", "w").close()
for name in ("out/Rate.txt", "out/rate.txt"):
    open(name, "w").close()
"""


@pytest.mark.newest_only
@pytest.mark.skipif(sys.platform != "linux", reason="such names are errors elsewhere")
def test_names_that_not_every_system_can_hold_stop_it(project: Path) -> None:
    """A package with such files could not be verified, or not everywhere; each one is named."""
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write(NAMES)
    said = packing()
    assert "a\\\\b.txt' does not work on every system" in said
    assert "the names 'out/Rate.txt' and 'out/rate.txt' differ only in case" in said
    assert said.count("does not work on every system") == 2


@pytest.mark.newest_only
@pytest.mark.skipif(os.name != "posix", reason="such names are errors elsewhere")
@pytest.mark.parametrize("name", ["why?.txt", "a|b", "nul", "Aux.txt", "end.", "con/1.txt"])
def test_a_name_that_windows_cannot_write_stops_it(project: Path, name: str) -> None:
    """It is named; the package could not be unpacked there."""
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write(f"path = pathlib.Path('out', {name!r})\npath.parent.mkdir(exist_ok=True)\n")
        file.write("path.write_text('1')\n")
    assert f"'out/{name}' does not work on every system" in packing()


@pytest.mark.newest_only
def test_what_is_written_into_the_home_folder_is_told(project: Path) -> None:
    """It is no result of the package, and the author should know."""
    home = "    pathlib.Path.home().joinpath('result.txt').write_text('1')\n"
    edited(project / SCRIPT, "    rows = []\n", f"    rows = []\n{home}")
    assert "look at ~/result.txt: the program writes it into its home folder" in packing(code=0)


@pytest.mark.newest_only
def test_a_result_that_differs_every_time_stops_the_packing(project: Path) -> None:
    """Each is named; ``--exclude`` leaves one out."""
    edited(
        project / SCRIPT,
        "    rows = []\n",
        "    rows = []\n    open('out/log','w').write(str(__import__('time').time_ns()))\n",
    )
    assert "out/log: line 1" in packing()
    packing("--exclude", "out/log", code=0)
    told = done("verify", "../made")
    assert "result out/table.csv: the same" in told
    assert "results: left out by the author, and not compared: out/log" in told
    readme = Path("../made/README.md").read_text(encoding="utf-8")
    assert "Left out by the author, and not compared: `out/log`" in readme


@pytest.mark.newest_only
def test_results_with_the_day_of_the_run_are_named(project: Path) -> None:
    """Both runs have the same day, but verify has another one later."""
    edited(project / SCRIPT, '"answers"', "f'{__import__(\"datetime\").date.today():%d %b %Y}'")
    told = packing(code=0)
    assert "look at printed text: it contains the day of this run, '" in told
    assert "look at out/table.csv" not in told


@pytest.mark.newest_only
@pytest.mark.parametrize(
    "spelling",
    [
        "{project}/out",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("./out/table.csv", "out//table.csv", "out/")
        ),
    ],
)
def test_what_is_excluded_may_be_spelled_as_paths_are(project: Path, spelling: str) -> None:
    """Whatever the shell completed is left out; no path of this machine is packed."""
    packing("--exclude", spelling.format(project=project), code=0)
    manifest = Path("../made/manifest.json").read_text(encoding="utf-8")
    assert not Path("../made/results/out/table.csv").exists()
    assert str(project) not in manifest


@pytest.mark.newest_only
def test_an_exclusion_that_leaves_nothing_out_stops_the_packing(project: Path) -> None:
    """A misspelt one would publish the file."""
    assert "--exclude out/table.CSV is none of the files" in packing("--exclude", "out/table.CSV")
    outside = packing("--exclude", "../table.csv", code=2)
    assert "../table.csv is not below the project" in outside


def test_python_is_no_script_to_pack(project: Path) -> None:
    """``python`` after ``--`` is wrong usage, and the message says so."""
    said = done("pack", "../made", "--cassette", TAPE, "--", "python", SCRIPT, code=2)
    assert "without 'python'" in said


@pytest.mark.newest_only
def test_what_is_personal_is_listed(project: Path) -> None:
    """Home folders and e-mail addresses are listed with their places."""
    edited(project / "persons.py", "def persons", "# /home/ada/x by ada@example.org\ndef persons")
    said = packing(code=0)
    assert "look at code/persons.py:2: /home/ada" in said
    assert "look at code/persons.py:2: ada@example.org" in said


@pytest.mark.newest_only
def test_what_is_personal_in_the_printed_text_is_listed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest holds it; the author's own folders are named wherever they lie."""
    monkeypatch.setenv("HOME", "/nfs/ada")
    printing = f"    print('ada@example.org /nfs/ada/x', {str(project)!r})\n"
    edited(project / SCRIPT, "    rows = []\n", f"    rows = []\n{printing}")
    said = packing(code=0)
    for found in ("ada@example.org", "/nfs/ada", project):
        assert f"look at printed text:1: {found}\n" in said


# Studies of the size that people make

WORLD = """
import csv, random
import llmcall
from llmcall.testing import ScriptedClient

chance = random.Random(7)
client = ScriptedClient(lambda messages: f"I heard {len(str(messages))} words, say {chance.random()}")
AGENTS = [f"agent {number}" for number in range(40)]

def act(agent, heard, round):
    with llmcall.scope(agent):
        return client.send_message(f"Round {round}. You heard: {heard}", temperature=1).content

def main():
    said = dict.fromkeys(AGENTS, "nothing")
    with open("world.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        for round in range(10):
            heard = {agent: [said[other] for other in AGENTS[number - 3 : number]]
                     for number, agent in enumerate(AGENTS)}
            said = dict(zip(AGENTS, llmcall.map(
                lambda agent: act(agent, heard[agent], round), AGENTS, workers=8)))
            rows.writerows((round, agent, words) for agent, words in said.items())

with llmcall.cassette("study.jsonl"), llmcall.scope("world"):
    main()
"""
SURVEY = """
import collections, itertools, json, random
import llmcall
from llmcall.testing import ScriptedClient

chance = random.Random(7)
client = ScriptedClient(lambda messages: chance.choice(["bus", "library"]))
ask = llmcall.LLMCall(
    system="You are {{ age }} years old, a {{ trade }} in village {{ village }}.",
    user="A bus or a library?", client=client, temperature=1)
people = [{"age": age, "trade": trade, "village": village}
          for age, trade, village in itertools.product(range(20, 70), ["nurse", "baker"], range(100))]

with llmcall.cassette("study.jsonl"):
    answers = [ask.map(people, scope=f"wave {wave}") for wave in (1, 2)]
with open("shares.json", "w") as file:
    json.dump([collections.Counter(map(str, wave)) for wave in answers], file)
print(sum(map(len, answers)), "answers")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "records"),
    [(WORLD, "400 records"), (SURVEY, "20,000 records")],
    ids=["world", "survey"],
)
def test_a_large_study_packs_and_verifies(
    program: str, records: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A world of 40 agents in ten rounds, and a survey of 20,000 answers, pack and verify."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {"project/study.py": program})
    monkeypatch.chdir("project")
    subprocess.run([sys.executable, "study.py"], check=True, capture_output=True, timeout=LONGEST)
    done("pack", "../made", "--cassette", "study.jsonl", "--zip", "../made.zip", "--", "study.py")
    told = done("verify", "../made.zip")
    assert f"replay: {records} used, no call unanswered" in told


# Mistakes of an author


def test_a_file_that_exists_is_not_overwritten(project: Path) -> None:
    """A package or a ZIP file that exists already is wrong usage, and stays as it is."""
    written(project.parent, {"old.zip": "old"})
    assert "old.zip exists already" in packing("--zip", "../old.zip", code=2)
    assert (project.parent / "old.zip").read_text(encoding="utf-8") == "old"


def test_a_zip_file_in_the_package_is_wrong_usage(project: Path) -> None:
    """The ZIP file cannot lie in the folder that it is made of."""
    assert "in the package itself" in packing("--zip", "../made/study.zip", code=2)


def test_a_module_needs_a_name(project: Path) -> None:
    """``-m`` alone is wrong usage, and the message says what is missing."""
    said = done("pack", "../made", "--cassette", TAPE, "--", "-m", code=2)
    assert "-m needs the name of a module" in said


def test_a_licence_that_does_not_exist_is_wrong_usage(project: Path) -> None:
    """A licence that is named must exist."""
    assert "the licence nothing.txt does not exist" in packing("--licence", "nothing.txt", code=2)


@pytest.mark.newest_only
@pytest.mark.parametrize("option", ["API_TOKEN", "API_TOKEN=dough-and-butter"])
def test_a_credential_in_the_environment_is_not_packed(
    project: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """A variable whose name says that it is a credential gets the value ``none``."""
    monkeypatch.setenv("API_TOKEN", "dough-and-butter")
    packing("--env", option, code=0)
    manifest = json.loads(Path("../made/manifest.json").read_text(encoding="utf-8"))
    assert manifest["environment"]["API_TOKEN"] == "none"


@pytest.mark.newest_only
def test_a_variable_that_usually_holds_a_credential_is_packed_only_as_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its present value is not taken; a value in the command is."""
    for name in ("PGPASSWORD", "MYSQL_PWD", "LAB_KEY", "MONKEY"):
        monkeypatch.setenv(name, "dough-and-butter")
    named = [f"--env={name}" for name in ("PGPASSWORD", "MYSQL_PWD", "LAB_KEY=c-minor", "MONKEY")]
    packing(*named, code=0)
    manifest = json.loads(Path("../made/manifest.json").read_text(encoding="utf-8"))
    given = [
        manifest["environment"][name] for name in ("PGPASSWORD", "MYSQL_PWD", "LAB_KEY", "MONKEY")
    ]
    assert given == ["none", "none", "c-minor", "dough-and-butter"]


@pytest.mark.newest_only
@pytest.mark.parametrize(
    "value",
    [
        "dough-and-butter",
        pytest.param("3f2b8c1e-9d4a-4f6b-8e2a-1c5d7e9f0a3b", marks=pytest.mark.slow),
    ],
)
def test_a_credential_in_a_configuration_file_stops_the_packing(project: Path, value: str) -> None:
    """The program's own config.ini is always read. A reference to a variable is packed."""
    with open(project / "config.ini", "a", encoding="utf-8") as file:
        file.write(f"[Endpoint lab]\nBASE_URL = https://lab.example/v1\nAPI_KEY = {value}\n")
    said = packing()
    assert "contains the credential API_KEY; write a reference such as ${NAME}" in said
    assert value not in said
    edited(project / "config.ini", value, "${LAB_KEY}")
    packing(code=0)


@pytest.mark.newest_only
def test_a_credential_in_an_env_file_of_another_name_stops_the_packing(project: Path) -> None:
    """Of ``.env`` and its kin, ``.env`` alone is never packed."""
    written(project, {".env.local": "export LAB_PASSWORD='dough-and-butter'\n"})
    with open(project / SCRIPT, "a", encoding="utf-8") as file:
        file.write("open('.env.local').read()\n")
    assert ".env.local:1 contains the credential LAB_PASSWORD" in packing()


@pytest.mark.newest_only
def test_a_folder_that_is_added_is_packed_without_what_is_no_data(project: Path) -> None:
    """Its ``.env`` holds keys; version control and environments are no part of a study."""
    written(project, {"more/.env.local": "KEY=1\n", "more/.git/config": "x", "more/1.txt": "one"})
    written(project, {"more/venv/pyvenv.cfg": "", "more/venv/bin/python": ""})
    packing("--add", "more", code=0)
    assert [path.name for path in Path("../made/data/more").rglob("*")] == ["1.txt"]


@pytest.mark.newest_only
def test_the_whole_project_may_be_added(project: Path) -> None:
    """Without its recordings, which are packed as such."""
    written(project, {"unread.txt": "1", ".env": "KEY=1\n"})
    packing("--add", ".", code=0)
    assert Path("../made/data/unread.txt").is_file()
    assert not Path("../made/data/.env").exists()


@pytest.mark.newest_only
def test_the_projects_env_file_is_not_packed(project: Path) -> None:
    """It holds keys, which a packed program does not need, and not all of them look like keys."""
    written(project, {".env": "OPENAI_API_KEY=dough-and-butter\n"})
    packing(code=0)
    assert not list(Path("../made").rglob(".env"))


@pytest.mark.newest_only
def test_the_program_gets_a_bare_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the author's is not there for the program, unless ``--env`` names it."""
    monkeypatch.setenv("MINE", "here")
    edited(project / SCRIPT, '"answers"', '__import__("os").environ.get("MINE")')
    packing(code=0)
    manifest = json.loads(Path("../made/manifest.json").read_text(encoding="utf-8"))
    assert manifest["printed"] == "3 None\n"


NOTEBOOKS = {
    "a command of IPython": ("%matplotlib inline", "is not plain Python"),
    "a command of the shell": ("!ls", "is not plain Python"),
    "an await": ("import asyncio\nawait asyncio.sleep(0)", "every await outside a function"),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_that_is_not_plain_python_is_refused(project: Path, name: str) -> None:
    """A notebook whose script only a notebook could run is refused, with the line and what to do."""
    pytest.importorskip("nbconvert")
    nbformat = pytest.importorskip("nbformat")
    source, words = NOTEBOOKS[name]
    cells = [nbformat.v4.new_code_cell(text) for text in (PROGRAM, source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), "study.ipynb")
    assert words in done("pack", "../made", "--cassette", TAPE, "--", "study.ipynb", code=1)


@pytest.mark.parametrize("text", ["{}", "no JSON"])
def test_what_is_no_notebook_is_refused(project: Path, text: str) -> None:
    """A file that ends in ``.ipynb`` and is not a notebook is refused in one line."""
    pytest.importorskip("nbconvert")
    written(project, {"study.ipynb": text})
    said = done("pack", "../made", "--cassette", TAPE, "--", "study.ipynb", code=1)
    assert "study.ipynb is not a notebook" in said


@pytest.mark.newest_only
def test_what_is_not_compared_is_no_proof(project: Path) -> None:
    """Outputs stored in a notebook are told as the author's; a run without results proves none."""
    edited(project / SCRIPT, '    with open("out/', '    return\n    with open("out/')
    written(project, {"study.ipynb": '{"cells": [{"outputs": [{"data": "6.87"}]}]}'})
    told = packing("--add", "study.ipynb", code=0)
    assert "look at code/study.ipynb: llmcall does not compare the outputs stored in it" in told
    assert "look at the results: there are none" in told
    told = done("verify", "../made")
    assert "the outputs stored in code/study.ipynb are the author's, and not compared" in told
    assert "verified, but no result was compared" in told


@pytest.fixture
def reads_in_a_child(project: Path) -> None:
    """The project, whose program starts a child process that reads a file."""
    reading = "    import subprocess\n    subprocess.run(['cat', 'notes.txt'], check=True)\n"
    edited(project / SCRIPT, "    rows = []\n", f"    rows = []\n{reading}")


@pytest.mark.slow
@pytest.mark.usefixtures("reads_in_a_child")
def test_a_file_that_only_a_child_process_reads_stops_the_packing() -> None:
    """It is missing in the folder in which the package is tried."""
    assert "in a folder with only what is packed" in packing()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_multiprocessing_are_child_processes(project: Path, method: str) -> None:
    """They are told, however they start: llmcall does not see what they read or reach."""
    opening = 'with llmcall.cassette("tapes/täglich 1.jsonl"):\n    main()\n'
    edited(
        project / SCRIPT,
        opening,
        'if __name__ == "__main__":\n'
        "    import multiprocessing\n"
        f"    process = multiprocessing.get_context({method!r}).Process(target=print)\n"
        "    process.start()\n"
        "    process.join()\n" + textwrap.indent(opening, "    "),
    )
    assert (
        "what child processes read and write; name their files with --add: python (multip"
        in packing(code=0)
    )
    assert "not watched: python (multiprocessing)" in done("verify", "../made")


@pytest.mark.newest_only
@pytest.mark.usefixtures("reads_in_a_child")
def test_child_processes_may_have_used_a_record(project: Path) -> None:
    """Their calls are not seen, so the remedy is not only to leave the record out."""
    edited(project / SCRIPT, "in persons()", "in [*persons()][1:]")
    assert "llmcall cannot see what child processes call (cat). If one of them uses" in packing()


@pytest.mark.slow
@pytest.mark.usefixtures("reads_in_a_child")
def test_a_child_process_gets_what_is_added() -> None:
    """``--add`` packs a file; verify says that it did not watch the process."""
    assert "name their files with --add: cat" in packing("--add", "notes.txt", code=0)
    assert Path("../made/data/notes.txt").read_text(encoding="utf-8") == "never read\n"
    found = llmcall.verify("../made")
    assert found.ok
    assert "child processes: as when it was packed, not watched: cat" in str(found)


@pytest.mark.newest_only
def test_the_report_tells_recordings_with_the_same_scopes_apart(project: Path) -> None:
    """The actors of two waves are named after their recordings, and not taken for the same ones."""
    shutil.copy(TAPE, "tapes/2.jsonl")
    again = '\nwith llmcall.cassette("tapes/2.jsonl"):\n    main()\n'
    edited(project / SCRIPT, "    main()\n", f"    main()\n{again}")
    packing("--cassette", "tapes/2.jsonl", code=0)
    report = Path("../made/report.html").read_text(encoding="utf-8")
    assert '"tapes/2.jsonl/Ada"' in report


@pytest.mark.newest_only
def test_licence_and_citation_are_taken_along(project: Path) -> None:
    """``--licence`` becomes the package's LICENSE; a CITATION.cff keeps its name."""
    written(project, {"terms.txt": "Ask first.\n", "CITATION.cff": "title: Bread\n"})
    packing("--licence", "terms.txt", code=0)
    assert Path("../made/LICENSE").read_text(encoding="utf-8") == "Ask first.\n"
    assert Path("../made/CITATION.cff").read_text(encoding="utf-8") == "title: Bread\n"


def test_a_readme_opens_with_what_a_reviewer_types(packed: Path) -> None:
    """The first commands of the README are those of the reviewer, for pip and for uv."""
    opening = (packed / "README.md").read_text(encoding="utf-8").partition("## The answers")[0]
    assert "    python -m pip install -r requirements.txt\n    llmcall verify .\n" in opening
    assert "uv pip install -r requirements.txt" in opening


@pytest.mark.newest_only
def test_requirements_leave_out_the_projects_own_modules(project: Path) -> None:
    """A module of the project may have the name of a distribution, such as the installed project."""
    written(project, {"iniconfig.py": ""})
    edited(project / "persons.py", "def persons", "import iniconfig\ndef persons")
    packing(code=0)
    assert "iniconfig" not in Path("../made/requirements.txt").read_text(encoding="utf-8")


def test_requirements_have_exact_versions(packed: Path) -> None:
    """The requirements name what the run imported, each with its version."""
    lines = (packed / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"llmcall-sim=={llmcall.__version__}" in lines
    assert all(line.count("==") == 1 for line in lines)


def test_every_field_of_the_manifest_is_documented(packed: Path) -> None:
    """The page for reviewers names each field of the manifest."""
    page = (ROOT / "docs" / "howto" / "review.rst").read_text(encoding="utf-8")
    manifest = json.loads((packed / "manifest.json").read_text(encoding="utf-8"))
    fields = {*manifest, *manifest["files"][0], *manifest["recordings"][0]}
    assert [name for name in sorted(fields) if f"``{name}``" not in page] == []
