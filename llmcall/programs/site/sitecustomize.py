"""Begins each Python process that a recorded program starts: its requests go to the program's run.

Python imports the first ``sitecustomize`` on its path when it starts. This one puts the environment back
as the program gave it, and then imports the next one.
"""

import importlib.machinery
import importlib.util
import os
import sys


def _begin() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    route = os.environ.get("_LLMCALL_ROUTE")
    # A Python without llmcall has the addresses in the environment alone.
    if route and importlib.util.find_spec("llmcall") is not None:
        from llmcall.programs.children import begin_by_environment

        begin_by_environment(route)
    following = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if following is not None and following.loader is not None:
        module = importlib.util.module_from_spec(following)
        sys.modules["sitecustomize"] = module
        following.loader.exec_module(module)


_begin()
