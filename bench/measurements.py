"""What the sections of a run share: the material, where it runs, the plan, and which yardsticks were missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from bench.machine import Placement
from bench.material import Material
from bench.rounds import Plan
from bench.servers import Server, Unavailable

Report = Callable[[str], None]


class Bench:
    """One run; a section is a generator of tables that is given this (`tvs_measurements`, `file_measurements`)."""

    def __init__(self, material: Material, placement: Placement, plan: Plan, report: Report) -> None:
        self.material = material
        self.placement = placement
        self.plan = plan
        self.report = report
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.broken: list[str] = []
        """Sections that did not come to their end; why is in `missing`."""

    def start(self, ending: ExitStack, name: str, server: AbstractContextManager[Server]) -> Server | None:
        """A server until `ending` ends; None, and why on the page, where this yardstick cannot run."""
        try:
            started = ending.enter_context(server)
        except Unavailable as reason:
            self.lacks(name, reason)
            return None
        self.versions[name] = started.version
        return started

    def breaks(self, section: str, reason: Exception) -> None:
        """Say on the page that a section ends here: what was measured in an hour is not lost with it."""
        self.broken.append(section)
        self.lacks(f"the rest of section {section}", reason)

    def lacks(self, name: str, reason: Exception) -> None:
        """Say on the page that a yardstick could not run here."""
        self.missing[name] = str(reason)
        self.report(f"without {name}: {reason}")
