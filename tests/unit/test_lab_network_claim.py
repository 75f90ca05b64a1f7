from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from own_block import FOR_CLAIMS as NETWORK

from cucm.errors import AddressBusy, EnvironmentProblem
from lab import network_claim
from lab.network_claim import FIRST_BLOCK, LAST_BLOCK, NetworkClaim


def test_a_network_has_one_lab_at_a_time():
    with NetworkClaim.take(NETWORK) as claim:
        assert claim.network == NETWORK
        with pytest.raises(AddressBusy, match="another lab has this network"):
            NetworkClaim.take(NETWORK)
    with NetworkClaim.take(NETWORK):
        pass


def test_the_system_frees_a_claim_whose_process_dies():
    code = (
        "import sys; from ipaddress import IPv4Network; from lab.network_claim import NetworkClaim\n"
        f"with NetworkClaim.take(IPv4Network('{NETWORK}')): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AddressBusy):
            NetworkClaim.take(NETWORK)
        other.kill()
        other.wait()
        with NetworkClaim.take(NETWORK):
            pass


def test_a_folder_wishes_for_the_same_network_and_goes_on_when_it_is_taken(tmp_path):
    with NetworkClaim.draw(tmp_path) as first:
        assert FIRST_BLOCK <= first.network[0].packed[1] <= LAST_BLOCK
        with NetworkClaim.draw(tmp_path) as second:
            assert second.network != first.network
    with NetworkClaim.draw(tmp_path) as third:
        assert third.network == first.network


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_network_in_which_another_program_has_a_port_is_not_drawn(tmp_path, kind):
    with NetworkClaim.draw(tmp_path) as wished:
        pass
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((str(wished.network[77]), 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        with NetworkClaim.draw(tmp_path) as drawn:
            assert drawn.network != wished.network


def test_when_none_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(network_claim, "ATTEMPTS", 1)
    with NetworkClaim.draw(tmp_path), pytest.raises(EnvironmentProblem, match="all in use"):
        NetworkClaim.draw(tmp_path)


def test_a_system_without_such_sockets(monkeypatch):
    monkeypatch.setattr(network_claim, "_can_claim", lambda: False)
    with NetworkClaim.take(NETWORK), NetworkClaim.take(NETWORK):
        pass
    with pytest.raises(EnvironmentProblem, match="does not tell which networks are free"):
        NetworkClaim.draw(Path())
