"""Who a phone is, and what became of its boot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cucm.errors import TrustReason, UsageError
from phone_agent.commands import RegistrationResult, SignallingTransport

_MAC: Final = re.compile(r"[0-9A-F]{12}")
_MODEL: Final = re.compile(r"[0-9A-Za-z]{1,16}")


@dataclass(frozen=True, slots=True)
class PhoneModel:
    """Who the phone is: MAC address (12 hex digits) and model number (`8861`)."""

    mac: str
    model: str

    @classmethod
    def of(cls, mac: str, model: str) -> PhoneModel:
        """From what people write (`b0:00:b4:ba:0a:ee`, `SEPB000B4BA0AEE`, `CP-8861`). Raises UsageError."""
        plain = re.sub(r"[:.\-]", "", mac).upper().removeprefix("SEP")
        number = model.upper().removeprefix("CP-")
        if not _MAC.fullmatch(plain):
            raise UsageError(f"{mac!r} is no MAC address", mend="give 12 hex digits, for example B000B4BA0AEE")
        if not _MODEL.fullmatch(number):
            raise UsageError(f"{model!r} is no phone model", mend="give its number, for example 8861")
        return cls(plain, number)

    @property
    def name(self) -> str:
        """`SEPB000B4BA0AEE`: the device name in CUCM and in file names."""
        return f"SEP{self.mac}"

    @property
    def device_name(self) -> str:
        """`CP-8861-SEPB000B4BA0AEE`: the name towards TVS and in the LSC (facts 2.3, 7.7)."""
        return f"CP-{self.model}-{self.name}"


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
