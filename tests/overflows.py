"""How servers say that a prompt is too long: full texts, as they were seen in the wild."""

from __future__ import annotations

from servers import Answer, refusal


def vllm(message: str, status: int = 400) -> Answer:
    """Return an error in the flat form of vLLM and SGLang."""
    return Answer(
        status, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}
    )


def openai_overflow(message: str) -> Answer:
    """Return an error as OpenAI and Azure give it."""
    return refusal(400, message, param="messages", code="context_length_exceeded")


def llama_cpp(message: str, status: int = 400, **numbers: int) -> Answer:
    """Return an error of llama.cpp's server: its code is the status, a number."""
    return Answer(
        status, {"error": {"code": status, "message": message, "type": "exceed_context_size_error", **numbers}}
    )


# The words of servers, the prompt's tokens and the context window that they tell.
OVERFLOWS: dict[str, tuple[Answer, int | None, int | None]] = {
    "openai": (
        openai_overflow(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 10383 tokens. "
            "Please reduce the length of the messages."
        ),
        10383,
        8192,
    ),
    "openai, with an answer": (
        openai_overflow(
            "This model's maximum context length is 4097 tokens. However, you requested 4203 tokens (3703 in the "
            "messages, 500 in the completion). Please reduce the length of the messages or completion."
        ),
        3703,
        4097,
    ),
    "openai, with functions": (
        openai_overflow(
            "This model's maximum context length is 4097 tokens. However, you requested 4203 tokens (3003 in the "
            "messages, 700 in the functions, and 500 in the completion). Please reduce the length of the messages, "
            "functions, or completion."
        ),
        3703,
        4097,
    ),
    "openai, gpt-5": (
        openai_overflow(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 289650 tokens. "
            "Please reduce the length of the messages."
        ),
        289650,
        272000,
    ),
    "openai, without numbers": (
        openai_overflow("Your input exceeds the context window of this model. Please adjust your input and try again."),
        None,
        None,
    ),
    "openai, embeddings, without a code": (
        refusal(
            400,
            "This model's maximum context length is 8192 tokens, however you requested 8610 tokens (8610 in "
            "your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
        ),
        8610,
        8192,
    ),
    "vllm": (
        vllm(
            "This model's maximum context length is 16384 tokens. However, you requested 19591 tokens (9591 in the "
            "messages, 10000 in the completion). Please reduce the length of the messages or completion. None"
        ),
        9591,
        16384,
    ),
    "vllm, the prompt alone": (
        vllm(
            "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please "
            "reduce the length of the input messages."
        ),
        5000,
        4096,
    ),
    "vllm, the token limit": (
        vllm(
            "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context length is 4096 "
            "tokens and your request has 4000 input tokens (1000 > 4096 - 4000)."
        ),
        4000,
        4096,
    ),
    "vllm, new": (
        refusal(
            400,
            "This model's maximum context length is 16384 tokens. However, you requested 8192 output tokens and your "
            "prompt contains at least 8193 input tokens, for a total of at least 16385 tokens. Please reduce the "
            "length of the input prompt or the number of requested output tokens.",
            type="BadRequestError",
            param="input_tokens",
            code=400,
        ),
        8193,
        16384,
    ),
    "vllm, the engine": (
        vllm(
            "The decoder prompt (length 17772) is longer than the maximum model length of 16384. Make sure that "
            "`max_model_len` is no smaller than the number of text tokens."
        ),
        17772,
        16384,
    ),
    "vllm, the engine of 0.8": (
        vllm("Prompt length of 5016 is longer than the maximum model length of 4096."),
        5016,
        4096,
    ),
    "vllm behind xinference": (
        Answer(
            500,
            {
                "detail": "[address=0.0.0.0:1] The decoder prompt (length 66501) is longer than the maximum model "
                "length of 65536."
            },
        ),
        66501,
        65536,
    ),
    "llama.cpp, old": (
        Answer(
            400,
            {
                "error": {
                    "code": 400,
                    "type": "invalid_request_error",
                    "message": "the request exceeds the available "
                    "context size. try increasing the context size or enable context shift",
                }
            },
        ),
        None,
        None,
    ),
    "llama.cpp, with numbers": (
        llama_cpp("the request exceeds the available context size, try increasing it", n_prompt_tokens=1407, n_ctx=256),
        1407,
        256,
    ),
    "llama.cpp, as a failure of its own": (
        llama_cpp("the request exceeds the available context size", 500, n_prompt_tokens=1407, n_ctx=256),
        1407,
        256,
    ),
    "llama.cpp, new": (
        llama_cpp("request (131168 tokens) exceeds the available context size (131072 tokens), try increasing it"),
        131168,
        131072,
    ),
    "llama.cpp, with status 200": (
        llama_cpp("the request exceeds the available context size.", n_prompt_tokens=14429, n_ctx=8192)._replace(
            status=200
        ),
        14429,
        8192,
    ),
    "llama.cpp, embeddings": (
        Answer(
            500,
            {
                "error": {
                    "code": 500,
                    "type": "server_error",
                    "message": "input (700 tokens) is too large to process. "
                    "increase the physical batch size (current batch size: 512)",
                }
            },
        ),
        700,
        512,
    ),
    "llama-cpp-python": (
        refusal(500, "Requested tokens (2285) exceed context window of 2048"),
        2285,
        2048,
    ),
    "ollama": (
        Answer(
            400,
            {"error": {"message": "the input length exceeds the context length", "type": "api_error", "code": None}},
        ),
        None,
        None,
    ),
    "ollama, old": (Answer(500, {"error": "input length exceeds maximum context length"}), None, None),
    "sglang": (
        vllm("The input (61709 tokens) is longer than the model's context length (40960 tokens)."),
        61709,
        40960,
    ),
    "sglang, with an answer": (
        vllm(
            "Requested token count exceeds the model's maximum context length of 64000 tokens. You requested a "
            "total of 71897 tokens: 7897 tokens from the input messages and 64000 tokens for the completion. Please "
            "reduce the number of tokens in the input messages or the completion to fit within the limit."
        ),
        7897,
        64000,
    ),
    "sglang, the memory": (
        vllm("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens). Use a shorter input."),
        160062,
        59862,
    ),
    "openrouter": (
        refusal(
            400,
            "This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 tokens "
            "(42832 of text input). Please reduce the length of either one.",
            code=400,
        ),
        42832,
        32768,
    ),
    "anthropic": (refusal(400, "prompt is too long: 213462 tokens > 200000 maximum"), 213462, 200000),
    "gemini": (
        Answer(
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "status": "INVALID_ARGUMENT",
                        "message": "The input token count (314175) exceeds "
                        "the maximum number of tokens allowed (131072).",
                    }
                }
            ],
        ),
        314175,
        131072,
    ),
    "xai": (
        Answer(
            400,
            {
                "code": "Client specified an invalid argument",
                "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            },
        ),
        537812,
        131072,
    ),
}
