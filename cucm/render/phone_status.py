"""A phone's Status messages screen: `12:58:15 Trust List Update Failed` (facts 7.5; the form is that of a 79xx)."""

from __future__ import annotations

from datetime import UTC, datetime

from cucm.events import EventRecord
from cucm.events.phone import StatusMessageShown


class PhoneStatusScreen:
    """Renders status messages, oldest first; times are UTC."""

    def lines(self, record: EventRecord) -> list[str]:
        if not isinstance(record.event, StatusMessageShown):
            return []
        return [f"{datetime.fromtimestamp(record.time, UTC):%H:%M:%S} {record.event.text}"]
