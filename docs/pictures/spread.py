"""Draw how a treatment spreads, from the experiment in docs/howto/counterfactuals.rst: `make pictures`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
PAGE = ROOT / "docs" / "howto" / "counterfactuals.rst"
sys.path.insert(0, str(ROOT / "tests"))

from pages import blocks  # noqa: E402 - found on the path above

WIDTH, HEIGHT = 640, 300
LEFT, TOP, RIGHT, BOTTOM = 70, 30, 620, 240  # of the area between the axes
HIGHEST = 25  # percent
TREATED_FROM = 4  # the month


def spread() -> list[float]:
    """Run the page's experiment in the working directory; return the share of changed calls by month."""
    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[0], names)
    calls = names["runs"].compare("without", "with").to_frame()
    calls = calls[calls.status.isin(["same", "changed"])]
    return list((calls.status == "changed").groupby(calls.place).mean())


def picture(shares: Sequence[float]) -> str:
    """Return an SVG with a bar for each month: the share of its calls that changed."""
    step = (RIGHT - LEFT) / len(shares)
    bottom_of_labels = BOTTOM + 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' height="{HEIGHT}" font-family="sans-serif" font-size="14" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="{TOP - 10}">Share of changed calls</text>',
    ]
    for percent in range(0, HIGHEST + 1, 5):
        y = _height_of(percent / 100)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{percent} %</text>')
    for number, share in enumerate(shares):
        x = LEFT + number * step
        y = _height_of(share)
        parts.append(
            f'<rect x="{x + step / 6:.1f}" y="{y:.1f}" width="{step * 2 / 3:.1f}" height="{BOTTOM - y:.1f}"'
            ' fill="#2a6f97"/>'
        )
        parts.append(
            f'<text x="{x + step / 2:.1f}" y="{bottom_of_labels}" text-anchor="middle">{number + 1}</text>'
        )
    x = LEFT + (TREATED_FROM - 1) * step
    parts.append(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BOTTOM}" stroke="#c1121f" stroke-dasharray="4"/>'
    )
    parts.append(
        f'<text x="{x - 8:.1f}" y="{TOP + 14}" text-anchor="end" fill="#c1121f">subsidy begins</text>'
    )
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">Month</text>')
    return "\n".join([*parts, "</svg>", ""])


def _height_of(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share * 100 / HIGHEST


def main() -> None:
    """Run the experiment in a folder of its own, and draw the picture."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        drawn = picture(spread())
        os.chdir(ROOT)
    (FOLDER / "spread.svg").write_text(drawn, encoding="utf-8")
    print("docs/pictures/spread.svg")


if __name__ == "__main__":
    main()
