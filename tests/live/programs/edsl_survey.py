"""A survey by EDSL, each question asked twice of each agent."""

from __future__ import annotations

import json
import sys

from edsl import Agent, AgentList, Model, QuestionFreeText

TRADES = ("baker", "painter", "doctor")

if __name__ == "__main__":
    trades = ["surgeon" if "changed" in sys.argv and t == "doctor" else t for t in TRADES]
    question = QuestionFreeText(question_name="mood", question_text="How are you?")
    agents = AgentList([Agent(name=trade, traits={"trade": trade}) for trade in trades])
    model = Model("gpt-4o-mini", service_name="openai", temperature=1)
    results = (
        question.by(agents)
        .by(model)
        .run(
            n=2,
            disable_remote_inference=True,
            disable_remote_cache=True,
            progress_bar=False,
            print_exceptions=True,
            fresh=True,
        )
    )
    rows = results.select("agent.trade", "iteration.iteration", "answer.mood").to_dicts()
    print(json.dumps(sorted(rows, key=lambda row: (row["trade"], row["iteration"]))))
