"""What faults have laid over the settings of a lab, one over the other, in whatever order they end."""

from __future__ import annotations

from typing import Generic, TypeVar

Place = tuple[str, ...]
Setting = TypeVar("Setting")


class Layers(Generic[Setting]):
    """Of one kind of setting, by place. The newest layer counts; under them all is what was there before the first."""

    def __init__(self) -> None:
        self._base: dict[Place, Setting] = {}
        self._laid: dict[Place, dict[str, Setting]] = {}

    @property
    def bases(self) -> dict[Place, Setting]:
        """What was there before the first layer, where there is one."""
        return dict(self._base)

    def lay(self, place: Place, fault_id: str, setting: Setting, *, before: Setting) -> None:
        """`before`: how it is now; it counts when no fault has been here."""
        self._base.setdefault(place, before)
        self._laid.setdefault(place, {})[fault_id] = setting

    def without(self, place: Place, fault_id: str) -> Setting:
        """What is to be in force when this fault's layer is away."""
        others = [setting for one, setting in self._laid[place].items() if one != fault_id]
        return others[-1] if others else self._base[place]

    def take_away(self, place: Place, fault_id: str) -> None:
        """Nothing happens when it is not there."""
        laid = self._laid.get(place, {})
        laid.pop(fault_id, None)
        if not laid:
            self._laid.pop(place, None)
            self._base.pop(place, None)
