"""What is sent to and fro: both ends make the same bytes from a seed, so both can check them."""

import hashlib
import random
from functools import cache

CHUNK_BYTES = 1 << 16


@cache
def payload(seed: int, size: int) -> bytes:
    """Return ``size`` bytes that depend on ``seed`` alone."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - reproducible on purpose


def digest(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
