"""Ask one question. Run it twice: the second run makes no call and prints the same answer."""

from __future__ import annotations

import llmcall

messages = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]

client = llmcall.client()
response = client.send_message(current_messages=messages, max_tokens=50)
if response:
    print(response)
