"""Delete features, each in turn, from a copy of the checkout, and test what stays: ``make deletable``.

With a feature go those that need it, its tests (``tests/features/FEATURE``, ``tests/typing/FEATURE.py``,
``tests/live/test_FEATURE.py``), its benchmark, its example, its pages (``FEATURE.rst``), its line in the table of
features, and what is made of that. Nothing else may import or name it: what does is printed, and the exit code is 1.
The pages that mention it in words are printed, too; someone has to edit them.
"""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

from llmcall._version import __version__
from llmcall.additions import FEATURES, Feature, feature

ROOT = Path(__file__).resolve().parents[1]
CODE = ("llmcall", "tests", "benchmarks", "examples")
# What a feature has outside its folder and that of its tests
OWN = (
    "benchmarks/{}.py",
    "examples/{}",
    "examples/{}.*",
    "tests/typing/{}.py",
    "tests/live/test_{}.py",
    "docs/*/{}.rst",
)
PAGE_TESTS = (
    "test_code_on_pages_gives_the_output_that_they_show",
    "test_the_examples_that_a_page_shows_run_as_it_says_without_extras",
)
DISTRIBUTION = "llmcall_sim"
PLUGIN = "pytest11 =\n    llmcall = llmcall.features."  # in setup.cfg
QUICK = ("-m", "not (ci or slow)", "--hypothesis-profile=few")


def with_dependants(name: str) -> list[str]:
    """Return a feature and those that go with it, since they need it."""
    found = [name]
    for each in found:
        found += [
            other for other in FEATURES if each in feature(other).needs and other not in found
        ]
    return found


def copy_checkout(folder: Path) -> None:
    """Copy what git knows, or would add."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def environment_for(folder: Path) -> str:
    """Make an environment whose llmcall is the copy, with the libraries of this one; return its Python. A variable
    would not do: packed programs run without any.
    """
    made = folder / ".venv"
    venv.create(made, symlinks=True)
    [packages] = made.glob("lib/python*/site-packages")
    for libraries in (Path(path) for path in sys.path if path.endswith("site-packages")):
        for library in libraries.iterdir():
            # not the metadata of this llmcall, whose entry points the copy need not have
            if not (packages / library.name).exists() and DISTRIBUTION not in library.name:
                (packages / library.name).symlink_to(library)
    (packages / "copy.pth").write_text(str(folder), encoding="utf-8")
    return str(made / "bin" / "python")


def write_metadata(folder: Path) -> None:
    """Write what an installation of the copy says of it: its entry points, without those of deleted features."""
    package = configparser.ConfigParser()
    package.read(folder / "setup.cfg", encoding="utf-8")
    name = package["metadata"]["name"]
    made = folder / f"{DISTRIBUTION}-{__version__}.dist-info"
    made.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {__version__}\n"
    (made / "METADATA").write_text(metadata, encoding="utf-8")
    groups = package["options.entry_points"].items()
    points = "".join(f"[{group}]{listed}\n" for group, listed in groups)
    (made / "entry_points.txt").write_text(points, encoding="utf-8")


def public_names(added: Feature) -> list[str]:
    """Return the public names of ``llmcall``, ``llmcall.types`` and ``llmcall.aio`` that a feature adds."""
    return " ".join((*added.names.values(), *added.types.values(), *added.aio.values())).split()


def delete(name: str, folder: Path) -> None:
    """Delete a feature from a copy, and its lines in tables and lists."""
    for of_feature in (
        folder / "llmcall" / "features" / name,
        folder / "tests" / "features" / name,
    ):
        shutil.rmtree(of_feature, ignore_errors=True)
    for pattern in OWN:
        for path in folder.glob(pattern.format(name)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    edit(folder / "llmcall" / "additions.py", rf'\s*"{name}": ".*",')
    edit(
        folder / "setup.cfg", rf"    features/{name}/.*\n|    \w+ = llmcall\.features\.{name}\b.*\n"
    )
    for index in (folder / "docs").rglob("index.rst"):
        edit(index, rf"(?m)^   (.+ <)?(\w+/)?{name}>?\n|^\* .*<{name}\.rst>`__\n")
    for public in public_names(feature(name)):
        edit(folder / "docs" / "reference" / "index.rst", rf",\s+``{public}``|``{public}``(,\s+)?")
    shown = "|".join([*public_names(feature(name)), rf"features\.{name}\.[\w.]+"])
    for page in (folder / "docs" / "reference").glob("*.rst"):
        edit(
            page,
            rf"(?m)^\.\. auto\w+:: (llmcall\.)?((types|aio)\.)?({shown})(\(\))?\n(\n?   .*\n)*",
        )


def edit(path: Path, pattern: str) -> None:
    """Take what matches out of a text."""
    path.write_text(re.sub(pattern, "", path.read_text(encoding="utf-8")), encoding="utf-8")


def imports(path: Path, root: Path) -> Iterator[str]:
    """Yield the full names that a module imports anywhere, but for type checkers of the package's own exports."""
    package = ".".join(path.relative_to(root).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def marked_lines(text: str, gone: Iterable[str]) -> set[int]:
    """Return the numbers of the lines of those tests in a module that are left out without one of the features."""
    marks = {f"pytest.mark.feature('{name}')" for name in gone}
    return {
        number
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
        if marks & {ast.unparse(decorator) for decorator in node.decorator_list}
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def words_in_use(added: Feature) -> list[str]:
    """Return patterns of what programs and shells write to use a feature's settings and options."""
    return [
        *(rf"\bLLMCALL_{setting.upper()}\b" for setting in added.settings),
        *(rf"\b{option}=[\"']" for option in added.settings),
        *(rf"\bask\b.*--{flag}\b" for flag in added.ask_options),
    ]


def left_behind(name: str, gone: Iterable[str], folder: Path) -> Iterator[str]:
    """Yield the imports and names of a deleted feature in a copy's code.

    :param gone: the features that are deleted together.
    """
    added = feature(name)
    words = [rf"\bfeatures[./]{name}\b"]
    words += [rf"\bllmcall\.((types|aio)\.)?{public}\b" for public in public_names(added)]
    words += [rf"(?<!from )\bllmcall {command}\b" for command in added.commands]
    words += words_in_use(added)
    pattern = re.compile("|".join(words))
    for top in CODE:
        for path in sorted((folder / top).rglob("*.py")):
            place = path.relative_to(folder)
            for full_name in imports(path, folder):
                if f"{full_name}.".startswith(f"llmcall.features.{name}."):
                    yield f"{place} imports {full_name}"
            text = path.read_text(encoding="utf-8")
            left_out = marked_lines(text, gone) if top == "tests" else ()
            for number, line in enumerate(text.splitlines(), 1):
                if number not in left_out and (match := pattern.search(line)):
                    yield f"{place}:{number} has {match[0]}"


def mentions(name: str, folder: Path) -> dict[Path, bool]:
    """Return the pages that mention what a deleted feature added, each with whether code on it does."""
    added = feature(name)
    words = [rf"\b{public}\b" for public in public_names(added)]
    words += [rf"\bllmcall {command}\b" for command in added.commands]
    words += [rf"\b{option}=" for option in added.map_options]
    words += [rf"^{program}$" for program in added.other_keys]  # the title of its section
    words += words_in_use(added)
    if f"{PLUGIN}{name}." in (ROOT / "setup.cfg").read_text(encoding="utf-8"):
        words += [r"\bpytest\b"]
    if not words:
        return {}
    pattern = re.compile("|".join(words))
    found = {}
    for page in sorted([*folder.glob("*.rst"), *(folder / "docs").rglob("*.rst")]):
        lines = [line for line in page.read_text("utf-8").splitlines() if pattern.search(line)]
        if lines:
            found[page] = any(line.startswith((" ", ">>>", "...")) for line in lines)
    return found


def check(name: str, tests: Iterable[str]) -> bool:
    """Delete a feature from a copy, and return whether nothing else names it and all other tests pass."""
    began = time.monotonic()
    gone = with_dependants(name)
    print(f"{name}: deleted with {', '.join(gone[1:]) or 'no other'}", flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        copy_checkout(folder)
        python = environment_for(folder)
        for each in gone:
            delete(each, folder)
        write_metadata(folder)
        for script in ("docs/_ext/names.py", "docs/pictures/architecture.py"):
            subprocess.run([python, script], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        left = [line for each in gone for line in left_behind(each, gone, folder)]
        for line in left:
            print(f"  {line}")
        deselected = []
        for each in gone:
            for page, has_code in mentions(each, folder).items():
                place = page.relative_to(folder)
                print(f"  {place} mentions it{' in code' if has_code else ''}")
                case = place.with_suffix("").as_posix()
                deselected += [
                    f"--deselect=tests/house/test_readme.py::{test}[{case}]" for test in PAGE_TESTS
                ]
        command = [
            python,
            "-m",
            "pytest",
            "-q",
            "-n",
            "auto",
            "--dist",
            "worksteal",
            *QUICK,
        ]
        command += ["-p", "no:cacheprovider", *deselected, *tests]
        done = subprocess.run(command, cwd=folder, check=False)
    verdict = "deletable" if not left and not done.returncode else "NOT deletable"
    print(f"{name}: {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    return not left and not done.returncode


def main(arguments: list[str]) -> int:
    """Check the named features, or all.

    :param arguments: names of features; after ``--``, the tests to run (by default, the quick ones).
    """
    names, _, tests = (" ".join(arguments)).partition("--")
    unknown = {*names.split()} - {*FEATURES}
    if unknown:
        print(f"no feature is called {', '.join(sorted(unknown))}; there are {', '.join(FEATURES)}")
        return 2
    tests_to_run = tests.split() or ["tests", "--ignore=tests/live"]
    results = [check(name, tests_to_run) for name in names.split() or FEATURES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
