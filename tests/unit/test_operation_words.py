from __future__ import annotations

import json

import pytest

from cucm.errors import UsageError
from lab.operation_words import operation_from_words, operation_kind, operation_kinds, operation_of

UPLOAD = ("certificate=CallManager", "from=destination", "to=source", "stores=CallManager-trust,Phone-SAST-trust")


def test_every_operation_is_there_and_can_be_described():
    kinds = operation_kinds()
    assert {"boot-phone", "upload-certificate", "update-ctl-file", "set-enterprise-parameter"} <= set(kinds)
    assert list(kinds) == sorted(kinds)
    for name, kind in kinds.items():
        assert kind.usage.startswith(name)
        assert not {"do", "note"} & {field.name for field in kind.fields}
        assert json.dumps(kind.as_json())


def test_fields_say_what_they_take():
    fields = {field.name: field for field in operation_kind("upload-certificate").fields}
    assert fields["from"].required
    assert fields["stores"].takes_many
    assert "Phone-SAST-trust" in fields["stores"].kind
    assert "one of" in fields["certificate"].kind
    number = next(field for field in operation_kind("alter-ctl-file").fields if field.name == "from_end")
    assert (number.kind, number.required, number.default) == ("a number, at least 1", False, 100)


def test_words_become_what_a_story_has():
    value = operation_from_words("upload-certificate", (*UPLOAD, "note=step 2"))
    assert value["stores"] == ["CallManager-trust", "Phone-SAST-trust"]
    assert (value["do"], value["from"], value["note"]) == ("upload-certificate", "destination", "step 2")
    assert operation_of(value).model_dump(mode="json", by_alias=True) == value


def test_many_values_may_be_given_in_several_words_or_as_json():
    once = operation_from_words("upload-certificate", UPLOAD)
    for words in (
        ("stores=CallManager-trust", "stores=Phone-SAST-trust"),
        ('stores=["CallManager-trust","Phone-SAST-trust"]',),
    ):
        assert operation_from_words("upload-certificate", (*UPLOAD[:3], *words)) == once


def test_numbers_are_made_of_texts():
    assert operation_from_words("alter-ctl-file", ("cluster=source", "from_end=7"))["from_end"] == 7


def test_a_value_may_hold_an_equals_sign_and_odd_brackets():
    words = ("cluster=source", "parameter=a", "value={x=1")
    assert operation_from_words("set-enterprise-parameter", words)["value"] == "{x=1"


@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        ("uplod-certificate", (), "did you mean upload-certificate"),
        ("zzz", (), "there are: "),
        ("update-ctl-file", ("source",), "is not field=value"),
        ("update-ctl-file", ("cluster=a", "cluster=b"), "given twice"),
        ("update-ctl-file", ("cluster=a", "do=b"), "given twice"),
        ("update-ctl-file", ("clustr=a",), "did you mean cluster?"),
        ("update-ctl-file", (), "cluster: is missing"),
        ("update-ctl-file", ("cluster=",), "cluster: "),
        ("alter-ctl-file", ("cluster=a", "from_end=x"), "from_end: "),
        ("upload-certificate", (*UPLOAD[:3], "stores=Phone-SAST"), "stores.1: "),
        ("upload-certificate", (*UPLOAD[:3], "stores="), "stores: "),
    ],
)
def test_wrong_words_are_told_with_what_is_right(name, words, text):
    with pytest.raises(UsageError) as refused:
        operation_from_words(name, words)
    assert text in f"{refused.value} {refused.value.mend}"
    assert refused.value.mend


def test_a_long_list_of_problems_is_cut():
    with pytest.raises(UsageError, match="and 6 more"):
        operation_of({"do": "update-ctl-file"} | {f"x{number}": 1 for number in range(9)})
