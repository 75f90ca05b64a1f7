"""What a cluster remembers of bulk certificate management: the SFTP data and the host key the server showed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from cucm.errors import EnvironmentProblem, LabError
from cucm.whole_files import write_private
from lab.sftp_settings import SftpSettings

MAX_STATE: Final = 16 * 1024
_FIELDS: Final = {field.name for field in dataclasses.fields(SftpSettings)}


class BulkSettingsFile:
    """One small JSON file of mode 0600: the password stands in it. LabError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> SftpSettings | None:
        """None before anything was saved."""
        try:
            with self._path.open("rb") as file:
                data = json.loads(file.read(MAX_STATE))
            return _settings(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LabError) as error:
            raise LabError(
                f"cannot be read as SFTP data: {error}", where=str(self._path), mend="delete it and set the data anew"
            ) from error

    def write(self, settings: SftpSettings) -> None:
        """Whole or not at all. EnvironmentProblem if it cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise EnvironmentProblem(f"cannot be made: {error.strerror}", where=str(self._path.parent)) from error
        write_private(self._path, json.dumps(dataclasses.asdict(settings), indent=1).encode())

    def with_known_host_key(self, settings: SftpSettings) -> SftpSettings:
        """The settings, with the key known of that server if they name none."""
        known = self.read()
        if settings.host_key is not None or known is None:
            return settings
        is_same = (known.address, known.port) == (settings.address, settings.port)
        return dataclasses.replace(settings, host_key=known.host_key) if is_same else settings


def _settings(data: Any) -> SftpSettings:
    if not isinstance(data, dict) or set(data) != _FIELDS:
        raise ValueError("fields are missing")
    texts = {name: value for name, value in data.items() if name != "port"}
    if not isinstance(data["port"], int) or not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("fields of a wrong type")
    return SftpSettings(**data)
