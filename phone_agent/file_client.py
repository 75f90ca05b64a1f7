"""How a phone gets a file: per server HTTP 6970, on any failure TFTP 69, then the next server (facts 7.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cucm.records import dataclass
from phone_agent import http_client, tftp_client
from phone_agent.commands import FetchAttempt, FetchResult, FetchStatus
from phone_agent.http_client import fetch_http
from phone_agent.tftp_client import PHONE_OPTIONS, fetch_tftp


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What the phone's patience and memory allow; see the constants they come from for provenance."""

    max_size: int = http_client.MAX_FILE_SIZE
    http_connect_timeout_s: float = http_client.CONNECT_TIMEOUT_S
    http_deadline_s: float = http_client.DEADLINE_S
    tftp_timeout_s: float = tftp_client.RETRANSMISSION_TIMEOUT_S
    tftp_retransmissions: int = tftp_client.MAX_RETRANSMISSIONS
    tftp_deadline_s: float = tftp_client.TRANSFER_DEADLINE_S


class FileClient:
    """Fetches files from the address `local_address`; ports can be moved for machines that reserve low ones.

    Without `http` only TFTP is tried, as by a 7940.
    """

    def __init__(
        self,
        *,
        local_address: str | None = None,
        http_port: int = http_client.HTTP_PORT,
        tftp_port: int = tftp_client.TFTP_PORT,
        tftp_options: Mapping[str, int] = PHONE_OPTIONS,
        limits: FileLimits | None = None,
        http: bool = True,
    ) -> None:
        self._local_address = local_address
        self._http_port = http_port
        self._tftp_port = tftp_port
        self._tftp_options = tftp_options
        self._limits = limits or FileLimits()
        self._transports = (self._over_http, self._over_tftp) if http else (self._over_tftp,)

    async def fetch(self, file_name: str, servers: Sequence[str]) -> FetchResult:
        """The file from the first of `servers` (IP addresses) that has it.

        If none has, `status` is that of the last attempt: the phone logs one status per file, and which of several it
        logs is UNKNOWN. Raises EncodeError for a name that does not fit a request.
        """
        attempts: list[FetchAttempt] = []
        for server in servers:
            for transport in self._transports:
                attempt, data = await transport(server, file_name)
                attempts.append(attempt)
                if data is not None:
                    return FetchResult(FetchStatus.OK, data, server, attempt.transport, tuple(attempts))
        status = attempts[-1].status if attempts else FetchStatus.ERROR
        return FetchResult(status, attempts=tuple(attempts))

    async def _over_http(self, server: str, file_name: str) -> tuple[FetchAttempt, bytes | None]:
        return await fetch_http(
            server,
            file_name,
            port=self._http_port,
            local_address=self._local_address,
            max_size=self._limits.max_size,
            connect_timeout_s=self._limits.http_connect_timeout_s,
            deadline_s=self._limits.http_deadline_s,
        )

    async def _over_tftp(self, server: str, file_name: str) -> tuple[FetchAttempt, bytes | None]:
        return await fetch_tftp(
            server,
            file_name,
            port=self._tftp_port,
            local_address=self._local_address,
            options=self._tftp_options,
            max_size=self._limits.max_size,
            timeout_s=self._limits.tftp_timeout_s,
            max_retransmissions=self._limits.tftp_retransmissions,
            deadline_s=self._limits.tftp_deadline_s,
        )
