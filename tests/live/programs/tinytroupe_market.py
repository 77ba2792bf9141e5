"""Buyers in a world of TinyTroupe, which lets them act in threads of its own."""

import contextlib
import json
import sys
from datetime import datetime

from market import BUYERS, shuffled

with contextlib.redirect_stdout(sys.stderr):  # it prints as it goes
    from tinytroupe.agent import TinyPerson
    from tinytroupe.environment import TinyWorld


def person(name: str) -> TinyPerson:
    """Return a buyer."""
    made = TinyPerson(name)
    made.define("occupation", BUYERS[name])
    return made


def main(seed: int) -> dict[str, list[str]]:
    """Return what each buyer does; they come in the order of the seed."""
    names = shuffled(seed)
    with contextlib.redirect_stdout(sys.stderr):
        TinyPerson.clear_agents()
        TinyWorld.clear_environments()
        world = TinyWorld("Market", [person(name) for name in names], initial_datetime=datetime(2026, 1, 1))
        world.broadcast("Bread costs 3 coins today. Say in one sentence whether you buy it.")
        (acted,) = world.run(1, return_actions=True)
    return {name: [json.dumps(each["action"]) for each in acted[name]] for name in sorted(names)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
