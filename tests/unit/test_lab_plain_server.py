from __future__ import annotations

import asyncio

import pytest
from lab_on_sockets import PHONE, make_lab, network_of

from cucm.errors import AddressBusy
from lab.topology import load_topology


async def test_it_serves_plain_configurations_and_registers_over_tcp(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), load_topology("plain-server")) as lab:
        server = lab.plain_servers["cme"]
        lab.set_option_150((server.address,))
        await lab.phone(PHONE).boot()
        contents = lab.phone(PHONE).flash.contents
        assert (contents.ctl, contents.itl) == (None, None)
        assert lab.cluster_of_node("cme") == "cme"
        assert lab.served.node_of(contents.configuration) == "cme"
        assert set(server.call_processing.registered) == {PHONE}
        assert server.call_processing.registered[PHONE].transport == "tcp"
        assert server.device("SEP000000000000") is None


async def test_a_server_whose_port_is_taken_leaves_nothing_open(tmp_path, loopback):
    network = network_of(loopback)
    taken = await asyncio.start_server(lambda *_: None, str(network[70]), 5060)
    lab = make_lab(tmp_path / "lab", network, load_topology("plain-server"))
    with pytest.raises(AddressBusy, match="5060"):
        await lab.start()
    taken.close()
    await taken.wait_closed()
    again = await asyncio.start_server(lambda *_: None, str(network[70]), 6970)
    again.close()
    await again.wait_closed()
