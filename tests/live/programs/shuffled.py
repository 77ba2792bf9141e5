"""Replay a program in some orders of its actors: ``shuffled.py PROGRAM CASSETTE ORDERS``; print a
transcript a line.
"""

from __future__ import annotations

import importlib
import json
import sys

from market import main

import llmcall

if __name__ == "__main__":
    program, cassette, orders = sys.argv[1:]
    importlib.import_module(program)
    for seed in range(int(orders)):
        with llmcall.cassette(cassette, mode="none", actor="system"):
            answers = main(program, seed)
        print(json.dumps(answers))
