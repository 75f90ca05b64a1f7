"""The JSON of the whole lab as one object, as models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lab.api.models import Answer, Date, Dhcp, FaultStatus, Phone, Replication, Service, Sftp


class InspectedNode(BaseModel):
    name: str
    address: str
    publisher: bool
    up: bool
    services: dict[str, Service]
    replication: Replication | None


class InspectedCluster(BaseModel):
    name: str
    version: str
    security_mode: Literal["mixed", "non-secure"]
    nodes: dict[str, InspectedNode]


class Lab(BaseModel):
    """The whole lab, everything by its name."""

    title: str
    ready: bool
    network: str
    clusters: dict[str, InspectedCluster]
    phones: dict[str, Phone]
    dhcp: Dhcp
    sftp: Sftp
    faults: dict[str, FaultStatus]
    clock: Date
    events: Annotated[dict[str, int], Field(description="how many of each kind since the lab's process began")]
    checkpoints: list[str]


class Inspection(Answer):
    lab: Annotated[Lab | Any, Field(description="the whole lab, or what `query` made of it")]
