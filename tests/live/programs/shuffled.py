"""Replay a program in some orders of its actors: ``shuffled.py PROGRAM CASSETTE ORDERS``; print a transcript a line."""

from __future__ import annotations

import json
import runpy
import sys

import llmcall


def main(program: str, cassette: str, orders: str) -> None:
    """Replay."""
    play = runpy.run_path(program)["main"]
    for seed in range(int(orders)):
        with llmcall.cassette(cassette, mode="none"), llmcall.patched(actor="system"):
            said = play(seed)
        print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
