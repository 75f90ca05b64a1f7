from __future__ import annotations

import pytest

from cucm.events import Event, dhcp
from cucm.events.phone import PoweredOff
from cucm.render.plain import headline
from cucm.render.plain_dhcp import STEP_TEXTS, dhcp_headline

WHO = ("B000B4BA0AEE", "127.0.11.100", "Default")
SERVERS = ("127.0.11.32", "127.0.11.33")
STEP = dhcp.LeaseStep.RENEWING


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (dhcp.Option150Set(SERVERS), "option 150 is now 127.0.11.32, 127.0.11.33"),
        (dhcp.Option150Set((), "lobby"), "option 150 of pool lobby is now left out"),
        (dhcp.Option66Set("name"), "option 66 is now name"),
        (dhcp.Option66Set("", "lobby"), "option 66 of pool lobby is now left out"),
        (
            dhcp.DhcpAcknowledged(*WHO, "", SERVERS, "name", 60),
            "B000B4BA0AEE has 127.0.11.100; option 150: 127.0.11.32, 127.0.11.33, option 66: name",
        ),
        (dhcp.DhcpAcknowledged(*WHO, "", (), "", None), "B000B4BA0AEE has 127.0.11.100; no TFTP server named"),
        (dhcp.DhcpOffered(*WHO, "", (), ""), None),
        (dhcp.DhcpRefused(*WHO, "not its"), "B000B4BA0AEE is REFUSED 127.0.11.100: not its"),
        (dhcp.DhcpDeclined(*WHO, "taken"), "B000B4BA0AEE declines 127.0.11.100: taken"),
        (dhcp.DhcpReleased(*WHO), "B000B4BA0AEE gives 127.0.11.100 back"),
        (
            dhcp.DhcpIgnored("127.0.11.9", 67, "", dhcp.IgnoredReason.MALFORMED, "short"),
            "127.0.11.9 gets no answer (malformed): short",
        ),
        (
            dhcp.LeaseAcknowledged(STEP, WHO[1], "127.0.11.1", SERVERS, "150", "", 60.0),
            "127.0.11.100 renewed by DHCP server 127.0.11.1; TFTP servers 127.0.11.32, 127.0.11.33 (option 150)",
        ),
        (
            dhcp.LeaseAcknowledged(STEP, WHO[1], "127.0.11.1", (), "", "", None),
            "127.0.11.100 renewed by DHCP server 127.0.11.1; no TFTP server named",
        ),
        (dhcp.LeaseRefused(STEP, "127.0.11.1", "no"), "DHCP server 127.0.11.1 REFUSES: no"),
        (dhcp.LeaseDeclined("0.0.0.0", "127.0.11.1", "no"), "declines 0.0.0.0 of DHCP server 127.0.11.1: no"),
        (dhcp.LeaseNotObtained(STEP, "silence"), "no answer of DHCP (renewing): silence"),
        (dhcp.LeaseExpired(*WHO[:2]), "lease of B000B4BA0AEE has run out"),
        (dhcp.LeaseReleased(*WHO[:2]), "gives B000B4BA0AEE back"),
        (dhcp.LeaseMessageIgnored("127.0.11.9", "x"), None),
        (dhcp.TftpServerNotUsable("66", "name", "no DNS"), "option 66: name is of no use: no DNS"),
    ],
)
def test_headlines(event: Event, text: str | None) -> None:
    assert dhcp_headline(event) == text
    assert headline(event) == text


def test_others_events_are_left_to_others() -> None:
    assert dhcp_headline(PoweredOff()) is None


def test_every_step_has_a_word() -> None:
    assert set(STEP_TEXTS) == set(dhcp.LeaseStep)
