"""A stand-in for the public threaded TVS daemon, which is not at hand here: a small server of the same structure.

What was measured of that one (a backlog of 5; the TLS handshake inside `accept`, on the one thread that accepts; a
thread per connection; SQLite opened for each query; six log lines) is done here, written anew from that description.
It answers QUERY_CERT, so that every contender does the same work. `python -m bench.threaded_daemon ADDRESS PORT
CERTIFICATE KEY DATABASE LOG` serves until it is ended.
"""

from __future__ import annotations

import logging
import socket
import sqlite3
import ssl
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cucm.database import NodeDatabase
from cucm.errors import LabError
from cucm.wire.tvs import (
    HEADER_BYTES,
    STATUS_NOT_FOUND,
    STATUS_OK,
    QueryCertificateRequest,
    QueryCertificateResponse,
    decode_message,
    encode_message,
)
from tvs_server.certificate_cache import entry_of
from tvs_server.policy import DEFAULT_TTL_S

BACKLOG = 5
_log = logging.getLogger("daemon")


def main(arguments: Sequence[str]) -> None:
    address, port, certificate, key, database, log = arguments
    logging.basicConfig(filename=log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    rows = _flat_database(database, f"{log}.db")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server((address, int(port)), backlog=BACKLOG)
    with context.wrap_socket(listener, server_side=True) as door:
        while True:
            try:
                connection, peer = door.accept()  # the handshake is in here: everybody else waits
            except OSError:
                continue
            threading.Thread(target=_serve, args=(connection, peer[0], rows), daemon=True).start()


def _flat_database(path: str, copy: str) -> str:
    """A table by serial number and issuer, as such a daemon has it."""
    with NodeDatabase(Path(path)).open() as source, closing(sqlite3.connect(copy)) as target, target:
        target.execute("CREATE TABLE certificate (serial BLOB, issuer TEXT, roles BLOB, der BLOB)")
        for row in source.certificates():
            entry = entry_of(row.der, row.roles)
            values = (entry.serial, entry.issuer, bytes(entry.roles), entry.certificate)
            target.execute("INSERT INTO certificate VALUES (?, ?, ?, ?)", values)
    return copy


def _serve(connection: ssl.SSLSocket, peer: str, database: str) -> None:
    with connection:
        _log.info("connection from %s", peer)
        try:
            _answer(connection, database)
        except (OSError, LabError) as trouble:
            _log.info("%s: %s", peer, trouble)
    _log.info("connection from %s closed", peer)


def _answer(connection: ssl.SSLSocket, database: str) -> None:
    head = _exactly(connection, HEADER_BYTES)
    _log.info("header %s", head.hex())
    request = decode_message(head + _exactly(connection, int.from_bytes(head[8:10], "big")))
    if not isinstance(request, QueryCertificateRequest):
        return
    _log.info("%s asks for %s of %s", request.device_name, request.serial.hex(), request.issuer)
    with closing(sqlite3.connect(database)) as opened:
        query = "SELECT der, roles FROM certificate WHERE serial = ? AND issuer = ?"
        row = opened.execute(query, (request.serial, request.issuer)).fetchone()
    _log.info("found: %s", row is not None)
    if row is None:
        answer = QueryCertificateResponse.build(request.session_id, STATUS_NOT_FOUND)
    else:
        answer = QueryCertificateResponse.build(request.session_id, STATUS_OK, row[0], list(row[1]), DEFAULT_TTL_S)
    connection.sendall(encode_message(answer))
    _log.info("answered %d", request.session_id)


def _exactly(connection: ssl.SSLSocket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("hung up")
        data += more
    return data


if __name__ == "__main__":
    main(sys.argv[1:])
