"""Clusters and nodes: services, stores, certificates, files, databases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from cucm.errors import LabError
from cucm.wire.trust_list import CTL_FILE_NAME, ITL_FILE_NAME
from lab.api import models
from lab.api.bodies import body_of
from lab.api.problems import NO_FILE, Problem
from lab.api.routes import OCTETS, Route, named
from lab.api.views import certificates_of, database_of, files_of, node_of, stores_of, trust_list_file
from lab.node import Node
from lab.running_lab import RunningLab
from lab.runtime import Lab
from lab.status import status_of

UNIT = {"unit": "one store or certificate: CallManager, Phone-SAST-trust ..."}


class ClusterResources:
    def __init__(self, running: RunningLab) -> None:
        self._running = running

    @property
    def _lab(self) -> Lab:
        return self._running.lab

    def routes(self) -> list[Route]:
        cluster, node = "/clusters/{cluster}", "/clusters/{cluster}/nodes/{node}"
        lists = self._certificates, models.Certificates
        return [
            Route("GET", "/clusters", "All clusters", self._clusters, models.Clusters),
            Route("GET", cluster, "One cluster", self._cluster, models.OneCluster),
            Route("GET", f"{cluster}/certificates", "The publisher's certificates", *lists, query=UNIT),
            Route("GET", node, "One node", self._node, models.OneNode),
            Route("GET", f"{node}/services", "Its services", self._services, models.Services),
            Route("GET", f"{node}/stores", "Its certificate stores", self._stores, models.Stores),
            Route("GET", f"{node}/certificates", "Its certificates, store by store", *lists, query=UNIT),
            Route("GET", f"{node}/files", "What its file server has handed out", self._files, models.Files),
            Route(
                "GET",
                f"{node}/files/{{file}}",
                "A file: CTLFile.tlv and ITLFile.tlv from its disk, others as its file server would serve them",
                self._file,
                media=OCTETS,
            ),
            Route("POST", "/sql", "Read, or write, a node's database", self._sql, models.SqlResult, models.Sql),
        ]

    async def _clusters(self, _request: web.Request) -> Mapping[str, Any]:
        return {"clusters": status_of(self._lab)["clusters"]}

    async def _cluster(self, request: web.Request) -> Mapping[str, Any]:
        return {"cluster": self._cluster_status(request)}

    async def _node(self, request: web.Request) -> Mapping[str, Any]:
        return {"node": self._node_status(request)}

    async def _services(self, request: web.Request) -> Mapping[str, Any]:
        return {"services": self._node_status(request)["services"]}

    async def _stores(self, request: web.Request) -> Mapping[str, Any]:
        node = self._node_that_is_up(request)
        return {"stores": stores_of(node.database, node.name)}

    async def _certificates(self, request: web.Request) -> Mapping[str, Any]:
        node = self._node_that_is_up(request)
        cluster = self._lab.cluster(request.match_info["cluster"])
        shown = certificates_of(node.database, node.name, request.query.get("unit"))
        return {"cluster": cluster.name, "node": node.name, "version": cluster.version, "certificates": shown}

    async def _files(self, request: web.Request) -> Mapping[str, Any]:
        return {"files": files_of(self._lab, self._named_node(request))}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        node, name = self._node_that_is_up(request), request.match_info["file"]
        if name in (CTL_FILE_NAME, ITL_FILE_NAME):
            data, modified_at = trust_list_file(node, name)
            response = web.Response(body=data, content_type=OCTETS)
            response.last_modified = datetime.fromtimestamp(int(modified_at), UTC)
            return response
        return web.Response(body=_served(node, name), content_type=OCTETS)

    async def _sql(self, request: web.Request) -> Mapping[str, Any]:
        body = await body_of(request, models.Sql)
        database = database_of(self._lab, body.cluster, body.node)
        if body.write:
            # on the event loop, as every other write of the lab: replication is woken from here
            return {"changed": database.execute(body.sql)}
        result = await asyncio.to_thread(database.query, body.sql)
        return {"columns": list(result.columns), "rows": [[_plain(cell) for cell in row] for row in result.rows]}

    # --- parts of a path

    def _named_node(self, request: web.Request) -> Node:
        places = request.match_info
        return named(lambda: node_of(self._lab, places["cluster"], places.get("node")))

    def _node_that_is_up(self, request: web.Request) -> Node:
        """Raises LabError for one whose machine is down: nobody can read its database."""
        node = self._named_node(request)
        node.require_up()
        return node

    def _cluster_status(self, request: web.Request) -> dict[str, Any]:
        cluster = named(lambda: self._lab.cluster(request.match_info["cluster"]))
        return next(one for one in status_of(self._lab)["clusters"] if one["name"] == cluster.name)

    def _node_status(self, request: web.Request) -> dict[str, Any]:
        node = self._named_node(request)
        return next(one for one in self._cluster_status(request)["nodes"] if one["name"] == node.name)


def _served(node: Node, name: str) -> bytes:
    """Raises Problem (404)."""
    store = node.file_store
    if store is None:
        raise Problem.not_found(f"no TFTP service runs on {node.name}", mend="start it", kind=NO_FILE)
    try:
        return store.read(name)
    except LabError as error:
        raise Problem.not_found(error.what, where=name[:100], mend=error.mend, kind=NO_FILE) from None


def _plain(cell: object) -> object:
    """A cell of SQLite's as JSON: a blob as lower-case hex."""
    return cell.hex() if isinstance(cell, bytes) else cell
