"""What is known of models: windows, encodings, which parameters their API refuses, and what they
cost.

Prices are as ``[Prices]`` says, else as the package ``genai-prices`` knows (the extra ``prices``):
its wheel, by the makers of pydantic, holds those of hundreds of models with the dates from which
they hold, and those of today are taken. Nothing is looked up in the network. All else is in
``models.json``. Its sources, as of November 2026; what none of them says is left out:

* windows and largest outputs (the window is that of input and output together): Microsoft's "Azure
  OpenAI reasoning models" (learn.microsoft.com, 24 February 2026) for the o-series and gpt-5 to
  gpt-5.4; OpenAI's page of gpt-6.2-sol and Vercel's list of models, which quotes such pages, for
  gpt-5.6 and gpt-6; else models.dev (2 July 2026) and litellm 1.109, for retired models litellm
  1.72; where these differ the value is the one of OpenAI's own page (gpt-4, chatgpt-4o-latest), or
  none (the output of gpt-4-32k);
* parameters refused while a model reasons, and ``max_completion_tokens``: the same article of
  Microsoft, section "Not Supported"; ``stop`` for o3 and o4-mini and ``dimensions`` for ada-002:
  the docstrings of the openai SDK 3.51;
* gpt-5.1, 5.2 and 5.4 do not reason unless asked (the article's note 4; litellm 1.109 for 5.2 and
  5.4) and take temperature, top_p and logprobs until then, as the clients of Vercel and LangChain
  found; that gpt-5.5, gpt-5.6, gpt-6-sol, gpt-6-luna and gpt-6.1-terra take them with the effort
  ``none`` follows from litellm's table and is the least certain entry;
* gpt-5-chat does not reason: Vercel's client for OpenAI; nor does gpt-5.3-chat: models.dev;
  gpt-5.1-chat (the article) and gpt-5.2-chat (models.dev) do and refuse a temperature;
* the search previews' refusals: the API's own error messages;
* encodings: ``tiktoken.model`` of tiktoken 0.14, which knows none for gpt-6; o200k_base is that of
  gpt-oss, too, whose own differs in its special tokens only;
* the window of the embedding models (8192): the docstring of ``embeddings.create`` in the openai
  SDK 3.51.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..types import TokenUsage


class Capabilities(NamedTuple):
    """Hold what is known of one model; ``None`` where nothing is.

    :param context_window: input and output tokens together (of an embedding model: tokens of one
        input).
    :param max_output_tokens: the most tokens of one answer, reasoning included.
    :param encoding: tiktoken's name of the encoding, e.g. ``"o200k_base"``.
    :param reasoning: whether the model can reason before it answers.
    :param refused_parameters: parameters that the API refuses in a request that names no
        ``reasoning_effort``.
    :param max_completion_tokens: whether the limit must be sent as ``max_completion_tokens``, not
        ``max_tokens``.
    :param structured_output: whether a ``response_format`` of type ``json_schema`` is understood.
    :param embedding: whether it is an embedding model.
    :param refused_when_reasoning: of the parameters, those that are refused exactly while the model
        reasons.
    """

    context_window: int | None = None
    max_output_tokens: int | None = None
    encoding: str | None = None
    reasoning: bool = False
    refused_parameters: frozenset[str] = frozenset()
    max_completion_tokens: bool = False
    structured_output: bool = False
    embedding: bool = False
    refused_when_reasoning: frozenset[str] = frozenset()

    def refused(self, reasoning_effort: str | None = None) -> frozenset[str]:
        """Tell which parameters the API refuses in a request with this ``reasoning_effort``.

        :param reasoning_effort: as in the request; ``None`` where it names none.
        :returns: parameter names.
        """
        if reasoning_effort is None:
            return self.refused_parameters
        if reasoning_effort == "none":
            return self.refused_parameters - self.refused_when_reasoning
        return self.refused_parameters | self.refused_when_reasoning


def capabilities(
    model: str, overrides: Mapping[str, Mapping[str, object]] | None = None
) -> Capabilities:
    """Tell what is known of a model.

    The name is looked up as it is, then without a provider (``openai/``), a fine-tune's wrapper
    (``ft:gpt-4o:org::id``) and a date (``-2024-08-06``, ``-0613``). What no entry says comes from
    the longest known family that the name begins with. Upper and lower case do not matter.

    :param model: the name after aliases.
    :param overrides: ``settings.models``: fields by model name, or by ``prefix*``. A longer prefix
        goes before a shorter one, the exact name before any prefix.
    :returns: the capabilities; of an unknown model all ``None`` and ``False``.
    """
    known = _known(model)
    if not overrides:
        return known
    changes: dict[str, Any] = {}
    for field, value in section_of(model, overrides).items():
        changes[field] = frozenset(value) if isinstance(value, (tuple, list, set)) else value
    if "refused_parameters" in changes:
        changes.setdefault("refused_when_reasoning", frozenset())
    return known._replace(**changes)


def section_of(model: str, sections: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Return what ``[Model …]`` sections say of a model together, the most special one above all.

    :param sections: fields by model name, or by ``prefix*``.
    """
    prefixes = sorted(
        (name for name in sections if name.endswith("*") and model.startswith(name[:-1])), key=len
    )
    said: dict[str, object] = {}
    for name in (*prefixes, model):
        said |= sections.get(name, {})
    return said


def resolve(model: str, aliases: Mapping[str, str]) -> str:
    """Follow aliases to the model's own name.

    :param model: a name or an alias.
    :param aliases: what each alias stands for, possibly another alias.
    :returns: the first name on the way that is no alias.
    :raises ConfigError: for aliases that lead back to themselves.
    """
    path = [model]
    while path[-1] in aliases:
        path.append(aliases[path[-1]])
        if path[-1] in path[:-1]:
            cycle = " → ".join(path[path.index(path[-1]) :])
            raise ConfigError(f"[Aliases] lead in a circle: {cycle}. Let one of them name a model.")
    return path[-1]


@cache
def parameters_of(kind: str) -> frozenset[str]:
    """Return the names of the parameters that an API takes, ``"chat"`` or ``"embedding"``."""
    return frozenset({"model", *_data()[f"{kind}_parameters"]})


@cache
def _data() -> dict[str, Any]:
    with open(os.path.join(os.path.dirname(__file__), "models.json"), encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data


@lru_cache(maxsize=1024)
def _known(model: str) -> Capabilities:
    data, names = _data(), list(_names(model.lower()))
    window, output = next(
        (data["windows"][name] for name in names if name in data["windows"]), (None, None)
    )
    bare, families = names[1], data["families"]
    # The longest family that the name is, or begins with before "-" or ".".
    ends = [len(bare), *(match.start() for match in re.finditer(r"[-.]", bare))]
    family = next(
        (bare[:end] for end in sorted(ends, reverse=True) if bare[:end] in families), None
    )
    if family is None:
        return Capabilities(window, output)
    kind, encoding = families[family]
    fields: dict[str, Any] = dict(data["family_kinds"][kind])
    for name, value in fields.items():
        if isinstance(value, list):  # of parameters, and of groups of them
            fields[name] = frozenset(
                each for item in value for each in data["parameter_groups"].get(item, (item,))
            )
    return Capabilities(window, output, encoding, **fields)


def _names(model: str) -> Iterator[str]:
    yield model
    bare = model.rpartition("/")[2]
    if bare.startswith("ft:"):
        bare = bare.split(":")[1]
    bare = re.sub(r"\.ft-.*", "", bare)  # Azure's way to name a fine-tuned model
    yield bare
    yield re.sub(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$", "", bare)


# Prices

# "Flex processing", OpenAI's guide: tokens are priced at the rates of the Batch API. "Batch API",
# OpenAI's guide: 50 % of the standard price. Azure's "Use Flex processing" says 50 %, too.
HALF_PRICE_TIERS = frozenset({"flex", "batch"})
# "Service tiers" in OpenAI's price list: these cost more than the standard tier, by a factor that
# depends on the model.
DEARER_TIERS = frozenset({"priority", "fast"})
# The providers whose tiers the two lines above describe, as genai-prices names them.
PROVIDERS_WITH_HALF_PRICE = frozenset({"openai", "azure"})
MILLION = 1_000_000
OPEN_WEIGHTS = "gpt-oss"  # OpenAI's models that anybody may serve, at a price of their own


class Price(NamedTuple):
    """Hold a model's price, in USD per million tokens.

    :param input: of the prompt.
    :param output: of the answer.
    :param cached_input: of those tokens of the prompt that the provider had cached.
    :param source: ``"[Prices]"``, or the package and its version, and the day whose price it is.
    """

    input: float
    output: float
    cached_input: float
    source: str = "[Prices]"

    def halved(self) -> Price:
        """Return half of it."""
        return Price(self.input / 2, self.output / 2, self.cached_input / 2, self.source)

    def of_tokens(self, tokens: TokenUsage) -> float:
        """Return the price of an answer's tokens, in millionths of a USD; a number that is unknown
        is 0.
        """
        whole = tokens.input_tokens or 0
        cached = min(tokens.cached_tokens or 0, whole)
        return (
            (whole - cached) * self.input
            + cached * self.cached_input
            + (tokens.output_tokens or 0) * self.output
        )

    def cost(self, tokens: TokenUsage) -> float | None:
        """Return the USD of an answer's tokens, or ``None`` where the server did not report them."""
        return None if tokens.input_tokens is None else self.of_tokens(tokens) / MILLION


def price_of(
    model: str,
    configured: Mapping[str, Sequence[float]],
    *,
    address: str | None = None,
    input_tokens: int = 0,
    service_tier: str | None = None,
) -> Price | None:
    """Return a model's price, or ``None`` if nobody knows it.

    :param model: its name after aliases.
    :param configured: ``[Prices]``, which goes first: USD per million tokens in and out and, as a
        third number, of input that the provider had cached; without that, cached input costs what
        input does. ``"gpt-5-mini flex"`` is the price of a tier.
    :param address: that of the API. If it is none of a provider that the package knows, only the
        names of OpenAI's own models have a price: anybody may serve the others.
    :param input_tokens: of the prompt: some models cost more for a long one.
    :param service_tier: as the API names it. The tiers flex and batch cost half if nothing else is
        known of them; ``priority`` has a price only if someone names it; any other tier costs what
        the model costs.
    """
    if service_tier is not None:
        of_tier = configured.get(f"{model} {service_tier}")
        if of_tier is not None:
            return _configured(of_tier)
    if model in configured:
        price = _configured(configured[model])
        if service_tier in HALF_PRICE_TIERS:
            return price.halved()
        return None if service_tier in DEARER_TIERS else price
    if not _is_installed():
        return None
    from datetime import datetime, timezone

    day = datetime.now(timezone.utc).date().isoformat()
    return _packaged(model, address, input_tokens, service_tier, day)


def _configured(numbers: Sequence[float]) -> Price:
    return Price(numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else numbers[0])


@lru_cache(maxsize=4096)
def _packaged(
    model: str, address: str | None, input_tokens: int, service_tier: str | None, day: str
) -> Price | None:
    """Return a model's price as genai-prices knows it, for one day.

    The package falls back to the standard price if it knows none of the tier.
    """
    # The provider at the address; and OpenAI, if only OpenAI's models have such names.
    providers = [{"provider_api_url": address}] if address else []
    providers += [] if model.startswith(OPEN_WEIGHTS) else [{"provider_id": "openai"}]
    for provider in providers:
        try:
            standard, provider_id = _calculated(model, input_tokens, day, {}, provider)
            if service_tier not in HALF_PRICE_TIERS | DEARER_TIERS:
                return standard
            context = {"processing" if service_tier == "batch" else "service_tier": service_tier}
            of_tier, _ = _calculated(model, input_tokens, day, context, provider)
        except LookupError:
            continue
        if of_tier != standard:
            return of_tier
        if service_tier in DEARER_TIERS:
            return None
        return standard.halved() if provider_id in PROVIDERS_WITH_HALF_PRICE else standard
    return None


def _calculated(
    model: str,
    input_tokens: int,
    day: str,
    context: Mapping[str, str | None],
    provider: Mapping[str, str],
) -> tuple[Price, str]:
    """Return a price, and the package's name of the provider that it holds for.

    :raises LookupError: if the package does not know the provider or the model.
    """
    from datetime import datetime, timezone
    from importlib.metadata import version

    import genai_prices

    tokens = max(1, input_tokens)
    when = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    usages = [
        genai_prices.Usage(input_tokens=tokens, cache_read_tokens=cached, output_tokens=MILLION)
        for cached in (0, tokens)
    ]
    found = [
        genai_prices.calc_price(
            each, model, genai_request_timestamp=when, price_context=dict(context), **provider
        )
        for each in usages
    ]
    whole, cached = (round(float(each.input_price) / tokens * MILLION, 9) for each in found)
    source = f"genai-prices {version('genai-prices')} for {day}"
    return Price(whole, float(found[0].output_price), cached, source), found[0].provider.id


@lru_cache(maxsize=1)
def _is_installed() -> bool:
    """Look for the package once: every failed import walks through all of the path."""
    from importlib.util import find_spec

    return find_spec("genai_prices") is not None
