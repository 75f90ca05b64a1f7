from __future__ import annotations

import pytest

from cucm.errors import FlashError
from lab.fleet import shared_flash
from lab.fleet.shared_flash import SharedBytes, SharedFlash
from phone_agent.flash import FlashContents, TvsCacheEntry


def entry(certificate: bytes) -> TvsCacheEntry:
    return TvsCacheEntry("CN=issuer", b"\1", certificate, (0,), 1.0)


def test_phones_that_hold_the_same_hold_it_once() -> None:
    shared = SharedBytes()
    one, other = (SharedFlash(FlashContents(), shared) for _ in range(2))
    for number, flash in enumerate((one, other)):
        copies = [bytes(bytearray(text)) for text in (b"ctl" * 50, b"der" * 50)]
        flash.store(ctl=copies[0], ctl_source=f"127.0.11.{number}", tvs_cache=(entry(copies[1]),))
    assert one.contents.ctl is other.contents.ctl
    assert one.contents.tvs_cache[0].certificate is other.contents.tvs_cache[0].certificate
    assert (one.contents.ctl_source, other.contents.ctl_source) == ("127.0.11.0", "127.0.11.1")


def test_what_is_looked_for_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_flash, "MAX_SHARED", 1)
    flash = SharedFlash(FlashContents(), SharedBytes())
    flash.store(ctl=b"first")
    flash.store(itl=b"second")
    assert (flash.contents.ctl, flash.contents.itl) == (b"first", b"second")


def test_it_is_a_flash_in_everything_else() -> None:
    flash = SharedFlash(FlashContents(), SharedBytes())
    with pytest.raises(FlashError):
        flash.store(colour=b"blue")  # type: ignore[call-arg]
    flash.store(ctl=b"ctl", configuration=b"xml")
    flash.erase_security_settings()
    assert (flash.contents.ctl, flash.contents.configuration) == (None, b"xml")
