"""A running lab of CUCM clusters and phones as pytest fixtures: `cucm_lab`.

The lab is a process of its own; this package speaks to it over HTTP and imports nothing of it.
"""

from __future__ import annotations

from pytest_cucmlab.client import LabError, LabRefused, LabUnreachable
from pytest_cucmlab.lab import Clock, Cluster, CucmLab, Fault, Phone

__all__ = ["Clock", "Cluster", "CucmLab", "Fault", "LabError", "LabRefused", "LabUnreachable", "Phone"]
