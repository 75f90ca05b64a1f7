"""How a command speaks to a running lab: HTTP over the Unix socket in the lab's folder, with the standard library."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from cucm.errors import EnvironmentProblem, LabError, LimitExceeded, UsageError
from lab.api.problems import error_of
from lab.api.socket import SOCKET_NAME, socket_address

READ_TIMEOUT_S: Final = 30.0
OPERATION_TIMEOUT_S: Final = 900.0
"""An operation may boot many phones, each bounded by a deadline of its own."""
STREAM_TIMEOUT_S: Final = 60.0
"""Longer than the lab is silent on a stream: it says that it is there."""
MAX_EVENT: Final = 16 * 1024 * 1024
MAX_ANSWER: Final = 64 * 1024 * 1024


class File(NamedTuple):
    """A file of a node: its bytes and when it was last modified (Unix seconds)."""

    data: bytes
    modified_at: float


class ServerSentEvent(NamedTuple):
    """`event_id` and `kind` are empty where the stream has none."""

    event_id: str
    kind: str
    data: str


class ApiClient:
    """Asks the lab that runs in `directory`; one connection for each request.

    Every method raises EnvironmentProblem when no lab runs there, and what the lab answers as a LabError with its
    exit code.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def is_running(self) -> bool:
        """Whether somebody answers on the socket."""
        try:
            with socket_address(self.directory) as address, socket.socket(socket.AF_UNIX) as trial:
                trial.settimeout(READ_TIMEOUT_S)
                trial.connect(address)
        except OSError:
            return False
        return True

    def get(self, *path: str, **query: str | None) -> dict[str, Any]:
        """The JSON object at `/v1/<path>`; `query` without what is None."""
        return _object(self._exchange("GET", _target(path, query), None, READ_TIMEOUT_S)[1])

    def get_file(self, *path: str) -> File:
        headers, data = self._exchange("GET", _target(path, {}), None, READ_TIMEOUT_S)
        return File(data, _moment(headers.get("Last-Modified")))

    def post(self, *path: str, body: Mapping[str, Any], timeout_s: float = READ_TIMEOUT_S) -> dict[str, Any]:
        return _object(self._exchange("POST", _target(path, {}), json.dumps(body).encode(), timeout_s)[1])

    def delete(self, *path: str, timeout_s: float = READ_TIMEOUT_S) -> dict[str, Any]:
        return _object(self._exchange("DELETE", _target(path, {}), None, timeout_s)[1])

    @contextmanager
    def stream(self, *path: str, **query: str | None) -> Iterator[Iterator[ServerSentEvent]]:
        """Server-sent events at `/v1/<path>`, as they come, until the lab ends or the caller leaves."""
        connection = _UnixConnection(self.directory, STREAM_TIMEOUT_S)
        try:
            with self._explained(STREAM_TIMEOUT_S):
                response = _ask(connection, "GET", _target(path, query), None)
            if response.status >= 400:
                raise _refusal(response, response.read(MAX_ANSWER))
            yield self._read(response)
        finally:
            connection.close()

    def _read(self, response: HTTPResponse) -> Iterator[ServerSentEvent]:
        with self._explained(STREAM_TIMEOUT_S):
            yield from _server_sent_events(response)

    @contextmanager
    def _explained(self, timeout_s: float) -> Iterator[None]:
        """What the system says, as an EnvironmentProblem."""
        try:
            yield
        except TimeoutError as error:
            raise self._problem(f"the lab did not answer within {timeout_s:.0f} s") from error
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise self._problem("no lab is running here") from error
        except (OSError, HTTPException) as error:
            raise self._problem(f"the lab cannot be asked: {str(error) or type(error).__name__}") from error

    def perform(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        """Perform an operation (`{"do": "boot-phone", ...}`) and wait until it is done."""
        return self.post("operations", body=operation, timeout_s=OPERATION_TIMEOUT_S)

    def _exchange(
        self, method: str, target: str, body: bytes | None, timeout_s: float
    ) -> tuple[Mapping[str, str], bytes]:
        connection = _UnixConnection(self.directory, timeout_s)
        try:
            with self._explained(timeout_s):
                response = _ask(connection, method, target, body)
                data = response.read(MAX_ANSWER + 1)
        finally:
            connection.close()
        if len(data) > MAX_ANSWER:
            raise LabError(f"the answer is longer than {MAX_ANSWER} bytes", where=target, mend="ask for less")
        if response.status >= 400:
            raise _refusal(response, data)
        return dict(response.getheaders()), data

    def _problem(self, what: str) -> EnvironmentProblem:
        mend = f"start it: cucm-lab up --directory {self.directory}"
        return EnvironmentProblem(what, where=str(self.directory / SOCKET_NAME), mend=mend)


class _UnixConnection(HTTPConnection):
    def __init__(self, directory: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._directory = directory

    def connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self.timeout)
            with socket_address(self._directory) as address:
                connected.connect(address)
        except BaseException:
            connected.close()
            raise
        self.sock = connected


def _ask(connection: HTTPConnection, method: str, target: str, body: bytes | None) -> HTTPResponse:
    connection.request(method, target, body, {"Content-Type": "application/json"} if body is not None else {})
    return connection.getresponse()


def _server_sent_events(response: HTTPResponse) -> Iterator[ServerSentEvent]:
    """Until the stream ends. LimitExceeded for a line that is too long."""
    fields: dict[str, list[str]] = {}
    while line := response.readline(MAX_EVENT + 1):
        if len(line) > MAX_EVENT:
            raise LimitExceeded(f"an event of more than {MAX_EVENT} bytes", mend="ask for less")
        text = line.decode("utf-8", "replace").rstrip("\n")
        if text and not text.startswith(":"):  # comments keep the stream alive
            name, _, value = text.partition(": ")
            fields.setdefault(name, []).append(value)
        elif not text:
            if "data" in fields:  # without it is only word of how far a filtered reader is
                id_, kind, data = ("\n".join(fields.get(name, ())) for name in ("id", "event", "data"))
                yield ServerSentEvent(id_, kind, data)
            fields = {}


def _target(path: tuple[str, ...], query: Mapping[str, str | None]) -> str:
    words = urlencode({name: value for name, value in query.items() if value is not None})
    return "/v1/" + "/".join(quote(part, safe="") for part in path) + (f"?{words}" if words else "")


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LabError(f"the lab's answer is no JSON: {error}", mend="is it another program's socket?") from error
    if not isinstance(value, dict):
        raise LabError("the lab's answer is no JSON object", mend="is it another program's socket?")
    return value


def _refusal(response: HTTPResponse, data: bytes) -> LabError:
    try:
        return error_of(_object(data), response.status)
    except (LabError, ValueError):
        return LabError(f"the lab answers HTTP status {response.status} {response.reason}")


def _moment(text: str | None) -> float:
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0


def cluster_and_node(text: str) -> tuple[str, str | None]:
    """`source` -> (`source`, None); `source/ucm105pub` -> both. Raises UsageError for other forms."""
    parts = text.split("/")
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"{text!r} names no cluster or node", mend="write CLUSTER or CLUSTER/NODE")
    return parts[0], parts[1] if len(parts) == 2 else None
