"""The benchmarks' parts, with sizes that measure nothing: no network, no environments, no peers."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last, so that an installed llmcall is the one that is tested

from benchmarks.cases import CASES  # noqa: E402
from benchmarks.contestants import CONTESTANTS  # noqa: E402
from benchmarks.environments import REQUIREMENTS  # noqa: E402
from benchmarks.figures import Figures, Group  # noqa: E402
from benchmarks.processes import ContestantFailedError, Process  # noqa: E402
from benchmarks.stub import calls_received, stub_server  # noqa: E402
from benchmarks.tables import amount, table  # noqa: E402

ASKING = [
    ("hits", "same_process", {"count": 4}),
    ("recorded_call", "calls", {"count": 4}),
    ("many_calls", "by_workers", {"count": 2}),
    ("many_calls", "at_once", {"count": 2}),
    ("identical", "calls_sent", {"count": 2}),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Run the stub server."""
    with stub_server() as address:
        yield address


@pytest.mark.parametrize(("case", "measure", "sizes"), ASKING, ids=[measure for _, measure, _ in ASKING])
def test_a_contestant_takes_its_turns(
    case: str, measure: str, sizes: dict[str, int], address: str, tmp_path: Path
) -> None:
    """A worker's function measures a value in each round, and the answers that it gets are the server's."""
    where = {"folder": str(tmp_path), "address": address}
    with measured(case, measure, "contestants.llmcall_client", **where, **sizes) as rounds:
        assert next(rounds) > 0 and next(rounds) > 0


def test_llmcall_sends_one_of_identical_requests(address: str, tmp_path: Path) -> None:
    """Of identical requests at once, llmcall sends one."""
    where = {"folder": str(tmp_path), "address": address}
    with measured("identical", "calls_sent", "contestants.llmcall_client", count=4, **where) as rounds:
        assert next(rounds) == 1


@pytest.mark.parametrize("module", ["llmcall_client", "plain_diskcache"])
def test_another_process_asks_nothing_again(module: str, address: str, tmp_path: Path) -> None:
    """What one contestant recorded, another one on its folder replays; a question that is not there is an error."""
    where = {"folder": str(tmp_path), "address": address}
    with measured("hits", "record", f"contestants.{module}", count=4, **where):
        before = calls_received(address)
    with measured("hits", "other_process", f"contestants.{module}", count=4, **where) as rounds:
        assert next(rounds) > 0
    assert calls_received(address) == before
    with (
        measured("hits", "other_process", f"contestants.{module}", count=6, **where) as rounds,
        pytest.raises(RuntimeError, match="recorded questions were asked again"),
    ):
        next(rounds)


@pytest.mark.parametrize("module", ["llmcall_cache", "plain_diskcache"])
@pytest.mark.parametrize("name", ["open_and_hit", "hit", "record", "delete", "stats"])
def test_a_store_is_measured_at_two_sizes(name: str, module: str, tmp_path: Path) -> None:
    """Every operation of a store is measured in the large store and in the small one."""
    sizes = {"folder": str(tmp_path), "records": 3}
    for size in ("1000", "3"):
        with closing(import_module(f"benchmarks.stores.{module}").Store(str(tmp_path / size))) as store:
            store.record(0)
    with measured("large_store", "operation", f"stores.{module}", name=name, times=1, **sizes) as rounds:
        assert [value > 0 for value in next(rounds)] == [True, True]


def test_the_nearest_record_is_found(tmp_path: Path) -> None:
    """A question that is not recorded is explained by one that is."""
    with closing(import_module("benchmarks.stores.llmcall_cache").Store(str(tmp_path / "3"))) as store:
        store.record(0)
    sizes = {"folder": str(tmp_path), "records": 3}
    with measured("large_store", "explain", "stores.llmcall_cache", **sizes) as rounds:
        assert next(rounds) > 0


def test_the_cassette_is_loaded(tmp_path: Path) -> None:
    """The cassette is written, read as JSON, and replayed."""
    parameters = {"file": str(tmp_path / "cassette.jsonl"), "lines": 3}
    for measure in ("record", "json_lines", "load"):
        with measured("cassette", measure, "stores.llmcall_cache", **parameters) as rounds:
            assert next(rounds) >= 0


@contextmanager
def measured(case: str, measure: str, module: str, **parameters: Any) -> Iterator[Generator[Any, None, None]]:
    """Give the rounds of a worker's function, set up."""
    subject = import_module(f"benchmarks.{module}")
    with closing(getattr(import_module(f"benchmarks.cases.{case}"), measure)(subject, **parameters)) as rounds:
        next(rounds)
        yield rounds


def test_a_process_tells_why_it_failed() -> None:
    """A worker that fails is told with its last words."""
    order = {"module": "contestants.nobody", "case": "hits", "measure": "record", "parameters": {}}
    with Process(sys.executable, order) as process, pytest.raises(ContestantFailedError, match="nobody"):
        process.start()


def test_every_contestant_and_case_is_there() -> None:
    """Each contestant has a module, an environment and, where it records, a script; each case a module."""
    folder = ROOT / "benchmarks"
    for entry in CONTESTANTS:
        assert (folder / "contestants" / f"{entry.module}.py").exists()
        assert (folder / "first_answers" / f"{entry.module}.py").exists() == entry.caches
        assert all("==" in requirement for requirement in REQUIREMENTS[entry.environment])
    assert all(hasattr(import_module(f"benchmarks.cases.{case}"), "run") for case in CASES)


def test_ratios_are_taken_round_by_round() -> None:
    """A ratio is the median of the rounds' ratios; the ratio of the best ones stands beside it."""
    group = Group("hits", "s", (Figures("floor", (1.0, 2.0, 4.0)), Figures("llmcall", (3.0, 4.0, 4.0))), "floor")
    row = group.rows()[1]
    assert (row["ratio"], row["ratio_of_best"], row["best"], row["median"]) == (2.0, 3.0, 3.0, 4.0)
    assert (row["low"], row["high"]) == (1.5, 2.5)


def test_more_calls_a_second_are_better() -> None:
    """The best of rates is the greatest."""
    assert Group("calls", "/s", (Figures("llmcall", (300.0, 500.0)),)).rows()[0]["best"] == 500.0


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(0.0000128, "s", "12.8 µs"), (0.033, "s", "33 ms"), (2.5, "s", "2.5 s"), (0.0005, "s", "500 µs"),
     (20_000_000, "B", "20 MB"), (542.3, "/s", "542 /s"), (1234.5, "/s", "1,234 /s"), (1.0, "calls", "1 calls")],
)  # fmt: skip
def test_amounts_have_units_of_their_size(value: float, unit: str, shown: str) -> None:
    """A value is shown with a unit that suits it."""
    assert amount(value, unit) == shown


def test_a_table_says_who_is_left_out() -> None:
    """A table has a line for each contestant and, for each that took no part, why."""
    shown = table(Group("hits", "s", (Figures("llmcall", (0.5,)),), "", (("dspy", "not installed"),)))
    assert "llmcall" in shown and "500 ms" in shown and "dspy: skipped, not installed" in shown
