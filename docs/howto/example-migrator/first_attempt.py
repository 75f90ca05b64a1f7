"""The same tool as it was written first. Can you see what is wrong with it? The lab can."""

from __future__ import annotations

from collections.abc import Sequence

from migrate import STORES, Migration, main


class FirstAttempt(Migration):
    """Uploads, restarts, resets, and believes that this was all."""

    def prepare(self) -> None:
        self.upload("CallManager", self._new, self._old, STORES)
        self.upload("CAPF", self._old, self._new, ["CAPF-trust"])
        self._api.do("restart-service", cluster=self._old, service="TVS")
        self._api.do("restart-service", cluster=self._new, service="CallManager")

    def reset(self, phones: Sequence[str]) -> None:
        for phone in phones:
            self.reset_one(phone)

    def where(self, phone: str) -> str:
        return self._new  # it was reset, and option 150 says so


if __name__ == "__main__":
    raise SystemExit(main(migration=FirstAttempt))
