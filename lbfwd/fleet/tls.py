"""Our own certificates; their keys are files that nobody else can read, without a pass phrase."""

import ssl
from pathlib import Path

from lbfwd.config.key import KeyFileError, read_secret


def load_identity(tls: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have a context show a certificate; blocks.

    Raises KeyFileError about ``key`` (it cannot be read, or others can read it, as ssh(1) has it;
    or it is encrypted), and OSError about both: they are none, or do not belong together.
    """
    read_secret(key)
    tls.load_cert_chain(certificate, key, _no_pass_phrase)


def _no_pass_phrase() -> str:
    # Without this OpenSSL asks on the terminal, and a service waits for an answer for ever.
    raise KeyFileError(
        "is encrypted, and nobody can type its pass phrase: openssl pkey -in … -out …"
    )
