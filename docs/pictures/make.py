"""Take the pictures of the documentation anew: `make pictures` (needs playwright, and a chromium in PATH)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parent
EXAMPLES = FOLDER.parent.parent / "examples"
# The name of each picture, the recording that it shows, and how many pixels wide and high the window is.
PICTURES = {
    "report": (EXAMPLES / "market_day.jsonl", 1200, 700),
    "votes": (EXAMPLES / "unchanged_program" / "votes.jsonl", 1200, 540),
}


def main() -> None:
    """Write the report of each recording and take its picture; take the survey's chart from its notebook."""
    notebook = json.loads((EXAMPLES / "survey.ipynb").read_text(encoding="utf-8"))
    outputs = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", ())]
    [chart] = [data["image/png"] for data in outputs if "image/png" in data]
    (FOLDER / "survey.png").write_bytes(base64.b64decode(chart))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (recording, width, height) in PICTURES.items():
            report = Path(folder) / f"{name}.html"
            command = [sys.executable, "-m", "llmcall", "report", str(recording), "-o", str(report)]
            subprocess.run(command, check=True, capture_output=True)
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.goto(report.as_uri())
            page.wait_for_selector("main")
            page.screenshot(path=FOLDER / f"{name}.png")
            print(f"docs/pictures/{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
