"""One TLS session on memory BIOs, with no exception and no copy that the way of a handshake could do without.

pyOpenSSL's own methods raise `WantReadError` for every flight, allocate a buffer for every call, and wrap each in a
context manager: 25 microseconds for a connection. The functions of OpenSSL that they call are called here directly.
`OpenSSL.SSL._lib` is private to pyOpenSSL; it has had these names for ten years, and this module alone uses it. Where
a name is missing, `SESSION` is the class that gets by with pyOpenSSL's own methods.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL, crypto

from cucm.key_store import PrivateKey

BUFFER_BYTES: Final = 16 * 1024
"""One TLS record."""

_lib: Final[Any] = getattr(SSL, "_lib", None)
_ffi: Final[Any] = getattr(SSL, "_ffi", None)
_WANT_READ: Final[int] = getattr(_lib, "SSL_ERROR_WANT_READ", 2)
_ZERO_RETURN: Final[int] = getattr(_lib, "SSL_ERROR_ZERO_RETURN", 6)
_FUNCTIONS: Final = (
    "SSL_do_handshake",
    "SSL_get_error",
    "SSL_read",
    "SSL_write",
    "BIO_read",
    "BIO_write",
    "SSL_set_accept_state",
    "SSL_set_connect_state",
    "SSL_use_certificate",
    "SSL_use_PrivateKey",
    "SSL_set_bio",
    "BIO_get_mem_data",
    "BIO_new",
    "BIO_s_mem",
    "SSL_shutdown",
    "SSL_get_current_cipher",
    "SSL_version",
)
_SSL_do_handshake: Any = getattr(_lib, "SSL_do_handshake", None)
_SSL_get_error: Any = getattr(_lib, "SSL_get_error", None)
_SSL_read: Any = getattr(_lib, "SSL_read", None)
_SSL_write: Any = getattr(_lib, "SSL_write", None)
_BIO_read: Any = getattr(_lib, "BIO_read", None)
_BIO_write: Any = getattr(_lib, "BIO_write", None)
_BIO_length: Any = getattr(_lib, "BIO_get_mem_data", None)
_SSL_shutdown: Any = getattr(_lib, "SSL_shutdown", None)
_SSL_cipher: Any = getattr(_lib, "SSL_get_current_cipher", None)
_SSL_version: Any = getattr(_lib, "SSL_version", None)
_NULL: Any = getattr(_ffi, "NULL", None)
_SSL_accepts: Any = getattr(_lib, "SSL_set_accept_state", None)
_SSL_connects: Any = getattr(_lib, "SSL_set_connect_state", None)
_ATTRIBUTES: Final = ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error")

_of_thread = threading.local()


def limit_groups(context: SSL.Context, names: bytes) -> None:
    """Agree on keys in these groups only (OpenSSL's names, the best first); where that cannot be said, as ever."""
    if hasattr(_lib, "SSL_CTX_set1_curves_list"):
        _lib.SSL_CTX_set1_curves_list(context._context, names)
        _lib.ERR_clear_error()  # of an OpenSSL that does not know one of them


@lru_cache(maxsize=1)
def _resting_context() -> SSL.Context:
    """Without a certificate: what a session that has shown its own one takes instead."""
    return SSL.Context(SSL.TLS_METHOD)


@lru_cache(maxsize=64)
def _native(key: PrivateKey) -> crypto.PKey:
    return crypto.PKey.from_cryptography_key(key)


class ThreadBuffer:
    """A thread's one buffer for bytes on their way in, and one for those on their way out: a loop fills and empties
    them for one connection at a time.

    A buffer per connection would cost 16 KiB for each phone that is merely connected. Two, because whoever is told of
    bytes that have come in may write to somebody else before they are taken.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BUFFER_BYTES))
        self.c: Any = _ffi.from_buffer(self.view) if _ffi is not None else None
        self.out_view = memoryview(bytearray(BUFFER_BYTES))
        self.out_c: Any = _ffi.from_buffer(self.out_view) if _ffi is not None else None


def thread_buffer() -> ThreadBuffer:
    """Of the running thread."""
    buffer: ThreadBuffer | None = getattr(_of_thread, "buffer", None)
    if buffer is None:
        buffer = _of_thread.buffer = ThreadBuffer()
    return buffer


class TlsSession(SSL.Connection):
    """A `Connection` of pyOpenSSL without a socket, with what every connection does in few calls.

    After each of them, also one that has raised, `out` is what is to be sent to the peer: b"" for nothing; when it is
    BUFFER_BYTES long there is more to `take_out`.
    """

    out = b""

    def __init__(self, context: SSL.Context, *, server_side: bool) -> None:
        super().__init__(context, None)
        (self.set_accept_state if server_side else self.set_connect_state)()
        self._of_thread = thread_buffer()
        self._has_shown = False

    def show(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        """Take another certificate and key than the context's. Raises SSL.Error when they do not go together."""
        self.use_certificate(certificate)
        self.use_privatekey(key)
        self._has_shown = True

    def rest(self) -> None:
        """A long silence begins: give back what the handshake needed, where that can be done.

        The certificate of its own is one such thing, 5 KiB: neither renegotiation nor a request after the handshake
        asks for it again.
        """
        if self._has_shown:
            self.set_context(_resting_context())
            self._has_shown = False

    def shake_hands(self, count: int = 0) -> bool:
        """Go on with the handshake, with what came from the peer: the first `count` bytes of the thread's buffer.

        Whether it is done. Raises SSL.Error.
        """
        self._take_in(count)
        try:
            self.do_handshake()
        except SSL.WantReadError:
            return False
        finally:
            self.out = self.take_out()
        return True

    def has_unread(self) -> bool:
        """Whether there may be something to `decrypt_into` behind the end of the handshake."""
        return True

    def decrypt_into(self, received: bytearray, count: int = 0) -> bool:
        """Add all that can be decrypted, with what came from the peer, to `received`; `count` as in `shake_hands`.

        Whether the peer has ended the session. Raises SSL.Error.
        """
        self._take_in(count)
        try:
            while True:
                received += self.recv(BUFFER_BYTES)
        except SSL.WantReadError:
            return False
        except SSL.ZeroReturnError:
            return True
        finally:
            self.out = self.take_out()

    def encrypt(self, data: bytes) -> None:
        """Up to 16 KiB to be sent to the peer. Raises SSL.Error."""
        try:
            self.sendall(data)
        finally:
            self.out = self.take_out()

    def say_goodbye(self) -> None:
        """Raises SSL.Error when there is no session to be ended."""
        try:
            self.shutdown()
        finally:
            self.out = self.take_out()

    @property
    def agreed(self) -> tuple[str, str]:
        """OpenSSL's names of the cipher suite, "" for none, and of the version."""
        return self.get_cipher_name() or "", self.get_protocol_version_name()

    def take_out(self) -> bytes:
        """Up to 16 KiB of what is to be sent to the peer; b"" when there is nothing."""
        try:
            return self.bio_read(BUFFER_BYTES)
        except SSL.WantReadError:
            return b""

    def _take_in(self, count: int) -> None:
        if count:
            self.bio_write(bytes(self._of_thread.view[:count]))


class QuickTlsSession(TlsSession):
    """The same by OpenSSL's own functions."""

    def __init__(self, context: SSL.Context, *, server_side: bool) -> None:
        SSL.Connection.__init__(self, context, None)
        (_SSL_accepts if server_side else _SSL_connects)(self._ssl)
        self._of_thread = thread_buffer()
        self._has_shown = False

    def show(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        """Keys are kept in OpenSSL's own form: pyOpenSSL's way makes a new one for each connection, whose first
        signature costs as much again as the signature, and which takes 8 KiB for as long as the connection lives.
        """
        shown = crypto.X509.from_cryptography(certificate)
        if _lib.SSL_use_certificate(self._ssl, shown._x509) != 1:
            self._raise_ssl_error(self._ssl, 0)
        if _lib.SSL_use_PrivateKey(self._ssl, _native(key)._pkey) != 1:
            self._raise_ssl_error(self._ssl, 0)
        self._has_shown = True

    def rest(self) -> None:
        """Also, if nothing is on its way: the buffers of both BIOs stay as large as the largest flight was, 4 KiB of
        each end for as long as the connection lives.
        """
        super().rest()
        for held in (self._into_ssl, self._from_ssl):
            if _lib.BIO_get_mem_data(held, _ffi.new("char **")) > 0:
                return
        self._into_ssl, self._from_ssl = _lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(self._ssl, self._into_ssl, self._from_ssl)  # frees those before

    def shake_hands(self, count: int = 0) -> bool:
        ssl, buffer = self._ssl, self._of_thread
        if count:
            _BIO_write(self._into_ssl, buffer.c, count)
        result = _SSL_do_handshake(ssl)
        error = _SSL_get_error(ssl, result) if result != 1 else 0
        count = _BIO_read(self._from_ssl, buffer.out_c, BUFFER_BYTES)
        self.out = bytes(buffer.out_view[:count]) if count > 0 else b""
        if error and error != _WANT_READ:
            self._raise_ssl_error(ssl, result)
        return result == 1  # type: ignore[no-any-return]

    def has_unread(self) -> bool:
        return _BIO_length(self._into_ssl, _NULL) > 0  # type: ignore[no-any-return]

    def decrypt_into(self, received: bytearray, count: int = 0) -> bool:
        ssl, buffer = self._ssl, self._of_thread
        if count:
            _BIO_write(self._into_ssl, buffer.c, count)
        while (count := _SSL_read(ssl, buffer.c, BUFFER_BYTES)) > 0:
            received += buffer.view[:count]
        error = _SSL_get_error(ssl, count)
        told = _BIO_read(self._from_ssl, buffer.out_c, BUFFER_BYTES)
        self.out = bytes(buffer.out_view[:told]) if told > 0 else b""
        if error == _WANT_READ:
            return False
        if error == _ZERO_RETURN:
            return True
        self._raise_ssl_error(ssl, count)
        return True

    def encrypt(self, data: bytes) -> None:
        result = _SSL_write(self._ssl, data, len(data))
        self.out = self.take_out()
        if result <= 0:
            self._raise_ssl_error(self._ssl, result)

    def say_goodbye(self) -> None:
        result = _SSL_shutdown(self._ssl)
        self.out = self.take_out()
        if result < 0:
            self._raise_ssl_error(self._ssl, result)

    def take_out(self) -> bytes:
        buffer = self._of_thread
        count = _BIO_read(self._from_ssl, buffer.out_c, BUFFER_BYTES)
        return bytes(buffer.out_view[:count]) if count > 0 else b""

    @property
    def agreed(self) -> tuple[str, str]:
        """Read once for each cipher suite and version: OpenSSL's suites are one table, and there are few."""
        what = _SSL_cipher(self._ssl), _SSL_version(self._ssl)
        known = _AGREED.get(what)
        if known is None:
            known = _AGREED[what] = self.get_cipher_name() or "", self.get_protocol_version_name()
        return known


_AGREED: Final[dict[tuple[Any, int], tuple[str, str]]] = {}


def quick_or_plain() -> type[TlsSession]:
    """The quick class where this pyOpenSSL has all that it leans on."""
    session = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    has_all = all(hasattr(_lib, name) for name in _FUNCTIONS) and all(hasattr(session, name) for name in _ATTRIBUTES)
    return QuickTlsSession if has_all and _ffi is not None else TlsSession


SESSION: Final = quick_or_plain()
