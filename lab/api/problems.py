"""Errors on their way through the API: a LabError as a problem document (RFC 9457), and back."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from cucm.errors import (
    EXIT_ENVIRONMENT,
    EXIT_NO,
    EXIT_USAGE,
    DatabaseError,
    EnvironmentProblem,
    FlashError,
    LabError,
    UsageError,
)

MEDIA_TYPE: Final = "application/problem+json"
NO_FILE: Final = "no-file"
"""Kind of the problem that a node does not have the file."""
MEMBERS: Final = ("type", "title", "status", "detail", "where", "mend", "exit_code")
"""Of every problem document."""
_TYPE_PREFIX: Final = "urn:cucm-lab:problem:"
"""RFC 9457 wants a URI that names the kind of problem; nothing is to be fetched there."""


class Problem(LabError):
    """A problem with an HTTP status of its own, for what only HTTP knows: no such resource, too large, busy.

    `kind` ends the document's `type`; by default it is the status in words (`not-found`). `more` are further members.
    """

    def __init__(
        self,
        status: HTTPStatus,
        what: str,
        *,
        where: str | None = None,
        mend: str | None = None,
        exit_code: int,
        kind: str = "",
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(what, where=where, mend=mend)
        self.status = status
        self.exit_code = exit_code
        self.kind = kind or status.phrase.lower().replace(" ", "-")
        self.more = dict(more or {})

    @classmethod
    def busy(cls, what: str, *, mend: str) -> Problem:
        """As many as there may be are there already."""
        return cls(HTTPStatus.SERVICE_UNAVAILABLE, what, mend=mend, exit_code=EXIT_ENVIRONMENT, kind="busy")

    @classmethod
    def not_found(cls, what: str, *, where: str | None = None, mend: str | None = None, kind: str = "") -> Problem:
        return cls(HTTPStatus.NOT_FOUND, what, where=where, mend=mend, exit_code=EXIT_USAGE, kind=kind)


def problem_of(error: LabError) -> dict[str, Any]:
    """The document: RFC 9457's members, and `where`, `mend` and `exit_code` as the command line tells them."""
    kind = error.kind if isinstance(error, Problem) else _kind(error)
    words = kind.replace("-", " ")
    return {
        "type": f"{_TYPE_PREFIX}{kind}",
        "title": words[:1].upper() + words[1:],
        "status": _status(error).value,
        "detail": error.what,
        "where": error.where,
        "mend": error.mend,
        "exit_code": error.exit_code,
        **(error.more if isinstance(error, Problem) else {}),
    }


def error_of(problem: Mapping[str, Any], status: int) -> Problem:
    """What the command raises for a problem document, with the exit code the lab gave it."""
    code = problem.get("exit_code")
    return Problem(
        HTTPStatus(status),
        str(problem.get("detail") or problem.get("title") or f"HTTP status {status}"),
        where=_text(problem.get("where")),
        mend=_text(problem.get("mend")),
        exit_code=code if code in (EXIT_NO, EXIT_USAGE, EXIT_ENVIRONMENT) else EXIT_NO,
        kind=str(problem.get("type", "")).removeprefix(_TYPE_PREFIX),
        more={name: value for name, value in problem.items() if name not in MEMBERS},
    )


def _status(error: LabError) -> HTTPStatus:
    match error:
        case Problem(status=status):
            return status
        case UsageError():
            return HTTPStatus.BAD_REQUEST
        case EnvironmentProblem():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case DatabaseError() | FlashError():
            return HTTPStatus.INTERNAL_SERVER_ERROR
        case _:
            return HTTPStatus.CONFLICT  # the emulated system refuses: the request was understood


def _kind(error: LabError) -> str:
    name = type(error).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("-")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
