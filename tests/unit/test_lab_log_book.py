from __future__ import annotations

from cucm.errors import TrustReason
from cucm.events import EventLog, files, phone
from cucm.events.administration import ServiceStarted, StoryEnded
from lab.log_book import LogBook


def make() -> tuple[EventLog, LogBook]:
    events = EventLog()
    return events, LogBook(events)


def test_each_source_has_the_log_of_its_kind():
    events, book = make()
    events.emit("phone:SEPA", phone.TvsNotUsed(TrustReason.TVS_NOT_IN_TRUST_LIST))
    events.emit("tftp:n1", files.FileNotFound("http", "127.0.0.9", 1000, "CTLSEPA.tlv", "unknown device"))
    events.emit("node:n1", ServiceStarted("n1", "TVS", "127.0.0.1"))
    assert book.names == ("node-n1", "phone-SEPA", "tftp-n1")
    assert "SECUREAPP-Not using TVS - TVS not in Trust list" in book.lines("phone-SEPA")[0]
    assert "|AppInfo  |" in book.lines("tftp-n1")[0]
    assert book.lines("node-n1")[0].endswith("node:n1 TVS started on 127.0.0.1")


def test_two_machines_of_a_kind_have_two_logs_with_numbers_of_their_own():
    events, book = make()
    for name in ("SEPA", "SEPB"):
        events.emit(f"phone:{name}", phone.TvsNotUsed(TrustReason.TVS_NOT_IN_TRUST_LIST))
    first, second = (book.lines(f"phone-{name}")[0].split()[0] for name in ("SEPA", "SEPB"))
    assert first == second


def test_a_place_to_search_from():
    events, book = make()
    events.emit("node:n1", ServiceStarted("n1", "TVS", "127.0.0.1"))
    place = book.lengths
    assert book.contains("node-n1", "TVS started", {})
    assert not book.contains("node-n1", "TVS started", place)
    events.emit("node:n1", ServiceStarted("n1", "TVS", "127.0.0.1"))
    assert book.contains("node-n1", "TVS started", place)


def test_a_log_nobody_wrote_to_is_empty():
    events, book = make()
    assert book.lines("tvs-n1") == ()
    assert not book.contains("tvs-n1", "", {})
    events.emit("lab:story", StoryEnded())
    assert book.lines("lab-story") == ()


def test_the_newest_lines_are_kept_where_a_log_must_not_grow():
    events = EventLog()
    book = LogBook(events, max_lines=2)
    for name in "abcd":
        events.emit("node:n1", ServiceStarted("n1", name, "127.0.0.1"))
    assert [line.split()[2] for line in book.lines("node-n1")] == ["c", "d"]
    assert book.lengths == {"node-n1": 4}
    assert [line.split()[2] for line in book.lines("node-n1", 3)] == ["d"]
    assert book.lines("node-n1", 1) == book.lines("node-n1")
    assert book.lines("node-n1", 9) == ()
