"""Finding and reading config.ini and .env."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.config.files import find_places, read_config, read_dotenv
from llmcall.config.references import KeyReference, expand
from llmcall.errors import ConfigError


def written(path: Path, text: str | bytes) -> str:
    """Write a file and return its path."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize("marker", ["config.ini", ".llmcall/", "pyproject.toml", ".git/", ".git"])
def test_the_root_is_the_nearest_marked_folder(marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each marker makes a root, and one nearer to the working directory wins."""
    (tmp_path / "pyproject.toml").touch()
    root = tmp_path / "project"
    folder = root / "a" / "b"
    folder.mkdir(parents=True)
    (root / marker).mkdir() if marker.endswith("/") else (root / marker).touch()
    monkeypatch.chdir(folder)
    found = find_places()
    assert found[:2] == (str(folder), str(root))
    assert found[2] == (str(root / "config.ini") if marker == "config.ini" else None)


def test_without_a_project_the_root_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No marker up to the top: nothing above the working directory is looked into."""
    (tmp_path / ".env").touch()
    folder = tmp_path / "a"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert find_places() == (str(folder), str(folder), None, None)


def test_the_nearest_dotenv_up_to_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .env is found in the working directory, then above it, but not above the root."""
    root = tmp_path / "project"
    folder = root / "a"
    folder.mkdir(parents=True)
    written(root / "pyproject.toml", "")
    written(tmp_path / ".env", "")
    monkeypatch.chdir(folder)
    assert find_places()[3] is None
    above = written(root / ".env", "")
    assert find_places()[3] == above
    here = written(folder / ".env", "")
    assert find_places()[3] == here


def test_folders_are_no_files(tmp_path: Path) -> None:
    """A folder named config.ini or .env is neither."""
    (tmp_path / "config.ini").mkdir()
    (tmp_path / ".env").mkdir()
    assert find_places() == (str(tmp_path), str(tmp_path), None, None)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the working directory from being removed")
def test_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory that is gone is an error that says so."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(ConfigError, match="working directory no longer exists"):
        find_places()


def test_dotenv(tmp_path: Path) -> None:
    """Quotes, export, comments and references are python-dotenv's; empty values are left out."""
    text = "A=1\nexport B='two words'\nC=\nD\n# E=5\nF=${A}x # six\n"
    assert read_dotenv(written(tmp_path / ".env", text)) == {"A": "1", "B": "two words", "F": "1x"}


def test_dotenv_leaves_the_environment_alone(tmp_path: Path) -> None:
    """Reading .env sets no variable."""
    before = dict(os.environ)
    read_dotenv(written(tmp_path / ".env", "LLMCALL_MODEL=m\n"))
    assert dict(os.environ) == before


def test_a_dotenv_that_is_not_utf_8(tmp_path: Path) -> None:
    """Another encoding is an error that names the file."""
    with pytest.raises(ConfigError, match=r"\.env \(.*\) is not UTF-8"):
        read_dotenv(written(tmp_path / ".env", b"A=\xff"))


def test_sections_and_keys(tmp_path: Path) -> None:
    """Sections are found in any case, keys are in capitals, and names of models stay as they are."""
    text = """
[CACHE]
mode: replay
normalize =
    times
    # a comment
    [0-9]+ ; another

[endpoint   East One]
Models = a:1b, b
[Aliases]
My-Model:1B = gemma3:1b
plain: gpt-4o
"""
    assert read_config(written(tmp_path / "config.ini", text)).sections == {
        "Cache": {"MODE": "replay", "NORMALIZE": "\ntimes\n[0-9]+"},
        "Endpoint East One": {"MODELS": "a:1b, b"},
        "Aliases": {"My-Model:1B": "gemma3:1b", "plain": "gpt-4o"},
    }


def test_a_file_from_windows(tmp_path: Path) -> None:
    """A byte order mark and Windows' line ends are no part of the text."""
    path = written(tmp_path / "config.ini", "\ufeff[openai] ; ours\r\nMODEL = a\r\n")
    assert read_config(path).sections == {"OpenAI": {"MODEL": "a"}}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("MODEL = a#b", "a#b"),
        ("MODEL = a # b", "a"),
        ("MODEL = a ; b", "a"),
        ("MODEL = a;b", "a;b"),
        ("MODEL=50%", "50%"),
        ("MODEL = %(x)s", "%(x)s"),
        ("MODEL: a=b", "a=b"),
        ("MODEL:a", "a"),
        ("MODEL = http://h:1/v1", "http://h:1/v1"),
        ("MODEL: http://h:1/v1", "http://h:1/v1"),
    ],
)
def test_lines(line: str, value: str, tmp_path: Path) -> None:
    """Comments, colons and percent signs are read as the manual says."""
    assert read_config(written(tmp_path / "config.ini", f"[OpenAI]\n{line}\n")).sections == {"OpenAI": {"MODEL": value}}


NAMES = st.text("abcxyzAZ019-._:/", min_size=1).filter(lambda name: not name.endswith(":") and ":=" not in name)


@given(aliases=st.dictionaries(NAMES, NAMES, min_size=1))
def test_names_of_models_are_kept(aliases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Names with colons, slashes and capitals come back as they were written, on both sides."""
    text = "[Aliases]\n" + "".join(f"{name} = {model}\n" for name, model in aliases.items())
    path = written(tmp_path_factory.getbasetemp() / "aliases.ini", text)
    assert read_config(path).sections == {"Aliases": aliases}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[OpenAI]\nMODEL = a\n[OpenAI]\n", r"line 3: the section \[OpenAI\] is there twice"),
        ("[OpenAI]\n[openai]\n", r"line 2: the section \[OpenAI\] is there twice"),
        ("[Endpoint a]\n[endpoint  a]\n", r"line 2: the section \[Endpoint a\] is there twice"),
        ("[OpenAI]\n\nMODEL = a\nMODEL = b\n", r"line 4: \[OpenAI\] MODEL is there twice"),
        ("[OpenAI]\nMODEL = a\nmodel = b\n", r"\[OpenAI\] MODEL is there twice"),
        ("MODEL = sk-secret\n[OpenAI]\n", r"line 1: a line above the first \[Section\]"),
        ("[OpenAI]\nMODEL = a\nsk-secret\n", r"line 3: neither \[Section\] nor KEY = value"),
        ("[OpenAI]\n= sk-secret\n", r"line 2: neither \[Section\] nor KEY = value"),
        ("[OpenAI\nMODEL = sk-secret\n", r"line 1: a line above the first \[Section\]"),
        (b"[OpenAI]\n# \xe4\n", r"line 2: not UTF-8"),
        ("[OpenAI]\nMODEL = a\n".encode("utf-16"), r"line 1: not UTF-8"),
    ],
)
def test_broken_files(text: str | bytes, message: str, tmp_path: Path) -> None:
    """A broken file is an error with its path and line, and without the line itself, which may hold a key."""
    path = written(tmp_path / "config.ini", text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert path in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder or a missing file is an error that says why."""
    with pytest.raises(ConfigError, match="cannot be read: "):
        read_config(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_config(str(tmp_path / "x.ini"))


def test_foreign_sections_are_not_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands in somebody else's sections is neither an error nor a warning."""
    text = """
[Simulation]
twice = 1
twice = 2
no value
[Logging]
LOGLEVEL=ERROR
[OpenAI]
MODEL = a
[Simulation]
[DEFAULT]
MODEL = b
[Model]
layers = 3
"""
    assert read_config(written(tmp_path / "config.ini", text)).sections == {"OpenAI": {"MODEL": "a"}}
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("Cach", "the section [Cach] is ignored; did you mean 'Cache'?"),
        ("Open AI", "the section [Open AI] is ignored; did you mean 'OpenAI'?"),
        ("Fallback", "the section [Fallback] is ignored; did you mean 'Fallbacks'?"),
        ("Endpoint", "the section [Endpoint] is ignored (it needs a name: [Endpoint NAME])"),
    ],
)
def test_sections_like_ours(section: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A section that is nearly one of ours is a warning."""
    assert read_config(written(tmp_path / "config.ini", f"[{section}]\nMODE = off\n")).sections == {}
    assert message in caplog.text


VARIABLES = {"NAME": "value", "OTHER": "$x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${NAME}", "value"),
        ("a ${NAME}-${OTHER} b", "a value-$x b"),
        ("$${NAME}", "${NAME}"),
        ("$NAME $ $$ end$", "$NAME $ $$ end$"),
        ("${NAME", "${NAME"),
    ],
)
def test_references(text: str, expected: str) -> None:
    """${NAME} is a variable, $${NAME} is that text, and any other dollar sign is itself."""
    assert expand(text, "here", VARIABLES.get) == expected


@given(st.text().filter(lambda text: "${" not in text))
def test_texts_without_references_stay(text: str) -> None:
    """A text that refers to nothing is not changed."""
    assert expand(text, "here", VARIABLES.get) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${MISSING}", "here: the environment variable MISSING is not set"),
        ("${MY-NAME}", r"here: \$\{…\} holds no variable's name"),
        ("${}", r"here: \$\{…\} holds no variable's name"),
    ],
)
def test_wrong_references(text: str, message: str) -> None:
    """An unset variable and a name that is none are errors that name the place."""
    with pytest.raises(ConfigError, match=message):
        expand(text, "here", VARIABLES.get)


def test_a_reference_to_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's variable is looked up at each use: in the environment, then in .env."""
    key = KeyReference("${MY_KEY}", "config.ini, [Endpoint a] API_KEY", {})
    with pytest.raises(ConfigError, match=r"\[Endpoint a\] API_KEY: the environment variable MY_KEY is not set"):
        key()
    monkeypatch.setenv("MY_KEY", "from environment")
    assert key() == "from environment"
    other = KeyReference("${MY_KEY}", "here", {"MY_KEY": "from .env"})
    assert other() == "from environment"
    monkeypatch.setenv("MY_KEY", "")
    assert other() == "from .env"
    assert repr(other) == "KeyReference('here')"
