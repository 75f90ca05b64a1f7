"""File events as lines of the CUCM TFTP service's SDL trace (facts 8 and 10).

Attested: the shape `00004376.003 |07:28:32.110 |AppInfo  |   text`, the texts of HTTP requests, of the CTLSEP search,
of "not found" and of 503, and the response header fields. [inferred]: how the numbers count (one per event, then one
per line), that ITLSEP is searched like CTLSEP, which line follows which. Texts in `_OURS` are the lab's own, for
events that no published trace shows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

from cucm.events import Event, EventRecord
from cucm.events.files import (
    FileEvent,
    FileNotFound,
    FileRefused,
    FileRequested,
    FileServed,
    FileServerStarted,
    FileServerStopped,
    FileTransport,
    RefusalReason,
    TransferFailed,
    TransferIntruded,
    TransferRetransmitted,
)
from cucm.render.text import printable

_OURS: Final = "Lab: "
_TRUST_LIST_NAME: Final = re.compile(r"(CTL|ITL)SEP([0-9A-F]{12})\.tlv")
_CONFIGURATION_NAME: Final = re.compile(r"(SEP[0-9A-F]{12})\.cnf\.xml")


class TftpTrace:
    """One node's TFTP trace; keeps the running number of its lines."""

    def __init__(self) -> None:
        self._number = 0
        self._second = -1
        self._clock = ""

    def lines(self, record: EventRecord) -> list[str]:
        """The lines for one record, in UTC; none for events that are not of a file server."""
        text_of = _TEXTS.get(record.event.__class__)
        if text_of is None:
            return []
        self._number += 1
        second, microsecond = divmod(round(record.time * 1_000_000), 1_000_000)
        if second != self._second:  # a busy server writes thousands of lines in one second
            self._second, self._clock = second, time.strftime("%H:%M:%S", time.gmtime(second))
        texts = text_of(record.event)
        clock = f"{self._clock}.{microsecond // 1000:03d}"
        if len(texts) == 1:
            return [f"{self._number:08d}.000 |{clock} |AppInfo  |   {texts[0]}"]
        head, tail = f"{self._number:08d}", f"|{clock} |AppInfo  |   "
        return [f"{head}.{line:03d} {tail}{text}" for line, text in enumerate(texts)]


_TEXTS: Final[dict[type[Event], Callable[[Any], list[str]]]] = {}
"""What writes the texts of an event, by its class."""


def _of(event: type[Event]) -> Callable[[Callable[[Any], list[str]]], Callable[[Any], list[str]]]:
    def register(texts: Callable[[Any], list[str]]) -> Callable[[Any], list[str]]:
        _TEXTS[event] = texts
        return texts

    return register


@_of(FileServerStarted)
def _started(event: FileServerStarted) -> list[str]:
    ports = f"TFTP {event.tftp_port}, HTTP {event.http_port}, receive buffer {event.receive_buffer_bytes}"
    return [f"{_OURS}listening on {event.address}: {ports}"]


@_of(FileServerStopped)
def _stopped(event: FileServerStopped) -> list[str]:
    return [f"{_OURS}stopped on {event.address}"]


@_of(FileRequested)
def _requested(event: FileRequested) -> list[str]:
    if event.transport is FileTransport.HTTP:
        head = printable(event.request.decode("latin-1").replace("\r\n", " ").rstrip())
        opening = "HTTPConnection::wait_SdlDataInd Printing the HTTPRequest : msgBuffer size "
        texts = [f"{opening}[{len(event.request)}] --: {head}"]
    else:
        options = " ".join(("", *event.options)) if event.options else ""
        texts = [printable(f"{_OURS}TFTP read request [{event.name}]{options}".rstrip()) + _from(event)]
    if event.name.endswith(".tlv") and (found := _TRUST_LIST_NAME.fullmatch(event.name)):
        kind, mac = found.groups()
        texts.append(f"HandleCTL: [{event.name}] is {kind}SEPMac.tlv file, Searching[{mac}]")
        texts.append(f"TFTPCache::FindMatching(SEP{mac})")
    return texts


@_of(FileServed)
def _served(event: FileServed) -> list[str]:
    if event.transport is FileTransport.TFTP:
        again = f", {event.retransmissions} packets sent again" if event.retransmissions else ""
        return [_named(event, f"sent, {event.size} bytes{again}")]
    return [
        "HTTP/1.1 200 OK",
        f"Content-length: {event.size}",
        "Cache-Control: no-store",
        "Content-type: */*",
        _named(event, f"sent, {event.size} bytes"),
    ]


@_of(FileNotFound)
def _not_found(event: FileNotFound) -> list[str]:
    texts = [printable(f"[{event.name}] Not found locally")]
    device = _CONFIGURATION_NAME.match(event.name)
    if device is not None:
        texts.append(f"Unable to find device in DB = {device[1].lower()}")
    if event.transport is FileTransport.HTTP:
        return [*texts, "File Not Found - 404 - Failure"]
    return [*texts, "TFTP error 1 File not found"]


@_of(FileRefused)
def _refused(event: FileRefused) -> list[str]:
    if event.reason is RefusalReason.BUSY and event.transport is FileTransport.HTTP:
        return ["Requested file is Busy... Sending 503 response"]
    status = "no answer" if event.status is None else f"answer {event.status}"
    return [_named(event, f"refused ({event.reason}, {status}): {event.detail}")]


@_of(TransferRetransmitted)
def _retransmitted(event: TransferRetransmitted) -> list[str]:
    return [_named(event, f"block {event.block} sent again, try {event.attempt}")]


@_of(TransferFailed)
def _failed(event: TransferFailed) -> list[str]:
    return [_named(event, f"not sent ({event.reason}, {event.sent} bytes taken): {event.detail}")]


@_of(TransferIntruded)
def _intruded(event: TransferIntruded) -> list[str]:
    return [_named(event, f"packet from {event.intruder}:{event.intruder_port} turned away, unknown transfer ID")]


def _named(event: FileEvent, what: str) -> str:
    return printable(f"{_OURS}[{event.name}] {what}") + _from(event)


def _from(event: FileEvent) -> str:
    return f", {event.peer}:{event.peer_port}"
