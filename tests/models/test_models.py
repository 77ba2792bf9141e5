"""The tables of models: windows, encodings, refused parameters and prices.

``llmcall.models`` is imported for its tables, which are held against those of the SDK, tiktoken and
genai-prices.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import genai_prices
import pytest

from llmcall.apis.token_usage import MILLION
from llmcall.models import catalog as models
from llmcall.models.catalog import Capabilities, capabilities
from llmcall.models.prices import Price, price_of
from llmcall.testing import ScriptedClient

SAMPLING = {"temperature", "top_p", "logprobs", "top_logprobs"}
PENALTIES = {"presence_penalty", "frequency_penalty", "logit_bias"}
O200K, CL100K = "o200k_base", "cl100k_base"
FAKED = """
from llmcall.models import catalog

def test_faked(monkeypatch):
    with monkeypatch.context() as fake:
        fake.setattr("builtins.open", None)
        assert "temperature" in catalog.parameters_of("chat")
"""


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
def test_a_model_is_found_by_its_name_or_its_family(
    names: str, window: int | None, output: int | None, encoding: str | None
) -> None:
    """Without wrapper, provider and date; of others nothing is claimed."""
    for name in names.split():
        known = capabilities(name)
        assert (known.context_window, known.max_output_tokens) == (window, output)
        assert known.encoding == encoding
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
def test_a_reasoning_model_refuses_sampling_parameters_while_it_reasons(
    names: str, effort: str | None, refused: set[str], reasons: bool
) -> None:
    """And needs the new name of the token limit."""
    for name in names.split():
        known = capabilities(name)
        assert known.refused(effort) == refused
        assert (known.reasoning, known.max_completion_tokens) == (reasons, reasons)


@pytest.mark.parametrize(
    ("name", "is_structured"),
    [
        ("gpt-4o-2024-08-06", True),
        ("o1", True),
        ("gpt-5-chat-latest", True),
        ("gpt-4o-2024-05-13", False),
        ("gpt-4-turbo", False),
        ("o1-mini-2024-09-12", False),
        ("gpt-4o-audio-preview-2024-12-17", False),
    ],
)
def test_structured_output_is_known_of_each_model(name: str, is_structured: bool) -> None:
    """It came with gpt-4o-2024-08-06 and o1."""
    assert bool(capabilities(name).structured_output) is is_structured


def test_embedding_models_are_known_as_such() -> None:
    assert capabilities("openai/text-embedding-3-large").embedding


OVERRIDES = {
    "gpt-4o": {"context_window": 9},
    "gpt-4*": {"context_window": 7, "encoding": CL100K, "reasoning": True},
    "gpt*": {
        "max_output_tokens": 5,
        "refused_parameters": ("seed", "stop"),
        "reasoning": False,
    },
    "other": {"context_window": 1},
}


def test_an_exact_override_stands_above_longer_and_shorter_prefixes() -> None:
    """Fields that no override has are as known."""
    refused = frozenset({"seed", "stop"})
    expected = Capabilities(9, 5, CL100K, True, refused, structured_output=True)
    assert capabilities("gpt-4o", OVERRIDES) == expected
    assert capabilities("gpt-3.5-turbo", OVERRIDES).context_window == 16385


@pytest.mark.parametrize("effort", [None, "none", "high"])
def test_refused_parameters_of_an_override_hold_at_every_effort(effort: str | None) -> None:
    """Reasoning makes no difference."""
    assert capabilities("gpt-5.2", OVERRIDES).refused(effort) == {"seed", "stop"}


def test_a_request_names_the_model_at_the_aliases_end() -> None:
    """An alias may stand for an alias."""
    aliases = {"best": "gpt-4-turbo", "gpt-4-turbo": "gpt-4-1106-preview"}
    request = ScriptedClient(aliases=aliases).build_request("Hello", model="best")
    assert request.model == "gpt-4-1106-preview"


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
    newest = {
        *("moderation", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        *("safety_identifier", "verbosity"),
    }
    assert known <= table
    assert table - known <= newest


def test_the_table_is_read_where_a_test_fakes_the_file_system() -> None:
    """As pyfakefs does, from pytest's loader, too, which has the modules of an installed plugin."""
    rewrites = "import pytest\npytest.register_assert_rewrite('llmcall.models.catalog')\n"
    Path("conftest.py").write_text(rewrites, encoding="utf-8")
    Path("test_faked.py").write_text(FAKED, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "pytest", "test_faked.py"], check=True)


def test_every_chat_model_of_the_sdk_is_known() -> None:
    """Its window, which holds its longest answer, its encoding, which is tiktoken's (an older one does not know the
    newest models), and what it refuses: only parameters that there are.
    """
    encoding_of = pytest.importorskip("tiktoken.model").encoding_name_for_model
    newest = ("chatgpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-6-luna", "o1", "o3", "o4")
    every = models.parameters_of("chat") | models.parameters_of("embedding")
    named = typing.get_args(pytest.importorskip("openai.types.shared.chat_model").ChatModel)
    # The first is documented nowhere; openai 1.66 names the others, which have only the Responses API.
    others = "gpt-5.1-mini", "computer-use-preview"
    for name in sorted(name for name in named if not name.startswith(others)):
        known = capabilities(name)
        assert known.context_window is not None, name
        assert (known.max_output_tokens or 1) <= known.context_window, name
        assert known.refused("high") <= every, name
        try:
            assert known.encoding == encoding_of(name), name
        except KeyError:
            assert known.encoding is None or name.startswith(newest), name


# Prices

GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai/"
NOWHERE = "http://127.0.0.1:8000/v1"


PACKAGED = pytest.mark.parametrize(
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


def rates(price: Price, tokens: int) -> tuple[float, ...]:
    """Return the USD per million tokens of a prompt of so many, of its answer, and of cached input."""
    prompt, total = price.cost_of_parts({"input_tokens": tokens, "output_tokens": MILLION})
    cached, _ = price.cost_of_parts({"input_tokens": tokens, "cache_read_tokens": tokens})
    per_token = MILLION / tokens
    return round(prompt * per_token, 9), round(total - prompt, 9), round(cached * per_token, 9)


@PACKAGED
def test_openais_models_have_a_price_everywhere_and_others_at_their_provider(
    model: str, address: str | None, tokens: int, expected: tuple[float, ...] | None
) -> None:
    found = price_of(model, {}, address=address)
    assert (found and rates(found, max(1, tokens))[: len(expected or ())]) == expected
    assert found is None or re.fullmatch(r"genai-prices [\d.]+ for \d{4}-\d\d-\d\d", found.source)


@PACKAGED
def test_a_price_of_the_settings_stands_above_packaged_ones(
    model: str, address: str | None, tokens: int, expected: tuple[float, ...] | None
) -> None:
    """The package may have a price or none."""
    found = price_of(model, {model: (5.0, 7.0)}, address=address)
    assert found == (5, 7, 5, "[Prices]")


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-5.4", "gpt-4o-mini", "o3"])
@pytest.mark.parametrize(
    ("prompt", "details", "answer"),
    [
        (102, {}, {}),
        (102, {"cached_tokens": 64, "audio_tokens": 0}, {"reasoning_tokens": 20}),
        (300_000, {"cached_tokens": 150_000}, None),
    ],
)
def test_an_answer_costs_what_genai_prices_calculates_from_its_usage(
    model: str, prompt: int, details: dict[str, int], answer: dict[str, int] | None
) -> None:
    usage = {"prompt_tokens": prompt, "completion_tokens": 31, "total_tokens": prompt + 31}
    usage |= {"prompt_tokens_details": details, "completion_tokens_details": answer}
    response = {"model": model, "choices": [], "usage": usage}
    extracted = genai_prices.extract_usage(response, provider_id="openai", api_flavor="chat")
    price, calculated = price_of(model, {}), extracted.calc_price()
    cost = price and price.cost_of_answer(response)
    assert cost == (float(calculated.input_price), float(calculated.total_price))
