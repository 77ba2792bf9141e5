"""Concordia's documents: options in an order that unseeded chance decides, names drawn by chance."""

from __future__ import annotations

import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor

from concordia.document.interactive_document import InteractiveDocument
from concordia.language_model.gpt_model import GptLanguageModel
from concordia.language_model.language_model import InvalidResponseError

NAMES = ("Lisa", "Oscar", "Emma", "Noah")


def talk(task: tuple[str, str]) -> list[str]:
    """Return what one actor says to an open question and to one with options."""
    name, model_name = task
    document = InteractiveDocument(GptLanguageModel(model_name))
    document.statement(f"{name} stands at the market.")
    texts = [document.open_question(f"What does {name} say?")]
    try:
        document.multiple_choice_question("What is bought?", ["bread", "milk", "salt", "tea"])
    except InvalidResponseError as error:
        texts.append(str(error))
    texts.append(document.open_question("Why?"))
    return texts


if __name__ == "__main__":
    first = random.Random().choice(NAMES)
    actors = [first, *(name for name in NAMES if name != first)][:2]
    if "changed" in sys.argv:
        actors[1] = f"Old {actors[1]}"
    with ThreadPoolExecutor(2) as pool:
        talks = list(pool.map(talk, [(name, "gpt-4o-mini") for name in actors]))
    print(json.dumps(list(zip(actors, talks, strict=True))))
