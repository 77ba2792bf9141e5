"""The tokens and the cost of answers, and what they are billed by: a service tier, tokens in the API's words, and calls
of the provider's tools."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from ..support.data import Data
from ..support.display import money
from .interactions import usage_metadata
from .message import object_in, objects_in

# The counts of Gemini's API; input and output are the sums of two each.
OF_GEMINI = (
    *("promptTokenCount", "toolUsePromptTokenCount"),
    *("candidatesTokenCount", "thoughtsTokenCount"),
)


# The beginnings of models' names whose makers leave thoughts out of ``completion_tokens``, and bill them as output:
# Google's OpenAI address has them in ``total_tokens`` alone (20, 424 and 1,460, seen in November 2026); xAI's
# documentation, "Consumption and rate limits": "reasoning token consumption will be counted separately from
# completion_tokens, but will be counted in the total_tokens". For others, the rest of a total may be anything:
# Mistral's has the tokens of sounds.
GOOGLES, XAIS = "gemini", "grok"
MOST_TOKENS = 10**12  # of one answer; a server that reports more has miscounted


class TokenUsage(NamedTuple):
    """The tokens of one answer as the server reported them; unreported counts are ``None``. Output includes thoughts.

    >>> llmcall.client().send_message("Good morning!", max_tokens=16).usage.output_tokens
    4
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @classmethod
    def of(cls, response: Mapping[str, Data]) -> TokenUsage:
        """Return the tokens that a response reports; anything that is not a count is unknown, and so are all if
        one is beyond ``MOST_TOKENS``.

        Chat completions and embeddings name their counts one way, the Responses and Messages APIs
        another, Gemini a third. Anthropic reports the input that its cache read or wrote separately, and
        Google the input of its tools. A gateway whose upstream reports nothing answers zeros: that is no report.
        """
        reported = cls._reported(response)
        return reported if all((count or 0) < MOST_TOKENS for count in reported) else cls()

    @classmethod
    def _reported(cls, response: Mapping[str, Data]) -> TokenUsage:
        metadata = usage_metadata(response)
        if metadata is not None and "promptTokenCount" in metadata:
            prompt, tools, answer, thoughts = (
                _count(metadata.get(name)) or 0 for name in OF_GEMINI
            )
            cached = _count(metadata.get("cachedContentTokenCount"))
            return cls(prompt + tools, answer + thoughts, cached, thoughts)
        if "eval_count" in response:  # Ollama's own API
            return cls(_count(response.get("prompt_eval_count")), _count(response["eval_count"]))
        usage = response.get("usage")
        if not isinstance(usage, dict):
            return cls()
        read_from_cache = _count(usage.get("cache_read_input_tokens"))
        if "prompt_tokens" not in usage and usage.keys() & {"input_tokens", "output_tokens"}:
            prompt_field, completion_field = "input_tokens", "output_tokens"
            written_to_cache = _count(usage.get("cache_creation_input_tokens"))
            beside_input = (read_from_cache or 0) + (written_to_cache or 0)
        else:
            # Proxies that pass on Anthropic's two fields already count them as prompt tokens.
            prompt_field, completion_field = "prompt_tokens", "completion_tokens"
            beside_input = 0
        input_tokens = _count(usage.get(prompt_field))
        if input_tokens is not None:
            input_tokens += beside_input
        output_tokens = _count(usage.get(completion_field))
        if not input_tokens and not output_tokens:
            return cls()
        cached = _detail(usage, f"{prompt_field}_details", "cached_tokens")
        reasoning = _detail(usage, f"{completion_field}_details", "reasoning_tokens")
        if thoughts := _thoughts_beside(response, usage, reasoning or 0):
            output_tokens = (output_tokens or 0) + thoughts
            reasoning = reasoning or thoughts
        return cls(
            input_tokens,
            output_tokens,
            read_from_cache if cached is None else cached,
            reasoning,
        )


def _thoughts_beside(
    response: Mapping[str, Data], usage: Mapping[str, Data], reasoning_tokens: int
) -> int:
    """Return the tokens of thoughts that a chat completion's ``completion_tokens`` lack.

    A gateway that counts them there, as OpenAI does, has a total that is the sum of both.
    """
    counts = [usage.get(name) for name in ("total_tokens", "prompt_tokens", "completion_tokens")]
    total, prompt, completion = (_count(count) for count in counts)
    if prompt is None or completion is None:
        return 0
    rest = max((total or 0) - prompt - completion, 0)
    if not rest and reasoning_tokens <= completion:
        return 0
    name = str(response.get("model")).rpartition("/")[2]
    if name.startswith(GOOGLES):
        return rest
    return reasoning_tokens if name.startswith(XAIS) else 0


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _detail(usage: Mapping[str, object], details_name: str, name: str) -> int | None:
    details = usage.get(details_name)
    return _count(details.get(name)) if isinstance(details, dict) else None


def total_cost(costs: Iterable[float | None]) -> float | None:
    """Return the sum of costs in USD, or ``None`` if one is unknown."""
    given = [*costs]
    known = [cost for cost in given if cost is not None]
    return math.fsum(known) if len(known) == len(given) else None


def spent_words(usage: TokenUsage, cost: float | None) -> list[str]:
    """Return the known tokens and cost in words."""
    named = (("input", usage.input_tokens), ("output", usage.output_tokens))
    counts = [f"{count:,} {name}" for name, count in named if count is not None]
    words = [f"{', '.join(counts)} tokens"] if counts else []
    return words if cost is None else [*words, money(cost)]


def tier_of(data: object) -> str | None:
    """Return the service tier that a request's body or a response names, or ``None``."""
    if not isinstance(data, dict):
        return None
    of_gemini = object_in(data.get("usageMetadata")).get("serviceTier")
    tier = (
        data.get("service_tier")
        or _dearer(data)
        or _dearer(data.get("usage"))
        or str(of_gemini or "").lower()
        or None
    )
    return tier if isinstance(tier, str) else None


def _dearer(fields: object) -> str | None:
    """Return the more expensive tier that a body, or a usage, of the Messages API names in its own way."""
    if not isinstance(fields, dict):
        return None
    if fields.get("speed") == "fast":
        return "fast"
    return "us" if fields.get("inference_geo") == "us" else None


Api: TypeAlias = Literal["chat", "responses", "messages", "gemini", "embeddings"]

# The items of the Responses API that are billed apart from tokens, with their names in genai-prices; it
# does not know the last two, so they have no price.
BILLED_ITEMS = {
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
    "image_generation_call": "image_generations",
    "shell_call": "containers",
}
# "Grounding with Google Search", Google's guide: these versions bill once for a prompt, however many
# searches it takes; Gemini 3 and newer bill each search.
PROMPT_IS_BILLED = ("gemini-1", "gemini-2")


# The provider's tools that an interaction counts, with their names in genai-prices; any other has no price.
SEARCHES = {"google_search": "web_searches"}


class Bill(NamedTuple):
    """The billed parts of an answer.

    :param api: the API that reported them.
    :param reported: the answer's ``usage``, or Gemini's ``usageMetadata``, under that name; empty without
        a report.
    :param tools: the number of calls of the provider's tools that ``reported`` does not count, by their
        names in genai-prices.
    """

    api: Api
    reported: Mapping[str, Data]
    tools: Mapping[str, int]

    @classmethod
    def of(cls, response: Mapping[str, Data]) -> Bill:
        """Return the bill of a response of any of these APIs."""
        usage, metadata = response.get("usage"), usage_metadata(response)
        if metadata is not None:
            return cls("gemini", {"usageMetadata": metadata}, _searches_of_gemini(response))
        if not isinstance(usage, dict):
            return cls("chat", {}, {})
        reported = {"usage": usage}
        if "completion_tokens" in usage:
            output_tokens = TokenUsage.of(response).output_tokens
            if output_tokens not in (None, usage["completion_tokens"]):  # with thoughts
                usage = {**usage, "completion_tokens": output_tokens}
                # genai-prices adds those that xAI's details name
                usage.pop("completion_tokens_details", None)
            tools = _searches_of_chat(response)
            # Mistral's; billed by the minute
            if seconds := _count(usage.get("prompt_audio_seconds")):
                tools["audio_seconds"] = seconds
            return cls("chat", {"usage": usage}, tools)
        if "prompt_tokens" in usage:
            return cls("embeddings", reported, _searches_of_chat(response))
        if isinstance(response.get("output"), list) or "input_tokens_details" in usage:
            return cls("responses", reported, _tools_of_responses(response))
        return cls("messages", reported, {})  # this API counts its searches in usage


def _tools_of_responses(response: Mapping[str, object]) -> Counter[str]:
    items = objects_in(response.get("output"))
    kinds = [kind for item in items if (kind := str(item.get("type"))) in BILLED_ITEMS]
    searches = object_in(object_in(response.get("tool_usage")).get("web_search")).get(
        "num_requests"
    )
    if not isinstance(searches, int):
        searches = sum(map(_is_search, items))
    return +Counter([BILLED_ITEMS[kind] for kind in kinds]) + Counter(web_searches=searches)


def _is_search(item: Mapping[str, object]) -> bool:
    """Return whether an item of an output is a search; opening or searching a page is free."""
    kind = object_in(item.get("action")).get("type")
    return item.get("type") == "web_search_call" and kind in (None, "search")


def _searches_of_chat(response: Mapping[str, object]) -> dict[str, int]:
    """Return one search for an answer that cites pages, since chat completions do not report a number."""
    messages = [object_in(choice.get("message")) for choice in objects_in(response.get("choices"))]
    annotations = [
        annotation for message in messages for annotation in objects_in(message.get("annotations"))
    ]
    kinds = [annotation.get("type") for annotation in annotations]
    return {"web_searches": 1} if "url_citation" in kinds else {}


def _searches_of_gemini(response: Mapping[str, object]) -> Counter[str]:
    queries = set()
    counts = objects_in(object_in(response.get("usage")).get("grounding_tool_count"))
    if counts:  # of an interaction
        numbers = {str(count.get("type")): count.get("count") for count in counts}
        return +Counter(
            {
                SEARCHES.get(name, name): number
                for name, number in numbers.items()
                if isinstance(number, int)
            }
        )
    for candidate in objects_in(response.get("candidates")):
        searched = object_in(candidate.get("groundingMetadata")).get("webSearchQueries")
        queries |= set(map(str, searched if isinstance(searched, list) else ()))
    count = len(queries - {""})  # Google ignores those
    if str(response.get("modelVersion")).startswith(PROMPT_IS_BILLED):
        count = min(1, count)
    return +Counter(web_searches=count)


MILLION = 1_000_000
# Numbers of tokens by their names in genai-prices: input_tokens, of which cache_read_tokens, output_tokens …
Parts: TypeAlias = Mapping[str, int]


class Cost(NamedTuple):
    """The cost of a call, in USD.

    :param prompt: the cost of the prompt's tokens.
    :param total: the cost of all tokens, and of anything else that is billed, such as searches.
    """

    prompt: float
    total: float
