"""What is known of models: windows, encodings, what they refuse, and what they cost.

``llmcall.models`` is imported for its tables, which are held against those of the SDK, tiktoken and
genai-prices.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing

import pytest

import llmcall
from llmcall.models import catalog as models
from llmcall.models.catalog import Capabilities, capabilities
from llmcall.models.prices import price_of
from llmcall.testing import ScriptedClient

SAMPLING = {"temperature", "top_p", "logprobs", "top_logprobs"}
PENALTIES = {"presence_penalty", "frequency_penalty", "logit_bias"}
O200K, CL100K = "o200k_base", "cl100k_base"


@pytest.mark.parametrize(
    ("names", "window", "output", "encoding"),
    [
        (
            "gpt-4o gpt-4o-2024-11-20 GPT-4o ft:gpt-4o-mini-2024-07-18:org::id openai/gpt-4o",
            128000,
            16384,
            O200K,
        ),
        ("gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678", 128000, 16384, O200K),
        ("gpt-4o-2024-05-13", 128000, 4096, O200K),
        ("azure/gpt-4 gpt-4-0613", 8192, 8192, CL100K),
        ("gpt-4-32k-0314", 32768, None, CL100K),
        ("gpt-3.5-turbo-0613", 4097, 4096, CL100K),
        ("gpt-35-turbo", None, None, CL100K),
        ("o3-mini-2025-01-31", 200000, 100000, O200K),
        ("gpt-5.3-whatever", None, None, O200K),
        ("gpt-6.2-sol", 1050000, 128000, None),
        ("text-embedding-3-large", 8192, None, CL100K),
        ("llama3:8b gpt-50 gpt o10 my-gpt-4o a/b/c ft: smollm2-135m", None, None, None),
    ],
)
def test_windows_and_encodings(
    names: str, window: int | None, output: int | None, encoding: str | None
) -> None:
    """A name is found as it is, without wrapper, provider and date, or by its family; of others
    nothing is claimed.
    """
    for name in names.split():
        known = capabilities(name)
        assert (known.context_window, known.max_output_tokens, known.encoding) == (
            window,
            output,
            encoding,
        )
        assert encoding is not None or window is not None or known == Capabilities()


@pytest.mark.parametrize(
    ("names", "effort", "refused", "reasons"),
    [
        (
            "gpt-4o gpt-4.1-mini gpt-5-chat-latest gpt-5.3-chat-latest gpt-3.5-turbo",
            None,
            set(),
            False,
        ),
        (
            "o1 o3-mini gpt-5 gpt-5-nano-2025-08-07 gpt-5.2-pro gpt-6-astra gpt-5.3-x",
            None,
            SAMPLING | PENALTIES,
            True,
        ),
        ("o1 o3-mini gpt-5 gpt-5.2-pro gpt-5.2", "low", SAMPLING | PENALTIES, True),
        ("gpt-5.1", None, PENALTIES, True),
        ("gpt-5.4-mini-2026-03-17 gpt-5.6-terra", "none", PENALTIES, True),
        ("o3 o4-mini", "low", SAMPLING | PENALTIES | {"stop"}, True),
        (
            "gpt-4o-mini-search-preview",
            None,
            {"temperature", "top_p", *PENALTIES} - {"logit_bias"},
            False,
        ),
        ("text-embedding-ada-002", None, {"dimensions"}, False),
    ],
)
def test_what_models_refuse(
    names: str, effort: str | None, refused: set[str], reasons: bool
) -> None:
    """A reasoning model refuses sampling parameters while it reasons, and needs the new name of the
    limit.
    """
    for name in names.split():
        known = capabilities(name)
        assert (known.refused(effort), known.reasoning, known.max_completion_tokens) == (
            refused,
            reasons,
            reasons,
        )


def test_structured_output_and_embeddings() -> None:
    """Structured output came with gpt-4o-2024-08-06 and o1; embedding models are known as such."""
    names = ["gpt-4o-2024-08-06", "o1", "gpt-5-chat-latest"]
    older = [
        "gpt-4o-2024-05-13",
        "gpt-4-turbo",
        "o1-mini-2024-09-12",
        "gpt-4o-audio-preview-2024-12-17",
    ]
    assert [name for name in names + older if capabilities(name).structured_output] == names
    assert capabilities("openai/text-embedding-3-large").embedding


def test_overrides_from_general_to_exact() -> None:
    """The exact name goes before a longer prefix, that before a shorter one; refusals hold at every
    effort.
    """
    overrides = {
        "gpt-4o": {"context_window": 9},
        "gpt-4*": {"context_window": 7, "encoding": CL100K, "reasoning": True},
        "gpt*": {
            "max_output_tokens": 5,
            "refused_parameters": ("seed", "stop"),
            "reasoning": False,
        },
        "other": {"context_window": 1},
    }
    known = capabilities("gpt-4o", overrides)
    refused = frozenset({"seed", "stop"})
    assert known == Capabilities(9, 5, CL100K, True, refused, structured_output=True)
    assert capabilities("gpt-3.5-turbo", overrides).context_window == 16385
    for effort in (None, "none", "high"):
        assert capabilities("gpt-5.2", overrides).refused(effort) == refused


def test_aliases() -> None:
    """Requests name the model at the aliases' end; a circle is shown."""
    aliases = {
        "best": "gpt-4-turbo",
        "gpt-4-turbo": "gpt-4-1106-preview",
        "x": "a",
        "a": "b",
        "b": "a",
    }
    client = ScriptedClient(aliases=aliases)
    assert client.build_request("Hello", model="best").model == "gpt-4-1106-preview"
    with pytest.raises(llmcall.ConfigError, match=r": a → b → a\."):
        client.build_request("Hello", model="x")


# The tables, against those of others


@pytest.mark.parametrize(
    ("path", "kind", "own"),
    [
        ("chat.completions", "chat", {"self", "messages", "stream", "stream_options", "timeout"}),
        ("embeddings", "embedding", {"self", "input", "timeout"}),
    ],
)
def test_parameters_are_those_of_the_sdk(path: str, kind: str, own: set[str]) -> None:
    """The installed SDK has no parameter that the table lacks; an older SDK may lack the newest
    ones.
    """
    module = pytest.importorskip(f"openai.resources.{path}")
    create = (module.Completions if kind == "chat" else module.Embeddings).create
    known, table = set(inspect.signature(create).parameters) - own, models.parameters_of(kind)
    assert known <= table and table - known <= {
        "moderation",
        "prompt_cache_options",
        "prompt_cache_retention",
    }


def test_models_are_those_of_the_sdk_and_tiktoken() -> None:
    """Every chat model that the installed SDK names is known, with the encoding that tiktoken gives
    it.
    """
    names = typing.get_args(pytest.importorskip("openai.types.shared.chat_model").ChatModel)
    unknown = {name for name in names if capabilities(name).context_window is None}
    assert unknown <= {"gpt-5.1-mini"}  # documented nowhere
    encoding_of = pytest.importorskip("tiktoken.model").encoding_name_for_model
    every = models.parameters_of("chat") | models.parameters_of("embedding")
    for name in set(names) - unknown:
        known = capabilities(name)
        assert known.refused("high") <= every
        assert (known.max_output_tokens or 1) <= (known.context_window or sys.maxsize)
        try:
            assert known.encoding == encoding_of(name), name
        except KeyError:  # an older tiktoken
            assert known.encoding is None or name.startswith(
                ("chatgpt-4o", "gpt-4.1", "gpt-5", "o1", "o3", "o4")
            ), name


# Prices

GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai/"
NOWHERE = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("model", "address", "tokens", "expected"),
    [
        ("gpt-4o-mini", None, 0, (0.15, 0.6, 0.075)),
        ("gpt-4o-mini-2024-07-18", NOWHERE, 0, (0.15, 0.6, 0.075)),
        ("gpt-4o-mini", "https://name.openai.azure.com", 0, (0.15, 0.6, 0.075)),
        ("text-embedding-3-small", None, 0, (0.02, 0, 0.02)),
        ("gemini-2.5-pro", GEMINI, 1000, (1.25, 10)),
        ("gemini-2.5-pro", GEMINI, 300_000, (2.5, 15)),
        ("gpt-oss-20b", NOWHERE, 0, None),
        ("llama-3.1-8b-instant", None, 0, None),
        ("ft:gpt-4o-mini:org::id", None, 0, None),
    ],
)
def test_packaged_prices(
    model: str, address: str | None, tokens: int, expected: tuple[float, ...] | None
) -> None:
    """OpenAI's models have a price wherever they are served, others only at their provider;
    [Prices] goes first.
    """
    pytest.importorskip("genai_prices")
    found = price_of(model, {}, address=address, input_tokens=tokens)
    assert (found and found[: len(expected or ())]) == expected
    assert found is None or re.fullmatch(r"genai-prices [\d.]+ for \d{4}-\d\d-\d\d", found.source)
    assert price_of(model, {model: (5.0, 7.0)}, address=address) == (5, 7, 5, "[Prices]")
