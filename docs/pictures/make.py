"""Take the pictures of the documentation anew: `make pictures` (needs a chromium in PATH)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbclient
import nbconvert
import nbformat
from playwright.sync_api import Browser, sync_playwright

import llmcall

FOLDER = Path(__file__).resolve().parent
EXAMPLES = FOLDER.parent.parent / "examples"
SOLAR = EXAMPLES / "solar"
# The name of each picture, the arguments of the report that it shows, and how many pixels wide and
# high the window is.
PICTURES = {
    "diff": ([SOLAR / "village.jsonl", "--against", SOLAR / "wary.jsonl"], 1200, 800),
    "report": ([EXAMPLES / "market_day.jsonl"], 1200, 700),
    "votes": ([EXAMPLES / "unchanged_program" / "votes.jsonl"], 1200, 540),
}


def notebook_page(folder: str) -> str:
    """Run first_steps.ipynb from the recorded answers; return it as HTML."""
    with llmcall.ResponseCache(f"{folder}/cache") as cache:
        cache.load(EXAMPLES / "answers.jsonl")
    os.environ.update(
        LLMCALL_API_TYPE="local", LLMCALL_CACHE_MODE="replay", LLMCALL_CACHE_PATH=f"{folder}/cache"
    )
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    nbclient.NotebookClient(notebook).execute()
    return str(nbconvert.HTMLExporter().from_notebook_node(notebook)[0])


def take(
    browser: Browser, name: str, html: Path, width: int, height: int, wanted: str = "main"
) -> None:
    """Take the picture of a page that needs no network."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.route("http*://**", lambda route: route.abort())
    page.goto(html.as_uri())
    page.wait_for_selector(wanted)
    page.screenshot(path=FOLDER / f"{name}.png")
    print(f"docs/pictures/{name}.png")


def main() -> None:
    """Take pictures of each recording's report and of a notebook that has run; take the survey's
    charts from its own.
    """
    notebook = json.loads((EXAMPLES / "survey.ipynb").read_text(encoding="utf-8"))
    outputs = [
        output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", ())
    ]
    charts = [data["image/png"] for data in outputs if "image/png" in data]
    for name, chart in zip(("survey", "orders"), charts, strict=True):
        (FOLDER / f"{name}.png").write_bytes(base64.b64decode(chart))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (arguments, width, height) in PICTURES.items():
            report = Path(folder) / f"{name}.html"
            command = [sys.executable, "-m", "llmcall", "report", *map(str, arguments)]
            command += ["-o", str(report)]
            subprocess.run(command, check=True, capture_output=True)
            take(browser, name, report, width, height)
        steps = Path(folder) / "first_steps.html"
        steps.write_text(notebook_page(folder), encoding="utf-8")
        take(browser, "first_steps", steps, 1000, 1420)
        browser.close()


if __name__ == "__main__":
    main()
