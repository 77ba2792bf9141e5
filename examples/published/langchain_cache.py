"""Read the cache of LangChain, a file of SQLite, for an import:
``.langchain.db --layout langchain_cache:rows --to langchain.jsonl``.
"""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

ROLES = {"system": "system", "human": "user", "ai": "assistant"}


def rows(path: str) -> Iterator[dict[str, Any]]:
    """Yield an answer at a time, with its request."""
    with sqlite3.connect(path) as database:
        for prompt, model, answer in database.execute(
            "SELECT prompt, llm, response FROM full_llm_cache ORDER BY rowid"
        ):
            fields = json.loads(model.partition("---")[0])["kwargs"]
            said = [message["kwargs"] for message in json.loads(prompt)]
            yield {
                "prompt": [
                    {"role": ROLES[part["type"]], "content": part["content"]} for part in said
                ],
                "answer": json.loads(answer)["kwargs"]["text"],
                "model": fields["model_name"],
                "temperature": fields.get("temperature"),
            }
