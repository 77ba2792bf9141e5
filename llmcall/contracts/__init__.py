"""The contracts of the seams, as tests that every implementation passes; ``llmcall.testing`` shows them."""
