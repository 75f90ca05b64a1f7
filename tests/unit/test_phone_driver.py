"""The phone on real sockets: boots, registers, migrates, fails, and leaves nothing open."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from both_loops import on_both_loops
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from phone_network import Vouched, running
from phone_script import MAC, NEW, NOW, OLD, PHONE, Cluster, phone_identity

from cucm.clock import MovableClock
from cucm.errors import FlashError, TrustReason
from cucm.events import Event
from cucm.events import phone as events
from phone_agent import driver as driver_module
from phone_agent.__main__ import _verdict, main
from phone_agent.address import FixedTftpServers
from phone_agent.commands import RegistrationResult, RegistrationStatus
from phone_agent.driver import MAX_STATUS_MESSAGES, BootTimedOut, Phone, PhoneSettings
from phone_agent.flash import Flash, FlashContents, MemoryFlash, PhoneFlash
from phone_agent.memory import PhoneMemory
from phone_agent.models import PhoneModel
from phone_agent.outcome import BootOutcome, RegistrationTarget
from phone_agent.state import IllegalTransition, PhoneState

DEADLINE_S = 30
Draw = Callable[[], str]


class Bench:
    """One phone whose DHCP answer can be changed, and what it told."""

    def __init__(self, flash: PhoneFlash, *, tftp: tuple[str, ...] | None, **settings: object) -> None:
        self.dhcp = FixedTftpServers(tftp)
        self.events: list[Event] = []
        self.heard = asyncio.Event()
        self.phone = Phone(
            PHONE,
            flash,
            self.dhcp,
            settings=PhoneSettings(**settings),  # type: ignore[arg-type]
            clock=MovableClock(NOW, frozen=True),
            emit=self._hear,
        )

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self.heard.set()

    def states(self) -> list[str]:
        return [event.after for event in self.events if isinstance(event, events.StateChanged)]

    async def until(self, kind: type[Event]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not any(isinstance(event, kind) for event in self.events):
                self.heard.clear()
                await self.heard.wait()


def at(cluster: Cluster, draw: Draw) -> Cluster:
    return replace(cluster, address=draw())


@on_both_loops
async def test_a_phone_earns_its_state_and_migrates(loopback: Draw) -> None:
    old, new = at(OLD, loopback), at(NEW, loopback)
    bench = Bench(MemoryFlash(FlashContents(lsc=phone_identity(old))), tftp=(old.address,), local_address=loopback())
    vouched = Vouched({new.call_manager: (0, 3)})
    async with running(old, vouched=vouched) as source, running(new) as destination:
        source.files[f"SEP{MAC}.cnf.xml"] = old.configuration()
        first = await bench.phone.boot()
        assert first.registered is not None
        assert first.registered.address == old.address
        assert bench.phone.state is PhoneState.REGISTERED
        assert len(source.phones) == 1

        bench.dhcp.servers = (new.address,)
        second = await bench.phone.reset()
        assert second.registered is not None
        assert second.registered.address == new.address
        assert (second.ctl_changed, second.itl_changed, second.configuration_changed) == (True, True, True)
        assert len(destination.phones) == 1
        await bench.phone.power_off()
    contents = bench.phone.flash.contents
    assert (contents.ctl, contents.itl) == (new.ctl(), new.itl())
    assert contents.ctl_source == new.address
    assert bench.phone.status_messages[-2:] == ("Trust List Updated", f"SEP{MAC}.cnf.xml")
    assert bench.phone.state is PhoneState.OFF
    assert bench.states().count("registered") == 2


async def test_a_7960_boots_over_tftp_without_an_itl(loopback: Draw) -> None:
    old = at(OLD, loopback)
    flash = MemoryFlash(FlashContents(lsc=phone_identity(old)))
    told: list[Event] = []
    settings = PhoneSettings(local_address=loopback())
    phone = Phone(PhoneModel(MAC, "7960"), flash, FixedTftpServers((old.address,)), settings=settings, emit=told.append)
    async with running(old):
        outcome = await phone.boot()
        await phone.power_off()
    assert outcome.registered is not None
    assert (flash.contents.ctl, flash.contents.itl) == (old.ctl(), None)
    received = [(event.file_name, event.transport) for event in told if isinstance(event, events.FileReceived)]
    assert received == [(f"CTLSEP{MAC}.tlv", "tftp"), (f"SEP{MAC}.cnf.xml.sgn", "tftp")]


@pytest.mark.parametrize(
    ("length", "reason"), [(64 * 1024 + 1, TrustReason.TOO_LARGE), (64 * 1024, TrustReason.MALFORMED)]
)
async def test_too_large_an_itl_keeps_the_phone_from_registering(
    loopback: Draw, length: int, reason: TrustReason
) -> None:
    """F19. A list that is nonsense and small is refused, and no more."""
    old = at(OLD, loopback)
    bench = Bench(MemoryFlash(old.holding()), tftp=(old.address,), local_address=loopback())
    async with running(old) as servers:
        servers.files[f"ITLSEP{MAC}.tlv"] = bytes(length)
        outcome = await bench.phone.boot()
        await bench.phone.power_off()
    assert outcome.reasons == (reason,)
    assert (outcome.registered is None) == (reason is TrustReason.TOO_LARGE)
    assert "Trust List Update Failed" in outcome.status_messages
    assert bench.phone.flash.contents.itl == old.itl()


async def test_a_phone_that_cannot_migrate_goes_back_to_its_old_call_manager(loopback: Draw) -> None:
    old, new = at(OLD, loopback), at(NEW, loopback)
    bench = Bench(MemoryFlash(old.holding()), tftp=(new.address,), local_address=loopback())
    async with running(old), running(new):
        outcome = await bench.phone.boot()
        await bench.phone.power_off()
    assert outcome.reasons[0] is TrustReason.TVS_NOT_FOUND
    assert outcome.registered is not None
    assert outcome.registered.address == old.address
    assert bench.phone.flash.contents.ctl == old.ctl()


async def test_nobody_anywhere(loopback: Draw) -> None:
    old = at(OLD, loopback)
    bench = Bench(MemoryFlash(old.holding(configuration=old.configuration(tvs=False))), tftp=(old.address,))
    bench.phone._files = Refusing()  # type: ignore[assignment]
    outcome = await bench.phone.boot()
    assert outcome.registered is None
    assert [result.status for result in outcome.registrations] == ["unreachable"]
    assert bench.phone.state is PhoneState.UNREGISTERED
    await bench.phone.power_off()


class Refusing:
    """A file client with a fault of its own."""

    async def fetch(self, file_name: str, servers: tuple[str, ...]) -> object:
        raise RuntimeError(f"no {file_name} today")


async def test_a_fault_of_ours_becomes_a_result_and_is_logged(loopback: Draw, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(MemoryFlash(), tftp=(loopback(),))
    bench.phone._files = Refusing()  # type: ignore[assignment]
    outcome = await bench.phone.boot()
    assert outcome.status_messages[0] == "TFTP Error"
    assert any(record.name == driver_module.__name__ for record in caplog.records)
    await bench.phone.power_off()


async def test_a_lost_connection_unregisters_the_phone_and_it_can_boot_again(loopback: Draw) -> None:
    old = at(OLD, loopback)
    bench = Bench(MemoryFlash(old.holding()), tftp=(old.address,), local_address=loopback())
    async with running(old) as servers:
        await bench.phone.boot()
        servers.phones[0].abort()
        await bench.until(events.RegistrationLost)
        assert bench.phone.state is PhoneState.UNREGISTERED
        outcome = await bench.phone.boot()
        assert outcome.registered is not None
        await bench.phone.power_off()
    lost = [event for event in bench.events if isinstance(event, events.RegistrationLost)]
    assert [event.call_manager for event in lost] == ["old-0"]


async def test_a_registered_phone_does_not_boot_twice(loopback: Draw) -> None:
    old = at(OLD, loopback)
    bench = Bench(MemoryFlash(old.holding()), tftp=(old.address,), local_address=loopback())
    async with running(old):
        await bench.phone.boot()
        with pytest.raises(IllegalTransition):
            await bench.phone.boot()
        assert bench.phone.state is PhoneState.REGISTERED
        await bench.phone.power_off()


async def test_the_boot_as_a_whole_has_a_deadline() -> None:
    bench = Bench(MemoryFlash(), tftp=None, boot_deadline_s=0.05)

    async def hang() -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    bench.dhcp.tftp_servers = hang  # type: ignore[method-assign]
    with pytest.raises(BootTimedOut) as caught:
        await bench.phone.boot()
    assert caught.value.mend
    assert bench.phone.state is PhoneState.OFF
    assert any(isinstance(event, events.BootAborted) for event in bench.events)


async def test_a_cancelled_boot_leaves_the_phone_off() -> None:
    bench = Bench(MemoryFlash(), tftp=None)

    async def hang() -> tuple[str, ...]:
        bench.heard.set()
        await asyncio.Event().wait()
        return ()

    bench.dhcp.tftp_servers = hang  # type: ignore[method-assign]
    task = asyncio.create_task(bench.phone.boot())
    await bench.until(events.StateChanged)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.phone.state is PhoneState.OFF


async def test_erasing_the_security_settings(loopback: Draw) -> None:
    bench = Bench(MemoryFlash(OLD.holding()), tftp=None)
    bench.phone.erase_security_settings()
    assert (bench.phone.flash.contents.ctl, bench.phone.flash.contents.itl) == (None, None)
    assert bench.phone.status_messages == ("Erasing CTL and ITL files",)
    assert events.SecuritySettingsErased() in bench.events


async def test_of_a_phones_messages_the_newest_are_kept(loopback: Draw) -> None:
    bench = Bench(MemoryFlash(OLD.holding()), tftp=None)
    texts = tuple(map(str, range(MAX_STATUS_MESSAGES + 5)))
    await bench.phone.wake(PhoneMemory(status_messages=texts))
    assert bench.phone.status_messages == texts[5:]
    bench.phone.erase_security_settings()
    assert bench.phone.status_messages == (*texts[6:], "Erasing CTL and ITL files")


async def test_a_flash_that_fails_is_told_and_the_old_lists_stay(loopback: Draw, tmp_path: Path) -> None:
    class Full(MemoryFlash):
        def store(self, **changes: object) -> None:  # type: ignore[override]
            raise FlashError("the disk is full")

    old = at(OLD, loopback)
    newer = old.ctl(timestamp=int(NOW) + 1)
    bench = Bench(Full(old.holding()), tftp=(old.address,), local_address=loopback())
    async with running(old) as servers:
        servers.files[f"CTLSEP{MAC}.tlv"] = newer
        outcome = await bench.phone.boot()
        await bench.phone.power_off()
    assert not outcome.ctl_changed
    assert bench.phone.flash.contents.ctl == old.ctl()
    assert events.FlashFailed("the disk is full") in bench.events


async def test_flash_survives_the_phone(loopback: Draw, tmp_path: Path) -> None:
    old = at(OLD, loopback)
    flash = Flash(tmp_path / "flash")
    flash.store(lsc=phone_identity(old))
    bench = Bench(flash, tftp=(old.address,), local_address=loopback())
    async with running(old) as servers:
        servers.files[f"SEP{MAC}.cnf.xml"] = old.configuration()
        await bench.phone.boot()
        await bench.phone.power_off()
    again = Flash(tmp_path / "flash").contents
    assert (again.ctl, again.itl, again.tftp_servers) == (old.ctl(), old.itl(), (old.address,))


# --- python -m phone_agent -----------------------------------------------------------------------------------------


def write_identity(cluster: Cluster, directory: Path) -> list[str]:
    from cryptography import x509

    identity = phone_identity(cluster)
    certificate = x509.load_der_x509_certificate(identity.certificate).public_bytes(Encoding.PEM)
    key = load_der_private_key(identity.private_key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    both, alone, der = directory / "both.pem", directory / "lsc.pem", directory / "lsc.key"
    both.write_bytes(certificate + key)
    alone.write_bytes(certificate)
    der.write_bytes(identity.private_key)
    return [str(both), str(alone), str(der)]


async def standalone(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "phone_agent",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ,
    )
    async with asyncio.timeout(DEADLINE_S):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def serve_and_run(old: Cluster, *arguments: str) -> tuple[int, str, str]:
    async with running(old) as servers:
        servers.files[f"SEP{MAC}.cnf.xml"] = old.configuration()
        return await standalone("--mac", MAC, "--tftp", old.address, *arguments)


async def test_standalone_boots_and_registers(loopback: Draw, tmp_path: Path) -> None:
    both, alone, der = write_identity(OLD, tmp_path)
    old = at(OLD, loopback)
    code, output, _ = await serve_and_run(
        old, "--identity", alone, der, "--flash", str(tmp_path / "flash"), "--address", loopback()
    )
    assert (code, output.splitlines()[-1]) == (0, f"registered with old-0 ({old.address} port 5061, tls)")
    code, output, _ = await serve_and_run(old, "--flash", str(tmp_path / "flash"), "--console")
    assert code == 0
    assert "GETXXTP [GT870]" in output
    assert "leap of faith" not in output
    code, output, _ = await serve_and_run(old, "--identity", both, "--boots", "2", "--json")
    assert code == 0
    records = [json.loads(line) for line in output.splitlines()]
    assert [record["kind"] for record in records].count("phone.boot_finished") == 2
    assert records[-1]["kind"] == "phone.boot_outcome"
    assert records[-1]["registered"]["address"] == old.address


async def test_standalone_says_when_it_is_not_registered(loopback: Draw) -> None:
    old = at(OLD, loopback)
    code, output, _ = await serve_and_run(old)  # a secure device without certificate: this CallManager takes it on TCP
    assert code == 0
    async with running(old) as servers:
        del servers.files[f"SEP{MAC}.cnf.xml.sgn"]
        code, output, _ = await standalone("--mac", MAC, "--tftp", old.address)
    assert code == 1
    assert output.splitlines()[-1].startswith("not registered: ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--mac", "x", "--tftp", "127.0.0.1"], 2),
        (["--mac", MAC, "--tftp", "tftp.example"], 2),
        (["--mac", MAC, "--tftp", "127.0.0.1", "--identity", "no-such-file.pem"], 2),
        (["--mac", MAC, "--tftp", "127.0.0.1", "--identity", __file__], 2),
        (["--mac", MAC, "--tftp", "127.0.0.1", "--identity", "a", "b", "c"], 2),
        (["--mac", MAC, "--tftp", "127.0.0.1", "--address", "192.0.2.1"], 3),
    ],
)
def test_standalone_refuses_bad_arguments(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    assert "mend:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--mac", MAC], ["--mac", MAC, "--tftp", "127.0.0.1", "--boots", "0"]])
def test_standalone_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("registered", [None, RegistrationTarget("\x9b2J", "192.0.2.1", 5061, "tls")])
def test_the_verdict_gives_a_terminal_no_commands(registered: RegistrationTarget | None) -> None:
    """Names come from configuration files, words from servers."""
    refused = RegistrationResult(RegistrationStatus.REFUSED, 403, "403 \x1b[2J\x07")
    outcome = BootOutcome(registered, False, False, False, None, (), (), (refused,))
    assert _verdict(outcome, as_json=False).isprintable()
    assert _verdict(outcome, as_json=True).isprintable()
