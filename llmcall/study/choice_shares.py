"""The shares of a closed question's options, from the log probabilities of an answer's first token."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Mapping, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..call.drivers import drive
from ..calls import LLMCall, RowJob, SendMessage
from ..errors import ConfigError, EmptyAnswerError, InvalidRequestError, short_traceback
from ..requests.parameters import with_effort
from .choice_orders import Respondent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..clients.base import LLMClient
    from ..types import Reply

T = TypeVar("T")

MOST_OPTIONS = 20  # of which the API gives probabilities
OTHER = "p_other"
COUNT_DRAWS = "give logprobs=False to count the draws of repeats= instead"
THOUGHTS = "<think"
_BEFORE_WORDS = (
    " \t\r\n\u2581\u0120"  # "▁" and "Ġ" are the blank of SentencePiece and of byte-level BPE
)


class Question(Protocol):
    """A closed question, as its shares need it."""

    options: tuple[Any, ...]
    model_params: dict[str, Any]

    @property
    def client(self) -> LLMClient:
        """Return the client that it asks."""

    @property
    def model(self) -> str:
        """Return the name of the model that it asks."""

    def prompt(self, variables: dict[str, Any], order: tuple[int, ...]) -> list[dict[str, Any]]:
        """Return the messages that ask it with its options in an order."""

    def __map_job__(self) -> RowJob:
        """Return how a ``map`` asks about rows."""


class FirstAnswer:
    """Lets one call of a model through before all others, and keeps what its failure says.

    :ivar is_proven: whether an answer had log probabilities.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_proven = False
        self._failure: ConfigError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def ask(self, call: Callable[[], T]) -> T:
        """Make a call, alone until an answer had log probabilities.

        :raises ConfigError: if the first answer had none.
        """
        with self._lock:
            if self._failure is not None:
                raise ConfigError(*self._failure.args)
            if not self.is_proven:
                try:
                    answer = call()
                except ConfigError as error:
                    self._failure = error
                    raise
                self.is_proven = True
                return answer
        return call()


class SharesJob:
    """Ask each row once for each order of the options; a repeat of the ``map`` is an order.

    The first call of a model is made alone: if it has no log probabilities, no second one is made.

    :param question: the closed question.
    :param orders: the orders of its options.
    :param first: the first answer of its model.
    :ivar call: the same question, by which a plan finds what is recorded.
    """

    wants_names = False  # the repeat decides the order

    def __init__(
        self, question: Any, orders: Sequence[tuple[int, ...]], first: FirstAnswer
    ) -> None:
        self.call: LLMCall = question
        self._question: Question = question
        self._orders = orders
        self._first = first

    def __map_job__(self) -> SharesJob:
        return self

    @property
    def client(self) -> LLMClient:
        """Return the client that it asks."""
        return self._question.client

    def identity(self, item: Any) -> Any:
        """Return what identifies a row: the variables that the question uses."""
        return self._question.__map_job__().identity(item)

    @short_traceback
    def run(self, item: Any) -> list[float] | None:
        """Ask about a row in one order; return each option's share, and that of all else.

        :raises ConfigError: if the answer has no log probabilities, or comes after reasoning.
        :raises APIError: if the call failed for good.
        """
        return self._first.ask(lambda: self._shares(item))

    def _shares(self, item: Any) -> list[float] | None:
        return drive(self.conversation(item))

    def conversation(self, item: Any) -> Generator[SendMessage, Any, list[float] | None]:
        """Ask about a row in one order."""
        order = self._orders[Respondent.current().repeat % len(self._orders)]
        variables = self._question.__map_job__().variables(item)
        messages = self._question.prompt(variables, order)
        try:
            reply = yield SendMessage(
                self.client, messages, _parameters(self._question.model_params)
            )
        except (EmptyAnswerError, InvalidRequestError) as error:
            if self._first.is_proven or not _is_about_logprobs(error):
                raise
            raise ConfigError(
                f"log probabilities are not available here ({error}): {COUNT_DRAWS}"
            ) from error
        if reply is None:
            return None
        shares = [0.0] * (len(order) + 1)
        for position, share in enumerate(letter_shares(reply, len(order))):
            shares[order[position]] = share
        shares[-1] = max(0.0, 1 - math.fsum(shares))
        return shares


def _parameters(model_params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that asks for the probabilities of the first token."""
    limits = {} if "max_completion_tokens" in model_params else {"max_tokens": 1}
    return {**limits, **model_params, "logprobs": True, "top_logprobs": MOST_OPTIONS}


def _is_about_logprobs(error: EmptyAnswerError | InvalidRequestError) -> bool:
    """Return whether a call failed because it asked for log probabilities, or for one token of a
    model that reasons first.
    """
    return isinstance(error, EmptyAnswerError) or "logprobs" in str(error)


def letter_shares(reply: Reply, count: int) -> list[float]:
    """Return the probabilities of the first letters of the alphabet, with and without a space
    before them, in upper and lower case.

    :param count: how many letters.
    :raises ConfigError: if the answer has no log probabilities, or comes after reasoning.
    """
    shares = [0.0] * count
    for token, logprob in _first_token_logprobs(reply):
        letter = token.lstrip(_BEFORE_WORDS).upper()
        position = ascii_uppercase.find(letter) if len(letter) == 1 else -1
        if 0 <= position < count:
            shares[position] += math.exp(logprob)
    return shares


def _first_token_logprobs(reply: Reply) -> list[tuple[str, float]]:
    """Return the log probabilities of the first token: of the likeliest ones, and of the one given.

    Several tokens may have one text: vLLM gives "A" for SentencePiece's "A" and "▁A".
    """
    model = reply.model
    message = reply.raw["choices"][0]["message"]
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    content = (reply.logprobs or {}).get("content") or []
    if not content or not content[0].get("top_logprobs"):
        raise ConfigError(
            f"the server of the model {model!r} gives no log probabilities (logprobs=True, "
            f"top_logprobs={MOST_OPTIONS}): {COUNT_DRAWS}"
        )
    first = content[0]
    if thoughts or reply.usage.reasoning_tokens or first["token"].lstrip().startswith(THOUGHTS):
        raise ConfigError(
            f"the model {model!r} reasons before it answers, so its first token tells little about "
            f"its answers: {COUNT_DRAWS}"
        )
    # An entry that stands twice is one token.
    pairs = dict.fromkeys((each["token"], each["logprob"]) for each in first["top_logprobs"])
    logprobs = list(pairs)
    given = first["token"], first["logprob"]
    if given[0] not in dict(logprobs):
        logprobs.append(given)
    # Of a token that cannot come, some servers give null, as JSON has no minus infinity.
    return [(token, logprob) for token, logprob in logprobs if logprob is not None]


def check_for_shares(question: Question) -> None:
    """Refuse a question whose probabilities cannot be read, before anything is asked.

    :raises ValueError: for more than 20 options.
    :raises ConfigError: if the model is known to give no log probabilities.
    """
    count = len(question.options)
    if count > MOST_OPTIONS:
        raise ValueError(
            f"there are {count} options, but the API gives the log probabilities of only {MOST_OPTIONS} "
            f"tokens: {COUNT_DRAWS}"
        )
    model = question.model
    client = question.client
    parameters = with_effort(model, {**client.resolved.defaults, **question.model_params})
    refused = client.capabilities(model).refused(parameters.get("reasoning_effort"))
    if "logprobs" in refused:
        raise ConfigError(
            f"the model {model!r} takes no logprobs, like other models that reason before they answer: "
            f"{COUNT_DRAWS}"
        )


def mean_shares(answers: Sequence[Any]) -> list[float] | Exception | None:
    """Return the mean of a row's shares over the orders; if an order failed, what it failed by.

    :param answers: for each order the shares, an exception, or ``None`` for a logged failure.
    """
    for each in answers:
        if each is None or isinstance(each, Exception):
            return each
    return [math.fsum(shares) / len(answers) for shares in zip(*answers, strict=True)]


def share_columns(options: Sequence[Any], row_columns: Sequence[Any]) -> list[str]:
    """Return the names of the columns of the shares.

    :param row_columns: the columns of the rows.
    :raises ValueError: if two columns would have the same name.
    """
    names = [*(f"p_{option}" for option in options), OTHER]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(
                f"two columns of the shares would have the name {name!r}: give the options codes, "
                "such as {'something else': 'other'}"
            )
        if name in row_columns:
            raise ValueError(f"the rows have a column {name!r}, which the shares need: rename it")
    return names
