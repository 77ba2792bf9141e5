"""The options of a closed question, and the order in which a respondent reads them.

The order depends only on the scope path without the repeats of a ``map``, the repeat, and the options that
move, as they were given. So the same respondent reads the same order in every framing of a question, model
and arm, another row changes no other row's order, and two questions have orders of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from math import factorial
from string import ascii_uppercase
from typing import Any, NamedTuple

from ...answers.lettered_options import folded_text, letter_position
from ...errors import TemplateError
from ...scopes.active import scope_of_call
from ...scopes.position import without_repeats
from ...stores.cassettes.current import open_current_cassette
from ...typed.corrections import shortened_repr

MIN_OPTIONS, MAX_OPTIONS = 2, len(ascii_uppercase)
ORDERS = ("given", "reverse", "shuffle", "rotate")


class ChoiceOptions(NamedTuple):
    """The options of a closed question, in the order given.

    :param values: the value that a call returns for each: its text, or its code.
    :param texts: the template of the text that the model reads for each; or, of a row, the text.
    :param moving: the indexes of the options that move, in order.
    :param last: the indexes of the options that stay at the end, in order.
    """

    values: tuple[Any, ...]
    texts: tuple[str, ...]
    moving: tuple[int, ...]
    last: tuple[int, ...]

    def texts_in(self, order: Iterable[int]) -> list[str]:
        """Return the texts of some options in an order.

        :param order: the index of each option as it was given.
        """
        return [self.texts[index] for index in order]

    def rendered(
        self, texts: Sequence[str], order: str, variables: Mapping[str, object]
    ) -> ChoiceOptions:
        """Return the options of a row, checked.

        :param texts: the options as they were rendered; they are the values, too, if they have no codes.
        :param order: the name of the order.
        :param variables: those of the row, for an error.
        :raises TemplateError: if an answer could not tell them apart.
        """
        if self.texts == tuple(texts):
            return self
        try:
            _check_texts(tuple(texts), order)
        except ValueError as error:
            raise TemplateError(f"{error} (rendered with {shortened_repr(variables)})") from None
        values = tuple(texts) if self.values == self.texts else self.values
        return self._replace(values=values, texts=tuple(texts))


def checked_options(options: Any, last: Any, order: object) -> ChoiceOptions:
    """Return the options of a question, checked.

    :param options: strings, or a dict from code to text.
    :param last: the options that stay at the end, by text or code.
    :param order: the name of the order.
    :raises TypeError: if the options are not a list of texts or a dict.
    :raises ValueError: for fewer than two options, or more than 26; for two that cannot be
        distinguished; for an unknown option in ``last``; for an unknown order.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; it must be one of {', '.join(ORDERS)}")
    values = tuple(options)
    texts = tuple(options.values()) if isinstance(options, Mapping) else values
    if isinstance(options, (str, set)) or not all(isinstance(text, str) for text in texts):
        raise TypeError(
            f"options is {options!r}; it must be a list of strings, or a dict from code to text"
        )
    _check_texts(texts, order)
    final = sorted({*map(values.index, [last] if isinstance(last, str) else last)})
    moving = tuple(index for index in range(len(values)) if index not in final)
    return ChoiceOptions(values, texts, moving, tuple(final))


def _check_texts(texts: tuple[str, ...], order: str) -> None:
    if not MIN_OPTIONS <= len(texts) <= MAX_OPTIONS:
        raise ValueError(
            f"a question needs {MIN_OPTIONS} to {MAX_OPTIONS} options, not {len(texts)}"
        )
    by_plain_text: dict[str, str] = {}
    for index, text in enumerate(texts):
        if not text.strip() or len(text.splitlines()) > 1:
            raise ValueError(f"the option {text!r} is empty, or has more than one line")
        earlier = by_plain_text.setdefault(folded_text(text), text)
        if len(by_plain_text) <= index:
            raise ValueError(
                f"the options {earlier!r} and {text!r} differ at most in case, quotes and closing punctuation, so an "
                "answer cannot tell them apart"
            )
        position = letter_position(text)
        is_own = order == "given" and position == index
        if position is not None and position < len(texts) and not is_own:
            raise ValueError(
                f"the option {text!r} reads like the letter {ascii_uppercase[position]}, which may be "
                "another option's letter: rephrase it"
            )


class Respondent(NamedTuple):
    """The respondent's name and repeat, which decide the order.

    :param path: the scope path without the repeats, or, outside a scope, the item's name; empty if
        there is neither.
    :param repeat: the number of the repeat, from 0. Where a ``map`` runs inside another, it is the sum
        of both: while only one of them repeats, it counts up by one.
    """

    path: str
    repeat: int

    @classmethod
    def current(cls) -> Respondent:
        """Return the respondent of the current context.

        :raises ScopeError: in a thread or process without a scope while another has one open.
        """
        open_current_cassette()  # first: one that the settings name may have a scope for this call
        active = scope_of_call()
        path, repeats = without_repeats(active.path)
        return cls(path or active.item.name, sum(repeats))


def moving_order(order: str, options: Sequence[str], respondent: Respondent) -> tuple[int, ...]:
    """Return the order in which a respondent reads the options that move.

    :param order: its name, one of ``ORDERS``.
    :param options: the texts of the options that move, as they were given.
    :returns: the order as given, if the respondent has no path.
    """
    count = len(options)
    given_order = tuple(range(count))
    if order == "given" or not respondent.path:
        return given_order
    if order == "shuffle":
        number = _number(respondent.path, options, respondent.repeat)
        return permutation(count, number % factorial(count))
    number = _number(respondent.path, options)
    if order == "rotate":
        start = (number + respondent.repeat) % count
        return given_order[start:] + given_order[:start]
    return given_order[::-1] if number % 2 else given_order


def permutation(count: int, index: int) -> tuple[int, ...]:
    """Return a permutation of the numbers below ``count``, by its index in lexicographic order."""
    remaining = list(range(count))
    numbers = []
    for size in range(count, 0, -1):
        position, index = divmod(index, factorial(size - 1))
        numbers.append(remaining.pop(position))
    return tuple(numbers)


def _number(path: str, options: Sequence[str], repeat: int | None = None) -> int:
    """Return the number that decides an order."""
    text = "\n".join(("choice", path, *options))
    if repeat is not None:
        text += f"\n{repeat}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
