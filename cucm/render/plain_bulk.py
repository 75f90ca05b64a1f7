"""Plain words for the exchange of certificates: the SFTP server and bulk certificate management."""

from __future__ import annotations

from cucm.events import Event, bulk, sftp


def exchange_headline(event: Event) -> str | None:
    """One line for the timeline; None for other events."""
    return _bulk(event) or _sftp(event)


def _bulk(event: Event) -> str | None:
    match event:
        case bulk.BulkSftpSet(address=address, port=port, user=user, directory=directory):
            return f"bulk certificates go to directory {directory} of {user}@{address}:{port}"
        case bulk.BulkExported(text=text, certificates=number):
            return f"{text} ({number})"
        case bulk.BulkConsolidated(text=text, clusters=clusters, certificates=number):
            return f"{text} ({number} of {', '.join(clusters)})"
        case bulk.BulkImported(text=text):
            return f"{text} ({_outcomes(event)})"
        case bulk.BulkTypeSkipped(bulk_type=bulk_type, why=why):
            return f"bulk type {bulk_type} passed over: {why}"
        case bulk.BulkCertificateRefused(store=store, why=why):
            return f"{store} REFUSES a certificate of the bulk file: {why}"
        case bulk.BulkFailed(step=step, text=text):
            return f"bulk {step} FAILED: {text}"
        case _:
            return None


def _outcomes(event: bulk.BulkImported) -> str:
    names = ("added", "replaced", "unchanged", "ignored", "refused")
    parts = [f"{getattr(event, name)} {name}" for name in names if getattr(event, name)]
    return ", ".join(parts) or "nothing that is not this cluster's own"


def _sftp(event: Event) -> str | None:
    match event:
        case sftp.SftpServerStarted(address=address, port=port, host_key=host_key):
            return f"SFTP server started on {address}:{port}, host key {host_key}"
        case sftp.SftpServerStopped(crashed=crashed):
            return f"SFTP server {'crashed' if crashed else 'stopped'}"
        case sftp.SftpConnectionRefused(peer=peer, why=why):
            return f"SFTP connection of {peer} refused: {why}"
        case sftp.SftpLoginRefused(peer=peer, user=user):
            return f"SFTP login of {user} from {peer} REFUSED"
        case sftp.SftpFileRenamed(peer=peer, new_path=path):
            return f"{peer} put {path} onto the SFTP server"
        case sftp.SftpFileRead(peer=peer, path=path, size=size):
            return f"{peer} read {path}, {size} bytes"
        case _:
            return None
