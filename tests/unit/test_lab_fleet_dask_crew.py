from __future__ import annotations

from importlib.util import find_spec
from ipaddress import IPv4Network
from typing import Any

import pytest
from what_is_missing import lacking

from lab.fleet.batch import BatchResult, Holding, PhoneFinding, PhoneState, Surroundings
from lab.fleet.crew import Work
from lab.fleet.population import Population
from lab.fleet.progress import Progress
from lab.fleet.result import Stage
from lab.topology import load_topology
from phone_agent.flash import FlashContents

if find_spec("distributed") is None:
    lacking("distributed is not installed (extra fleet)")
from distributed import Client, LocalCluster

from lab.fleet.dask_crew import CrewOnDask

NETWORK = IPv4Network("127.2.0.0/16")


def test_what_is_heard_after_a_batchs_result_takes_no_phone_back() -> None:
    population = Population(load_topology("two-clusters"), 4, NETWORK)
    progress = Progress()
    progress.begin("act", "boot-phone", total=4)
    states = [PhoneState(phone, FlashContents()) for phone in population]
    crew = CrewOnDask(None, Surroundings(("127.0.0.1", 67)), states, progress)
    work = Work("boot", "boot-phone", frozenset({states[0].phone.model}), 4)
    (first,) = (batch for batch in crew._batches(work, 1) if states[0] in batch.states)
    account = PhoneFinding("registered"), Holding(None, None, None)
    accounts = {state.name: account for state in first.states}
    crew._hear((0.0, {"batch": first.number, "began": True}))
    crew._take(BatchResult(first.number, {}, accounts, Stage("boot-phone")), {})
    assert progress.done == len(first.states)
    crew._hear((0.0, {"batch": first.number, "done": 0}))
    assert progress.done == len(first.states)
    assert crew.reruns == 0
    crew._hear((0.0, {"batch": first.number, "began": True}))
    assert crew.reruns == 1
    later = crew._batches(work, 1)
    assert first.number not in {batch.number for batch in later}


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (3, 3), (64, 16)])
async def test_no_more_phones_boot_at_once_than_the_whole_fleet_may(concurrency: int, most: int) -> None:
    states = [PhoneState(phone, FlashContents()) for phone in Population(load_topology("two-clusters"), 16, NETWORK)]
    workers = LocalCluster(
        n_workers=1, threads_per_worker=4, processes=False, dashboard_address="127.0.0.1:0", asynchronous=True
    )
    async with workers as cluster, Client(cluster, asynchronous=True) as client:
        crew = CrewOnDask(client, Surroundings(("127.0.0.1", 67)), states, Progress())
        under_way = []
        submit = client.submit

        def submit_and_count(*words: Any, **options: Any) -> Any:
            future = submit(*words, **options)
            under_way.append(1 + sum(not other.done() for other in crew._futures))
            return future

        client.submit = submit_and_count
        stage = await crew.perform(
            Work("power-off", "power-off-phone", frozenset({states[0].phone.model}), concurrency)
        )
    assert stage.phones == 16
    assert max(under_way) == most
