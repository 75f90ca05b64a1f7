"""The description of the API against the application, and every JSON resource against the description."""

from __future__ import annotations

import re

import pytest
from api_on_sockets import asking, make_running, serving
from jsonschema import Draft202012Validator, ValidationError
from lab_on_sockets import PHONE, network_of
from openapi_spec_validator import validate

from cucm.faults.catalogue import POINTS
from lab.api.page import page_of
from lab.operation_words import operation_kinds

STREAMS = ("/v1/events/stream", "/v1/logs/{log}/stream")


@pytest.fixture
async def running(tmp_path, loopback):
    running = make_running(tmp_path / "lab", network_of(loopback))
    async with serving(running, phones=True) as server:
        running.server = server
        yield running


@pytest.fixture
async def ask(running):
    async with asking(running.server.urls[0]) as ask:
        yield ask


async def test_the_description_is_valid_openapi(ask):
    validate(ask.document)
    assert ask.document["openapi"].startswith("3.1")
    names = [one["operationId"] for path in ask.document["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))
    for name, schema in ask.document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert name


async def test_what_is_served_is_described_and_what_is_described_is_served(ask, running):
    served = {(route.method.lower(), route.resource.canonical) for route in running.server.application.router.routes()}
    described = {(method, path) for path, methods in ask.document["paths"].items() for method in methods}
    assert served == described
    for path in ask.document["paths"]:
        filled = re.sub(r"\{\w+\}", "x", path)
        allowed = (await ask("PATCH", filled)).headers["allow"].split(",")
        assert {method.lower() for method in allowed} == set(ask.document["paths"][path])


async def test_every_resource_answers_as_described(ask, running):
    """`Asking` holds each answer against its schema; here every path is asked that has something to say."""
    await ask.post("/v1/faults", {"id": "f", "point": "tvs.response", "action": "drop"})
    named = {"cluster": "source", "node": "ucm105pub", "phone": PHONE, "fault": "f", "log": f"phone-{PHONE}"}
    for path, methods in ask.document["paths"].items():
        if "get" in methods and path not in STREAMS:
            for file, held in (("CTLFile.tlv", "ctl"), ("XMLDefault.cnf.xml", "configuration")):
                await ask.get(path.format_map(named | {"file": file, "held": held, "name": "start"}))


async def test_every_operation_and_its_fields_are_in_it(ask):
    schemas = ask.document["components"]["schemas"]
    mapping = schemas["Operation"]["discriminator"]["mapping"]
    by_name = {name: schemas[reference.rpartition("/")[2]] for name, reference in mapping.items()}
    assert [{"$ref": reference} for reference in mapping.values()] == schemas["Operation"]["oneOf"]
    assert all(form["properties"]["do"]["const"] == name for name, form in by_name.items())
    kinds = operation_kinds()
    assert set(by_name) == set(kinds)
    for name, kind in kinds.items():
        assert {field.name for field in kind.fields} <= set(by_name[name]["properties"])
    ask.validate({"do": "boot-phone", "phone": PHONE}, "Operation")
    ask.validate(
        {"do": "upload-certificate", "certificate": "TVS", "from": "source", "to": "destination"}
        | {"stores": ["Phone-SAST-trust"]},
        "Operation",
    )
    for wrong in ({"do": "bot-phone"}, {"do": "boot-phone", "x": 1}, {"phone": PHONE}):
        with pytest.raises(ValidationError):
            ask.validate(wrong, "Operation")


async def test_every_point_and_action_with_a_schema_of_its_attributes(ask):
    points = {one["name"]: one for one in (await ask.get("/v1/fault-points"))["points"]}
    assert list(points) == list(POINTS)
    for name, point in POINTS.items():
        actions = {action["name"]: action for action in points[name]["actions"]}
        assert list(actions) == [action.name for action in point.actions]
        for action in actions.values():
            Draft202012Validator.check_schema(action["attributes"])


async def test_parameters_of_a_query_are_those_that_are_taken(ask):
    for path, methods in ask.document["paths"].items():
        for method, described in methods.items():
            if method == "get":
                reply = await ask("GET", re.sub(r"\{\w+\}", "x", path), no_such_parameter="1")
                assert reply.status in (400, 404), path
                assert all(one["description"] for one in described["parameters"] if one["in"] == "query")


async def test_the_page_names_every_resource(ask):
    page = page_of(ask.document)
    for path, methods in ask.document["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page
