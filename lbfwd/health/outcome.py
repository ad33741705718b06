"""What became of a probe: one of a few names, and the details for people."""

import errno
import ssl
from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "passed",
    "timeout",
    "refused",
    "reset",
    "closed",
    "unreachable",
    "not_sent",
    "late",
    "tls_failed",
    "bad_certificate",
    "bad_answer",
    "headers_too_large",
    "wrong_status",
    "wrong_body",
    "wrong_rcode",
]


@dataclass(frozen=True)
class Outcome:
    """One probe's. ``detail``: why, in words, without the target's address; empty if it passed.

    ``duration_s``: from the first step to the outcome.
    """

    name: Name
    detail: str = ""
    duration_s: float = 0.0

    @property
    def ours(self) -> bool:
        """The fault is this node's: it says nothing about the backend."""
        return self.name in ("not_sent", "late")

    @property
    def passed(self) -> bool:
        """The backend answered as it should."""
        return self.name == "passed"


PASSED = Outcome("passed")


class NotSentError(OSError):
    """The kernel of this node did not even send: no route, no buffer, a rule of a firewall."""


_REFUSED = "connection refused"
_BY_ERRNO: dict[int, tuple[Name, str]] = {
    errno.ECONNREFUSED: ("refused", _REFUSED),
    errno.ECONNRESET: ("reset", "connection reset"),
    errno.EPIPE: ("reset", "connection reset"),
    errno.EHOSTUNREACH: ("unreachable", "no route to host"),
    errno.ENETUNREACH: ("unreachable", "network unreachable"),
    errno.EHOSTDOWN: ("unreachable", "host is down"),
    errno.EPROTO: ("unreachable", "protocol unreachable"),
    errno.ENOPROTOOPT: ("unreachable", "protocol unreachable"),
    errno.EACCES: ("unreachable", "administratively prohibited"),
    errno.ETIMEDOUT: ("timeout", "no answer"),
}


def of_os_error(error: OSError) -> Outcome:
    """Name what the kernel said of a socket; what it does not blame on the network is ours."""
    if error.errno in _BY_ERRNO and not isinstance(error, NotSentError):
        return Outcome(*_BY_ERRNO[error.errno])
    return Outcome("not_sent", error.strerror or str(error))


def of_tls_error(error: Exception) -> Outcome:
    """Name why TLS did not come to be."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Outcome("bad_certificate", error.verify_message or str(error))
    return Outcome("tls_failed", getattr(error, "reason", None) or str(error))
