"""The environments of contestants: one for each, pinned, made when first needed and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LLMCALL = "llmcall"  # the environment that also holds this checkout
OPENAI = "openai==3.51.0"
OPENAI_2 = "openai==2.40.0"  # sends by httpx, which recorders patch; openai 3 sends by httpx2
DISKCACHE = "diskcache==5.6.3"
INSTALL_SECONDS = 1200.0
STATEMENT = (
    "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
)

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    LLMCALL: (OPENAI, DISKCACHE),
    "joblib": ("joblib==1.6.0", OPENAI),
    "autogen": ("autogen-ext[openai,diskcache]==0.7.5", "autogen-core==0.7.5", OPENAI, DISKCACHE),
    "vcrpy": ("vcrpy==9.4.2", OPENAI),
    "langchain": ("langchain-openai==1.7.3", "langchain-community==0.4.2", OPENAI),
    # A hit of its disk cache imports the modules of its proxy, which need the last three.
    "litellm": (
        "litellm==1.106.2",
        DISKCACHE,
        "fastapi==0.165.0",
        "orjson==3.13.0",
        "soundfile==0.14.0",
    ),
    "dspy": ("dspy==3.4.1",),
    "inspect_ai": ("inspect_ai==0.3.285", OPENAI),
    "promptecho": ("promptecho==0.1.3", OPENAI_2),
    "agenttape": ("agenttape[yaml]==0.1.8", OPENAI_2),
    "kinescope": ("kinescope==0.0.2", OPENAI_2),
    "reeltime": ("reeltime==1.0.0", OPENAI_2),
}
# What each takes on the disk, measured on Linux x86-64.
MEGABYTES = {
    LLMCALL: 106,
    "joblib": 74,
    "autogen": 112,
    "vcrpy": 76,
    "langchain": 290,
    "litellm": 419,
    "dspy": 394,
    "inspect_ai": 357,
    "promptecho": 63,
    "agenttape": 63,
    "kinescope": 60,
    "reeltime": 61,
}


class EnvironmentMissingError(Exception):
    """Raised when an environment cannot be made, with the reason."""


def default_folder() -> Path:
    """Return where environments are kept: the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmcall-benchmarks"


class Environments:
    """Find or make environments in a folder.

    :param folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._failed: dict[str, str] = {}

    def python(self, name: str) -> str:
        """Return the interpreter of an environment.

        :raises EnvironmentMissingError: where something cannot be installed.
        """
        if name in self._failed:
            raise EnvironmentMissingError(self._failed[name])
        try:
            return self._python(name)
        except EnvironmentMissingError as error:
            self._failed[name] = str(error)
            raise

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of some environments that are not made yet, each once."""
        return [
            name
            for name in dict.fromkeys(names)
            if name not in self._failed and not (self._folder_of(name) / "made").exists()
        ]

    def _folder_of(self, name: str) -> Path:
        return self.folder / f"{name}-{_digest(sys.version, *REQUIREMENTS[name])}"

    def _python(self, name: str) -> str:
        environment = self._folder_of(name)
        python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not (environment / "made").exists():
            shutil.rmtree(environment, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(environment)])
            _install(python, REQUIREMENTS[name])
            (environment / "made").touch()
        if name == LLMCALL:
            _install_checkout(python, environment / "checkout")
        return str(python)

    def versions(self, name: str) -> dict[str, str]:
        """Return the version of everything in an environment, by its name.

        :raises EnvironmentMissingError: where there is none.
        """
        pinned = _run([self.python(name), "-I", "-c", STATEMENT]).split()
        return dict(pair.split("==", 1) for pair in sorted(pinned))


def _install_checkout(python: Path, stamp: Path) -> None:
    """Install llmcall as a user would, from a copy of the checkout, unless this very state of it is
    installed.
    """
    files = sorted((ROOT / "llmcall").rglob("*.*"))
    sources = [file for file in files if file.suffix in (".py", ".json", ".ini")]
    digest = _digest(
        *(
            f"{file.relative_to(ROOT)}:{_digest(file.read_text(encoding='utf-8'))}"
            for file in sources
        )
    )
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        ignored = shutil.ignore_patterns(
            ".*", "__pycache__", "build", "dist", "*.egg-info", "tests", "benchmarks"
        )
        shutil.copytree(ROOT, copy, ignore=ignored)
        _install(python, [str(copy), *REQUIREMENTS[LLMCALL]])
        _install(python, ["--force-reinstall", "--no-deps", str(copy)])
    stamp.write_text(digest, encoding="utf-8")


def _install(python: Path, requirements: Sequence[str]) -> None:
    pip_install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip_install, *requirements])


def _run(command: list[str]) -> str:
    try:
        completed = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentMissingError(f"not installed within {INSTALL_SECONDS:.0f} s") from error
    if completed.returncode:
        lines = completed.stderr.splitlines()
        errors = [line for line in lines if line.startswith("ERROR")]
        raise EnvironmentMissingError((errors or lines or ["pip failed"])[-1])
    return completed.stdout


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
