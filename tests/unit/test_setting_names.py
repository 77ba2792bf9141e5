"""The names of the settings in code, environment and files, and the files that show them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from project_files import written

from llmcall.config import resolve as config
from llmcall.config.names import SETTINGS, VARIABLES

ROOT = Path(__file__).resolve().parents[2]

SAMPLES = {
    "url": ("https://host/v1", "https://host/v1"),
    "name": ("some name", "some name"),
    "text": ("a text", "a text"),
    "secret": ("key", "key"),
    "number": ("0.5", 0.5),
    "integer": ("7", 7),
    "seconds": ("1.5", 1.5),
    "path": ("/some/path", "/some/path"),
    "normalizers": ("times, uuids", ("times", "uuids")),
    "patterns": ("[a-z]{2,3}\n\\d+", ("[a-z]{2,3}", "\\d+")),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_setting_has_a_variable_and_a_key(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One name serves code, environment and file."""
    row = SETTINGS[VARIABLES[variable]]
    prefix = "" if row.section == "OpenAI" else f"{row.section.upper()}_"
    assert variable == f"LLMCALL_{prefix}{row.key}" == f"LLMCALL_{row.attribute.upper()}"
    text, value = SAMPLES.get(row.kind) or (row.choices[-1], row.choices[-1])
    lines = text.replace("\n", "\n  ")
    written("config.ini", f"[{row.section}]\n{row.key} =\n  {lines}\n")
    if row.kind in ("normalizers", "patterns"):
        assert getattr(config.settings(), row.attribute) == value
    else:
        written("config.ini", f"[{row.section}]\n{row.key} = {lines}\n")
        assert getattr(config.settings(), row.attribute) == value
    config.reset()
    Path("config.ini").unlink()
    monkeypatch.setenv(variable, text)
    assert getattr(config.settings(), row.attribute) == value
    assert config.settings().origin(variable) == f"environment variable {variable}"


def shown_file(name: str) -> str:
    """Return a file of defaults."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_files_of_defaults_are_alike() -> None:
    """The top-level config.ini and the packaged defaults.ini differ in their first line alone."""
    shown, packaged = shown_file("config.ini").splitlines(), shown_file("llmcall/defaults.ini").splitlines()
    assert shown[0].startswith("# ")
    assert packaged[0].startswith("# ")
    assert shown[1:] == packaged[1:]


def test_the_shown_file_is_the_defaults(caplog: pytest.LogCaptureFixture) -> None:
    """Read as a project's file, config.ini changes no value and gives no warning."""
    bare = {item[0]: item[3] for item in config.settings().items()}
    written("config.ini", shown_file("config.ini"))
    config.refresh()
    assert {item[0]: item[3] for item in config.settings().items()} == bare
    assert caplog.text == ""


def test_the_shown_file_has_every_key() -> None:
    """Each key stands in config.ini once, in its section, with one line of comment above it."""
    lines = shown_file("config.ini").splitlines()
    section, found = "", []
    for above, line in itertools.pairwise(lines):
        section = line.strip("[]") if line.startswith("[") else section
        if "=" in line and not line.startswith("#"):
            found.append((section, line.split("=")[0].strip()))
            assert above.startswith("# "), line
    assert found == [(row.section, row.key) for row in SETTINGS.values() if row.key]


def test_what_is_commented_out_can_be_used(caplog: pytest.LogCaptureFixture) -> None:
    """The examples of config.ini are read without a warning, and every key of a named section is among them."""
    written("config.ini", re.sub(r"(?m)^# (\[\w+ .+\]|[\w.-]+ = .+)$", r"\1", shown_file("config.ini")))
    found = config.settings()
    assert caplog.text == ""
    assert found.prices == {"gpt-4o-mini": (0.15, 0.6)}
    assert found.aliases == {"gpt-4-turbo": "gpt-4-1106-preview"}
    assert found.fallbacks == {"gpt-4": ("gpt-4-32k", "gpt-3.5-turbo-16k")}
    assert all(found.endpoints[0])
    assert len(found.models["my-model*"]) == 10
