"""Checks of arguments: an error says which one is wrong, and what it must be."""

from __future__ import annotations


def check_function(name: str, value: object, words: str) -> None:
    """Refuse what is neither a function nor ``None``.

    :param name: the argument's name.
    :param words: what it is a function of.
    :raises TypeError: naming the argument.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} is {value!r}; it must be a function of {words}")


def check_text(name: str, value: object) -> None:
    """Refuse what is neither a text nor ``None``.

    :param name: the argument's name.
    :raises TypeError: naming the argument.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; it must be a text")
