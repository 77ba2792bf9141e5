"""The SDKs of three providers at their own addresses: equal questions, streams, tasks of one event loop."""

import asyncio
import json

import anthropic
import openai
from google import genai

ASKED = [{"role": "user", "content": "Bread?"}]
CLAUDE = {"model": "claude-sonnet-4-5", "max_tokens": 20, "messages": ASKED}
GEMINI = {"model": "gemini-2.5-flash", "contents": "Bread?"}


def with_openai() -> list[str]:
    """Return what OpenAI's two APIs answer."""
    client, model = openai.OpenAI(), "gpt-4o-mini"
    chats = client.chat.completions
    said = [chats.create(model=model, messages=ASKED).choices[0].message.content for _ in range(2)]
    chunks = [*chats.create(model=model, messages=ASKED, stream=True)]
    said.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    said += [client.responses.create(model=model, input="Bread?").output_text for _ in range(2)]
    with client.responses.stream(model=model, input="Milk?") as stream:
        return [*said, stream.get_final_response().output_text]


def with_anthropic() -> list[str]:
    """Return what Anthropic's API answers."""
    messages = anthropic.Anthropic().messages
    said = [messages.create(**CLAUDE).content[0].text for _ in range(2)]
    with messages.stream(**CLAUDE) as stream:
        return [*said, "".join(stream.text_stream)]


def with_google() -> list[str]:
    """Return what Google's API answers."""
    client = genai.Client()  # it closes its models with itself
    models = client.models
    said = [models.generate_content(**GEMINI).text for _ in range(2)]
    return [*said, "".join(part.text for part in models.generate_content_stream(**GEMINI))]


async def in_tasks() -> list[str]:
    """Return what the asynchronous clients are answered, two equal questions at once."""
    client, claude, google = openai.AsyncOpenAI(), anthropic.AsyncAnthropic(), genai.Client()
    chats = [client.chat.completions.create(model="gpt-4o-mini", messages=ASKED) for _ in range(2)]
    said = [answer.choices[0].message.content for answer in await asyncio.gather(*chats)]
    messages = await asyncio.gather(*(claude.messages.create(**CLAUDE) for _ in range(2)))
    gemini = google.aio.models
    contents = await asyncio.gather(*(gemini.generate_content(**GEMINI) for _ in range(2)))
    return [*said, *(message.content[0].text for message in messages), *(c.text for c in contents)]


said = with_openai() + with_anthropic() + with_google() + asyncio.run(in_tasks())
print(json.dumps({"said": said}))
