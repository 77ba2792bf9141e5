"""What is known of models."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.errors import ConfigError
from llmcall.models import capabilities as models
from llmcall.models.capabilities import Capabilities, capabilities, resolve

SAMPLING = {"temperature", "top_p", "logprobs", "top_logprobs"}
PENALTIES = {"presence_penalty", "frequency_penalty", "logit_bias"}


@pytest.mark.parametrize(
    ("model", "window", "output", "encoding"),
    [
        ("gpt-4o", 128000, 16384, "o200k_base"),
        ("gpt-4o-2024-11-20", 128000, 16384, "o200k_base"),
        ("gpt-4o-2024-05-13", 128000, 4096, "o200k_base"),
        ("GPT-4o", 128000, 16384, "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", 128000, 16384, "o200k_base"),
        ("gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678", 128000, 16384, "o200k_base"),
        ("openai/gpt-4o", 128000, 16384, "o200k_base"),
        ("openrouter/openai/gpt-4.1-nano", 1047576, 32768, "o200k_base"),
        ("azure/gpt-4", 8192, 8192, "cl100k_base"),
        ("gpt-4-0613", 8192, 8192, "cl100k_base"),
        ("gpt-4-32k-0314", 32768, None, "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", 128000, 4096, "cl100k_base"),
        ("gpt-3.5-turbo-0125", 16385, 4096, "cl100k_base"),
        ("gpt-3.5-turbo-0613", 4097, 4096, "cl100k_base"),
        ("gpt-35-turbo", None, None, "cl100k_base"),
        ("o3-mini-2025-01-31", 200000, 100000, "o200k_base"),
        ("gpt-5-mini-2025-08-07", 400000, 128000, "o200k_base"),
        ("gpt-5.3-whatever", None, None, "o200k_base"),
        ("gpt-6.2-sol", 1050000, 128000, None),
        ("text-embedding-3-large", 8192, None, "cl100k_base"),
    ],
)
def test_window_and_encoding(model: str, window: int | None, output: int | None, encoding: str | None) -> None:
    """A name is found as it is, without wrapper, provider and date, or by its family."""
    known = capabilities(model)
    assert (known.context_window, known.max_output_tokens, known.encoding) == (window, output, encoding)


@pytest.mark.parametrize(
    "model", ["llama3:8b", "gpt-50", "gpt", "o10", "", "my-gpt-4o", "a/b/c", "ft:", "smollm2-135m"]
)
def test_unknown_model(model: str) -> None:
    """Of an unknown model nothing is claimed."""
    assert capabilities(model) == Capabilities()


@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-4.1-mini", "gpt-5-chat-latest", "gpt-5.3-chat-latest", "gpt-3.5-turbo"]
)
def test_models_that_do_not_reason(model: str) -> None:
    """A model that does not reason takes every sampling parameter and the old name of the limit."""
    known = capabilities(model)
    assert (known.reasoning, known.refused_parameters, known.max_completion_tokens) == (False, frozenset(), False)


@pytest.mark.parametrize(
    "model", ["o1", "o3-mini", "gpt-5", "gpt-5-nano-2025-08-07", "gpt-5.2-pro", "gpt-6-astra", "gpt-5.3-x"]
)
def test_reasoning_models(model: str) -> None:
    """A reasoning model refuses sampling parameters at every effort and needs the new name of the limit."""
    known = capabilities(model)
    assert (known.reasoning, known.max_completion_tokens) == (True, True)
    for effort in (None, "low", "high"):
        assert known.refused(effort) == SAMPLING | PENALTIES


@pytest.mark.parametrize(
    ("model", "effort", "refused"),
    [
        ("gpt-5.1", None, PENALTIES),
        ("gpt-5.4-mini-2026-03-17", "none", PENALTIES),
        ("gpt-5.2", "low", SAMPLING | PENALTIES),
        ("gpt-5.5", None, SAMPLING | PENALTIES),
        ("gpt-5.6-terra", "none", PENALTIES),
        ("gpt-4o", "none", set()),
        ("o3", None, SAMPLING | PENALTIES | {"stop"}),
        ("o4-mini", "low", SAMPLING | PENALTIES | {"stop"}),
        ("gpt-oss-20b", "high", set()),
        ("gpt-4o-mini-search-preview", None, {"temperature", "top_p", "presence_penalty", "frequency_penalty"}),
        ("text-embedding-ada-002", None, {"dimensions"}),
    ],
)
def test_refusals_depend_on_the_effort(model: str, effort: str | None, refused: set[str]) -> None:
    """Models that need not reason refuse sampling parameters only while they do."""
    assert capabilities(model).refused(effort) == refused


@pytest.mark.parametrize(
    ("model", "structured"),
    [
        ("gpt-4o-2024-08-06", True),
        ("gpt-4o-2024-05-13", False),
        ("gpt-4-turbo", False),
        ("o1", True),
        ("o1-mini-2024-09-12", False),
        ("gpt-5-chat-latest", True),
        ("gpt-4o-audio-preview-2024-12-17", False),
    ],
)
def test_structured_output(model: str, structured: bool) -> None:
    """Structured output came with gpt-4o-2024-08-06 and o1."""
    assert capabilities(model).structured_output is structured


@pytest.mark.parametrize(("model", "dimensions"), [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072)])
def test_embedding_models(model: str, dimensions: int) -> None:
    """An embedding model has the length of its vectors."""
    known = capabilities(f"openai/{model}")
    assert (known.embedding, known.dimensions, known.refused_parameters) == (True, dimensions, frozenset())


def test_overrides_from_general_to_exact() -> None:
    """The exact name goes before a longer prefix, that before a shorter one; the rest stays as known."""
    overrides = {
        "gpt-4o": {"context_window": 9},
        "gpt-4*": {"context_window": 7, "encoding": "cl100k_base", "reasoning": True},
        "gpt*": {"max_output_tokens": 5, "refused_parameters": ("seed", "stop"), "reasoning": False},
        "*": {"dimensions": 1024},
        "other": {"context_window": 1},
    }
    known = capabilities("gpt-4o", overrides)
    refused = frozenset({"seed", "stop"})
    assert known == Capabilities(9, 5, "cl100k_base", True, refused, structured_output=True, dimensions=1024)
    assert capabilities("gpt-3.5-turbo", overrides).context_window == 16385


@pytest.mark.parametrize("effort", [None, "none", "high"])
def test_overridden_refusals_hold_at_every_effort(effort: str | None) -> None:
    """Who overrides the refused parameters overrides them for every effort."""
    known = capabilities("gpt-5.2", {"gpt-5.2": {"refused_parameters": ("seed",)}})
    assert known.refused(effort) == {"seed"}


def test_resolve_follows_aliases() -> None:
    """Aliases are followed to their end."""
    aliases = {"best": "gpt-4-turbo", "gpt-4-turbo": "gpt-4-1106-preview"}
    assert [resolve(name, aliases) for name in ("best", "gpt-4-turbo", "other")] == ["gpt-4-1106-preview"] * 2 + [
        "other"
    ]


@pytest.mark.parametrize(
    ("start", "aliases", "cycle"),
    [
        ("a", {"a": "a"}, "a → a"),
        ("x", {"x": "a", "a": "b", "b": "a"}, ": a → b → a."),
        ("a", {"a": "b", "b": "a"}, "a → b → a"),
    ],
)
def test_resolve_names_the_cycle(start: str, aliases: dict[str, str], cycle: str) -> None:
    """A circle of aliases is an error that shows it."""
    with pytest.raises(ConfigError, match=cycle):
        resolve(start, aliases)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdefxyz")), st.sampled_from("abcdef"))
def test_resolve_ends(aliases: dict[str, str], start: str) -> None:
    """Resolving ends: at a name that is no alias, or with an error."""
    try:
        assert resolve(start, aliases) not in aliases
    except ConfigError as error:
        assert "circle" in str(error)


@given(st.text())
def test_any_name_is_answered(model: str) -> None:
    """Every text is a model's name, known or not."""
    assert isinstance(capabilities(model), Capabilities)


@pytest.mark.parametrize(
    ("path", "parameters", "own"),
    [
        ("chat.completions", "CHAT_PARAMETERS", {"self", "model", "messages", "stream", "stream_options", "timeout"}),
        ("embeddings", "EMBEDDING_PARAMETERS", {"self", "model", "input", "timeout"}),
    ],
)
def test_parameters_are_those_of_the_sdk(path: str, parameters: str, own: set[str]) -> None:
    """The installed SDK has no parameter that the table lacks; an older SDK may lack the newest ones."""
    module = pytest.importorskip(f"openai.resources.{path}")
    create = (module.Completions if parameters == "CHAT_PARAMETERS" else module.Embeddings).create
    known = set(inspect.signature(create).parameters) - own
    table = getattr(models, parameters)
    assert known <= table
    assert table - known <= {"moderation", "prompt_cache_options", "prompt_cache_retention"}, (
        "only parameters newer than openai 2.0 may be missing"
    )


def test_every_model_of_the_sdk_is_known() -> None:
    """Every chat model that the installed SDK names has a window; gpt-5.1-mini is documented nowhere."""
    chat_model = pytest.importorskip("openai.types.shared.chat_model").ChatModel
    unknown = [name for name in typing.get_args(chat_model) if capabilities(name).context_window is None]
    assert set(unknown) <= {"gpt-5.1-mini"}


def test_encodings_are_those_of_tiktoken() -> None:
    """Wherever tiktoken knows a model's encoding, the table says the same; an older one lacks the newest families."""
    tables = pytest.importorskip("tiktoken.model")
    unknown = set()
    for name in _table()["windows"]:
        try:
            assert capabilities(name).encoding == tables.encoding_name_for_model(name), name
        except KeyError:
            unknown |= {name} if capabilities(name).encoding is not None else set()
    assert all(name.startswith(("gpt-4.1", "gpt-4.5", "gpt-5", "gpt-oss", "o1", "o3", "o4")) for name in unknown)


def test_table_is_consistent() -> None:
    """Refused parameters exist, windows hold the outputs, every kind is used and every name is in lower case."""
    table = _table()
    every = models.CHAT_PARAMETERS | models.EMBEDDING_PARAMETERS
    assert {kind for kind, _ in table["families"].values()} == set(table["family_kinds"])
    for name in [*table["families"], *table["windows"]]:
        known = capabilities(name)
        assert name == name.lower()
        assert known.refused("high") <= every
        assert (known.max_output_tokens or 1) <= (known.context_window or sys.maxsize)


def test_unknown_attribute() -> None:
    """The module has no other lazy names."""
    with pytest.raises(AttributeError, match="NO_PARAMETERS"):
        _ = models.NO_PARAMETERS


def test_import_reads_no_table() -> None:
    """Importing the module opens no file; the first question opens one."""
    code = (
        "import sys, llmcall.models.capabilities as m; assert m._data.cache_info().currsize == 0;"
        "m.capabilities('gpt-4o'); m.capabilities('o1'); assert m._data.cache_info().misses == 1;"
        "assert not {'openai', 'tiktoken', 'difflib', 'dataclasses', 'logging', 'inspect'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _table() -> dict[str, typing.Any]:
    with open(os.path.join(os.path.dirname(models.__file__), "models.json"), encoding="utf-8") as file:
        return typing.cast("dict[str, typing.Any]", json.load(file))
