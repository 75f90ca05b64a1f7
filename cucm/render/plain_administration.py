"""What administrators do, and what becomes of services and machines, in plain words."""

from __future__ import annotations

from cucm.events import Event
from cucm.events import administration as admin
from cucm.render.plain_words import common_name_in, role_texts


def administration_headline(event: Event) -> str | None:
    """One line for the timeline; None for events of others."""
    return _operations(event) or _certificates(event) or _services(event)


def _operations(event: Event) -> str | None:
    match event:
        case admin.OperationPerformed(text=text, note=note):
            return f"{text}  [{note}]" if note else text
        case admin.OperationRefused(text=text, mend=mend):
            return f"REFUSED: {text}{f' ({mend})' if mend else ''}"
        case admin.CtlFileDeleted(node=node):
            return f"CTLFile.tlv deleted on {node}"
        case admin.ItlResetTransferred(node=node):
            return f"successfully transferred reset ITL to node {node}"
        case admin.RecoveryPairExported():
            return "ITLRecovery pair exported"
        case admin.PhonesReset(devices=devices, why=why):
            return f"resets {devices[0] if len(devices) == 1 else f'{len(devices)} registered phones'}: {why}"
        case _:
            return None


def _certificates(event: Event) -> str | None:
    match event:
        case admin.CertificateStored(store=store, subject=subject, roles=roles):
            return f"{store} holds {common_name_in(subject)}; trust roles: {role_texts(roles)}"
        case admin.CertificateIgnored(store=store, subject=subject):
            return f"{store} IGNORES {common_name_in(subject)}: it holds one of this name that starts no earlier"
        case admin.CertificateDeleted(node=node, store=store, common_name=name):
            return f"{name} deleted from {store} on {node}"
        case admin.CertificateRestored(node=node, store=store, common_name=name):
            return f"{name} is back in {store} of {node}: another node still had it"
        case admin.SigningRequestMade(node=node, unit=unit):
            return f"CSR for {unit} of {node}"
        case _:
            return None


def _services(event: Event) -> str | None:
    match event:
        case admin.ServiceStarted(service=service, address=address, impostor=impostor):
            return f"{'impostor of ' if impostor else ''}{service} started on {address}"
        case admin.ServiceStopped(service=service):
            return f"{service} stopped"
        case admin.ServiceCrashed(service=service):
            return f"{service} CRASHED"
        case admin.ServiceUnchanged(service=service, state=state):
            return f"nothing changes: {service} {state}"
        case admin.ReachabilityChanged(service=service, reachability=how):
            return f"{service} is {how} from now on"
        case admin.NodeCrashed(node=node):
            return f"{node} is DOWN"
        case admin.NodeStarted(node=node):
            return f"{node} is up"
        case _:
            return None
