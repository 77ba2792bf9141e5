"""The shares of a closed question's options: of a token's log probabilities, or counts of draws; and the cells and
columns of a table of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from ..apis.shapes import choices_of
from ..errors import ConfigError
from .intervals import share_interval

if TYPE_CHECKING:
    from ..core.reply import Reply

TOP_LOGPROBS = 20  # the most tokens whose log probabilities the API gives
COUNT_DRAWS = "give repeats=, and method='draws', to count draws instead"
THOUGHTS = "<think"
# "▁" and "Ġ" are the blank of SentencePiece and of byte-level BPE.
_BEFORE_WORDS = " \t\r\n\u2581\u0120"
OTHER = "p_other"
NO_INTERVAL = (
    "shares that a model gives as probabilities have no 95 % interval (low_…, high_…): they are not counts of "
    "answers. method='draws' with repeats= counts answers"
)


class NoSharesError(ConfigError):
    """The failure of a method by which a model gives no shares."""


def mean_shares(answers: Sequence[object], options: int) -> list[float] | Exception | None:
    """Return the cells of a row: the mean of its shares over the orders, without intervals; or the first
    order's failure.

    :param answers: for each order, the shares, an exception, or ``None`` for a logged failure.
    :param options: the number of options.
    """
    for answer in answers:
        if answer is None or isinstance(answer, Exception):
            return answer
    means = [math.fsum(shares) / len(answers) for shares in zip(*answers, strict=True)]
    return [*means, *[math.nan] * 2 * options]


def counted_shares(draws: Sequence[Any], options: int) -> list[float] | Exception | None:
    """Return the cells of a row: the shares among its draws, and their intervals; or the failure of the
    first draw that failed: an exception, or ``None`` for a logged one.

    :param options: the number of options.
    """
    counts = [0] * (options + 1)
    for draw in draws:
        if draw is None or isinstance(draw, Exception):
            return draw
        if draw.reply is None:  # an answer that names no option has a reply
            return draw.failure  # type: ignore[no-any-return]
        counts[-1 if draw.value is None else draw.fields["index"]] += 1
    intervals = [end for count in counts[:-1] for end in share_interval(count, len(draws))]
    return [*(count / len(draws) for count in counts), *intervals]


def share_columns(
    options: Sequence[object], row_columns: Sequence[object], others: Sequence[str]
) -> list[str]:
    """Return the names of the columns of the shares: the shares, then the ends of each option's interval.

    :param row_columns: the columns of the rows.
    :param others: the further columns of the table.
    :raises ValueError: if two columns would have the same name.
    """
    ends = (f"{end}_{option}" for option in options for end in ("low", "high"))
    names = [*(f"p_{option}" for option in options), OTHER, *ends]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(
                f"two columns of shares would be named {name!r}: give the options codes, such as "
                "{'something else': 'other'}"
            )
    for name in (*names, *others):
        if name in row_columns:
            raise ValueError(f"the rows have a column {name!r}, which the shares need: rename it")
    return names


def letter_shares(reply: Reply, count: int, temperature: float | None = None) -> list[float]:
    """Return the probability of each letter from A on, with or without a space before it, in upper
    or lower case.

    Servers give the probabilities at the temperature 1. At another one, each is raised to the power
    ``1 / temperature``; tokens below those listed count as if each were as likely as the last one.

    :param count: the number of letters.
    :param temperature: at which answers are drawn; ``None`` is the API's default, 1.
    :raises ConfigError: if the answer has no log probabilities, or comes after reasoning.
    """
    # Some servers list impossible ones.
    logprobs = [pair for pair in _first_token_logprobs(reply) if math.exp(pair[1])]
    unlisted = max(0.0, 1 - math.fsum(math.exp(logprob) for _, logprob in logprobs))
    values = [logprob for _, logprob in logprobs] or [0.0]
    highest, lowest = max(values), min(values)
    if temperature == 0:
        weights = [(token, float(logprob == highest)) for token, logprob in logprobs]
        unlisted = 0.0
    else:
        # Divided by the likeliest one's: at a small temperature, all would be 0.
        power = 1 / (1 if temperature is None else temperature)
        weights = [(token, math.exp((logprob - highest) * power)) for token, logprob in logprobs]
        unlisted *= math.exp((lowest - highest) * power - lowest)
    total = math.fsum([unlisted, *(weight for _, weight in weights)])
    shares = [0.0] * count
    for token, weight in weights:
        letter = token.lstrip(_BEFORE_WORDS).upper()
        position = ascii_uppercase.find(letter) if len(letter) == 1 else -1
        if 0 <= position < count:
            shares[position] += weight / total
    return shares


def _first_token_logprobs(reply: Reply) -> list[tuple[str, float]]:
    """Return the log probabilities of the first token: the likeliest tokens, and the sampled one.

    Several tokens may have the same text: vLLM gives "A" for SentencePiece's "A" and "▁A".
    """
    model = reply.model
    message = choices_of(reply.raw)[0]["message"]
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    content = (reply.logprobs or {}).get("content") or []
    if not content or not content[0].get("top_logprobs"):
        raise NoSharesError(
            f"the server of the model {model!r} gives no log probabilities (logprobs=True, "
            f"top_logprobs={TOP_LOGPROBS}): {COUNT_DRAWS}"
        )
    first = content[0]
    if thoughts or reply.usage.reasoning_tokens or first["token"].lstrip().startswith(THOUGHTS):
        raise NoSharesError(
            f"the model {model!r} reasons before it answers, so its first token shows little about "
            f"its answers: {COUNT_DRAWS}"
        )
    # Two equal entries are one token.
    pairs = dict.fromkeys((entry["token"], entry["logprob"]) for entry in first["top_logprobs"])
    logprobs = list(pairs)
    sampled = first["token"], first["logprob"]
    if sampled[0] not in dict(logprobs):
        logprobs.append(sampled)
    # Some servers give null for an impossible token: JSON has no minus infinity.
    return [(token, logprob) for token, logprob in logprobs if logprob is not None]
