from __future__ import annotations

import pytest

from cucm.errors import (
    AddressBusy,
    CertificateRefused,
    DatabaseError,
    EnvironmentProblem,
    FlashError,
    LabError,
    TrustError,
    TrustReason,
    UsageError,
)
from lab.api.problems import NO_FILE, Problem, error_of, problem_of


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (UsageError("w"), 400, "usage-error"),
        (CertificateRefused("w"), 409, "certificate-refused"),
        (TrustError(TrustReason.UNSIGNED, "w"), 409, "trust-error"),
        (LabError("w"), 409, "lab-error"),
        (EnvironmentProblem("w"), 503, "environment-problem"),
        (AddressBusy("w"), 503, "address-busy"),
        (DatabaseError("w"), 500, "database-error"),
        (FlashError("w"), 500, "flash-error"),
        (Problem.not_found("w"), 404, "not-found"),
        (Problem.not_found("w", kind=NO_FILE), 404, "no-file"),
    ],
)
def test_every_error_has_a_status_and_comes_back_with_its_exit_code(error, status, kind):
    error.where, error.mend = "here", "do that"
    document = problem_of(error)
    assert (document["status"], document["type"]) == (status, f"urn:cucm-lab:problem:{kind}")
    back = error_of(document, status)
    assert (back.what, back.where, back.mend, back.exit_code, back.kind) == (
        "w",
        "here",
        "do that",
        error.exit_code,
        kind,
    )


def test_titles_are_words():
    assert problem_of(UsageError("w"))["title"] == "Usage error"
    assert problem_of(Problem.not_found("w"))["title"] == "Not found"


@pytest.mark.parametrize("document", [{}, {"detail": None, "exit_code": "2", "where": 3}, {"exit_code": 99}])
def test_a_document_that_says_little(document):
    error = error_of(document, 500)
    assert (error.what, error.where, error.mend, error.exit_code) == ("HTTP status 500", None, None, 1)
