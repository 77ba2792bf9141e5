"""Functions whose results are recorded as a model's answers are: a clock, a random draw, a search,
a tool. HTTP requests of programs are recorded in the same way.
"""

from .calls import FunctionCall, RequestCounter, UnrecordedAnswer
from .decorator import recorded
from .http_requests import http_call

__all__ = ["FunctionCall", "RequestCounter", "UnrecordedAnswer", "http_call", "recorded"]
