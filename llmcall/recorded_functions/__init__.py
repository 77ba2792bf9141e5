"""Functions whose results are recorded like a model's answers: a clock, a search, a tool.

Programs' HTTP requests that are recorded unchanged take the same steps.
"""
