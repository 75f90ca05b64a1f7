"""What became of a boot."""

from __future__ import annotations

from cucm.errors import TrustReason
from cucm.records import dataclass
from phone_agent.commands import RegistrationResult, SignallingTransport


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file the phone did not accept: "CTL", "ITL" or "configuration"; `reason` None when only its content is bad."""

    file: str
    reason: TrustReason | None
    detail: str


@dataclass(frozen=True, slots=True)
class RegistrationTarget:
    call_manager: str
    address: str
    port: int
    transport: SignallingTransport


@dataclass(frozen=True, slots=True)
class BootOutcome:
    """What became of a boot. `configuration_name` is the configuration in force, None if there is none."""

    registered: RegistrationTarget | None
    ctl_changed: bool
    itl_changed: bool
    configuration_changed: bool
    configuration_name: str | None
    status_messages: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    registrations: tuple[RegistrationResult, ...]

    @property
    def reasons(self) -> tuple[TrustReason, ...]:
        """Why files were refused, in the order of the boot."""
        return tuple(refusal.reason for refusal in self.refusals if refusal.reason is not None)
