"""``llmcall ask --local``."""

from __future__ import annotations

import click

from ...cli.options import OtherClient

LOCAL = OtherClient(
    click.option(
        "--local",
        is_flag=True,
        help="Ask a small model in this process, without an API key or network (extra 'local').",
    ),
    "local",
    # Without a system message, the model leaves the subject and the language.
    "You are a helpful assistant.",
    # A small model is best at temperature 0, and may never stop without a limit.
    {"temperature": 0, "max_tokens": 200},
)
