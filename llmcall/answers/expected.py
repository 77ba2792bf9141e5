"""The form that an answer must have to be recorded, from the ``response_format`` of its call."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ..apis.endings import is_cut
from ..apis.message import content_text
from ..apis.shapes import choices_of
from ..errors import OutputError
from ..keys.plain_data import plain
from ..keys.request import Data, UncheckedFormat
from ..support.display import shortened

LONGEST_QUOTE = 200  # characters of an answer in a message
ANY_JSON = ""  # the form of JSON mode


class Expected(NamedTuple):
    """The form of an answer: a class, a strict JSON schema as text, or any JSON.

    :param form: the class, the schema, or ``ANY_JSON``.
    """

    form: Any

    @property
    def is_class(self) -> bool:
        """Return whether the form is a class, so that a text can be read as an object."""
        return not isinstance(self.form, str)

    def read(self, text: str) -> Any:
        """Return the object of the class that a text represents.

        :raises OutputError: if the text does not fit the class.
        """
        from .reading import read  # imported late, since a recorded answer is seldom read

        return read(text, self.form)

    def misfit_in(self, response: Mapping[str, Data]) -> str | None:
        """Return where a chat's answer departs from the form, or ``None`` if it fits. Fallbacks decide about
        answers that the context window cut.
        """
        for choice in choices_of(response):
            message = choice["message"]
            # No format holds for an answer that a limit cut, or for words beside a tool call.
            if is_cut(choice.get("finish_reason")) or message.get("tool_calls"):
                continue
            text = None if message.get("refusal") else content_text(message.get("content"))
            problem = _misfit(text, self) if text else None  # a refusal
            if problem is not None:
                return problem
        return None


def expected_form(response_format: object) -> Expected | None:
    """Return the form that an answer must have to be recorded, or ``None`` for any form.

    :param response_format: the argument of the call.
    """
    if isinstance(response_format, UncheckedFormat):
        return None
    if not isinstance(response_format, dict):
        return Expected(response_format)
    if response_format.get("type") == "json_object":
        return Expected(ANY_JSON)
    json_schema = response_format.get("json_schema")
    if not isinstance(json_schema, dict) or json_schema.get("strict") is not True:
        return None
    schema = json_schema.get("schema")
    return None if schema is None else Expected(json.dumps(plain(schema, "response_format")))


@lru_cache(maxsize=500)  # a recorded answer is checked at each replay
def _misfit(text: str, expected: Expected) -> str | None:
    if expected.is_class:
        try:
            expected.read(text)
        except OutputError as error:
            return str(error)
        return None
    if expected.form == ANY_JSON:  # some servers put it into a fenced block, or reasoning before it
        try:
            from .json_texts import json_values  # not needed for most answers

            return None if any(True for _ in json_values(text)) else "it is not JSON"
        except RecursionError:
            return "it is nested too deeply"
    from ..support.libraries import jsonschema, referencing

    # With an empty registry, no reference of a schema is fetched from the network.
    registry: object = referencing.Registry()
    validator = jsonschema.Draft202012Validator(json.loads(expected.form), registry=registry)
    try:
        violation = jsonschema.exceptions.best_match(validator.iter_errors(json.loads(text)))
    except (jsonschema.exceptions.UnknownType, referencing.exceptions.Unresolvable, re.error):
        return None  # no validator here knows this schema
    except ValueError as error:
        return f"it is not JSON ({error})"
    except RecursionError:
        return "it is nested too deeply"
    if violation is None:
        return None
    return f"{violation.json_path}: {shortened(violation.message, LONGEST_QUOTE)}"
