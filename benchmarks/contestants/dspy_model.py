"""dspy's ``LM`` with both its caches, in memory and on the disk, as they are by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy

from ..workload import API_KEY, MODEL, SYSTEM
from .base import SyncContestant

TYPED_ANSWER = "[[ ## buys ## ]]\nTrue\n\n[[ ## completed ## ]]"  # in the form that dspy asks for


class Buys(dspy.Signature):
    __doc__ = SYSTEM
    name: str = dspy.InputField()
    question: str = dspy.InputField()
    buys: bool = dspy.OutputField()


class Decides(dspy.Signature):
    __doc__ = SYSTEM
    name: str = dspy.InputField()
    price: int = dspy.InputField()
    before: list[bool] = dspy.InputField()
    buys: bool = dspy.OutputField()


class Contestant(SyncContestant):
    """Call the model object."""

    tasks = True

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        dspy.configure_cache(disk_cache_dir=folder)
        self.model = dspy.LM(f"openai/{MODEL}", api_key=API_KEY, api_base=base_url)

    def ask(self, prepared: Any) -> Any:
        """Return dspy's list of texts."""
        return self.model(messages=prepared)

    async def ask_async(self, prepared: Any) -> Any:
        """Return dspy's list of texts."""
        return await self.model.acall(messages=prepared)

    def text(self, reply: Any) -> str:
        """Return the first text."""
        return str(reply[0])


def typed_routes(folder: str, rows: list[dict[str, Any]]) -> list[Callable[[], list[Any]]]:
    """Return what asks for a typed answer to each row, one after the other and by
    ``dspy.Parallel``.
    """
    dspy.configure_cache(disk_cache_dir=folder)
    model = dspy.LM(f"openai/{MODEL}", api_key=API_KEY, mock_response=TYPED_ANSWER)
    buys, parallel = dspy.Predict(Buys), dspy.Parallel(disable_progress_bar=True)

    def in_turn() -> list[Any]:
        with dspy.context(lm=model):
            return [buys(**row).buys for row in rows]

    def at_once() -> list[Any]:
        with dspy.context(lm=model):
            return [prediction.buys for prediction in parallel([(buys, row) for row in rows])]

    return [in_turn, at_once]


def simulate(folder: str, personas: int, rounds: int) -> tuple[list[list[bool]], int]:
    """Run the simulation in the threads of ``dspy.Parallel``; return decisions and calls made."""
    dspy.configure_cache(disk_cache_dir=folder)
    model = dspy.LM(f"openai/{MODEL}", api_key=API_KEY, mock_response=TYPED_ANSWER)
    decide, parallel = dspy.Predict(Decides), dspy.Parallel(disable_progress_bar=True)

    def live(name: str) -> list[bool]:
        decisions: list[bool] = []
        for price in range(rounds):
            decisions.append(decide(name=name, price=price, before=list(decisions)).buys)
        return decisions

    with dspy.context(lm=model, max_history_size=personas * rounds):
        lives = parallel([(live, {"name": f"Persona {number}"}) for number in range(personas)])
    return lives, sum(not getattr(entry["response"], "cache_hit", False) for entry in model.history)
