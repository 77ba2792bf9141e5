"""What the model server does, asked with the plain openai SDK: the ground that the other live tests stand on."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESSAGES: Any = [{"role": "user", "content": "Name three fruits."}]
CHOICE: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "decision",
        "schema": {
            "type": "object",
            "properties": {"decision": {"enum": ["buy", "sell", "wait"]}},
            "required": ["decision"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def sdk(model_server: Any) -> Iterator[openai.OpenAI]:
    """Give the plain SDK's client of the shared server."""
    with openai.OpenAI(base_url=model_server.base_url, api_key=model_server.api_key, max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, **parameters: Any) -> Any:
    """Ask with few tokens and a seed."""
    return client.chat.completions.create(
        **{"model": "any", "messages": MESSAGES, "max_tokens": 12, "seed": 7, **parameters}
    )


def test_chat_answers_with_the_alias_and_usage(sdk: openai.OpenAI, model_server: Any) -> None:
    """The asked model's name is ignored, the alias is answered, and the tokens add up."""
    answer = chat(sdk)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == model_server.model
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_the_same_seed_gives_the_same_answer(sdk: openai.OpenAI) -> None:
    """A seed decides the answer, also where the answer is sampled."""
    first, second = (chat(sdk, temperature=0.8, max_tokens=40).choices[0].message.content for _ in range(2))
    assert first == second


def test_different_seeds_give_different_answers(sdk: openai.OpenAI) -> None:
    """Sampling is on: seeds are not ignored."""
    assert (
        len({chat(sdk, seed=seed, temperature=1.0, max_tokens=40).choices[0].message.content for seed in range(4)}) > 1
    )


def test_a_schema_binds_the_answer(sdk: openai.OpenAI) -> None:
    """Structured output is valid by construction."""
    answer = chat(sdk, response_format=CHOICE, max_tokens=60)
    assert json.loads(answer.choices[0].message.content)["decision"] in ("buy", "sell", "wait")


def test_logprobs_and_stop(sdk: openai.OpenAI) -> None:
    """Log-probabilities come one a token, and a stop word is not part of the answer."""
    answer = chat(sdk, logprobs=True, top_logprobs=2)
    assert len(answer.choices[0].logprobs.content) == 12
    assert "," not in chat(sdk, stop=[","], max_tokens=60).choices[0].message.content


def test_n_up_to_the_slots(sdk: openai.OpenAI) -> None:
    """Two slots give two choices; more is refused."""
    assert [choice.index for choice in chat(sdk, n=2).choices] == [0, 1]
    with pytest.raises(openai.BadRequestError, match="'n'"):
        chat(sdk, n=3)


def test_a_stream_is_the_same_answer_with_usage(sdk: openai.OpenAI) -> None:
    """The pieces put together are the unstreamed answer, and the last chunk counts the tokens."""
    chunks = list(chat(sdk, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    whole = chat(sdk)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_embeddings(sdk: openai.OpenAI) -> None:
    """A text has 576 dimensions, of length 1, the same every time."""
    vectors = [sdk.embeddings.create(model="any", input="a loaf of bread").data[0].embedding for _ in range(2)]
    assert len(vectors[0]) == 576
    assert sum(value * value for value in vectors[0]) == pytest.approx(1, abs=1e-4)
    assert vectors[0] == vectors[1]


def test_too_long_a_prompt(start_model_server: Callable[..., Any]) -> None:
    """The body names type, prompt and window; its code is the number 400. The window is shared by the slots."""
    server = start_model_server(n_ctx=512, n_parallel=2)
    with (
        openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        chat(client, messages=[{"role": "user", "content": "word " * 600}])
    server.stop()
    body: Any = caught.value.body
    assert (body["type"], body["code"], body["n_ctx"]) == ("exceed_context_size_error", 400, 256)
    assert body["n_prompt_tokens"] > 600


def test_a_wrong_key_is_refused(model_server: Any) -> None:
    """A key that is not the server's is a 401."""
    with (
        openai.OpenAI(base_url=model_server.base_url, api_key="sk-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        chat(client)


def test_azure_paths(start_model_server: Callable[..., Any]) -> None:
    """With a prefix, the SDK's Azure client reaches the deployment."""
    server = start_model_server(api_prefix="/openai/deployments/market", api_key=None)
    with openai.AzureOpenAI(
        azure_endpoint=server.address, api_key="any", api_version="2024-10-21", azure_deployment="market", max_retries=0
    ) as client:
        assert chat(client).choices[0].message.content
    server.stop()


def test_a_stopped_server_is_gone_and_can_come_back(start_model_server: Callable[..., Any]) -> None:
    """After a stop the address refuses; a new server on it answers the same."""
    server = start_model_server()
    with openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        before = chat(client).choices[0].message.content
        server.stop()
        with pytest.raises(openai.APIConnectionError):
            chat(client)
        again = start_model_server(port=server.port)
        assert chat(client).choices[0].message.content == before
        again.stop()


def test_the_server_ends_with_its_owner() -> None:
    """A server whose owner died without a word ends by itself."""
    owner = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import conftest\n"
        "print(conftest.ModelServer().port, flush=True); os._exit(0)"
    )
    folder = str(pathlib.Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", owner, folder], capture_output=True, text=True, timeout=60, check=True)
    assert refuses(int(done.stdout), within=20.0)


def refuses(port: int, within: float) -> bool:
    """Tell whether a port of this machine comes to refuse connections within some seconds."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.1)
    return False
