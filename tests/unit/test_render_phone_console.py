"""The phone's console: the seed's lines, in order, in the log of a migration that really happened on sockets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from phone_network import Vouched, running
from phone_script import KEYS, NEW, NOW, OLD, PHONE, Cluster, World, moving

from cucm.certificates import CertificateAuthority, Identity, Organisation, capf_certificate, node_certificate
from cucm.clock import MovableClock
from cucm.errors import TrustReason
from cucm.events import Event, EventLog, EventRecord
from cucm.events import phone as events
from cucm.net.tls import TlsProfile
from cucm.render.phone_console import PhoneConsole
from cucm.roles import CertificateUnit
from phone_agent.address import FixedTftpServers
from phone_agent.commands import TvsFailure
from phone_agent.driver import Phone, PhoneSettings
from phone_agent.flash import MemoryFlash

SEED_LINES = Path(__file__).parent.parent / "vectors" / "seed_phone_console.txt"
LONG_AGO = NOW - 86_400
LINE = re.compile(r"\d{4} (NOT|INF|DEB|WRN|ERR) [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d\.\d{6} [A-Za-z]+(\(\d+\))?-\S.*")
MASKS = (
    (re.compile(r"^\d+ (\w+) \w+ \d+ [\d:.]+ "), r"# \1 "),  # line number, date and time
    (re.compile(r"\(\d+\)-"), "(pid)-"),
    (re.compile(r"\[GT\d+\]"), "[GTpid]"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+\b"), "ADDRESS"),
    (re.compile(r"\[ADDRESS\] ?\[\d+\]"), "[ADDRESS][FD]"),
    (re.compile(r"(connDesc|sock:) \d+"), r"\1 FD"),
    (re.compile(r"(cert|key) len=\d+"), r"\1 len=N"),
)


def masked(line: str) -> str:
    for pattern, replacement in MASKS:
        line = pattern.sub(replacement, line)
    return line


def seed_lines() -> list[str]:
    return [line for line in SEED_LINES.read_text().splitlines() if not line.startswith("#")]


class SeedSource(Cluster):
    """The seed's source cluster: its CAPF gives the LSC its names."""

    @cached_property
    def capf(self) -> Identity:
        return capf_certificate(
            KEYS,
            "ucm105pub",
            seed=1,
            not_before=LONG_AGO,
            name="CAPF-a7fb32bf",
            organisation=Organisation("IST", "stormin", "Sydney", "NSQ", "AU"),
        )


class SeedDestination(Cluster):
    """The seed's destination: a CA-signed CallManager certificate of 1451 bytes."""

    @cached_property
    def call_manager(self) -> Identity:
        ca = CertificateAuthority.self_signed(KEYS, "CN=stormin-WIN2012-CA", seed=1, not_before=LONG_AGO)
        return node_certificate(
            KEYS,
            CertificateUnit.CALLMANAGER,
            "ucm11pub.stormin.local",
            seed=1,
            not_before=LONG_AGO,
            serial=bytes.fromhex("24000000179479b8f124ac3f3b000000000017"),
            issuer=ca.identity,
            der_length=1451,
        )


async def migrate(draw: Callable[[], str]) -> EventLog:
    """The seed's migration: a phone of the source is given the destination's TFTP server."""
    source, destination = SeedSource("ucm105", draw()), SeedDestination("ucm11", draw())
    clock = MovableClock(NOW, frozen=True)
    log = EventLog(clock)

    phone = Phone(
        PHONE,
        MemoryFlash(source.holding()),
        FixedTftpServers((destination.address,)),
        settings=PhoneSettings(local_address=draw(), tls_profile=TlsProfile.AES256_SHA),
        clock=clock,
        emit=log.emitter(f"phone:{PHONE.name}"),
    )
    vouched = Vouched({destination.call_manager: (0, 3)})
    async with (
        running(source, profile=TlsProfile.AES256_SHA, vouched=vouched),
        running(destination, profile=TlsProfile.AES256_SHA, tvs=False),
    ):
        outcome = await phone.boot()
        await phone.power_off()
    assert outcome.registered is not None
    return log


def console(records: list[EventRecord]) -> list[str]:
    renderer = PhoneConsole()
    return [line for record in records for line in renderer.lines(record)]


async def test_every_line_of_the_seed_in_its_order(loopback: Callable[[], str]) -> None:
    printed = console(list(await migrate(loopback)))
    rest = iter([masked(line) for line in printed])
    for line in seed_lines():
        assert masked(line) in rest, f"not printed, or not in its place: {line}"


def test_the_vectors_are_whole() -> None:
    lines = seed_lines()
    assert len(lines) == 59
    assert all(LINE.fullmatch(line) for line in lines)


async def test_numbers_count_up_and_every_line_has_the_form(loopback: Callable[[], str]) -> None:
    printed = console(list(await migrate(loopback)))
    assert [int(line[:4]) for line in printed] == list(range(3232, 3232 + len(printed)))
    assert all(LINE.fullmatch(line) for line in printed)
    assert printed[0] == "3232 NOT Nov 29 06:33:59.000000 downd-DDFORK - execing [/usr/sbin/dgetfile][-L620][ ]"
    assert "dgetfile(870)" in printed[1]


def test_each_boot_starts_the_numbers_anew() -> None:
    world = World()
    world.boot()
    first = world.events
    records = [EventRecord(number, NOW, "phone:x", event) for number, event in enumerate([*first, *first], start=1)]
    printed = console(records)
    half = len(printed) // 2
    assert printed[:half] == printed[half:]
    assert printed[0].startswith("3232 WRN ")


def scripted(world: World) -> str:
    world.boot()
    return "\n".join(console([EventRecord(1, NOW, "phone:x", event) for event in world.events]))


def altered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (
            moving(contents=OLD.holding(itl=OLD.itl(with_tvs=False))),
            ["Not using TVS - TVS not in Trust list", "Failed to validate cert using TVS"],
        ),
        (moving(contents=OLD.holding(configuration=OLD.configuration(tvs=False))), ["VALIDATE CERT - TVS not enabled"]),
        (
            moving(tvs=[TvsFailure(TrustReason.TVS_HANDSHAKE_FAILED, "alert")] * 6),
            [
                "No matching entry found at cache",
                "** SSL handshake failed, <192.0.2.1> c:14 s:15",
                "SSL CLNT ERR, srvr<192.0.2.1>",
                "sgn verify file failed </tmp/CTLFile.tlv>, errclass 8, errcode 19 (signer not in CTL)",
                "verify FAILED, </tmp/CTLFile.tlv>",
                "verify FAILED, </tmp/SEPB000B4BA0AEE.cnf.xml>",
            ],
        ),
        (
            World(files=NEW.files()),
            [
                "Could not load CTL File from persistent memory.",
                "Could not load ITL File from persistent memory.",
                "Using leap of faith to accept TL file",
                "Hashes match... authentication successful.",
            ],
        ),
        (
            World(files=OLD.files(ctl=altered(OLD.ctl(timestamp=7))), contents=OLD.holding()),
            ["sgn verify file failed </tmp/CTLFile.tlv>, errclass UNKNOWN (signature-mismatch)"],
        ),
        (
            World(contents=OLD.holding()),
            [
                "XXTP complete - status = 2",
                "File not found",
                "XXTP Secure file requested",
                "add .sgn if necessary -- SEPB000B4BA0AEE.cnf.xml.sgn",
                "[src=SEPB000B4BA0AEE.cnf.xml][dest=/tmp/SEPB000B4BA0AEE.cnf.xml][serv=][serv6=][sec=2]",
            ],
        ),
    ],
)
def test_other_boots(world: World, expected: list[str]) -> None:
    text = scripted(world)
    for part in expected:
        assert part in text


def test_a_server_certificate_that_is_refused() -> None:
    event = events.TvsServerCertificateChecked("192.0.2.1", 21, valid=False, subject="/CN=impostor")
    lines = PhoneConsole().lines(EventRecord(1, NOW, "phone:x", event))
    assert lines[-1].endswith("returning validation result = 0")
    assert not any("Certificate is valid" in line for line in lines)


def test_braces_in_what_others_wrote_are_harmless() -> None:
    event = events.FileReceived("{pid}{0}", "{pid}", "http", 1)
    requested = events.FileRequested("{0}{pid!r}.tlv", "/tmp/x", 0)
    renderer = PhoneConsole()
    for one in (requested, event):
        assert renderer.lines(EventRecord(1, NOW, "phone:x", one))


def test_what_others_wrote_gives_a_terminal_no_commands() -> None:
    lines = PhoneConsole().lines(EventRecord(1, NOW, "phone:x", events.TvsConnecting("\x9b2J\nforged", 2445)))
    assert len(lines) == 1
    assert lines[0].isprintable()


@dataclass(frozen=True, slots=True)
class SomethingElse(Event):
    pass


def test_what_a_console_does_not_show_prints_nothing() -> None:
    assert PhoneConsole().lines(EventRecord(1, NOW, "phone:x", SomethingElse())) == []
