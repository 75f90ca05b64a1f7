"""HTTP to the lab's management API, with the standard library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

READ_TIMEOUT_S: Final = 60.0
OPERATION_TIMEOUT_S: Final = 900.0
MAX_ANSWER: Final = 64 * 1024 * 1024


class LabError(Exception):
    """What the lab or the way to it says: `what` happened, `where`, and how to `mend` it."""

    def __init__(self, what: str, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(
            "; ".join(part for part in (what, where and f"where: {where}", mend and f"mend: {mend}") if part)
        )
        self.what = what
        self.where = where
        self.mend = mend


class LabUnreachable(LabError):
    """No lab answers."""


class LabRefused(LabError):
    """A problem document: `status` is HTTP's, `kind` the last word of its type, `document` all of it."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(str(document.get("detail", "no detail")), document.get("where"), document.get("mend"))
        self.status = status
        self.kind = str(document.get("type", "")).rpartition(":")[2]
        self.document = dict(document)


class Client:
    """One connection for each request; `url` like `http://127.0.11.1:8480`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._host, self._port = parts.hostname or "", parts.port or 80

    def get(self, *path: str, **query: object) -> dict[str, Any]:
        """The JSON object at `/v1/<path>`. Raises LabRefused, LabUnreachable, as all methods do."""
        return self._object("GET", path, query)

    def post(
        self, *path: str, body: Mapping[str, Any] | None = None, timeout_s: float = READ_TIMEOUT_S
    ) -> dict[str, Any]:
        return self._object("POST", path, {}, json.dumps(body or {}).encode(), timeout_s)

    def delete(self, *path: str) -> dict[str, Any]:
        return self._object("DELETE", path, {}, None, OPERATION_TIMEOUT_S)

    def get_bytes(self, *path: str) -> bytes:
        """A file."""
        return self._exchange("GET", path, {}, None, READ_TIMEOUT_S)

    def _object(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: bytes | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> dict[str, Any]:
        value = json.loads(self._exchange(method, path, query, body, timeout_s))
        if not isinstance(value, dict):
            raise LabError("the answer is no JSON object", where=self.url, mend="is it another program's port?")
        return value

    def _exchange(
        self, method: str, path: tuple[str, ...], query: Mapping[str, object], body: bytes | None, timeout_s: float
    ) -> bytes:
        words = urlencode({name: value for name, value in query.items() if value is not None})
        target = "/v1" + "".join(f"/{quote(part, safe='')}" for part in path) + (f"?{words}" if words else "")
        connection = HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"} if body is not None else {})
            response = connection.getresponse()
            data = response.read(MAX_ANSWER)
        except (OSError, HTTPException) as error:
            why = str(error) or type(error).__name__
            raise LabUnreachable(f"the lab does not answer: {why}", where=f"{self.url}{target}") from None
        finally:
            connection.close()
        if response.status >= 400:
            raise LabRefused(response.status, _document(response, data))
        return data


def _document(response: HTTPResponse, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"detail": f"HTTP status {response.status} {response.reason}"}
