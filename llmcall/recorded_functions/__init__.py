"""Functions whose results are recorded as a model's answers are: a clock, a random draw, a search,
a tool. HTTP requests of programs are recorded in the same way.
"""
