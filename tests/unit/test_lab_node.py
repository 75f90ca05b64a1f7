from __future__ import annotations

import asyncio
import ssl

import pytest
from lab_on_sockets import PHONE, make_lab, network_of, perform

from cucm.clock import MovableClock
from cucm.errors import AddressBusy, LabError, UsageError
from cucm.events.administration import ServiceStarted, ServiceStopped
from cucm.events.tvs import TvsHandshakeDone, TvsHandshakeFailed
from cucm.net.reachability import Reachability
from cucm.net.tls import TlsProfile, client_context, open_stream
from cucm.roles import CertificateUnit
from lab.node import IMPOSTOR
from lab.runtime import Lab, LabOptions
from lab.topology import load_topology


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path, network_of(loopback)) as lab:
        yield lab


@pytest.fixture
def node(lab):
    return lab.cluster("source").publisher


def told(lab, since: int) -> list[tuple[str, str, bool]]:
    events = (record.event for record in lab.events.since(since))
    return [
        (type(event).__name__, event.service, getattr(event, "impostor", False))
        for event in events
        if isinstance(event, ServiceStarted | ServiceStopped)
    ]


async def tvs_certificate(node) -> bytes:
    """What TVS shows to a client of Python's own TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    _, writer = await asyncio.open_connection(node.address, 2445, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return shown


async def test_a_service_is_stopped_and_started_by_its_name(lab, node):
    since = len(lab.events)
    await node.stop_service("TVS")
    assert not node.runs("TVS")
    with pytest.raises(OSError):
        await tvs_certificate(node)
    await node.stop_service("TVS")
    await node.start_service("TVS")
    await node.start_service("TVS")
    assert await tvs_certificate(node) == node.certificate(CertificateUnit.TVS)
    assert told(lab, since) == [("ServiceStopped", "TVS", False), ("ServiceStarted", "TVS", False)]


async def test_tvs_dates_a_phones_certificate_by_the_labs_clock(tmp_path, loopback):
    in_2014 = MovableClock(1_418_538_512.0)
    options = LabOptions(tmp_path, network_of(loopback))
    async with Lab(load_topology("two-clusters"), options, clock=in_2014) as lab:
        lsc = lab.phone(PHONE).flash.contents.lsc
        context = client_context(
            profile=TlsProfile.AES256_SHA, certificate_der=lsc.certificate, private_key_der=lsc.private_key
        )
        node = lab.cluster("source").publisher
        async with await open_stream(node.address, 2445, context=context):
            pass
        seen = [record.event for record in lab.events if isinstance(record.event, TvsHandshakeDone)]
        failed = [record.event for record in lab.events if isinstance(record.event, TvsHandshakeFailed)]
    assert failed == []
    assert [PHONE in (event.client_subject or "") for event in seen] == [True]


async def test_an_impostor_shows_another_certificate_of_the_same_name_until_tvs_is_started(lab, node):
    since = len(lab.events)
    await node.replace_tvs_by_impostor()
    false = await tvs_certificate(node)
    assert false != node.certificate(CertificateUnit.TVS)
    assert not node.runs("TVS")
    await node.start_service("TVS")
    assert await tvs_certificate(node) == node.certificate(CertificateUnit.TVS)
    assert told(lab, since)[1] == ("ServiceStarted", "TVS", True)


async def test_one_byte_of_the_ctl_file_is_altered(node):
    before = node.ctl_file.read_bytes()
    node.alter_ctl_file(100)
    after = node.ctl_file.read_bytes()
    different = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert different == [len(before) - 100]
    with pytest.raises(UsageError, match="bytes only"):
        node.alter_ctl_file(len(before) + 1)
    node.alter_ctl_file(len(before))


async def test_an_own_certificate_lies_in_database_and_folder(node):
    der = node.certificate(CertificateUnit.CALLMANAGER)
    assert [item.der for item in node.database.certificates(CertificateUnit.CALLMANAGER)] == [der]
    pem = (node.directory / "security" / "CallManager.pem").read_text()
    assert ssl.PEM_cert_to_DER_cert(pem) == der


async def test_a_certificate_the_node_does_not_have(node):
    """10.5 has an ITLRecovery certificate, but nobody has a node's own Phone-SAST-trust."""
    with pytest.raises(UsageError, match="ucm105pub has no Phone-SAST-trust certificate") as refused:
        node.certificate(CertificateUnit.PHONE_SAST_TRUST)
    assert refused.value.mend == "one of: CAPF, CallManager, ITLRecovery, TVS, tomcat"


async def test_nothing_is_registered_where_callmanager_is_down(node):
    await node.stop_service("CallManager")
    assert node.registered_devices == frozenset()


async def test_a_second_impostor_is_the_first(lab, node):
    await node.replace_tvs_by_impostor()
    false = await tvs_certificate(node)
    await node.replace_tvs_by_impostor()
    assert await tvs_certificate(node) == false
    await node.restart_service("TVS")
    assert await tvs_certificate(node) == node.certificate(CertificateUnit.TVS)


async def test_an_impostor_ends_with_the_service_it_is_taken_for(lab, node):
    await node.replace_tvs_by_impostor()
    await perform(lab, "stop-service", cluster="source", node=node.name, service="TVS")
    with pytest.raises(ConnectionRefusedError):
        await tvs_certificate(node)
    assert not node.runs(IMPOSTOR)


async def test_a_firewall_stands_before_an_impostor_too(lab, node):
    """It blocks the port, whoever answers there, and stays when the service is started anew."""
    node.set_reachability("TVS", Reachability.REFUSE)
    await node.replace_tvs_by_impostor()
    with pytest.raises(OSError):
        await tvs_certificate(node)
    node.set_reachability("TVS", Reachability.OPEN)
    assert await tvs_certificate(node) != node.certificate(CertificateUnit.TVS)
    node.set_reachability("TVS", Reachability.REFUSE)
    with pytest.raises(OSError):
        await tvs_certificate(node)
    await node.restart_service("TVS")
    with pytest.raises(OSError):
        await tvs_certificate(node)
    assert node.reachability_of("TVS") is Reachability.REFUSE
    node.set_reachability("TVS", Reachability.OPEN)
    assert await tvs_certificate(node) == node.certificate(CertificateUnit.TVS)


async def test_a_service_that_died_is_told_from_one_that_was_stopped(lab, node):
    await node.crash_service("TVS")
    await node.stop_service("CAPF")
    assert [node.state_of(service) for service in ("CallManager", "TVS", "CAPF")] == ["running", "crashed", "stopped"]
    await node.crash_service("CAPF")  # it does not run: nothing dies
    assert node.state_of("CAPF") == "stopped"
    await node.start_service("TVS")
    assert node.state_of("TVS") == "running"
    await node.crash_service("TVS")
    await node.stop_service("TVS")
    assert node.state_of("TVS") == "stopped"


async def test_what_is_not_activated(lab, node):
    node.services = tuple(service for service in node.services if service != "TVS")
    await node.stop_service("TVS")
    for refused in (node.start_service("TVS"), node.replace_tvs_by_impostor()):
        with pytest.raises(UsageError, match="TVS is not activated on ucm105pub"):
            await refused
    with pytest.raises(UsageError, match="TVS is not activated"):
        node.set_reachability("TVS", Reachability.REFUSE)


async def test_without_a_ctl_file_no_byte_of_it_is_altered(node):
    node.ctl_file.unlink()
    with pytest.raises(UsageError, match="ucm105pub has no CTLFile"):
        node.alter_ctl_file(1)


async def test_when_a_service_cannot_start_those_before_it_are_stopped_again(lab, node):
    await node.stop()
    taken = await asyncio.start_server(lambda *_: None, node.address, 2445)
    with pytest.raises(AddressBusy, match="2445"):
        await node.start()
    assert not any(node.runs(service) for service in node.services)
    taken.close()
    await taken.wait_closed()
    await node.start()
    assert all(node.runs(service) for service in node.services)


@pytest.mark.parametrize("service", ["TVS", "TFTP", "CallManager"])
@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_service_that_is_just_being_restarted_does_not_outlive_the_machine(node, service, turns):
    restarting = asyncio.create_task(node.restart_service(service))
    for _ in range(turns):
        await asyncio.sleep(0)
    await node.crash()
    (end,) = await asyncio.gather(restarting, return_exceptions=True)
    assert end is None or (isinstance(end, LabError) and "down" in str(end))
    assert [one for one in node.services if node.runs(one)] == []
    await node.start()
    assert node.runs(service)
