"""Faults on demand: what a user may break, when a rule applies, and what was hit.

A service asks `faults.fire(POINT, peer=..., ...)` at a named point. The board decides *whether* and *when*: it answers
with an `Action` of that point, or None. The service decides what the action looks like on the wire. Every firing is an
event (`fault.fired`) that names the rule and the request it hit. Without rules nothing is different: off by default.

`points` says what a point and an action are, `rules` what a fault is and how one is read from JSON, `board` keeps them,
and `catalogue` lists all points there are.
"""

from __future__ import annotations

from cucm.faults.board import NO_FAULTS, FaultBoard, FaultSource
from cucm.faults.points import Action, FaultPoint
from cucm.faults.rules import Fault, fault_of

__all__ = ["NO_FAULTS", "Action", "Fault", "FaultBoard", "FaultPoint", "FaultSource", "fault_of"]
