"""Print the answer to a question: ``plain_sqlite.py FOLDER BASE_URL SYSTEM QUESTION``."""

import hashlib
import json
import os
import sqlite3
import sys

folder, base_url, system, question = sys.argv[1:]
request = {
    "model": "gpt-6-luna",
    "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
}
key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
os.makedirs(folder, exist_ok=True)
connection = sqlite3.connect(f"{folder}/answers.sqlite3")
connection.execute("PRAGMA journal_mode = wal")
connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, message TEXT)")
row = connection.execute("SELECT message FROM answers WHERE key = ?", (key,)).fetchone()
if row is not None:
    message = json.loads(row[0])
else:
    import openai

    response = openai.OpenAI(api_key="sk-benchmark", base_url=base_url).chat.completions.create(
        **request
    )
    message = response.choices[0].message.model_dump(exclude_unset=True)
    with connection:
        connection.execute("INSERT INTO answers VALUES (?, ?)", (key, json.dumps(message)))
print(message["content"])
