from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable

import pytest

from cucm.errors import AddressBusy, EnvironmentProblem, UsageError
from cucm.net import addresses
from cucm.net.addresses import (
    UNPRIVILEGED_PORTS,
    bind_tcp,
    bind_udp,
    binding_problem,
    detect_ports,
    require_loopback,
)

Draw = Callable[[], str]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.11.32", "::1"])
def test_loopback_needs_no_permission(address: str) -> None:
    assert require_loopback(address, expose=False) is None
    assert require_loopback(address, expose=True) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.11.32", "::", "8.8.8.8"])
def test_other_addresses_need_permission_and_get_a_warning(address: str) -> None:
    with pytest.raises(UsageError, match="not a loopback address"):
        require_loopback(address, expose=False)
    warning = require_loopback(address, expose=True)
    assert warning is not None
    assert warning.startswith("WARNING")
    assert address in warning


def test_names_are_no_addresses() -> None:
    with pytest.raises(UsageError, match="not an IP address"):
        require_loopback("localhost", expose=True)


def test_a_bound_tcp_socket_listens_and_its_address_is_busy(loopback: Draw) -> None:
    address = loopback()
    with bind_tcp(address, 0, backlog=10) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection((address, port)):
            pass
        with pytest.raises(AddressBusy) as busy:
            bind_tcp(address, port, backlog=10)
    assert busy.value.exit_code == 3
    assert busy.value.where == f"{address} TCP port {port}"


def test_a_bound_udp_address_is_busy_even_for_those_who_would_share(loopback: Draw) -> None:
    address = loopback()
    with bind_udp(address, 0) as bound, pytest.raises(AddressBusy):
        bind_udp(address, bound.getsockname()[1])


def test_an_address_of_another_machine() -> None:
    with pytest.raises(AddressBusy, match="no such address") as missing:
        bind_udp("192.0.2.1", 0)
    assert "127.0.0.0/8" in (missing.value.mend or "")


def test_macos_is_told_of_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    problem = binding_problem(OSError(errno.EADDRNOTAVAIL, "x"), "127.0.11.32", 69, "UDP")
    assert "ifconfig lo0 alias 127.0.11.32 up" in (problem.mend or "")


def test_a_forbidden_port_and_an_odd_error() -> None:
    forbidden = binding_problem(PermissionError(errno.EACCES, "Permission denied"), "127.0.0.1", 69, "UDP")
    assert isinstance(forbidden, EnvironmentProblem)
    assert not isinstance(forbidden, AddressBusy)
    assert "6969" in (forbidden.mend or "")
    assert str(binding_problem(OSError(errno.EIO, "I/O error"), "127.0.0.1", 69, "UDP")).endswith("I/O error")


def test_ports_follow_from_what_may_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, port: int) -> socket.socket:
        raise binding_problem(PermissionError(errno.EACCES, "Permission denied"), address, port, "UDP")

    monkeypatch.setattr(addresses, "bind_udp", refuse)
    assert detect_ports() is UNPRIVILEGED_PORTS
    assert not UNPRIVILEGED_PORTS.is_standard


def test_a_taken_port_is_no_lack_of_rights(loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    address = loopback()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((address, 0))
        ports = addresses.PortMap(tftp=holder.getsockname()[1])
        monkeypatch.setattr(addresses, "STANDARD_PORTS", ports)
        assert detect_ports(address) is ports
