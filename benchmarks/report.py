"""The circumstances of a run: versions and the machine, without its name."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from itertools import groupby

from .contestants import Entry
from .environments import LLMCALL, EnvironmentMissingError, Environments

PACKAGES = (
    "llmcall-sim",
    "openai",
    "diskcache",
    "joblib",
    "autogen-ext",
    "vcrpy",
    "langchain-openai",
    "langchain-community",
    "litellm",
    "dspy",
    "inspect_ai",
    "promptecho",
    "agenttape",
    "kinescope",
    "reeltime",
)


def circumstances(environments: Environments, entries: Sequence[Entry]) -> dict[str, str]:
    """Return what ran where: Python, the machine, and each environment's versions."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    facts = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load at the end {load}",
    }
    for name, _ in groupby(sorted({LLMCALL, *(entry.environment for entry in entries)})):
        if environments.missing([name]):  # no case needed it
            continue
        try:
            versions = environments.versions(name)
        except EnvironmentMissingError as error:
            facts[name] = str(error)
            continue
        facts[name] = ", ".join(
            f"{package} {versions[package]}" for package in PACKAGES if package in versions
        )
    return facts
