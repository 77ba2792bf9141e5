"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays.

Read ``position.py`` first: the caller, as plain data and as threads and tasks hold it. ``active.py`` finds the scope
in which code runs, and ``draws.py`` counts its draws (``draw_numbers.py``: which number is whose), a map's items too.
``scope.py`` and ``arms.py`` enter scopes, and bind functions to them. ``rules.py`` refuses a call where
timing would decide its draw; ``workers.py`` knows which scopes other threads and processes have open. ``callers.py``
names tasks and threads, ``repeated.py`` warns.
"""

from .active import PROGRAM_SCOPE as PROGRAM_SCOPE
from .active import ActiveScope as ActiveScope
from .active import OpenedBy as OpenedBy
from .active import ScopedRecord as ScopedRecord
from .active import default_scope as default_scope
from .active import forget as forget
from .active import here as here
from .active import new_program_scope as new_program_scope
from .active import next_order as next_order
from .active import scope_of_call as scope_of_call
from .arms import Arm as Arm
from .arms import arm as arm
from .arms import seed as seed
from .callers import Caller as Caller
from .callers import begin_naming as begin_naming
from .callers import counted_apart as counted_apart
from .callers import current_caller as current_caller
from .callers import current_for_draw as current_for_draw
from .callers import end_naming as end_naming
from .callers import enter_item as enter_item
from .callers import in_program_call as in_program_call
from .callers import known_caller as known_caller
from .callers import naming_own_calls as naming_own_calls
from .callers import numbered_anew as numbered_anew
from .callers import running_as as running_as
from .callers import running_work as running_work
from .callers import set_caller as set_caller
from .draw_numbers import RecordedCallers as RecordedCallers
from .draw_numbers import ScopedRequest as ScopedRequest
from .draws import ACTOR as ACTOR
from .draws import Draw as Draw
from .draws import DrawList as DrawList
from .draws import Drawn as Drawn
from .draws import Draws as Draws
from .draws import DrawsElsewhere as DrawsElsewhere
from .draws import Item as Item
from .draws import MapIsOverError as MapIsOverError
from .draws import known_draws as known_draws
from .draws import take_swapped as take_swapped
from .position import AskedBy as AskedBy
from .position import Branch as Branch
from .position import Branches as Branches
from .position import CallOrder as CallOrder
from .position import Form as Form
from .position import MakeForm as MakeForm
from .position import Position as Position
from .position import checked_name as checked_name
from .position import current_ticket as current_ticket
from .position import held as held
from .position import hold_in_process as hold_in_process
from .position import hold_program_call as hold_program_call
from .position import hold_scope as hold_scope
from .position import hold_ticket as hold_ticket
from .position import is_reserved_name as is_reserved_name
from .position import path_before_items as path_before_items
from .position import reserved_name as reserved_name
from .position import take_place as take_place
from .position import without_repeats as without_repeats
from .repeated import RepeatedAnswers as RepeatedAnswers
from .scope import Bound as Bound
from .scope import Scope as Scope
from .scope import bind as bind
from .scope import default_here as default_here
from .scope import in_default as in_default
from .scope import in_function as in_function
from .scope import in_process as in_process
from .scope import in_scope_of as in_scope_of
from .scope import map_outside as map_outside
from .scope import scope as scope
from .scope import scope_of_actor as scope_of_actor
