"""The cost of a call, and the parts of it that have a price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

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
