"""SIPp, a SIP client of others, registers with our CallManager over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cucm.certificates import node_certificate
from cucm.clock import MovableClock
from cucm.database import Device
from cucm.events import Event
from cucm.events.cluster import RegistrationAccepted, RegistrationChallenged, RegistrationEnded, RegistrationRefused
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from lab.call_processing import CallProcessing

pytestmark = pytest.mark.needs("sipp")

NOW = 1_480_401_239.0
DEVICE, WITH_DIGEST, STRANGER = "SEPB000B4BA0AEF", "SEPB000B4BA0AF1", "SEP000000000001"
HEADERS = """\
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:phone@[remote_ip]>;tag=[call_number]
      To: <sip:phone@[remote_ip]>
      Call-ID: [call_id]
      CSeq: {sequence} REGISTER
      Max-Forwards: 70
      Contact: <sip:phone@[local_ip]:[local_port];transport=tcp>;+u.sip!devicename.ccm.cisco.com="{device}"
      Expires: {expires}
"""


def register(device: str, sequence: int, expires: int = 3600, more: str = "") -> str:
    head = HEADERS.format(device=device, sequence=sequence, expires=expires)
    request = f"      REGISTER sip:[remote_ip] SIP/2.0\n{head}{more}      Content-Length: 0\n\n"
    return f"  <send><![CDATA[\n\n{request}    ]]></send>\n"


def receive(status: int, more: str = "") -> str:
    return f'  <recv response="{status}" {more}/>\n'


CREDENTIALS = "      [authentication username={user} password={password}]\n"


@dataclass
class Bench:
    node: CallProcessing
    address: str
    directory: Path
    events: list[Event] = field(default_factory=list)

    async def sipp(self, *steps: str) -> int:
        """SIPp's exit code: 0 when everything it waited for came."""
        scenario = self.directory / "scenario.xml"
        body = "".join(steps)
        scenario.write_text(f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="x">\n{body}</scenario>\n')
        process = await asyncio.create_subprocess_exec(
            *("sipp", f"{self.address}:{self.node.sip_port}", "-sf", str(scenario), "-t", "t1", "-m", "1", "-nostdin"),
            *("-i", self.address, "-recv_timeout", "5000", "-timeout", "15"),
            cwd=self.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
        assert process.returncode is not None, errors
        return process.returncode


class Devices:
    """A database of three devices; the real one is put to the test elsewhere."""

    def device(self, name: str) -> Device | None:
        return {DEVICE: PLAIN, WITH_DIGEST: SECRET}.get(name)


PLAIN = Device(DEVICE, "8861", "", 1, "Default")
SECRET = Device(WITH_DIGEST, "8861", "", 1, "Default", digest_user="phone", digest_password="secret")


@pytest.fixture
async def bench(loopback: Callable[[], str], tmp_path: Path) -> AsyncIterator[Bench]:
    address = loopback()
    identity = node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=NOW - 60)
    node = CallProcessing(
        "ucm11pub",
        address,
        Devices(),
        (identity.certificate_der, identity.private_key_der),
        client_cas=list,
        sip_port=0,
        secure_sip_port=0,
        now=MovableClock(NOW, frozen=True).now,
        emit=lambda event: made.events.append(event),
    )
    made = Bench(node, address, tmp_path)
    await node.start()
    yield made
    await node.stop()


async def test_it_registers_a_device_and_unregisters_it(bench: Bench) -> None:
    assert await bench.sipp(register(DEVICE, 1), receive(200), register(DEVICE, 2, expires=0), receive(200)) == 0
    assert [type(event) for event in bench.events] == [RegistrationAccepted, RegistrationEnded]
    status = bench.node.devices[DEVICE]
    assert (status.status, status.reason) == ("unregistered", "deregistered")


async def test_it_is_refused_a_device_that_is_not_provisioned(bench: Bench) -> None:
    assert await bench.sipp(register(STRANGER, 1), receive(404)) == 0
    assert await bench.sipp(register(STRANGER, 1), receive(200)) != 0
    assert {type(event) for event in bench.events} == {RegistrationRefused}
    assert bench.node.devices[STRANGER].status == "rejected"


async def test_it_answers_the_digest_challenge(bench: Bench) -> None:
    right = CREDENTIALS.format(user="phone", password="secret")
    challenged = receive(401, 'auth="true"')
    assert (
        await bench.sipp(register(WITH_DIGEST, 1), challenged, register(WITH_DIGEST, 2, more=right), receive(200)) == 0
    )
    assert [type(event) for event in bench.events[:2]] == [RegistrationChallenged, RegistrationAccepted]


async def test_a_wrong_password_is_refused(bench: Bench) -> None:
    wrong = CREDENTIALS.format(user="phone", password="guess")
    challenged = receive(401, 'auth="true"')
    assert (
        await bench.sipp(register(WITH_DIGEST, 1), challenged, register(WITH_DIGEST, 2, more=wrong), receive(401)) == 0
    )
    refusal = next(event for event in bench.events if isinstance(event, RegistrationRefused))
    assert (refusal.reason, refusal.sip_status) == ("digest", 401)
