from __future__ import annotations

import pytest

from cucm.events import Event, bulk, sftp
from cucm.events.administration import ServiceStopped
from cucm.render.plain import headline
from cucm.render.plain_bulk import exchange_headline


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            bulk.BulkSftpSet("c", "127.0.0.3", 22, "bulk", "/x", "SHA256:k"),
            "bulk certificates go to directory /x of bulk@127.0.0.3:22",
        ),
        (bulk.BulkExported("c", "TFTP", ("a", "b"), 2, "Successfully exported."), "Successfully exported. (2)"),
        (bulk.BulkConsolidated("c", "TFTP", ("c", "d"), 4, "Done."), "Done. (4 of c, d)"),
        (bulk.BulkImported("c", "TFTP", 1, 0, 2, 0, 3, "Done."), "Done. (1 added, 2 unchanged, 3 refused)"),
        (
            bulk.BulkImported("c", "TFTP", 0, 0, 0, 0, 0, "Done."),
            "Done. (nothing that is not this cluster's own)",
        ),
        (bulk.BulkTypeSkipped("c", "CAPF", "none"), "bulk type CAPF passed over: none"),
        (
            bulk.BulkCertificateRefused("c", "tomcat-trust", "CN=x", "expired"),
            "tomcat-trust REFUSES a certificate of the bulk file: expired",
        ),
        (bulk.BulkFailed("c", "import", "All", "no"), "bulk import FAILED: no"),
        (
            sftp.SftpServerStarted("127.0.0.3", 22, "SHA256:k"),
            "SFTP server started on 127.0.0.3:22, host key SHA256:k",
        ),
        (sftp.SftpServerStopped(), "SFTP server stopped"),
        (sftp.SftpServerStopped(crashed=True), "SFTP server crashed"),
        (sftp.SftpConnectionRefused("127.0.0.9", "full"), "SFTP connection of 127.0.0.9 refused: full"),
        (sftp.SftpLoginRefused("127.0.0.9", "eve"), "SFTP login of eve from 127.0.0.9 REFUSED"),
        (sftp.SftpFileRenamed("127.0.0.9", "/.a", "/a"), "127.0.0.9 put /a onto the SFTP server"),
        (sftp.SftpFileRead("127.0.0.9", "/a", 5), "127.0.0.9 read /a, 5 bytes"),
        (sftp.SftpLoginAccepted("127.0.0.9", "bulk"), None),
        (ServiceStopped("n", "TVS"), None),
    ],
)
def test_words(event: Event, text: str | None) -> None:
    assert exchange_headline(event) == text


def test_they_stand_in_the_timeline() -> None:
    assert headline(sftp.SftpServerStopped()) == "SFTP server stopped"
