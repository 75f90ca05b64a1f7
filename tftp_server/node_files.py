"""What one node's TFTP service serves: virtual names from its database, and the static files of its `tftp` folder.

Sources: facts 8 (virtual names, signed files, 503), 7.1 (names phones ask for), 6.3 and 7.3 (the ITL).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from cucm.clock import Clock
from cucm.database import Device, NodeDatabase
from cucm.errors import LabError, UsageError
from cucm.events import Emit, ignore
from cucm.events.trust_lists import (
    FileNotSigned,
    TrustListKept,
    TrustListOutgrown,
    TrustListRefused,
    TrustListReset,
)
from cucm.records import dataclass
from cucm.versions import VersionProfile
from cucm.whole_files import write_whole
from cucm.wire.trust_list import CTL_FILE_NAME, ITL_FILE_NAME, MAX_TRUST_LIST, decode_trust_list
from tftp_server.cluster_view import is_mixed_mode
from tftp_server.configuration import (
    DEFAULT_GROUP,
    ClusterSettings,
    default_configuration,
    device_configuration,
)
from tftp_server.file_store import FolderStore, NotServed, NotServedReason
from tftp_server.trust_list_builder import (
    KeyFolder,
    Signer,
    SigningKeys,
    TrustListContents,
    file_signed,
    file_signer,
    itl_contents,
    sign_file,
    sign_trust_list,
    trust_list_signed,
)

DEFAULT_CONFIGURATION_NAME: Final = "XMLDefault.cnf.xml"
SIGNED_SUFFIX: Final = ".sgn"
MAX_SIGNED_STATIC: Final = 2048 * 1024
"""Static files above this are not offered signed: a phone would not download them anyway (facts 3.5)."""
MAX_KEPT: Final = 4096
"""Configurations and signed files kept in memory, each. One that was dropped is made anew, with a new timestamp."""

Kept = TypeVar("Kept")

_DEVICE_FILE: Final = re.compile(r"(?P<list>CTL|ITL)?(?P<device>(?i:SEP[0-9a-f]{12}))(?P<kind>\.tlv|\.cnf\.xml)")


def write_ctl(node_dir: Path, data: bytes) -> None:
    """Put the CTL that `build_ctl` made where the node's TFTP service takes it from: the old file or the new, never
    half of one. Raises EnvironmentProblem.
    """
    write_whole(node_dir / "tftp" / CTL_FILE_NAME, data)


def write_itl(node_dir: Path, data: bytes) -> None:
    """As `write_ctl`, for an ITL that `utils itl reset` transfers to a node whose TFTP service is down: the service's
    next start reads it, and signs its own in its place if that is what the ITL has to say. Raises EnvironmentProblem.
    """
    write_whole(node_dir / "tftp" / ITL_FILE_NAME, data)


class NodeFileStore:
    """A `FileStore` for one node: folder `node_dir` as the lab lays it out, node `node_name` of its database.

    Trust lists and configurations exist for devices of this cluster only (facts 8). Everything follows the database;
    what has not changed is not signed again. `close` it when its server has stopped. Raises DatabaseError, UsageError
    when the folder cannot be used.
    """

    def __init__(
        self, node_dir: Path, node_name: str, profile: VersionProfile, clock: Clock, emit: Emit = ignore
    ) -> None:
        self._node_name = node_name
        self._profile = profile
        self._files = FolderStore(node_dir / "tftp")
        keys = KeyFolder(node_dir / "security")
        self._signed = SignedFiles(keys, clock, emit)
        self._itl = ItlFile(node_dir / "tftp" / ITL_FILE_NAME, keys, clock, emit)
        self._database = NodeDatabase(node_dir / "node.db").open()
        self._forget()
        try:
            self.reload()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()

    def reload(self) -> None:
        """What a restart of the service does: take everything from the database again."""
        self._follow(self._database.data_version(), starting=True)

    def serve_reset_itl(self, data: bytes) -> None:
        """Serve the ITL that `utils itl reset` transferred, and keep it on disk, until the ITL has something new to say
        or the service starts again. Raises UsageError, DecodeError for what is no ITL, EnvironmentProblem.
        """
        self._itl.reset(data)

    def read(self, name: str) -> bytes:
        """The file of that name. NotServed: not found, or busy while the database or a key cannot be used (503)."""
        try:
            version = self._database.data_version()
            if version != self._version:
                self._follow(version)
            return self._read(name)
        except NotServed:
            raise
        except LabError as error:
            raise NotServed(str(error), reason=NotServedReason.BUSY) from error

    def _forget(self) -> None:
        self._version: int | None = None
        self._devices: dict[str, Device] = {}
        self._settings = ClusterSettings(self._database)
        self._plain: OrderedDict[str, bytes] = OrderedDict()
        self._signer: Signer | None = None

    def _follow(self, version: int, *, starting: bool = False) -> None:
        """Take notice of a changed database. A list that cannot be built now is tried again at the next request."""
        self._forget()
        built = self._itl.follow(
            lambda: itl_contents(self._database, self._node_name, self._profile), starting=starting
        )
        if built:
            self._version = version

    def _read(self, name: str) -> bytes:
        name = _with_device_in_capitals(name)
        plain = name.removesuffix(SIGNED_SUFFIX)
        if (virtual := self._virtual(plain)) is not None:
            if plain == name:
                return virtual()
            if plain.endswith(".xml"):
                return self._signed.read(name, virtual(), self._file_signer())
            raise NotServed(f"no file {name!r}")  # trust lists carry their own signature
        return self._static(name)

    def _virtual(self, name: str) -> Callable[[], bytes] | None:
        """What makes the file of a virtual name; None when the name is not virtual."""
        if name == ITL_FILE_NAME:
            return self._itl.read
        if name == CTL_FILE_NAME:
            return self._ctl
        if name == DEFAULT_CONFIGURATION_NAME:
            return lambda: self._configuration(name, self._default_configuration)
        match = _DEVICE_FILE.fullmatch(name)
        if match is None or (match["list"] is None) == (match["kind"] == ".tlv"):
            return None
        return lambda: self._device_file(name, match["list"], match["device"])

    def _default_configuration(self) -> bytes:
        group = self._settings.group(DEFAULT_GROUP)
        return default_configuration(group, lists_tvs=self._profile.default_configuration_lists_tvs)

    def _device_file(self, name: str, trust_list: str | None, device_name: str) -> bytes:
        device = self._device(device_name)
        if trust_list is None:
            return self._configuration(name, lambda: device_configuration(self._settings.of(device)))
        return self._ctl() if trust_list == "CTL" else self._itl.read()

    def _device(self, name: str) -> Device:
        device = self._devices.get(name) or self._database.device(name)
        if device is None:
            raise NotServed(f"the cluster has no device {name}")
        self._devices[name] = device
        return device

    def _ctl(self) -> bytes:
        """The file that `utils ctl ...` put there; none in a cluster that never was in mixed mode."""
        return self._files.read(CTL_FILE_NAME)

    def _configuration(self, name: str, make: Callable[[], bytes]) -> bytes:
        if name not in self._plain:
            _keep(self._plain, name, make())
        return self._plain[name]

    def _static(self, name: str) -> bytes:
        """A file of the folder; in mixed mode each is to be had signed as well (facts 8)."""
        try:
            return self._files.read(name)
        except NotServed:
            if not name.endswith(SIGNED_SUFFIX) or not is_mixed_mode(self._database):
                raise
        content = self._files.read(name.removesuffix(SIGNED_SUFFIX))
        if len(content) > MAX_SIGNED_STATIC:
            raise NotServed(f"{name!r} would have {len(content)} bytes of content, too many to be signed")
        return self._signed.read(name, content, self._file_signer())

    def _file_signer(self) -> Signer:
        if self._signer is None:
            self._signer = file_signer(self._database, self._node_name, self._profile)
        return self._signer


class ItlFile:
    """The node's ITL: signed anew when it has something new to say, and kept on disk as `show itl` reads it."""

    def __init__(self, path: Path, keys: SigningKeys, clock: Clock, emit: Emit) -> None:
        self._path = path
        self._keys = keys
        self._clock = clock
        self._emit = emit
        self._contents: TrustListContents | None = None
        self._data: bytes | None = None
        self._cause: str | None = None

    def read(self) -> bytes:
        if self._data is None:
            raise NotServed(self._cause or "the ITL is not built yet", reason=NotServedReason.BUSY)
        return self._data

    def reset(self, data: bytes) -> None:
        """Serve this one from now on, until the contents change. Raises UsageError, DecodeError, EnvironmentProblem."""
        known = decode_trust_list(data)
        if known.file_name != ITL_FILE_NAME or not known.records:
            raise UsageError("is no ITL", where=known.file_name, mend="give what utils itl reset made")
        write_whole(self._path, data)
        self._data = data
        self._emit(TrustListReset(ITL_FILE_NAME, known.signer.subject, hashlib.sha1(data).digest()))
        self._tell_if_outgrown(data)

    def follow(self, contents_now: Callable[[], TrustListContents], *, starting: bool) -> bool:
        """Build the list if it says something else now; False when that failed, the list before is then kept.

        A service start takes the list on disk if it says the same, so that phones see no change without reason.
        """
        try:
            contents = contents_now()
            if starting:
                self._contents = self._take_from_disk(contents)
            if contents != self._contents:
                self._sign(contents)
        except LabError as error:
            if str(error) != self._cause:
                self._cause = str(error)
                self._emit(TrustListRefused(ITL_FILE_NAME, self._cause))
            return False
        self._cause = None
        return True

    def _take_from_disk(self, contents: TrustListContents) -> TrustListContents | None:
        try:
            data = self._path.read_bytes()
        except OSError:
            return None  # none yet, or none that can be used: a new one takes its place
        if not contents.is_said_by(data):
            return None
        self._data = data
        self._emit(TrustListKept(ITL_FILE_NAME, hashlib.sha1(data).digest()))
        self._tell_if_outgrown(data)
        return contents

    def _sign(self, contents: TrustListContents) -> None:
        data = sign_trust_list(contents, self._keys, self._clock.now())
        write_whole(self._path, data)
        self._contents, self._data = contents, data
        self._emit(trust_list_signed(data))
        self._tell_if_outgrown(data)

    def _tell_if_outgrown(self, data: bytes) -> None:
        """The server serves it all the same: refusing it is the phone's part (facts 3.5, F19)."""
        if len(data) > MAX_TRUST_LIST:
            self._emit(TrustListOutgrown(ITL_FILE_NAME, len(data), MAX_TRUST_LIST))


@dataclass(frozen=True, slots=True)
class _SignedFile:
    content: bytes
    signer: Signer
    data: bytes


class SignedFiles:
    """Signed files by name; one is signed again when its content, its signer or the digest changes."""

    def __init__(self, keys: SigningKeys, clock: Clock, emit: Emit) -> None:
        self._keys = keys
        self._clock = clock
        self._emit = emit
        self._kept: OrderedDict[str, _SignedFile] = OrderedDict()

    def read(self, name: str, content: bytes, signer: Signer) -> bytes:
        """Raises LabError when it cannot be signed."""
        kept = self._kept.get(name)
        if kept is not None and kept.content == content and kept.signer == signer:
            return kept.data
        moment = self._clock.now()
        try:
            data = sign_file(content, name, signer, self._keys, moment)
        except LabError as error:
            self._emit(FileNotSigned(name, str(error)))
            raise
        _keep(self._kept, name, _SignedFile(content, signer, data))
        self._emit(file_signed(data, name, signer, moment))
        return data


def _with_device_in_capitals(name: str) -> str:
    """Some phones write their MAC address in small letters; devices are stored in capitals."""
    match = _DEVICE_FILE.match(name)
    return name if match is None else f"{match['list'] or ''}{match['device'].upper()}{name[match.end('device') :]}"


def _keep(kept: OrderedDict[str, Kept], key: str, value: Kept) -> None:
    kept[key] = value
    if len(kept) > MAX_KEPT:
        kept.popitem(last=False)
