"""Buyers in a world of TinyTroupe, which lets them act in threads of its own."""

import contextlib
import json
import sys
import time
from datetime import datetime
from typing import Any

from market import BUYERS

with contextlib.redirect_stdout(sys.stderr):  # it prints as it goes
    from tinytroupe.agent import TinyPerson
    from tinytroupe.environment import TinyWorld


DELAY = 0.02  # seconds between one thread and the next


class Buyer(TinyPerson):
    """A person who takes a while before acting."""

    late = 0.0

    def act(self, *args: Any, **kwargs: Any) -> Any:
        """Act, late."""
        time.sleep(self.late)
        return super().act(*args, **kwargs)


def play(names: list[str]) -> list[list[str]]:
    """Return what each buyer does in two rounds; their threads ask in the order of the names."""
    with contextlib.redirect_stdout(sys.stderr):
        TinyPerson.clear_agents()
        TinyWorld.clear_environments()
        people = [Buyer(name) for name in BUYERS]
        for person in people:
            person.define("occupation", BUYERS[person.name])
            person.late = DELAY * names.index(person.name)
        world = TinyWorld("Market", people, initial_datetime=datetime(2026, 1, 1))
        world.broadcast("Bread costs 3 coins today. Say in one sentence whether you buy it.")
        rounds = world.run(2, return_actions=True)
    return [
        [json.dumps(act["action"]) for acted in rounds for act in acted[name]] for name in names
    ]
