"""The notes of a typed question's record."""

from __future__ import annotations

from collections.abc import Mapping

from ..keys.request import Data
from ..stores.notes import Note


def _is_form(value: dict[str, Data]) -> bool:
    if value.keys() != {"name", "digest", "variables"}:
        return False
    name, digest, variables = (value[field] for field in ("name", "digest", "variables"))
    return isinstance(variables, dict) and all(
        isinstance(text, str) for text in (name, digest, *variables.values())
    )


def _merged_form(recorded: Mapping[str, Data], noted: Mapping[str, Data]) -> Data:
    """Return the recorded form, unless the template has changed: other variables may give the same request."""
    return recorded if recorded["digest"] == noted["digest"] else noted


# The template or question that made the request: its name, its digest, and the variables that it used, each cut
FORM = Note[Mapping[str, Data] | None](
    "form",
    dict,
    None,
    rule="must have a name, a digest and variables, which are strings",
    check=_is_form,
    merge=_merged_form,
)
# Whether its LLMCall could not read the answer
UNREAD = Note[bool]("unread", bool, False, words=lambda _: "unread")
