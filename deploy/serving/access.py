"""Who may ask: a bearer token, and the files of TLS."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import RecipeError
from deploy.serving.options import Options
from deploy.serving.refusals import Kind, RefusalError

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Access:
    """token: what every request has to bring, but for health; empty lets everyone ask.

    cert, key: PEM; empty without TLS.
    """

    token: bytes = b""
    cert: bytes = b""
    key: bytes = b""

    def check(self, authorization: bytes | str | None) -> None:
        """Refuse (401) unless it is `Bearer <token>`; compared in constant time."""
        if not self.token:
            return
        if authorization is None:
            raise RefusalError(Kind.UNAUTHENTICATED, "no token; send Authorization: Bearer …")
        given = authorization.encode() if isinstance(authorization, str) else authorization
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self.token):
            raise RefusalError(Kind.UNAUTHENTICATED, "not this server's token")


def read_access(options: Options) -> Access:
    """The files that the options name; RecipeError when one can't be used."""
    token = _read(options.token_file, "--token-file").strip() if options.token_file else b""
    if options.token_file and (len(token) < 16 or not token.isascii() or b"\n" in token):
        raise RecipeError(
            f"{options.token_file}: not one line of at least 16 ASCII characters; make one with: "
            "openssl rand -hex 32"
        )
    if not options.tls_cert or not options.tls_key:
        return Access(token)
    _check_pair(options.tls_cert, options.tls_key)
    cert = _read(options.tls_cert, "--tls-cert")
    return Access(token, cert, _read(options.tls_key, "--tls-key"))


def _check_pair(cert: Path, key: Path) -> None:
    import ssl

    try:
        # a key with a password would ask for it on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except OSError as error:
        raise RecipeError(
            f"{cert}, {key}: no certificate and its key, both PEM and without a password "
            f"({error.strerror or error})"
        ) from None


def _read(path: Path, flag: str) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RecipeError(f"{path}: larger than {_MOST_BYTES} bytes; give another {flag}")
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; give another {flag}") from None
