"""Moves the phones of one cluster to another. A small tool, here to show how one is tested against the lab.

It does what an administrator does by the manual method: the new cluster's certificates into the old cluster's trust
stores, TVS restarted, option 150 changed, phones reset. It speaks to the lab's API where a tool for the real thing
speaks to CM Administration. The way back is the same with --old and --new exchanged. Exit codes: 0 every phone has
moved, 1 some have not, 2 not prepared: nothing was reset, 3 stopped on the way: some phones may have been reset.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

STORES = ["CallManager-trust", "Phone-SAST-trust"]


class Refused(Exception):
    """The API refuses, or does not answer."""


class NotPrepared(Exception):
    """The old cluster would not vouch for the new one: no phone may be reset now."""


class Api:
    """The management API of a lab."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def get(self, path: str) -> dict:
        return self._ask(urllib.request.Request(f"{self._url}/v1/{path}"))

    def do(self, name: str, **fields: object) -> None:
        body = json.dumps({"do": name, **fields}).encode()
        headers = {"Content-Type": "application/json"}
        self._ask(urllib.request.Request(f"{self._url}/v1/operations", data=body, headers=headers))

    def _ask(self, request: urllib.request.Request) -> dict:
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            raise Refused(f"{problem['detail']} ({problem['mend']})") from None
        except OSError as error:
            raise Refused(f"the API does not answer: {error}") from None


class Migration:
    """From `old` to `new`; both are names of clusters."""

    def __init__(self, api: Api, old: str, new: str, *, patience_s: float = 20.0) -> None:
        self._api = api
        self._old = old
        self._new = new
        self._patience_s = patience_s

    def run(self, batch: int = 10) -> dict[str, str]:
        """Where each phone is in the end. Raises NotPrepared before any phone was touched, Refused later."""
        try:
            phones = sorted(self._api.get("phones")["phones"])
            self.prepare()
            self._api.do("set-option-150", cluster=self._new)
        except Refused as problem:
            raise NotPrepared(str(problem)) from None
        for number, some in enumerate(batches(phones, batch), start=1):
            print(f"batch {number}: resetting {len(some)} phones")
            self.reset(some)
        return {phone: self.where(phone) for phone in phones}

    def prepare(self) -> None:
        """Every TVS of the old cluster vouches for the new cluster's signers when this returns."""
        self.upload("CallManager", self._new, self._old, STORES)
        self.upload("ITLRecovery", self._new, self._old, STORES[1:])
        self.upload("CAPF", self._old, self._new, ["CAPF-trust"])
        self.wait_for_replication()
        self._api.do("restart-service", cluster=self._old, service="TVS")
        self._api.do("restart-service", cluster=self._new, service="CallManager")
        self.check()

    def upload(self, certificate: str, cluster: str, to: str, stores: Sequence[str]) -> None:
        self._api.do("upload-certificate", certificate=certificate, **{"from": cluster}, to=to, stores=stores)

    def wait_for_replication(self) -> None:
        """Not for ever: a subscriber that is not in step is somebody's job, not ours."""
        ends = time.monotonic() + self._patience_s
        while late := [name for name, node in self._nodes() if node["replication"] and node["replication"]["behind"]]:
            if time.monotonic() > ends:
                raise NotPrepared(f"replication to {', '.join(late)} has not caught up")
            time.sleep(0.1)

    def check(self) -> None:
        """What was uploaded is on every node that runs TVS, and TVS runs there."""
        wanted = self._signers()
        for name, node in self._nodes():
            if "TVS" not in {service["name"] for service in node["services"]}:
                continue
            store = self._api.get(f"clusters/{self._old}/nodes/{name}/certificates?unit=Phone-SAST-trust")
            missing = wanted - {(one["issuer"], one["serial"]) for one in store["certificates"]}
            if missing:
                raise NotPrepared(f"{name} lacks {len(missing)} certificates in Phone-SAST-trust")
            stopped = [one["name"] for one in node["services"] if one["name"] == "TVS" and one["state"] != "running"]
            if stopped:
                raise NotPrepared(f"TVS does not run on {name}")

    def reset(self, phones: Sequence[str]) -> None:
        """Reset them, wait until they are registered, and try those once more that did not get there."""
        for _ in range(2):
            left = [phone for phone in phones if self.where(phone) != self._new]
            for phone in left:
                self.reset_one(phone)
            self.wait(left)

    def reset_one(self, phone: str) -> None:
        """A phone that is off boots instead."""
        is_on = self._api.get(f"phones/{phone}")["phone"]["on"]
        self._api.do("reset-phone" if is_on else "boot-phone", phone=phone)

    def wait(self, phones: Sequence[str]) -> None:
        """Until all are registered at the new cluster, or time is up: what a phone did is known by where it is."""
        ends = time.monotonic() + self._patience_s
        while any(self.where(phone) != self._new for phone in phones) and time.monotonic() < ends:
            if all(self._is_settled(phone) for phone in phones):
                return  # nothing more will come of itself
            time.sleep(0.1)

    def where(self, phone: str) -> str:
        """The cluster that has it registered, or `nowhere`."""
        return self._api.get(f"phones/{phone}")["phone"]["registered"]

    def _is_settled(self, phone: str) -> bool:
        return self._api.get(f"phones/{phone}")["phone"]["state"] in ("registered", "unregistered", "off")

    def _nodes(self) -> Iterator[tuple[str, dict]]:
        cluster = self._api.get(f"clusters/{self._old}")["cluster"]
        return ((node["name"], node) for node in cluster["nodes"])

    def _signers(self) -> set[tuple[str, str]]:
        """Issuer and serial number of what signs the new cluster's lists."""
        certificates = self._api.get(f"clusters/{self._new}/certificates")["certificates"]
        return {(one["issuer"], one["serial"]) for one in certificates if one["unit"] in ("CallManager", "ITLRecovery")}


def batches(phones: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(phones), size):
        yield phones[start : start + size]


def main(words: Sequence[str] | None = None, migration: type[Migration] = Migration) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", required=True, metavar="URL", help="for example http://127.0.11.1:8480")
    parser.add_argument("--old", default="source")
    parser.add_argument("--new", default="destination")
    parser.add_argument("--patience", type=float, default=20.0, metavar="S")
    options = parser.parse_args(words)
    api = Api(options.lab)
    try:
        ended = migration(api, options.old, options.new, patience_s=options.patience).run()
    except NotPrepared as problem:
        print(f"nothing was reset: {problem}", file=sys.stderr)
        return 2
    except Refused as problem:
        print(f"stopped, some phones may have been reset: {problem}", file=sys.stderr)
        return 3
    for phone, where in ended.items():
        print(f"{phone} {where}")
    return 0 if set(ended.values()) <= {options.new} else 1


if __name__ == "__main__":
    raise SystemExit(main())
