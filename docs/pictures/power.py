"""Draw the power of a check for drift by its calls, from the study in docs/howto/drift.rst: `make pictures`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import llmcall

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
PAGE = ROOT / "docs" / "howto" / "drift.rst"
sys.path.insert(0, str(ROOT / "tests"))

from pages import blocks  # noqa: E402 - found on the path above

WIDTH, HEIGHT = 640, 340
LEFT, TOP, RIGHT, BOTTOM = 70, 60, 530, 280  # of the area between the axes
CALLS = (40, 80, 120, 160, 200, 240, 280, 320, 360, 400)
SHIFTS = {0.15: "#e09f3e", 0.3: "#2a6f97", 0.6: "#9e2a2b"}
# The recordings, and how their lines are drawn.
STUDIES = {"ten": "", "one": ' stroke-dasharray="5 4"'}
WANTED = 0.8

Curves = dict[tuple[str, float], list[float]]


def powers() -> Curves:
    """Record the page's study, and one with a single draw of each request, in the working directory;
    return the power of a check by its calls, for each recording and shift.
    """
    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[0], names)
    with llmcall.cassette("once.jsonl"):
        llmcall.map(names["rate"], range(400), key=str, scope="survey")
    files = {"ten": "bus.jsonl", "one": "once.jsonl"}
    plans = {
        study: [llmcall.drift(file, calls=calls, dry_run=True) for calls in CALLS]
        for study, file in files.items()
    }
    return {
        (study, shift): [plan.power(shift) or 0.0 for plan in of_study]
        for study, of_study in plans.items()
        for shift in SHIFTS
    }


def picture(curves: Curves) -> str:
    """Return an SVG with a line for each recording and shift: the power by the number of calls."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' height="{HEIGHT}" font-family="sans-serif" font-size="14" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="22">Power: how often a shift is found</text>',
        f'<text x="{LEFT}" y="42" font-size="12">line: ten recorded draws of each request; dashes: one</text>',
    ]
    for percent in range(0, 101, 20):
        y = _height_of(percent / 100)
        colour = "#888" if percent == 100 * WANTED else "#ddd"
        parts.append(
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{percent} %</text>')
    for calls in CALLS[1::2]:
        parts.append(
            f'<text x="{_place_of(calls):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{calls}</text>'
        )
    for (study, shift), curve in curves.items():
        points = " ".join(
            f"{_place_of(calls):.1f},{_height_of(power):.1f}"
            for calls, power in zip(CALLS, curve, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{SHIFTS[shift]}" stroke-width="2"{STUDIES[study]}/>'
        )
        if study == "ten":
            parts.append(
                f'<text x="{RIGHT + 8}" y="{_height_of(curve[-1]) + _label_below(shift):.1f}"'
                f' fill="{SHIFTS[shift]}">shift {shift}</text>'
            )
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">Calls</text>')
    return "\n".join([*parts, "</svg>", ""])


def _label_below(shift: float) -> float:
    """Return how far below its line's end a label stands: two lines may end at the top."""
    if shift == max(SHIFTS):
        return -4
    return 14 if shift == sorted(SHIFTS)[1] else 5


def _place_of(calls: int) -> float:
    return LEFT + (RIGHT - LEFT) * calls / CALLS[-1]


def _height_of(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def main() -> None:
    """Record the studies in a folder of their own, and draw the picture."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        drawn = picture(powers())
        os.chdir(ROOT)
    (FOLDER / "power.svg").write_text(drawn, encoding="utf-8")
    print("docs/pictures/power.svg")


if __name__ == "__main__":
    main()
