"""inspect_ai's model with its cache. It has coroutines only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from inspect_ai.model import (
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    ResponseSchema,
    get_model,
)
from inspect_ai.util import json_schema
from pydantic import BaseModel

from ..workload import API_KEY, MODEL, SYSTEM
from .base import AsyncContestant


class Buys(BaseModel):
    """The generation that is asked for."""

    buys: bool


class Contestant(AsyncContestant):
    """Await ``generate`` of the model."""

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        os.environ["INSPECT_CACHE_DIR"] = folder
        # its default would hold back the calls at once
        config = GenerateConfig(max_connections=1000)
        self.model = get_model(
            f"openai/{MODEL}",
            api_key=API_KEY,
            base_url=base_url,
            config=config,
            responses_api=False,
        )

    def prepared(self, messages: list[dict[str, str]]) -> Any:
        """Return inspect's messages."""
        system, user = messages
        return [
            ChatMessageSystem(content=system["content"]),
            ChatMessageUser(content=user["content"]),
        ]

    async def ask_async(self, prepared: Any) -> Any:
        """Return inspect's output."""
        return await self.model.generate(prepared, cache=True)

    def text(self, reply: Any) -> str:
        """Return the output's text."""
        return str(reply.completion)


def typed_routes(folder: str, rows: list[dict[str, Any]]) -> list[Callable[[], list[Any]]]:
    """Return what asks for a typed answer to each row, one after the other and gathered."""
    ask = _typed(folder, [])

    async def ask_row(row: dict[str, Any]) -> bool:
        return await ask(f"{row['name']}, {row['question']}")

    async def in_turn() -> list[Any]:
        return [await ask_row(row) for row in rows]

    async def at_once() -> list[Any]:
        return list(await asyncio.gather(*map(ask_row, rows)))

    return [lambda: asyncio.run(in_turn()), lambda: asyncio.run(at_once())]


def simulate(folder: str, personas: int, rounds: int) -> tuple[list[list[bool]], int]:
    """Run the simulation in tasks, one for each persona; return decisions and calls made."""
    live_requests: list[Any] = []
    ask = _typed(folder, live_requests)

    async def live(number: int) -> list[bool]:
        decisions: list[bool] = []
        for price in range(rounds):
            question = (
                f"Persona {number}: Should I buy bread for {price} coins? So far: {decisions}"
            )
            decisions.append(await ask(question))
        return decisions

    async def all_lives() -> list[list[bool]]:
        return list(await asyncio.gather(*map(live, range(personas))))

    return asyncio.run(all_lives()), len(live_requests)


def _typed(folder: str, live_requests: list[Any]) -> Callable[[str], Awaitable[bool]]:
    """Return what asks for a typed answer to a question; ``live_requests`` gains what is not
    replayed.
    """
    os.environ["INSPECT_CACHE_DIR"] = folder

    def answer(messages: Any, *_: Any) -> ModelOutput:
        """Answer in the process; with its usage, so that no tokens are counted."""
        live_requests.append(messages)
        output = ModelOutput.from_content("mockllm/model", '{"buys": true}')
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    model = get_model("mockllm/model", custom_outputs=answer)
    config = GenerateConfig(
        response_schema=ResponseSchema(name="buys", json_schema=json_schema(Buys))
    )

    async def ask(question: str) -> bool:
        messages = [ChatMessageSystem(content=SYSTEM), ChatMessageUser(content=question)]
        output = await model.generate(messages, config=config, cache=True)
        return Buys.model_validate_json(output.completion).buys

    return ask
