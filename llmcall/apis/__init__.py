"""Requests and answers in the shapes of the APIs: chat completions, Responses, Messages, Gemini."""
