"""Measured figures, and their ratios."""

from __future__ import annotations

from statistics import median, quantiles
from typing import Any, NamedTuple


class Figures(NamedTuple):
    """The measurements of one contestant's rounds; rounds of the same number ran one after the
    other.

    :param title: whose they are.
    :param values: one a round.
    :param against: what each round measured beside it, where these figures have a reference of
        their own.
    """

    title: str
    values: tuple[float, ...]
    against: tuple[float, ...] = ()


class Group(NamedTuple):
    """Figures that are compared with each other.

    :param title: what was measured.
    :param unit: of the values: ``s``, ``/s``, ``B``, ``calls``, ``x``, or empty for a count.
    :param figures: of each contestant.
    :param reference: the title of the one that others are compared with; empty where there is none.
    :param skipped: who took no part, and why.
    """

    title: str
    unit: str
    figures: tuple[Figures, ...]
    reference: str = ""
    skipped: tuple[tuple[str, str], ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return for each contestant its best and median value, and its ratios to the reference's."""
        reference = next(
            (figure.values for figure in self.figures if figure.title == self.reference), ()
        )
        return [self._row(figure, figure.against or reference) for figure in self.figures]

    def _row(self, figures: Figures, reference: tuple[float, ...]) -> dict[str, Any]:
        best = max if self.unit == "/s" else min
        row: dict[str, Any] = {
            "contestant": figures.title,
            "best": best(figures.values),
            "median": median(figures.values),
            "rounds": len(figures.values),
        }
        if reference:
            ratios = [mine / other for mine, other in zip(figures.values, reference, strict=False)]
            low, _, high = (
                quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
            )
            row |= {"ratio": median(ratios), "low": low, "high": high}
            row["ratio_of_best"] = best(figures.values) / best(reference)
        return row
