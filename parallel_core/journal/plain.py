"""The encoding of plain values, and digests of bytes."""

from __future__ import annotations

import marshal
from hashlib import blake2b
from typing import Any

NBYTES = 16

#: Before a digest, in the place of an encoding; marshal begins with no such byte.
DIGEST = b"\0"

_LARGE_NBYTES = 1 << 12


def encode(plain: Any) -> bytes:
    """Return the one encoding of a plain value, or of a tuple of such; it says where it ends.

    Version 2 of the format has floats as their bits, and, unlike later ones, nothing that depends
    on what is interned or referred to twice.
    """
    return marshal.dumps(plain, 2)


def hashed(data: bytes | memoryview) -> bytes:
    """Return the digest of bytes."""
    return blake2b(data, digest_size=NBYTES).digest()


def token_of_plain(value: Any) -> bytes:
    """Return the token of a number, a text, bytes or None: its encoding, or a digest of much."""
    if isinstance(value, (str, bytes)) and len(value) >= _LARGE_NBYTES:
        is_text = isinstance(value, str)
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        state = blake2b(b"text" if is_text else b"bytes", digest_size=NBYTES)
        state.update(data)
        return DIGEST + state.digest()
    return encode(value)
