"""What a CallManager remembers of its database is never older than the last writing there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cucm.database import Device, NodeDatabase
from cucm.signalling import DeviceSecurityMode
from lab import admission
from lab.admission import ClusterDevices
from tftp_server.cluster_view import SECURITY_MODE_PARAMETER

DEVICE = Device("SEPB000B4BA0AEE", "8861", "", DeviceSecurityMode.ENCRYPTED, "Default")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[NodeDatabase]:
    with NodeDatabase(tmp_path / "node.db").create() as database:
        database.add_node("ucm11pub", "127.0.11.34", services=())
        database.put_callmanager_group("Default", ["ucm11pub"])
        database.put_device(DEVICE)
        database.set_parameter(SECURITY_MODE_PARAMETER, "1")
        yield database


@pytest.fixture(params=["by the node itself", "by another process"])
def writer(request: pytest.FixtureRequest, database: NodeDatabase) -> Iterator[NodeDatabase]:
    if request.param == "by the node itself":
        yield database
    else:
        with NodeDatabase(database.path).open() as other:
            yield other


def mode_of(devices: ClusterDevices) -> int | None:
    found = devices.device(DEVICE.name)
    return None if found is None else found.security_mode


def test_what_is_written_counts_for_the_next_phone_that_asks(database: NodeDatabase, writer: NodeDatabase) -> None:
    devices = ClusterDevices(database)
    assert [mode_of(devices), mode_of(devices)] == [DeviceSecurityMode.ENCRYPTED] * 2
    writer.put_device(replace(DEVICE, security_mode=DeviceSecurityMode.AUTHENTICATED))
    assert mode_of(devices) == DeviceSecurityMode.AUTHENTICATED
    writer.set_parameter(SECURITY_MODE_PARAMETER, "0")
    assert mode_of(devices) == DeviceSecurityMode.NON_SECURE
    writer.delete_device(DEVICE.name)
    assert mode_of(devices) is None
    writer.put_device(DEVICE)
    writer.set_parameter(SECURITY_MODE_PARAMETER, "1")
    assert mode_of(devices) == DeviceSecurityMode.ENCRYPTED


def test_no_more_devices_are_remembered_than_may_be(database: NodeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_KNOWN", 1)
    other = replace(DEVICE, name="SEPB000B4BA0AEF")
    database.put_device(other)
    devices = ClusterDevices(database)
    first = devices.device(DEVICE.name)
    assert devices.device(other.name) == other
    again = devices.device(DEVICE.name)
    assert again == first == DEVICE
    assert again is not first
