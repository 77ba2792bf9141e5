"""``python -m llmcall``: the command line."""

from .cli.main import main

main()
