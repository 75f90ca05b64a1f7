"""Stop, refuse, unreachable and crash as a phone's TVS client meets them at a real TVS: four different stories."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from both_loops import on_both_loops
from phone_script import MAC, NEW, NOW, OLD

from cucm.errors import TrustReason
from cucm.events import Event
from cucm.events.tvs import TvsRequestReceived, TvsServerStarted, TvsServerStopped
from cucm.faults import Action, FaultPoint
from cucm.faults.catalogue.tvs import TVS_RESPONSE, Drop
from cucm.net.reachability import Reachability
from phone_agent.commands import QueryTvs, TvsAnswer, TvsFailure
from phone_agent.commands import TvsServer as TvsTarget
from phone_agent.tvs_client import TvsClient, TvsDeadlines
from tvs_server.certificate_cache import CertificateCache, PemFolderSource
from tvs_server.server import TvsServer

Draw = Callable[[], str]
QUICK = TvsDeadlines(connect_s=0.25, handshake_s=0.25, answer_s=0.25)
"""Of a client that must meet its deadline."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "destination.pem").write_bytes(NEW.call_manager.certificate_pem)
    return tmp_path


def tvs_of(address: str, folder: Path, told: list[Event], **options: object) -> TvsServer:
    return TvsServer(
        address,
        0,
        certificate_der=OLD.tvs.certificate_der,
        private_key_der=OLD.tvs.private_key_der,
        cache=CertificateCache(PemFolderSource(folder, (0, 3)), emit=told.append),
        emit=told.append,
        now=lambda: NOW,
        **options,  # type: ignore[arg-type]
    )


async def ask(tvs: TvsServer, deadlines: TvsDeadlines | None = None) -> TvsAnswer | TvsFailure:
    signer = NEW.call_manager
    target = TvsTarget(tvs.address, tvs.port, 0)
    who = (1001, f"CP-8861-SEP{MAC}", signer.subject, signer.issuer, signer.serial)
    async with asyncio.timeout(20):
        return await TvsClient(deadlines=deadlines).query(QueryTvs(target, *who, (OLD.tvs.certificate_der,)))


async def refusal(tvs: TvsServer, deadlines: TvsDeadlines | None = None) -> str:
    answer = await ask(tvs, deadlines)
    assert isinstance(answer, TvsFailure)
    assert answer.reason is TrustReason.TVS_UNREACHABLE
    return answer.detail


class BeforeTheAnswer:
    """Does something at the moment at which TVS is about to answer."""

    def __init__(self, act: Callable[[], None], action: Action | None = None) -> None:
        self._act = act
        self._action = action

    def watches(self, point: FaultPoint) -> bool:
        return point is TVS_RESPONSE

    def fire(self, point: FaultPoint, **request: str | int) -> Action | None:
        if point is not TVS_RESPONSE:
            return None
        self._act()
        return self._action

    def at(self, **fields: str) -> BeforeTheAnswer:
        return self


@on_both_loops
async def test_a_phone_meets_each_state_differently(loopback: Draw, folder: Path) -> None:
    told: list[Event] = []
    tvs = tvs_of(loopback(), folder, told)
    await tvs.start()
    assert isinstance(await ask(tvs), TvsAnswer)
    tvs.set_reachability(Reachability.REFUSE)
    assert "refused" in (text := (await refusal(tvs)).lower()) or "connect call failed" in text
    tvs.set_reachability(Reachability.UNREACHABLE)
    assert "does not answer within 0.25 s" in await refusal(tvs, QUICK)
    tvs.set_reachability(Reachability.OPEN)
    assert isinstance(await ask(tvs), TvsAnswer)
    await tvs.stop()
    assert "refused" in (text := (await refusal(tvs)).lower()) or "connect call failed" in text
    assert [type(event) for event in told].count(TvsServerStopped) == 1


@on_both_loops
async def test_a_crash_in_the_middle_of_an_answer_is_a_reset(loopback: Draw, folder: Path) -> None:
    told: list[Event] = []
    crashing: list[asyncio.Task[None]] = []

    def die() -> None:
        crashing.append(asyncio.get_running_loop().create_task(tvs.crash()))

    tvs = tvs_of(loopback(), folder, told, faults=BeforeTheAnswer(die, Drop()))
    await tvs.start()
    assert "reset" in (await refusal(tvs)).lower()
    await asyncio.gather(*crashing)
    after = [type(event) for event in told]
    assert TvsRequestReceived in after
    assert TvsServerStopped not in after  # a process that is gone writes no trace
    assert tvs.connections == 0
    told.clear()
    await tvs.start()
    assert TvsServerStarted in [type(event) for event in told]
    await tvs.stop()


@on_both_loops
async def test_a_network_lost_in_the_middle_of_an_answer_is_silence(loopback: Draw, folder: Path) -> None:
    def lose() -> None:
        tvs.set_reachability(Reachability.UNREACHABLE)

    tvs = tvs_of(loopback(), folder, [], faults=BeforeTheAnswer(lose))
    await tvs.start()
    assert "no answer in time" in await refusal(tvs, QUICK)
    await tvs.stop()
    assert tvs.connections == 0
