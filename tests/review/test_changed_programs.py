"""Random programs that were changed in known places, recorded twice, and compared."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from changed_programs import Said, changed, random_program

import llmcall

FOLDERS = itertools.count()


def reasons_of(one: Said, other: Said) -> set[str]:
    """Return the fields in which two versions of a call differ."""
    if one.request == other.request:
        return {"draw"} if one.answer != other.answer else set()
    fields = {"model": "model", "messages": "prompt"}
    return {
        fields.get(name, "parameters")
        for name in one.request.keys() | other.request.keys()
        if one.request.get(name) != other.request.get(name)
    }


def pairs_of(
    one: Sequence[Said], other: Sequence[Said]
) -> tuple[list[tuple[Said, Said]], list[Said], list[Said]]:
    """Return the calls that both versions make, those that only the first makes, and those that only the
    other makes. A call is known by its person and number.
    """
    others = {said.who: said for said in other}
    both = [(said, others[said.who]) for said in one if said.who in others]
    whos = {said.who for said in one}
    return (
        both,
        [said for said in one if said.who not in others],
        [said for said in other if said.who not in whos],
    )


def check(one: Sequence[Said], other: Sequence[Said], folder: Path) -> None:
    """Compare two recordings, and check what is said of them against what the programs noted."""
    both, missing, added = pairs_of(one, other)
    found = llmcall.compare(folder / "a.jsonl", folder / "b.jsonl")
    expected = Counter(
        [
            *(
                ("changed" if reasons_of(*pair) else "same", pair[0].answer, pair[1].answer)
                for pair in both
            ),
            *(("missing", said.answer, None) for said in missing),
            *(("added", None, said.answer) for said in added),
        ]
    )
    rows = Counter((row.status, row.answer, row.other_answer) for row in found.rows)
    assert rows == expected, (rows - expected, expected - rows)
    by_answers = {(pair[0].answer, pair[1].answer): pair for pair in both}
    for divergence in found.divergences:
        row = next(
            row
            for row in found.rows
            if (row.scope, row.index, row.status)
            == (divergence.scope, divergence.index, divergence.status)
        )
        if row.status == "changed":
            pair = by_answers[row.answer, row.other_answer]
            assert set(divergence.reasons) == reasons_of(*pair), divergence
            assert divergence.reasons[0] == divergence.reason
            is_edited = direct_reasons(*pair)
            assert is_edited <= set(divergence.reasons)
            assert bool(divergence.caused_by) == (not is_edited), (divergence, is_edited)
        else:
            assert divergence.reasons == (divergence.status,)
    # Every actor with a difference is named, and no other.
    assert {p.scope for p in found.divergences} == {
        r.scope for r in found.rows if r.status != "same"
    }


def direct_reasons(one: Said, other: Said) -> set[str]:
    """Return the reasons that were made on purpose, and do not follow from answers."""
    reasons = reasons_of(one, other) - {"prompt"}
    if one.own != other.own:
        reasons.add("prompt")
    return reasons


def check_program(seed: int) -> None:
    """Record a random program and a changed version of it, and check their comparison."""
    dice = random.Random(seed)
    program = random_program(dice)
    version = changed(program, dice)
    folder = Path(f"programs-{next(FOLDERS)}")
    folder.mkdir()
    with llmcall.configured(cache_mode="off"):
        one = program.record(folder / "a.jsonl")
        other = version.record(folder / "b.jsonl")
    check(one, other, folder)


@pytest.mark.parametrize("seed", range(16))
def test_a_comparison_says_what_changed_in_a_random_program(seed: int) -> None:
    """No difference is invented, and none is hidden."""
    check_program(seed)


@pytest.mark.ci
@pytest.mark.parametrize("first", range(16, 500, 44))
def test_a_comparison_says_what_changed_in_500_random_programs(first: int) -> None:
    for seed in range(first, first + 44):
        check_program(seed)
