"""Wrong arguments of public functions, and clients that cannot be: the error names the argument, its
value and what it must be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from clients import Responding
from errors import check_error, error_table

import llmcall
from llmcall.testing import ScriptedClient

RUN = "run.jsonl"
API: Any = llmcall  # called here as no type checker allows


def cache() -> Any:
    """Return an empty cache."""
    return llmcall.ResponseCache("cache")


def built(messages: Any = "Hello", **arguments: Any) -> Any:
    """Build a request of a model that takes every parameter."""
    return ScriptedClient().build_request(messages, **{"model": "gpt-4o", **arguments})


def told(*parts: Any, **fields: Any) -> Any:
    """Build a request whose second message has this content."""
    [content] = parts
    system = {"role": "system", "content": "Be short."}
    return built([system, {"role": "user", "content": content, **fields}])


def embedded(**arguments: Any) -> Any:
    """Ask for an embedding."""
    return ScriptedClient([[1.0]]).get_embedding("Hello", **arguments)


def registered(client: Any) -> Any:
    """Register a client, and return it."""
    llmcall.register_client("mine", client)
    return llmcall.client("mine")


def unknown(ask: Callable[[], object]) -> object:
    """Ask where a client of one's own is registered."""
    registered(ScriptedClient())
    return ask()


A_FUNCTION = "it must be a function"
NO_CLIENT = "TypeError: the client for the api_type 'mine' is ... an LLMClient"
LOST = "ConfigError: ...'opnai'. Did you mean 'openai'? Known: azure, ...mine, ollama"
FORMATS = "takes a dict, a pydantic model, a dataclass or a TypedDict, not"

ERRORS = error_table(
    # functions, by their annotations
    (
        "TypeError: align is 3; it must be a function or a dict or None",
        lambda: API.compare(RUN, RUN, align=3),
    ),
    (f"TypeError: where is 'Ann'; {A_FUNCTION}", lambda: list(cache().records(where="Ann"))),
    (f"TypeError: where is 'Ann'; {A_FUNCTION}", lambda: cache().export("e.jsonl", where="Ann")),
    (f"TypeError: where is 'Ann'; {A_FUNCTION}", lambda: cache().delete(where="Ann")),
    ("TypeError: request is 'Hello'; ...build_request", lambda: cache().put("Hello", {})),
    ("TypeError: request is 3; it must be a request...build_request()", lambda: cache().get(3)),
    ("TypeError: request is 'Hello'; ...build_request", lambda: cache().explain("Hello")),
    (
        "ValueError: mode is 'replays'; it must be one of auto, replay, ",
        lambda: cache().get("0" * 64, mode="replays"),
    ),
    ("TypeError: response is 'Yes.'; it must be a dict", lambda: cache().put(built(), "Yes.")),
    (
        "ValueError: mode is 'all'; it must be one of none, once, new, update, rewrite",
        lambda: API.cassette(RUN, mode="all"),
    ),
    (
        "TypeError: api_type is ['openai']; it must be a string or None",
        lambda: API.client(["openai"]),
    ),
    (
        "TypeError: model is 3; it must be a string or None",
        lambda: API.count_tokens("Hello", 3),
    ),
    ("TypeError: user is 3; it must be a string or None", lambda: API.LLMCall(user=3).call()),
    (
        "TypeError: repeats is True; it must be a whole number",
        lambda: API.map(str, [1], repeats=True),
    ),
    # messages
    ("TypeError: messages", lambda: built(b"Hello")),
    ("TypeError: messages", lambda: built({"role": "user", "content": "Hello"})),
    ("ValueError: messages", lambda: built([])),
    ("TypeError: messages[0]", lambda: built(["Hello"])),
    ("ValueError: messages[0].role", lambda: built([{"content": "Hello"}])),
    ("ValueError: messages[0].role", lambda: built([{"role": "User", "content": "Hello"}])),
    ("ValueError: messages[1] has no content", lambda: told(None)),
    ("TypeError: messages[1].content ", lambda: told(5)),
    ("TypeError: messages[1].content[1]", lambda: told([{"type": "text", "text": "a"}, 5])),
    (
        "TypeError: messages[1].content[0].image_url.url ",
        lambda: told([{"type": "image_url", "image_url": {"url": b"x"}}]),
    ),
    (
        "TypeError: messages[1].extra.a[0].b ",
        lambda: told("Hello", extra={"a": [{"b": {1, 2}}]}),
    ),
    # parameters
    (
        "TypeError: ...'temprature'...Did you mean 'temperature'?",
        lambda: built(temperature=1, temprature=5),
    ),
    ("TypeError: ...Did you mean 'temperature'", lambda: built(temprature=None)),
    ("TypeError: ...'logit_biases'...Did you mean 'logit_bias'?", lambda: built(logit_biases=5)),
    ("TypeError: ...'top_k'...extra_body={'top_k': …}", lambda: built(top_k=5)),
    ("TypeError: ...'stream'...stream_message()", lambda: built(stream=5)),
    (
        "ValueError: max_tokens and max_completion_tokens are the same parameter",
        lambda: built(max_tokens=5, max_completion_tokens=6),
    ),
    *(
        (f"TypeError: {name} is a str; it must be a number", lambda name=name: built(**{name: "1"}))
        for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty")
    ),
    *(
        (
            f"TypeError: {name} is 1.5; it must be a whole number",
            lambda name=name: built(**{name: 1.5}),
        )
        for name in ("max_tokens", "max_completion_tokens", "seed", "n")
    ),
    ("ValueError: temperature is nan", lambda: built(temperature=math.nan)),
    ("ValueError: logit_bias.50256 is nan", lambda: built(logit_bias={"50256": math.nan})),
    (
        "TypeError: tools is a dict; it must be a list of dicts and functions",
        lambda: built(tools={"type": "function"}),
    ),
    (
        "TypeError: tool_choice is a list; it must be a string or a dict",
        lambda: built(tool_choice=["auto"]),
    ),
    ("TypeError: extra_body.x[1].y", lambda: built(extra_body={"x": [0, {"y": b"x"}]})),
    ("TypeError: extra_body.x[1].y", lambda: built(extra_body={"x": [0, {"y": Decimal(1)}]})),
    (f"TypeError: response_format {FORMATS}", lambda: built(response_format="json")),
    (f"TypeError: response_format {FORMATS}", lambda: built(response_format=int)),
    ("TypeError: timeout is ", lambda: built(timeout="5")),
    ("TypeError: max_attempts is ", lambda: built(max_attempts="5")),
    ("ValueError: timeout is ", lambda: built(timeout=-1)),
    ("ValueError: max_attempts is ", lambda: built(max_attempts=-1)),
    ("ValueError: deadline is ", lambda: built(deadline=0)),
    ("ValueError: exponential_backoff_factor is ", lambda: built(exponential_backoff_factor=0)),
    ("ValueError: sample is ", lambda: built(sample="")),
    (
        "ValueError: on_error is 'ignore'; it must be one of 'raise', 'none', 'return'",
        lambda: built(on_error="ignore"),
    ),
    # of embeddings, to which parameters that only chats have are unknown
    ("TypeError: ...unknown parameter 'dimension'", lambda: embedded(dimension=None)),
    ("TypeError: ...extra_body", lambda: embedded(extra_body=5)),
    ("TypeError: ...dimensions", lambda: embedded(dimensions="5")),
    ("TypeError: ...temperature", lambda: embedded(temperature=1)),
    ("TypeError: ...tools", lambda: embedded(tools=[])),
    # clients
    (LOST, lambda: unknown(lambda: API.client("opnai"))),
    (
        "ConfigError: ...A model is named by MODEL in [OpenAI], or by model= of a call",
        lambda: unknown(lambda: API.client("gpt-6-luna")),
    ),
    ("TypeError: client() ...OpenAIClient(model=…)", lambda: API.client(model="gpt-6-luna")),
    (LOST, lambda: unknown(lambda: (API.force_api_type("opnai"), API.client()))),
    (NO_CLIENT, lambda: registered(None)),
    (NO_CLIENT, lambda: registered(3)),
    (NO_CLIENT, lambda: registered({"model": "m"})),
    (
        "ConfigError: ...registered for the api_type 'mine' raised KeyError: 'key'",
        lambda: registered(lambda settings: {}["key"]),
    ),
    ("TypeError: ...'gpt-6-luna'...OpenAIClient(model=…)", lambda: API.OpenAIClient("gpt-6-luna")),
    (
        "ConfigError: ...define send(request, timeout), or pass transport=",
        lambda: llmcall.LLMClient().send_message("hello"),
    ),
    (
        "ConfigError: ...: a → b → a.",
        lambda: ScriptedClient(aliases={"x": "a", "a": "b", "b": "a"}).build_request(
            "?", model="x"
        ),
    ),
    (
        "ConfigError: no Azure endpoint: set AZURE_OPENAI_ENDPOINT",
        lambda: API.AzureClient(azure_api_version="2024-10-21", api_key="k").send_message("Hello"),
    ),
    (
        "ConfigError: no API version for ...: set OPENAI_API_VERSION",
        lambda: API.AzureClient(azure_endpoint="http://h", api_key="k").send_message("Hello"),
    ),
)


@ERRORS
def test_what_is_wrong_is_named_with_what_it_must_be(line: str, call: Callable[[], object]) -> None:
    """The error comes from llmcall, not from what was called with the argument."""
    check_error(line, call)


def test_none_means_not_given_for_known_parameters_alone() -> None:
    """An embedding takes those of a chat."""
    assert built(seed=None, stream=None, echo=None).cache_key == built().cache_key
    client = Responding({"data": [{"embedding": [0.5]}]})
    assert client.get_embedding("text", temperature=None, stop=None) == [0.5]
