"""A crew of CrewAI at OpenAI's own address, by both of its APIs: it counts its prompt's tokens there."""

import json
import os

os.environ |= {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "OTEL_SDK_DISABLED": "true",
    "CREWAI_TESTING": "true",
}
from crewai import LLM, Agent, Crew, Task

said = []
for api in ("completions", "responses"):
    model = LLM(model="openai/gpt-4o-mini", api=api)
    buyer = Agent(role="buyer", goal="buy bread", backstory="You are Ann.", llm=model)
    task = Task(description="Ask for bread.", expected_output="a sentence", agent=buyer)
    said.append(str(Crew(agents=[buyer], tasks=[task]).kickoff()))
print(json.dumps({"said": said}))
