"""DHCP in plain words: the server's view and the phone's."""

from __future__ import annotations

from typing import Final

from cucm.events import Event, dhcp

STEP_TEXTS: Final = {
    dhcp.LeaseStep.REBOOTING: "confirmed",
    dhcp.LeaseStep.SELECTING: "leased",
    dhcp.LeaseStep.REQUESTING: "leased",
    dhcp.LeaseStep.RENEWING: "renewed",
    dhcp.LeaseStep.REBINDING: "rebound",
}


def dhcp_headline(event: Event) -> str | None:
    """One line for the timeline; None for events that only a trace needs, and for others' events."""
    return _server(event) or _phone(event)


def _server(event: Event) -> str | None:
    match event:
        case dhcp.Option150Set(servers=servers, pool=pool):
            return f"option 150{_of(pool)} is now {', '.join(servers) or 'left out'}"
        case dhcp.Option66Set(text=text, pool=pool):
            return f"option 66{_of(pool)} is now {text or 'left out'}"
        case dhcp.RogueServerAnswered(client=client, server=server, message=message, option_150=servers):
            return f"{client} hears {message} of a second server, {server}: option 150 {', '.join(servers)}"
        case dhcp.DhcpAcknowledged(client=client, address=address, option_150=servers, option_66=name):
            return f"{client} has {address}; {_options(servers, name)}"
        case dhcp.DhcpRefused(client=client, address=address, detail=detail):
            return f"{client} is REFUSED {address}: {detail}"
        case dhcp.DhcpDeclined(client=client, address=address, detail=detail):
            return f"{client} declines {address}: {detail}"
        case dhcp.DhcpReleased(client=client, address=address):
            return f"{client} gives {address} back"
        case dhcp.DhcpIgnored(client=client, peer=peer, reason=reason, detail=detail):
            return f"{client or peer} gets no answer ({reason}): {detail}"
        case _:
            return None


def _phone(event: Event) -> str | None:
    match event:
        case dhcp.LeaseAcknowledged(step=step, address=address, server=server, tftp_servers=servers, option=option):
            named = f"TFTP servers {', '.join(servers)} (option {option})" if servers else "no TFTP server named"
            return f"{address} {STEP_TEXTS[step]} by DHCP server {server}; {named}"
        case dhcp.LeaseRefused(server=server, detail=detail):
            return f"DHCP server {server} REFUSES: {detail}"
        case dhcp.LeaseDeclined(address=address, server=server, detail=detail):
            return f"declines {address} of DHCP server {server}: {detail}"
        case dhcp.LeaseNotObtained(step=step, detail=detail):
            return f"no answer of DHCP ({step}): {detail}"
        case dhcp.LeaseExpired(address=address):
            return f"lease of {address} has run out"
        case dhcp.LeaseReleased(address=address):
            return f"gives {address} back"
        case dhcp.TftpServerNotUsable(option=option, text=text, detail=detail):
            return f"option {option}: {text} is of no use: {detail}"
        case _:
            return None


def _of(pool: str) -> str:
    return f" of pool {pool}" if pool else ""


def _options(servers: tuple[str, ...], name: str) -> str:
    named = [f"option 150: {', '.join(servers)}"] if servers else []
    named += [f"option 66: {name}"] if name else []
    return ", ".join(named) or "no TFTP server named"
