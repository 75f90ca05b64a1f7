"""No name that comes over the API becomes a path: every text field of every operation, and every part of a path.

What the process really opens, makes, renames or deletes is looked at (PEP 578), not what the code says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import pytest
from api_on_sockets import make_running, serving
from lab_on_sockets import PHONE, network_of

from lab import sftp_folder
from lab.api.server import ApiServer
from lab.operation_words import operation_kinds

NAME: Final = "evil-name"
FORMS: Final = (f"@/{NAME}", f"../../{NAME}", f"CN={NAME}")
SENSIBLE: Final[dict[str, Any]] = {
    "cluster": "source",
    "node": "ucm105pub",
    "nodes": ["ucm105pub"],
    "phone": PHONE,
    "service": "TVS",
    "certificate": "TVS",
    "stores": ["TVS-trust"],
    "store": "TVS-trust",
    "from": "destination",
    "to": "source",
    "days": 1,
    "seconds": 1,
    "token": 1,
    "mode": "change-notification",
    "reachability": "open",
}
"""For fields that an operation needs; others get a word."""
_seen: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(("open", "os.", "shutil.", "sqlite3.connect", "tempfile.")):
        if Path(sys._getframe(1).f_code.co_filename) == Path(sftp_folder.__file__):
            return  # a folder of its own, walked by descriptor: see test_lab_sftp_folder
        _seen.extend(f"{event} {one!r}" for one in arguments if isinstance(one, str | bytes) and NAME in repr(one))


sys.addaudithook(_watch)


@pytest.fixture
def touched() -> Iterator[list[str]]:
    """What was done to files whose names have NAME in them."""
    global _watching
    _seen.clear()
    _watching = True
    yield _seen
    _watching = False


@pytest.fixture
async def api(tmp_path: Path, loopback: Callable[[], str]) -> AsyncIterator[ApiServer]:
    async with serving(make_running(tmp_path / "lab", network_of(loopback))) as api:
        yield api


def bodies() -> Iterator[dict[str, Any]]:
    for kind in operation_kinds().values():
        needed = {field.name: SENSIBLE.get(field.name, "x") for field in kind.fields if field.required}
        for field in kind.fields:
            for form in FORMS:
                yield {"do": kind.name} | needed | {field.name: [form] if field.takes_many else form}


async def test_the_hook_sees_what_is_opened(touched: list[str], tmp_path: Path) -> None:
    (tmp_path / NAME).touch()
    assert touched


async def test_operations(api: ApiServer, touched: list[str]) -> None:
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:
        for body in bodies():
            async with session.post(f"{api.urls[0]}/v1/operations", data=json.dumps(body)) as reply:
                assert reply.status < 500, (body, await reply.text())
    assert touched == []


async def test_parts_of_paths_and_the_other_bodies(api: ApiServer, touched: list[str]) -> None:
    described = api.description()["paths"]
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:
        for path, methods in described.items():
            for method, one in methods.items():
                places = [each["name"] for each in one["parameters"] if each["in"] == "path"]
                for form in FORMS if places else ():
                    target = path
                    for place in places:
                        right = str(SENSIBLE.get(place, form))
                        target = target.replace(f"{{{place}}}", quote(form if place == places[-1] else right, safe=""))
                    url = aiohttp.client.URL(api.urls[0] + target, encoded=True)
                    async with session.request(method, url, data="{}" if method == "post" else None) as reply:
                        assert reply.status in (400, 404), (method, target)
        for path, body in (
            ("checkpoints", {"name": FORMS[0]}),
            ("faults", {"point": FORMS[1], "action": "drop"}),
            ("faults", {"id": FORMS[1], "point": "tvs.response", "action": "drop"}),
            ("sql", {"cluster": "source", "sql": f"ATTACH DATABASE '/{NAME}' AS x"}),
            ("sql", {"cluster": "source", "sql": f"ATTACH DATABASE '/{NAME}' AS x", "write": True}),
            ("sql", {"cluster": "source", "sql": f"VACUUM INTO '/{NAME}'", "write": True}),
            ("sql", {"cluster": "source", "sql": f"SELECT load_extension('/{NAME}')"}),
        ):
            async with session.post(f"{api.urls[0]}/v1/{path}", data=json.dumps(body)) as reply:
                assert reply.status == 400, (path, body)
    assert touched == []
