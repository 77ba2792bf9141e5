"""``llmcall run --override NAME:K=TEXT``."""

from __future__ import annotations

import re

import click

from ...cli.options import RunOption
from .override import override

OVERRIDE = re.compile(r"(?P<actor>.+?):(?P<number>\d+)=(?P<text>.*)", re.DOTALL)


def read_overrides(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[tuple[str, int], str]:
    """Return the answers by actor and call.

    :raises click.UsageError: for a value of another form.
    """
    answers: dict[tuple[str, int], str] = {}
    for value in values:
        parts = OVERRIDE.fullmatch(value)
        if parts is None:
            raise click.BadParameter(
                f"{value!r} is not of the form NAME:K=TEXT, such as Ben:2=no", context, parameter
            )
        answers[parts["actor"], int(parts["number"])] = parts["text"]
    return answers


OVERRIDE_OPTION = RunOption(
    click.option(
        "--override",
        "overrides",
        metavar="NAME:K=TEXT",
        multiple=True,
        callback=read_overrides,
        help="Answer the K-th call of the actor NAME with TEXT instead of the model. Repeat the option for several. "
        "The exit code is 1 if that call never comes.",
    ),
    override,
)
