"""Phones: the ground truth about them, what they show, what they hold, and what their user does with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from lab.api import models
from lab.api.operation_resources import Administrator
from lab.api.problems import NO_FILE, Problem
from lab.api.routes import OCTETS, Handler, Route, named
from lab.running_lab import RunningLab
from lab.status import status_of
from lab.truth import PhoneTruth, truths_of
from phone_agent.driver import Phone
from phone_agent.screens import screens_of

ACTIONS: Final = {
    "boot": ("boot-phone", "Power it on"),
    "reset": ("reset-phone", "Reset it, as CM Administration does"),
    "power-off": ("power-off-phone", "Pull the plug"),
    "erase": ("erase-security-settings", "Erase its CTL and ITL, as its security menu does"),
}
HELD: Final = ("ctl", "itl", "configuration")
PHONE: Final = {"phone": "one device name"}


class PhoneResources:
    def __init__(self, running: RunningLab, administrator: Administrator) -> None:
        self._running = running
        self._administrator = administrator

    def routes(self) -> list[Route]:
        phone = "/phones/{phone}"
        return [
            Route("GET", "/phones", "All phones: where they are and what they hold", self._phones, models.Phones),
            Route("GET", "/truth/phones", "The ground truth alone", self._truth, models.Truths, query=PHONE),
            Route("GET", phone, "One phone", self._phone, models.OnePhone),
            Route("GET", f"{phone}/screens", "Its status messages and menus", self._screens, models.Screens),
            Route("GET", f"{phone}/flash/{{held}}", "Its ctl, itl or configuration", self._flash, media=OCTETS),
            *(
                Route("POST", f"{phone}/{name}", text, self._action(operation), models.Performed)
                for name, (operation, text) in ACTIONS.items()
            ),
        ]

    async def _phones(self, _request: web.Request) -> Mapping[str, Any]:
        lab = self._running.lab
        truths = truths_of(lab)
        return {
            "phones": {phone["name"]: _whole(phone, truths[phone["name"]]) for phone in status_of(lab)["phones"]},
        }

    async def _phone(self, request: web.Request) -> Mapping[str, Any]:
        name = self._named(request).model.name
        lab = self._running.lab
        status = next(one for one in status_of(lab)["phones"] if one["name"] == name)
        return {"phone": _whole(status, truths_of(lab)[name])}

    async def _truth(self, request: web.Request) -> Mapping[str, Any]:
        wanted = request.query.get("phone")
        if wanted is not None:
            named(lambda: self._running.lab.phone(wanted))
        truths = truths_of(self._running.lab)
        return {"phones": {name: truth.as_json() for name, truth in truths.items() if wanted in (None, name)}}

    async def _screens(self, request: web.Request) -> Mapping[str, Any]:
        screens = screens_of(self._named(request))
        return {**screens.as_json(), "lines": screens.lines()}

    async def _flash(self, request: web.Request) -> web.StreamResponse:
        phone, held = self._named(request), request.match_info["held"]
        if held not in HELD:
            raise Problem.not_found(f"a flash has no {held[:40]!r} to be shown", mend=f"one of: {', '.join(HELD)}")
        data = getattr(phone.flash.contents, held)
        if data is None:
            raise Problem.not_found(f"{phone.model.name} holds no {held}", mend="boot it first", kind=NO_FILE)
        return web.Response(body=data, content_type=OCTETS)

    def _action(self, operation: str) -> Handler:
        async def act(request: web.Request) -> Mapping[str, Any]:
            name = self._named(request).model.name
            return await self._administrator.perform({"do": operation, "phone": name})

        return act

    def _named(self, request: web.Request) -> Phone:
        return named(lambda: self._running.lab.phone(request.match_info["phone"]))


def _whole(status: dict[str, Any], truth: PhoneTruth) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name != "registered"} | truth.as_json()
