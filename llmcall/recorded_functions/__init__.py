"""Functions whose results are recorded as a model's answers are: a clock, a search, a tool.

HTTP requests of programs that are recorded as they are take the same steps.
"""
