"""What a phone's user, or the administrator who resets it, does."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from cucm.errors import LabError, UsageError
from lab.operations.base import Operation
from lab.topology import ClusterName, PhoneName, PhonesName
from phone_agent.driver import PowerCut

if TYPE_CHECKING:
    from lab.runtime import Lab
    from phone_agent.driver import Phone

AT_ONCE: Final = 16
"""Phones of one operation that are busy at the same time: two cores have no use for more."""


class PhoneOperation(Operation, ABC):
    """One on a phone, or (`phones`) on a group of them or `all`."""

    phone: PhoneName | None = None
    phones: PhonesName | None = None

    @abstractmethod
    def what(self) -> str:
        """What is done, as words before the phone's name."""

    @abstractmethod
    async def act(self, lab: Lab, phone: Phone) -> None: ...

    def targets(self, lab: Lab) -> tuple[Phone, ...]:
        if (self.phone is None) == (self.phones is None):
            raise UsageError("name either one `phone` or some `phones`", where=self.do)
        return (lab.phone(self.phone),) if self.phone else lab.phones_named(self.phones or "")

    def says(self, lab: Lab) -> str:
        targets = self.targets(lab)
        names = targets[0].model.name if len(targets) == 1 else f"{len(targets)} phones ({self.phones})"
        return f"{self.what()} {names}"

    async def perform(self, lab: Lab) -> None:
        """On all of them, also when one fails; then the first failure is raised."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(phone: Phone) -> None:
            async with turn:
                await self.act(lab, phone)

        results = await asyncio.gather(*(one(phone) for phone in self.targets(lab)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


class BootPhone(PhoneOperation):
    """Power on; it boots, fetches its files and registers."""

    do: Literal["boot-phone"]

    def what(self) -> str:
        return "power on"

    async def act(self, lab: Lab, phone: Phone) -> None:
        with suppress(PowerCut):  # a fault that was asked for: the phone's own events tell of it
            await phone.boot()


class ResetPhone(PhoneOperation):
    """Reset in CM Administration: the phone unregisters and boots again."""

    do: Literal["reset-phone"]

    def what(self) -> str:
        return "reset"

    async def act(self, lab: Lab, phone: Phone) -> None:
        with suppress(PowerCut):
            await phone.reset()


class PowerOffPhone(PhoneOperation):
    """Pull the plug; flash stays."""

    do: Literal["power-off-phone"]

    def what(self) -> str:
        return "power off"

    async def act(self, lab: Lab, phone: Phone) -> None:
        await phone.power_off()


class EraseSecuritySettings(PhoneOperation):
    """The security menu's erase: CTL and ITL go."""

    do: Literal["erase-security-settings"]

    def what(self) -> str:
        return "erase security settings (CTL and ITL) of"

    async def act(self, lab: Lab, phone: Phone) -> None:
        phone.erase_security_settings()


class InstallLsc(PhoneOperation):
    """Certificate operation Install/Upgrade: the phone gets an LSC from the cluster's CAPF."""

    do: Literal["install-lsc"]
    cluster: ClusterName

    def what(self) -> str:
        return f"install an LSC of the CAPF of {self.cluster} on"

    def says(self, lab: Lab) -> str:
        lab.cluster(self.cluster)
        return super().says(lab)

    async def act(self, lab: Lab, phone: Phone) -> None:
        if not await phone.install_lsc(lab.capf(self.cluster)):
            detail = phone.last_lsc_problem or "the phone did not take it"
            raise LabError(f"{phone.model.name} got no LSC: {detail}", mend="see the phone's console")


class DeleteLsc(PhoneOperation):
    """Certificate operation Delete: the phone has its MIC only."""

    do: Literal["delete-lsc"]

    def what(self) -> str:
        return "delete the LSC of"

    async def act(self, lab: Lab, phone: Phone) -> None:
        phone.delete_lsc()


class WaitForRegistration(PhoneOperation):
    """Wait until the phone is registered somewhere, for example after its CallManager went down."""

    do: Literal["wait-for-registration"]
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 60.0

    def what(self) -> str:
        return "wait for the registration of"

    async def act(self, lab: Lab, phone: Phone) -> None:
        changed = asyncio.Event()
        end = lab.events.subscribe(lambda _record: changed.set())
        try:
            async with asyncio.timeout(self.timeout_s):
                while not lab.is_registered(phone.model.name):
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            raise LabError(f"{phone.model.name} did not register within {self.timeout_s:g} s") from None
        finally:
            end()
