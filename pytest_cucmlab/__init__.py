"""A running lab of CUCM clusters and phones as pytest fixtures: `cucm_lab`.

The lab is a process of its own; this package speaks to it over HTTP and imports nothing of it. pytest imports the
package in every project that has it installed, so that what it holds is imported only when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_cucmlab.client import LabError, LabRefused, LabUnreachable
    from pytest_cucmlab.lab import Clock, Cluster, CucmLab, Fault, Phone

__all__ = ["Clock", "Cluster", "CucmLab", "Fault", "LabError", "LabRefused", "LabUnreachable", "Phone"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module("pytest_cucmlab.client" if name.startswith("Lab") else "pytest_cucmlab.lab"), name)
