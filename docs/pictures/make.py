"""Take the pictures of the documentation anew: `make pictures` (needs a chromium in PATH; the small
model answers what the terminal shows).
"""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbclient
import nbconvert
import nbformat
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI
from rich.text import Text

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
# What the picture of a terminal shows: a run is recorded and replayed, one person changes.
COMMANDS = [
    "llmcall run --cassette monday.jsonl solar.py",
    "llmcall run --cassette monday.jsonl solar.py",
    'llmcall run --cassette tuesday.jsonl solar.py Ben="a solar engineer"',
    "llmcall diff monday.jsonl tuesday.jsonl",
]
COLUMNS = 88
# Rich's own format loads a font from another host; every reader has a monospaced one. LIGHT is where
# the colours for readers of a light page go.
TERMINAL = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; }}
.{unique_id}-matrix {{
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
{styles}
@media (prefers-color-scheme: light) {{
svg > rect {{ fill: #f6f8fa; stroke: #d1d9e0; }}
.{unique_id}-title {{ fill: #1f2328; }}
LIGHT
}}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def at_a_terminal(command: str, folder: Path) -> str:
    """Run a command of llmcall at a terminal; return what it prints, with its colours."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        arguments = [sys.executable, "-m", *shlex.split(command)]
        environment = {
            **os.environ,
            "COLUMNS": str(COLUMNS),
            "LLMCALL_API_TYPE": "local",
            "TERM": "xterm-256color",
        }
        os.execve(sys.executable, arguments, environment)
    printed = b""
    # reading a terminal that nobody writes to any more is an error on Linux
    while chunk := _read(terminal):
        printed += chunk
    _, status = os.waitpid(process, 0)
    if status:
        sys.exit(f"{command}\n{printed.decode()}")
    return printed.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def draw_terminal(folder: Path) -> None:
    """Draw what the commands print."""
    shutil.copytree(SOLAR, folder)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    for command in COMMANDS:
        console.print(Text.assemble(("$ ", "green"), (command, "bold")))
        console.print(Text.from_ansi(at_a_terminal(command, folder)))
    light = console.export_svg(
        theme=DEFAULT_TERMINAL_THEME, code_format="{styles}", unique_id="t", clear=False
    )
    dark = console.export_svg(
        title="examples/solar", theme=MONOKAI, code_format=TERMINAL, unique_id="t"
    )
    (FOLDER / "terminal.svg").write_text(dark.replace("LIGHT", light), encoding="utf-8")
    print("docs/pictures/terminal.svg")


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
        draw_terminal(Path(folder) / "solar")
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
