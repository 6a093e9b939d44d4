"""Pieces of output on their way from a worker to the caller: a kind, and bytes.

Text is UTF-8, in which lone surrogates are kept: what they become is for the caller's stream to
say.
"""

from __future__ import annotations

#: One of the kinds below, and what belongs to it.
Piece = tuple[int, bytes]

STDOUT, STDERR = b"oe"  #: text
STDOUT_BYTES, STDERR_BYTES = b"OE"  #: what was written to the ``buffer`` of either
STDOUT_FLUSH, STDERR_FLUSH = b"fg"  #: nothing; the task has flushed
RECORD = b"r"[0]  #: of the module `logging`; see `records`
WARNING = b"w"[0]  #: of the module `warnings`; see `warned`
PART = b"p"[0]  #: of a piece that is too long for one message; see `workers.output`


def encode(text: str) -> bytes:
    """Return the bytes of a text."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """Return the text of some bytes."""
    return data.decode("utf-8", "surrogatepass")
