"""Certificates in an operation: the text of a PEM file, which only its writer's own side reads from a file.

An operation that comes over the management API carries the text itself: no path in a request is ever opened. In a
story and on the command line `@FILE` stands for the file's content, as with curl; there the reader names the folder
that a relative path starts from (`READ_FROM` in pydantic's validation context).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from cucm.errors import LabError
from cucm.identity import describe
from cucm.program import read_file

READ_FROM: Final = "read_from"
"""Key of the validation context: the folder (Path) of relative `@FILE`s. Without it none is read."""
MAX_PEM: Final = 64 * 1024
"""Bytes; a chain of four certificates has about 8 KiB."""
_FILE: Final = "@"
_SEQUENCE: Final = b"\x30"
"""How DER of a certificate begins; PEM begins with text."""


def file_context(folder: Path) -> dict[str, Any]:
    """The validation context for operations of somebody who may read files here."""
    return {READ_FROM: folder}


def certificates_in(pem: str) -> list[bytes]:
    """DER of every certificate in checked PEM text."""
    return [item.public_bytes(Encoding.DER) for item in x509.load_pem_x509_certificates(pem.encode())]


def _read(value: object, info: ValidationInfo) -> object:
    folder = (info.context or {}).get(READ_FROM)
    if folder is None or not isinstance(value, str) or not value.startswith(_FILE):
        return value
    path = folder / value.removeprefix(_FILE)
    try:
        content = read_file(path, limit=MAX_PEM)
        return _pem(describe(content).der) if content.startswith(_SEQUENCE) else content.decode("ascii", "replace")
    except LabError as error:
        raise ValueError(f"{path}: {error.what}") from None


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def _checked(pem: str) -> str:
    if pem.startswith(_FILE):
        raise ValueError("a file is read by `cucm-lab op` and for a story only; give the PEM text itself")
    try:
        for der in certificates_in(pem):
            describe(der)
    except (ValueError, LabError):
        raise ValueError("holds no certificate in PEM that can be read (convert it with openssl x509)") from None
    return pem


PemText = Annotated[
    str,
    BeforeValidator(_read),
    Field(max_length=MAX_PEM, description="PEM text; @FILE on the command line and in a story"),
    AfterValidator(_checked),
]
