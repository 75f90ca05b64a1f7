"""Names and trust roles in plain words."""

from __future__ import annotations

from cucm.roles import TrustRole


def common_name_in(name: str) -> str:
    """The CN of a name in Cisco's form; the whole name if it has none."""
    pairs = (part.partition("=") for part in name.split(";"))
    return next((value for kind, _, value in pairs if kind.upper() == "CN"), name)


def role_texts(roles: tuple[int, ...]) -> str:
    return ", ".join(role_text(role) for role in roles) or "none"


def role_text(role: int) -> str:
    """`SAST (0)`; a number without a name stays a number."""
    try:
        return f"{TrustRole(role).name} ({role})"
    except ValueError:
        return str(role)
