"""What a phone's model can do: lists and TVS, digests, transports. Which model a phone is decides nothing else."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from cucm.errors import UsageError
from cucm.records import dataclass
from cucm.wire.signature_header import DigestAlgorithm

_MAC: Final = re.compile(r"[0-9A-F]{12}")
_MODEL: Final = re.compile(r"[0-9A-Za-z]{1,16}")

ALL_DIGESTS: Final = frozenset(DigestAlgorithm)
SHA1_ONLY: Final = frozenset({DigestAlgorithm.SHA1})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`security_by_default`: knows ITL and TVS. `digests`: verified in signatures of lists and files.
    `http`: asks port 6970 before TFTP.
    """

    security_by_default: bool = True
    digests: frozenset[DigestAlgorithm] = ALL_DIGESTS
    http: bool = True


NEWER: Final = Capabilities()
"""7800 and 8800 series (SHA-512: facts 8, S-camelot). A model not named below is taken for one of these [inferred]."""
SHA1_SERIES: Final = Capabilities(digests=SHA1_ONLY)
"""7900, 8900, 9900: signatures other than the LSC's are verified with SHA-1 only (facts 11, F17, F18)."""
WITHOUT_SECURITY_BY_DEFAULT: Final = Capabilities(security_by_default=False, digests=SHA1_ONLY, http=False)
"""7940, 7960: neither ITL nor TVS (facts 11, F15); that they fetch by TFTP alone is [recall]."""

_SERIES: Final = re.compile(r"(?:79|89|99)\d\d[A-Z]*")
_MODELS: Final = MappingProxyType({"7940": WITHOUT_SECURITY_BY_DEFAULT, "7960": WITHOUT_SECURITY_BY_DEFAULT})
_LETTERS: Final = re.compile(r"[A-Z]+$")
"""`7940G` is a 7940, `7975G` a 7975 [recall]."""


def capabilities_of(model: str) -> Capabilities:
    """By model number, with or without letters behind it (`8861`, `7960G`)."""
    number = _LETTERS.sub("", model.upper())
    if number in _MODELS:
        return _MODELS[number]
    return SHA1_SERIES if _SERIES.fullmatch(number) else NEWER


@dataclass(frozen=True, slots=True)
class PhoneModel:
    """Who the phone is: MAC address (12 hex digits) and model number (`8861`)."""

    mac: str
    model: str

    @classmethod
    def of(cls, mac: str, model: str) -> PhoneModel:
        """From what people write (`b0:00:b4:ba:0a:ee`, `SEPB000B4BA0AEE`, `CP-8861`). Raises UsageError."""
        plain = re.sub(r"[:.\-]", "", mac).upper().removeprefix("SEP")
        number = model.upper().removeprefix("CP-")
        if not _MAC.fullmatch(plain):
            raise UsageError(f"{mac!r} is no MAC address", mend="give 12 hex digits, for example B000B4BA0AEE")
        if not _MODEL.fullmatch(number):
            raise UsageError(f"{model!r} is no phone model", mend="give its number, for example 8861")
        return cls(plain, number)

    @property
    def name(self) -> str:
        """`SEPB000B4BA0AEE`: the device name in CUCM and in file names."""
        return f"SEP{self.mac}"

    @property
    def device_name(self) -> str:
        """`CP-8861-SEPB000B4BA0AEE`: the name towards TVS and in the LSC (facts 2.3, 7.7)."""
        return f"CP-{self.model}-{self.name}"

    @property
    def capabilities(self) -> Capabilities:
        return capabilities_of(self.model)
