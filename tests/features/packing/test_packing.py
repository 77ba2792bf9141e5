"""``llmcall pack`` and ``llmcall verify``: a study handed to others, and checked by them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import runpy
import shutil
import stat
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, done
from files import chat, write_cassette
from pytest_httpserver import HTTPServer
from servers import Answer, NumberedServer, ScriptedServer, completion

import llmcall

SCRIPT = "run räte.py"
TAPE = "tapes/täglich 1.jsonl"
WHEEL = f"llmcall_sim-{llmcall.__version__}-py3-none-any.whl"
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
            reply = llmcall.client().send_message(text, on_error="raise")
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
    with open("data/people of Köln.csv", encoding="utf-8") as file:
        for line in file:
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


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was run once against a server that records."""
    project = tmp_path_factory.mktemp("study") / "my stüdy"
    written(project, FILES)
    with HTTPServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        monkeypatch.syspath_prepend(project)
        monkeypatch.setattr(sys, "argv", [SCRIPT])
        monkeypatch.setenv("OPENAI_BASE_URL", NumberedServer(server).address)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        runpy.run_path(SCRIPT, run_name="__main__")
        llmcall.reset()
        del sys.modules["persons"]
    return project


@pytest.fixture(scope="session")
def packed(recorded: Path) -> Path:
    """The packed study."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(recorded)
        package = recorded.parent / "das Päckchen"
        options = ("--cassette", TAPE, "--zip", "../p.zip")
        printed = done("pack", package, *options, "--", SCRIPT, "--n", 3)
    assert "data       data/data/people of Köln.csv" in printed
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


def with_manifest(package: Path, change: Callable[[Any], Any]) -> None:
    """Change a package's manifest."""
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    (package / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def mend(package: Path) -> None:
    """Write new sums of the files into the manifest."""

    def with_new_sums(manifest: Any) -> None:
        for entry in manifest["files"]:
            data = (package / entry["file"]).read_bytes()
            entry.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))

    with_manifest(package, with_new_sums)


def failed(found: Any) -> dict[str, str]:
    """Return the checks of a verification that failed, with their details."""
    return {
        check.name: "\n".join(check.details) for check in found.checks if check.status == "DIFFERS"
    }


def packing(*options: Any, code: int = 1) -> str:
    """Pack the working directory's study, and return what is printed."""
    return done("pack", "../made", "--cassette", TAPE, *options, "--", SCRIPT, code=code)


# What is in a package


def test_a_package_verifies(packed: Path) -> None:
    """Each check is on a line, and the exit code is 0; what is proved comes last."""
    printed = done("verify", packed.parent / "p.zip")
    assert printed.startswith("verify runs the author's code on this machine")
    checks = [line.split(":")[0] for line in printed.splitlines() if line.startswith("ok ")]
    names = [check.removeprefix("ok").strip() for check in checks]
    assert names == [
        *("files", "recordings", "replay", "printed text"),
        *("result out/all.json", "result out/table.csv"),
        *("files read", "network", "versions"),
    ]
    for line in (
        "note     shuffled answers: 6 of 14 numbers come from the answers\n",
        "           out/table.csv: 3 of 6 numbers come from the answers\n",
        "           printed text: 0 of 2 numbers come from the answers\n",
    ):
        assert line in printed
    for line in (
        "fact     model: gpt-6-luna\n",
        "fact     endings: 3 answers: none cut, refused or asked again. Whether they could be read was",
        "fact     cost: ",
    ):
        assert line in printed
    last = printed.splitlines()[-1]
    assert last.startswith("verified. 6 of 14 numbers come from the answers. This code gives these")
    assert "does not prove who gave the answers" in last


@pytest.mark.ci
def test_the_pages_are_written_anew(package: Path, tmp_path: Path) -> None:
    """As pack wrote them, whatever the author made of them; a folder that exists is not touched."""
    own = {
        name: (package / name).read_bytes() for name in ("README.md", "REPORTING.md", "report.html")
    }
    edited(package / "README.md", "none cut", "7 cut")
    mend(package)
    assert llmcall.verify(package, pages=tmp_path / "new").ok
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == own
    assert "new already exists" in done("verify", package, "--pages", tmp_path / "new", code=2)


def test_a_package_holds_what_the_run_used(packed: Path) -> None:
    """The files that the program read and wrote are there, and no others."""
    files = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    assert files == {
        *("README.md", "manifest.json", "report.html", "read_cassette.py", "requirements.txt"),
        *(
            "REPORTING.md",
            "LICENSE",
            WHEEL,
            f"code/{SCRIPT}",
            "code/persons.py",
            f"recordings/{TAPE}",
        ),
        *("data/data/people of Köln.csv", "data/data/rate.txt"),
        *("results/out/table.csv", "results/out/all.json"),
    }


PAGES = {
    "README.md": (
        "python -m pip install -r requirements.txt",
        "llmcall verify .",
        "llmcall from the wheel in this folder",
        "- Model: gpt-6-luna",
        "- Endings: 3 answers: none cut, refused or asked again. Whether they could be read was not recorded.",
        "- Cost: ",
        f"python '{SCRIPT}' --n 3",
        "python read_cassette.py recordings/FILE",
    ),
    "REPORTING.md": (
        "- Asked for: gpt-6-luna.",
        "at localhost: ",
        "- 3 calls through the API: chat completions.",
        "- 3 answers to 3 different requests: 1 for each.",
        "```text\nYou are Ada, a nurse. What do you pay?\n```",
        f"The program, `'{SCRIPT}' --n 3`, is in this package",
    ),
}


def test_the_pages_say_what_a_reviewer_must_know(packed: Path) -> None:
    """The commands, the models, days, counts and cost; how to do without llmcall. The 14 items of GUIDE-LLM, with
    blanks for what only authors know.
    """
    pages = {name: (packed / name).read_text(encoding="utf-8") for name in PAGES}
    assert [
        words for name, said in PAGES.items() for words in said if words not in pages[name]
    ] == []
    assert "pip install llmcall\n" not in pages["README.md"]
    _, *items = pages["REPORTING.md"].split("\n## ")
    expected = "A.1 A.2 B.1 B.2 B.3 B.4 B.5 C.1 C.2 D.1 E.1 E.2 F.1 G.1 Opt Opt"
    assert [item[:3] for item in items] == expected.split()
    assert {"A.1", "D.1", "E.1", "G.1"} <= {item[:3] for item in items if "**TO FILL IN:**" in item}


@pytest.mark.ci
def test_a_package_installs_the_llmcall_that_packed_it(package: Path, tmp_path: Path) -> None:
    """The wheel that requirements.txt names first is installed without an index, and verifies."""
    wheel, *others = (package / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert wheel == f"./{WHEEL}"
    assert all("==" in line and "llmcall" not in line for line in others)
    # An environment that sees this one's libraries after its own
    reader = tmp_path / "reader"
    venv.create(reader, symlinks=True)
    [site] = reader.glob("lib/*/site-packages")
    libraries = [path for path in sys.path if "site-packages" in path]
    (site / "others.pth").write_text("\n".join(libraries))

    def printed_by(program: str, *arguments: str) -> str:
        command = [reader / "bin" / program, *arguments]
        bare = {**os.environ, "PYTHONPATH": ""}
        return subprocess.check_output(command, cwd=package, env=bare, text=True).strip()

    offline = ("--no-index", "--no-deps", "--ignore-installed")
    printed_by("python", "-m", "pip", "install", *offline, wheel)
    printed = printed_by("llmcall", "verify", ".")
    assert "verified" in printed and "ok       versions" in printed
    installed = printed_by("python", "-c", "import llmcall; print(llmcall.__file__)")
    assert Path(installed).is_relative_to(reader)
    with zipfile.ZipFile(package / WHEEL) as archive:
        assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())
        assert not [name for name in archive.namelist() if "direct_url" in name or ".pyc" in name]


@pytest.mark.ci
def test_the_same_study_gives_the_same_bytes(packed: Path, project: Path) -> None:
    """Packing again, elsewhere, gives the same ZIP file."""
    options = ("--cassette", TAPE, "--zip", "../q.zip")
    done("pack", "../das Päckchen", *options, "--", SCRIPT, "--n", 3)
    assert Path("../q.zip").read_bytes() == (packed.parent / "p.zip").read_bytes()


@pytest.mark.slow
def test_an_unchanged_program_is_packed_with_its_actors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a function of its own names them: the package names it again."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {"who.py": WHO, "talk.py": TALK})
    with HTTPServer() as server:
        address = NumberedServer(server).address
        subprocess.run(
            [
                sys.executable,
                "-m",
                "llmcall",
                *["run", "--cassette", "t.jsonl", "--actor", "who:who", "talk.py"],
            ],
            env={**os.environ, "OPENAI_BASE_URL": address, "OPENAI_API_KEY": "none"},
            check=True,
            capture_output=True,
        )
    assert "code/who.py" in done("pack", "made", "--cassette", "t.jsonl", "--", "talk.py")
    done("verify", "made")
    assert "--actor who:who talk.py" in Path("made/README.md").read_text(encoding="utf-8")


WHO = """
def who(request):
    return request.body["messages"][-1]["content"].split()[0]
"""
TALK = """
import openai
for name in ("Ann", "Bo"):
    asked = [{"role": "user", "content": f"{name} says hello."}]
    print(openai.OpenAI().chat.completions.create(model="m", messages=asked).choices[0].message.content)
"""


# What verify finds


def test_changed_missing_added_and_forged_files_are_named(package: Path) -> None:
    """By the sums in the manifest; what a reader's own tools put beside the study is no change."""
    edited(package / "recordings" / TAPE, "answer 2", "answer 3")
    edited(package / "results/out/table.csv", "answer 0", "answer 9")
    edited(package / "README.md", "none cut", "7 cut")
    edited(package / "data/data/rate.txt", "1.1", "1.2")
    (package / "LICENSE").unlink()
    written(
        package, {"data/more.txt": "", ".venv/pyvenv.cfg": "", ".git/HEAD": "", ".DS_Store": ""}
    )
    found = failed(llmcall.verify(package))
    changed = (f"recordings/{TAPE}", "results/out/table.csv", "README.md", "data/data/rate.txt")
    for words in (*(f"{file} was changed" for file in changed), "LICENSE is missing"):
        assert words in found["files"]
    assert "data/more.txt was added" in found["files"]
    assert found["files"].count("\n") == 5
    # The run shows what the change does, by a unified diff.
    assert "-Ada,answer 9,8.8" in found["result out/table.csv"]
    assert "+Çem,answer 3,9.6" in found["result out/table.csv"]


@pytest.mark.ci
def test_changed_code_is_found_by_what_it_does(package: Path, tmp_path: Path) -> None:
    """Also with new sums: other results, a live call, attempts to connect, and hidden inputs."""
    (tmp_path / "hidden.txt").write_text("2.5")
    added = f"""
import socket
for _ in range(2):
    try:
        socket.create_connection(("127.0.0.1", 9))
    except OSError:
        pass
try:
    llmcall.client().send_message("Live?")
except llmcall.CacheMissError:
    pass
print(open({str(tmp_path / "hidden.txt")!r}).read())
open("out/new.txt", "w").close()
"""
    edited(package / f"code/{SCRIPT}", "    main()\n", f"    main()\n{added}")
    mend(package)
    found = llmcall.verify(package)
    differing = failed(found)
    assert set(differing) == {"replay", "printed text", "results", "files read", "network"}
    assert "a call outside any scope" in differing["replay"]
    assert "+2.5" in differing["printed text"]
    assert differing["results"] == "out/new.txt"
    assert differing["files read"] == str(tmp_path / "hidden.txt")
    assert differing["network"] == "127.0.0.1:9"
    assert "2 attempts to connect, blocked" in str(found)
    assert str(found).endswith("not verified: 5 checks failed")


# Whether the results come from the answers


def packed_study(httpserver: HTTPServer, folder: Path, files: dict[str, str], *said: str) -> None:
    """Record a program ``study.py`` with numbered answers or with some, and pack it."""
    written(folder, files)
    if said:
        address = ScriptedServer(
            httpserver, *(Answer(200, completion(text)) for text in said)
        ).base_url
    else:
        address = NumberedServer(httpserver).address
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        runpy.run_path("study.py")
    llmcall.reset()
    done("pack", "../made", "--cassette", "t.jsonl", "--", "study.py")


ASKING = """
import json, os, pathlib
import llmcall

def ask(text):
    return llmcall.client().send_message(text, on_error="raise").content

def save(name, value):
    pathlib.Path(name).write_text(json.dumps(value))
"""
STUDY = (
    ASKING
    + """
with llmcall.cassette("t.jsonl"):
    rows = []
    for name in ("Ada", "Ben", "Cem"):
        with llmcall.scope(name):
            first = ask(f"{name}, how are you?")
            rows.append((name, first, ask(f"You said {first}. Really?")))
save("rows.json", rows)
save("mean.json", sum(int(text.split()[1]) for _, *said in rows for text in said) / 6)
save("names.json", sorted({text.split()[0] for _, text, _ in rows}))
save("last.json", str(rows[-1]).replace("0", "x").translate(str.maketrans("123456789", "abcdefghi")))
pathlib.Path("plot.png").write_bytes(bytes([255]) + str(rows).encode())
pathlib.Path("empty.svg").write_text("<svg width='10'/>")
save("fixed.json", 3.0)
save("copied.json", json.loads(pathlib.Path("final.json").read_text()))
save("mode.json", 3.0 if os.environ.get("LLMCALL_CASSETTE_MODE") == "none" else rows)
"""
)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project as the working directory."""
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


@pytest.mark.ci
def test_the_numbers_that_come_from_the_answers_are_counted(
    in_folder: Path, httpserver: HTTPServer
) -> None:
    """Not those in the code, read from a file, or made up in a replay. Of pictures and texts without numbers, it is
    said whether they change. The second prompts contain answers; a mean is the same for rotated ones.
    """
    packed_study(httpserver, in_folder, {"study.py": STUDY, "final.json": "3.0"})
    found = llmcall.verify("../made")
    [note] = [check for check in found.checks if check.name == "shuffled answers"]
    assert note.details == (
        "copied.json: 0 of 1 number comes from the answers",
        "empty.svg: stays the same",
        "fixed.json: 0 of 1 number comes from the answers",
        "last.json: changes",
        "mean.json: 1 of 1 number comes from the answers",
        "mode.json: 0 of 1 number comes from the answers",
        "names.json: stays the same",
        "plot.png: changes",
        "rows.json: 6 of 6 numbers come from the answers",
    )
    assert found.conclusion().startswith(
        "verified. 7 of 10 numbers come from the answers; 2 of 4 results without numbers change"
    )


@pytest.mark.ci
def test_the_share_of_an_answer_that_half_gave_comes_from_the_answers(
    in_folder: Path, httpserver: HTTPServer
) -> None:
    """It would stay the same if all four answers were exchanged."""
    program = f"""{ASKING}
with llmcall.cassette("t.jsonl"):
    save("share.json", [ask(name) for name in ("Ada", "Ben", "Cem", "Dan")].count("yes") / 4)
"""
    packed_study(httpserver, in_folder, {"study.py": program}, "yes", "no", "no", "yes")
    assert "share.json: 1 of 1 number comes" in done("verify", "../made")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("yes", "yes"), "No number can be shown to come from the answers: no two answers differ"),
        (("yes", "no"), "           said.json: not written with shuffled answers\n"),
    ],
)
def test_a_study_that_cannot_be_tried_is_verified_and_says_so(
    in_folder: Path, httpserver: HTTPServer, said: tuple[str, ...], words: str
) -> None:
    """All answers are equal, or its program accepts no others."""
    program = f"""{ASKING}
with llmcall.cassette("t.jsonl"):
    said = [ask(name) for name in ("Ada", "Ben")]
assert said == {[*said]}
save("said.json", said)
"""
    packed_study(httpserver, in_folder, {"study.py": program}, *said)
    printed = done("verify", "../made")
    assert words in printed
    assert printed.splitlines()[-1].startswith("verified. ")
    assert ("the program ended with exit code 1: AssertionError" in printed) == (said[1] == "no")


@pytest.mark.ci
def test_a_changed_or_missing_record_and_a_damaged_recording_are_found(package: Path) -> None:
    """Also with new sums. A call without an answer ends the program, and the records that it left unused are named."""
    tape = package / "recordings" / TAPE
    lines = tape.read_text(encoding="utf-8").splitlines(keepends=True)
    edited(tape, "a nurse", "a doctor")
    mend(package)
    assert "key does not match its request" in failed(llmcall.verify(package))["recordings"]
    tape.write_text("".join(line for line in lines if "Bela" not in line), encoding="utf-8")
    mend(package)
    found = failed(llmcall.verify(package))
    assert "a call in scope 'Bela' had no recorded answer" in found["replay"]
    assert "1 record that no call used: Çem#0" in found["replay"]
    tape.write_text("no JSON\n", encoding="utf-8")
    assert f"{TAPE} is damaged" in failed(llmcall.verify(package))["recordings"]


@pytest.mark.ci
def test_numbers_may_differ_within_a_tolerance(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In results and printed text, but no text, as codes and versions are; other versions of libraries are a note."""
    texts = {"yes": "no", "007": "008", "1 2": "1", "1.2.3": "1.2.4"}
    edited(package / "results/out/table.csv", "8.8", "8.800001")
    edited(package / "results/out/all.json", "}", "}\n")
    printing = f"    main()\n    print(0.3000001, *{[*texts.values()]}, sep='\\n')\n"
    edited(package / f"code/{SCRIPT}", "    main()\n", printing)
    mend(package)

    def with_other_output(manifest: Any) -> None:
        manifest["printed"] += "\n".join(["0.3", *texts, ""])

    with_manifest(package, with_other_output)
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    command = "verify", package, "--tolerance", "0.5", "--json"
    found = {
        check["name"]: check
        for check in json.loads(done(*command, code=1).partition("\n")[2])["checks"]
    }
    assert found["result out/table.csv"]["found"] == "the same within the tolerance of 0.5"
    assert found["result out/all.json"]["status"] == "DIFFERS"
    changed = [
        line for line in found["printed text"]["details"] if line[1:] in {*texts, *texts.values()}
    ]
    assert changed == [f"-{text}" for text in texts] + [f"+{text}" for text in texts.values()]
    [other] = found["versions"]["details"]
    assert other.startswith("Python 3.99.0 (packed with 3.")


@pytest.mark.ci
@pytest.mark.parametrize("is_added", [True, False])
def test_the_files_of_imported_answers_are_imported_again_where_they_are_packed(
    in_folder: Path, is_added: bool
) -> None:
    """An answer that was changed with the result, and one that was taken out, are named; where no file is packed, that
    is said.
    """
    rows = "prompt,answer\nAda,5\nBen,6\nCem,7\nDot,\n"
    program = (
        ASKING
        + """
with llmcall.cassette("t.jsonl"):
    print([ask(name) for name in ("Ada", "Ben", "Cem")])
"""
    )
    written(in_folder, {"study.py": program, "said.csv": rows})
    done("import", "said.csv", "--to", "t.jsonl", "-m", "gpt-4-0314", "--source", "a thesis")
    add = ("--add", "said.csv") if is_added else ()
    done("pack", "../made", "--cassette", "t.jsonl", *add, "--", "study.py")
    found = llmcall.verify("../made")
    digest = hashlib.sha256(rows.encode()).hexdigest()
    assert found.facts["imported files"] == f"said.csv (SHA-256 {digest})"
    assert found.facts["source"] == "imported from a thesis, not recorded by llmcall"
    assert found.facts["not imported"].startswith("1 × ")
    readme = " ".join(Path("../made/README.md").read_text(encoding="utf-8").split())
    assert "imported from a thesis, not recorded by llmcall" in readme
    if not is_added:
        assert "imported t.jsonl: not imported again: 1 file not packed: said.csv" in str(found)
        assert found.ok
        return
    assert "ok       imported t.jsonl: the packed files give the same answers" in str(found)
    edited(Path("../made/recordings/t.jsonl"), '"content": "6"', '"content": "9"')
    with_manifest(Path("../made"), lambda manifest: manifest.update(printed="['5', '9', '7']\n"))
    mend(Path("../made"))
    assert "is not as in the files" in failed(llmcall.verify("../made"))["imported t.jsonl"]


# Packages that are damaged or unsafe


def link(archive: zipfile.ZipFile) -> None:
    """Add a symbolic link."""
    entry = zipfile.ZipInfo("package/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc")


def absurd(archive: zipfile.ZipFile) -> None:
    """Add a file that says that it is larger than any disk."""
    archive.writestr("package/zeros.bin", b"0")
    archive.infolist()[-1].file_size = 1 << 60


def twice(archive: zipfile.ZipFile) -> None:
    """Add another file under a name that is there."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("das Päckchen/README.md", "Other words.")


UNSAFE: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "a parent path": lambda archive: archive.writestr("package/../../escaped.txt", ""),
    "an absolute path": lambda archive: archive.writestr("/escaped.txt", ""),
    "Windows' parent path": lambda archive: archive.writestr("..\\escaped.txt", ""),
    "a link": link,
    "an absurd size": absurd,
    "a name twice": twice,
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_zip_file_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    file = Path(shutil.copy(packed.parent / "p.zip", tmp_path / "p.zip"))
    with zipfile.ZipFile(file, "a") as archive:
        UNSAFE[name](archive)
    assert "nothing was unpacked" in done("verify", file, code=1)


@pytest.mark.ci
def test_all_else_in_a_zip_file_is_named(packed: Path, tmp_path: Path) -> None:
    """Beside the package and in it, what a reader's tools would write, too."""
    file = Path(shutil.copy(packed.parent / "p.zip", tmp_path / "p.zip"))
    added = ["beside.txt", "das Päckchen/.git/HEAD", "das Päckchen/data/more.txt"]
    with zipfile.ZipFile(file, "a") as archive:
        for name in added:
            archive.writestr(name, "")
    found = failed(llmcall.verify(file))
    assert {*found} == {"files"}
    assert sorted(found["files"].split("\n")) == [f"{name} was added" for name in added]


@pytest.mark.parametrize("position", ["the middle", "the end"])
def test_a_damaged_zip_file_is_reported_in_a_sentence(
    packed: Path, tmp_path: Path, position: str
) -> None:
    data = bytearray((packed.parent / "p.zip").read_bytes())
    with zipfile.ZipFile(packed.parent / "p.zip") as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.compress_size)
    start = entry.header_offset + 100 if position == "the middle" else len(data) - 40
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / "p.zip").write_bytes(data)
    printed = done("verify", tmp_path / "p.zip", code=1)
    assert "is not a readable ZIP file" in printed and "Traceback" not in printed


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"llmcall_package": 4, "files": [{}]}'])
def test_a_damaged_manifest_is_reported_in_a_sentence(tmp_path: Path, text: str) -> None:
    """It names the file."""
    (tmp_path / "manifest.json").write_text(text)
    assert "manifest.json is damaged: " in done("verify", tmp_path, code=1)


@pytest.mark.parametrize(
    "path", ["../escaped.txt", "/etc/passwd", "..\\a.txt", "__pycache__/a.pyc"]
)
def test_a_manifest_that_names_files_elsewhere_is_refused(package: Path, path: str) -> None:
    """Nothing is run."""
    with_manifest(package, lambda manifest: manifest["files"][0].update(path=path, role="code"))
    assert "points outside the package" in done("verify", package, code=1)


def test_verifying_what_is_no_package_is_wrong_usage(tmp_path: Path) -> None:
    """A folder without a manifest, and no folder."""
    assert "not a packed study" in done("verify", tmp_path, code=2)
    done("verify", tmp_path / "nothing", code=2)
    with pytest.raises(ValueError, match=r"nothing does not exist\. Give the folder or"):
        llmcall.verify(tmp_path / "nothing")


@pytest.mark.ci
def test_a_study_whose_program_starts_processes_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what they read and import: a child in Python asks, and a shell script does, by curl."""
    shutil.copytree(ROOT / "examples/three_processes", tmp_path / "council")
    monkeypatch.chdir(tmp_path / "council")
    printed = done("pack", "../made", "--cassette", "council.jsonl", "--", "council.py")
    for line in ("code       code/citizen.py", "data       data/citizen.sh"):
        assert line in printed
    assert "openai==" in Path("../made/requirements.txt").read_text(encoding="utf-8")


# What pack refuses


@pytest.mark.ci
@pytest.mark.feature("http_libraries")
def test_a_program_that_needs_more_than_the_project_stops_the_packing(
    project: Path, tmp_path: Path
) -> None:
    """All reasons at once: a swallowed miss and connection, here and in a child process, files elsewhere, an
    unnamed cassette.
    """
    (tmp_path / "elsewhere.txt").write_text("1.1")
    (project / "linked.txt").symlink_to(tmp_path / "elsewhere.txt")
    reading = f"""
import contextlib, subprocess, urllib.request
open("linked.txt").read()
open({str(project / "notes.txt")!r}).read()
with contextlib.suppress(OSError):
    urllib.request.urlopen("http://prices.example/today")
tries = "import urllib.request; urllib.request.urlopen('http://rates.example')"
subprocess.run([sys.executable, "-c", tries], stderr=subprocess.DEVNULL)
with contextlib.suppress(llmcall.CacheError):
    with llmcall.scope("Ada"):
        llmcall.client().send_message("What else?")
with contextlib.suppress(llmcall.CacheError):
    llmcall.cassette("other.jsonl").__enter__()
"""
    edited(project / SCRIPT, "    main()\n", f"    main()\n{reading}")
    printed = packing()
    for words in (
        "a call in scope 'Ada' had no recorded answer",
        "opens the cassette other.jsonl, which is not packed",
        "tried to connect to prices.example",
        "tried to connect to rates.example",
        f"opens {project / 'notes.txt'} by an absolute path into the project",
        f"opens {tmp_path / 'elsewhere.txt'}, which is outside the project",
    ):
        assert words in printed
    assert not Path("../made").exists()


@pytest.mark.ci
def test_a_record_that_no_call_used_stops_the_packing_unless_it_is_pruned(project: Path) -> None:
    """The project's own recording keeps it."""
    edited(project / "data/people of Köln.csv", "Çem,driver\n", "")
    before = (project / TAPE).read_bytes()
    assert "1 record that no call used: Çem#0" in packing()
    assert "left out of the package" in packing("--prune", code=0)
    assert "Çem" not in Path(f"../made/recordings/{TAPE}").read_text(encoding="utf-8")
    assert (project / TAPE).read_bytes() == before
    left_out = "1 of 3 recorded answers were left out (--prune)"
    for page in ("README.md", "REPORTING.md", "report.html"):
        assert left_out in " ".join(Path("../made", page).read_text(encoding="utf-8").split())
    assert left_out in done("verify", "../made")


@pytest.mark.ci
def test_a_recording_is_packed_whole_as_evidence(project: Path) -> None:
    """As it is, byte for byte; README and verification count what the program does not use, and verify fails if it
    uses still less.
    """
    edited(project / "data/people of Köln.csv", "Çem,driver\n", "")
    printed = packing("--whole", code=0)
    assert f"packed as evidence: {TAPE}: 1 record that no call used: Çem#0" in printed
    made = Path("../made")
    assert (made / "recordings" / TAPE).read_bytes() == (project / TAPE).read_bytes()
    readme = (made / "README.md").read_text(encoding="utf-8")
    assert "Packed as evidence, not used by the program: 1 of 3 records" in readme
    printed = done("verify", made)
    assert "replay: 2 records used, 1 more packed as evidence, every call answered" in printed
    with_manifest(made, lambda manifest: manifest["unused"].clear())
    assert "1 record that no call used: Çem#0" in done("verify", made, code=1)


def test_runs_that_differ_stop_the_packing(project: Path) -> None:
    """Each result is named, with what differs, and what that looks like."""
    added = """
import subprocess, time
print(subprocess.run("cat <notes.txt", shell=True, capture_output=True, text=True).stdout)
with open("out/log.txt", "w") as file:
    file.write(f"{time.time_ns()}")
"""
    edited(project / SCRIPT, "    main()\n", f"    main()\n{added}")
    printed = packing()
    assert "printed text: differs" in printed and "-never read" in printed
    assert "result out/log.txt: differs" in printed
    assert "It looks like a random number or a time. Record with --seed N" in printed


def test_a_credential_stops_the_packing(project: Path) -> None:
    """Text that looks like one, in any file; it is not shown. The environment is bare."""
    key = "sk-proj-" + "a1B2c3D4" * 6
    written(
        project, {"data/rate.txt": f"1.1 # {key}", "config.ini": "[OpenAI]\nAPI_KEY = dough7\n"}
    )
    edited(project / SCRIPT, "read_text())", "read_text().split()[0])")
    printed = packing()
    assert "data/data/rate.txt:1 contains what looks like" in printed
    assert "data/config.ini:2 contains" in printed
    assert key not in printed and "dough7" not in printed


@pytest.mark.ci
def test_the_environment_is_bare_and_what_is_personal_is_listed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--env`` passes a variable on, a credential as "none"; e-mail addresses have their places;
    ``--add`` packs what llmcall cannot see.
    """
    for name in ("CITY", "LAB_TOKEN", "SECRET_PLACE"):
        monkeypatch.setenv(name, f"mine-{name}")
    added = """
import os, subprocess
print(subprocess.run(["cat", "notes.txt"], capture_output=True, text=True).stdout, end="")
print(os.environ["CITY"], os.environ["LAB_TOKEN"], os.environ.get("SECRET_PLACE"), os.environ["TZ"])
print(os.listdir(os.environ["HOME"]), os.environ["PYTHONHASHSEED"], "ada@example.org")
"""
    edited(project / SCRIPT, "    main()\n", f"    main()\n{added}")
    printed = packing("--env", "CITY", "--env", "LAB_TOKEN", "--add", "notes.txt", code=0)
    assert "data       data/notes.txt" in printed
    manifest = json.loads(Path("../made/manifest.json").read_text(encoding="utf-8"))
    assert manifest["printed"].endswith(
        "never read\nmine-CITY none None UTC\n[] 0 ada@example.org\n"
    )
    assert "look at printed text:4: ada@example.org" in printed


def test_an_incomplete_recording_stops_the_packing(project: Path) -> None:
    """An exception ended it, or the program left it open."""
    edited(project / TAPE, '"llmcall":', '"complete":false,"llmcall":')
    printed = packing()
    assert "is an incomplete recording" in printed
    assert "after open(), call close()" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tapes", "--", SCRIPT], "already exists"),
        (["../made", "--", "python", SCRIPT], "the script: python does not exist"),
        (["../made", "--", "-m"], "the program is missing"),
        (["../made", "--", "../other.py"], "does not exist"),
        (["../made", "--env", "NO_SUCH", "--", SCRIPT], "the variable is not set"),
    ],
)
def test_wrong_usage_overwrites_nothing(project: Path, arguments: list[str], words: str) -> None:
    """The exit code is 2."""
    assert words in done("pack", "--cassette", TAPE, *arguments, code=2)
    assert not Path("../made").exists()


def test_the_packed_reader_prints_a_recording_without_llmcall(packed: Path) -> None:
    """With each call's arms, and escapes of a terminal, direction marks and invisible characters as ``show`` prints
    them.
    """
    unsafe = "\x1b[2J \u202eevil \u200b \ufeff \x9b \U000e0041"
    record = chat(unsafe, f"{unsafe}\tTab\nline", f"{unsafe[:4]}#0", stop=unsafe)
    long = "Bread? " * 100  # has a line of its own
    records = [record.with_arms(("control", "treated")), chat(long, "Yes.", "Ada#0")]
    write_cassette("a.jsonl", records)
    command = [sys.executable, "-I", "-S", packed / "read_cassette.py", "a.jsonl"]
    printed = subprocess.check_output(command, text=True)
    shown = r"\x1b[2J \u202eevil \u200b \ufeff \x9b \U000e0041"
    assert f"--- answer\n{shown}\tTab\nline\n" in printed
    assert f"--- user\n{long}\n--- answer\nYes.\n" in printed
    assert "chat \\x1b[2J#0  in the arms control, treated\n" in printed
    assert not [mark for mark in unsafe if mark in printed and not mark.isprintable()]
    assert shown in done("show", "a.jsonl")
