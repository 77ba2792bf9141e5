"""Functions whose results are recorded as a model's answers are: a clock, a random draw, a search,
a tool. HTTP requests of programs are recorded in the same way.
"""

from .decorator import recorded
from .http_requests import http_call

__all__ = ["http_call", "recorded"]
