"""Events in plain words: the timeline of a run, for people who do not read traces."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cucm.events import Event, EventRecord, cluster, files, phone, trust_lists, tvs
from cucm.render.plain_administration import administration_headline
from cucm.render.plain_bulk import exchange_headline
from cucm.render.plain_dhcp import dhcp_headline
from cucm.render.plain_faults import fault_headline
from cucm.render.plain_replication import replication_headline
from cucm.render.plain_running import running_headline
from cucm.render.plain_words import common_name_in, role_texts
from cucm.render.text import printable

BASIS_TEXTS: Final = {
    phone.TrustBasis.LEAP_OF_FAITH: "taken on first use: the phone held no list to check it with",
    phone.TrustBasis.BLANK_ITL: "taken unchecked: the phone's ITL is an empty one",
    phone.TrustBasis.CTL: "its signer is in the phone's CTL",
    phone.TrustBasis.ITL: "its signer is in the phone's ITL",
    phone.TrustBasis.TVS: "TVS vouched for its signer",
    phone.TrustBasis.TVS_CACHE: "TVS vouched for its signer earlier",
    phone.TrustBasis.UNSIGNED_ALLOWED: "unsigned, and the phone holds no list that forbids it",
}


class PlainLines:
    """A plain log: every event that has a headline, with its time in UTC."""

    def lines(self, record: EventRecord) -> list[str]:
        text = headline(record.event)
        moment = datetime.fromtimestamp(record.time, UTC)
        return [f"{moment:%H:%M:%S.%f} {record.source} {text}"] if text else []


def headline(event: Event) -> str | None:
    """One line for the timeline; None for events that only a trace needs."""
    text = (
        administration_headline(event)
        or _phone(event)
        or _servers(event)
        or _call_processing(event)
        or exchange_headline(event)
        or dhcp_headline(event)
        or replication_headline(event)
        or fault_headline(event)
        or running_headline(event)
    )
    return text and printable(text)  # names and details may come from the network


def _lookup(steps: tuple[tvs.CacheStep, ...]) -> str:
    found = next((step for step in steps if step.found), None)
    if found is None:
        return "the certificate asked for is in no store"
    return f"finds the certificate in its {found.cache} cache, roles: {role_texts(found.roles)}"


def _phone(event: Event) -> str | None:
    match event:
        case phone.FileReceived(file_name=name, server=server, transport=transport, length=length):
            return f"{name} from {server} by {transport.upper()}, {length} bytes"
        case phone.FileNotReceived(file_name=name, status=status):
            return f"{name}: {status}"
        case phone.TrustListAccepted(trust_list=which, basis=basis, signer=signer):
            return f"{which} accepted, signed by {common_name_in(signer)}: {BASIS_TEXTS[basis]}"
        case phone.TrustListUnchanged(trust_list=which):
            return f"{which} unchanged"
        case phone.TrustListRefused(trust_list=which, reason=reason, detail=detail):
            return f"{which} REFUSED ({reason}): {detail}"
        case phone.ConfigurationAccepted(file_name=name, basis=basis, changed=changed):
            return f"{name} accepted{'' if changed else ' (unchanged)'}: {BASIS_TEXTS[basis]}"
        case phone.ConfigurationRefused(file_name=name, reason=reason, detail=detail):
            return f"{name} REFUSED ({reason or 'content'}): {detail}"
        case phone.StatusMessageShown(text=text):
            return f"status message: {text}"
        case _:
            return _phone_connections(event)


def _phone_connections(event: Event) -> str | None:
    match event:
        case phone.TvsNotUsed(reason=reason):
            return f"TVS cannot be asked ({reason})"
        case phone.TvsConnecting(address=address, port=port):
            return f"asks TVS at {address}:{port}"
        case phone.TvsHandshakeSucceeded(cipher=cipher):
            return f"TLS with TVS stands ({cipher}); the server's certificate is the one in the ITL"
        case phone.TvsRequestSent(message=message):
            return f"query sent, {len(message)} bytes"
        case phone.TvsResponseReceived(message=message):
            return f"answer received, {len(message)} bytes"
        case phone.TvsQueryFailed(address=address, reason=reason, detail=detail):
            return f"TVS at {address} gave no answer ({reason}): {detail}"
        case phone.Registered(call_manager=name, address=address, port=port, transport=transport):
            return f"REGISTERED with {name} ({address}:{port}, {transport.upper()})"
        case phone.RegistrationFailed(call_manager=name, status=status, detail=detail):
            return f"not registered with {name} ({status}): {detail}"
        case phone.RegistrationNotPossible(detail=detail):
            return f"cannot register: {detail}"
        case phone.RegistrationLost(call_manager=name):
            return f"registration with {name} lost"
        case phone.PoweredOff():
            return "powered off"
        case phone.PowerLost():
            return "loses its power"
        case phone.LscInstalled(subject=subject, issuer=issuer):
            return f"LSC installed: {common_name_in(subject)}, issued by {common_name_in(issuer)}"
        case phone.LscRefused(issuer=issuer, detail=detail):
            return f"LSC of {common_name_in(issuer)} NOT installed: {detail}"
        case phone.LscDeleted(issuer=issuer):
            return f"LSC deleted, issued by {common_name_in(issuer)}" if issuer else "no LSC to delete"
        case _:
            return None


def _servers(event: Event) -> str | None:
    match event:
        case trust_lists.TrustListSigned(file_name=name, signer=signer, records=records):
            return f"{name} signed by {common_name_in(signer)}: {'; '.join(records)}"
        case trust_lists.TrustListReset(file_name=name, signer=signer):
            return f"{name} replaced by a reset one, signed by {common_name_in(signer)}"
        case trust_lists.TrustListOutgrown(file_name=name, length=length, limit=limit):
            return f"{name} has {length} bytes: phones load no list above {limit}"
        case files.FileNotFound(peer=peer, name=name):
            return f"{name} not found, asked by {peer}"
        case tvs.TvsCertificateLookedUp(steps=steps):
            return _lookup(steps)
        case tvs.TvsResponseSent(status=status, roles=roles) if roles is not None:
            return f"answers status {status}, roles: {role_texts(roles)}"
        case tvs.TvsHandshakeFailed(detail=detail):
            return f"TLS handshake failed: {detail}"
        case _:
            return None


def _call_processing(event: Event) -> str | None:
    match event:
        case cluster.RegistrationAccepted(device_name=name, peer=peer, transport=transport):
            return f"{name} registered from {peer}, {transport.upper()}"
        case cluster.RegistrationRefused(device_name=name, peer=peer, reason=reason, detail=detail):
            return f"{name or peer} REFUSED ({reason}): {detail}"
        case cluster.RegistrationEnded(device_name=name, reason=reason):
            return f"registration of {name} ended ({reason})"
        case cluster.RegistrationChallenged(device_name=name):
            return f"{name} is asked for its digest credentials"
        case cluster.AlarmReceived(device_name=name, alarm="DeviceTLInfo", ctl_signature=ctl, itl_signature=itl):
            return f"{name} reports its lists: {_reported('CTL', ctl)}, {_reported('ITL', itl)}"
        case cluster.AlarmReceived(device_name=name, alarm=alarm):
            return f"{name} reports {alarm}"
        case cluster.AlarmRefused(device_name=name, peer=peer, sip_status=status, detail=detail):
            return f"alarm of {name or peer} REFUSED ({status}): {detail}"
        case _:
            return None


def _reported(name: str, signature: bytes | None) -> str:
    return f"no {name}" if signature is None else f"{name} {signature.hex()[:12]}"
