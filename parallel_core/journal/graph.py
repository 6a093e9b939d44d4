"""From what objects are made of to one digest, whatever refers to what.

::

    object ──look──▶ bytes                     a leaf: its encoding, or a digest of it
                └──▶ Node ──form──▶ head, parts ──each──▶ look
                                        │
                     tokens of the parts, in order or sorted ──▶ digest of the node

A node's digest is made of its head and of its parts' tokens, so objects that are made of the same
have the same one, whether or not they share parts. The walk keeps a stack of its own: what is
nested deeply needs none of Python's.

Nodes that refer to each other in a circle have no first digest to start from. They are found as
the strongly connected components of the graph [1]_, and told apart by refinement [2]_: all begin
with what is known of them without the circle, and then each takes in what the others had, until
no two of them part any more.

.. [1] R. Tarjan, Depth-first search and linear graph algorithms, 1972
.. [2] B. Weisfeiler, A. Lehman, The reduction of a graph to canonical form, 1968
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, IntEnum
from hashlib import blake2b
from typing import Any

NBYTES = 16

#: Nested deeper than this, it is an object whose ``__reduce__`` makes ever new ones.
_DEEPEST = 100_000

# Before digests, and before what is digested; marshal begins with no such byte.
_NODE = b"\0"
_BLANK = b"\1"
_FLAT = b"\2"
_FLAT_PAIRS = b"\3"
_LONG = b"\4"

_LONG_NBYTES = 1 << 12


class Scope(IntEnum):
    """What an object belongs to, and so how much of it counts."""

    #: Arguments: everything counts, and what has no digest is an error.
    ARGUMENT = 0
    #: What a function going by value has captured: everything that has a digest counts.
    CAPTURED = 1
    #: Globals of a module: plain values count, of other objects their type.
    IMPORTED = 2
    #: Globals of a module that was installed: as above, but what can change, caches say, does not.
    INSTALLED = 3


class Order(Enum):
    """Whether the order of an object's parts counts."""

    FIXED = b"f"
    ANY = b"a"
    #: Keys and values by turns: the order of the pairs does not count.
    PAIRS = b"p"


class Form:
    """What an object is made of.

    Parameters
    ----------
    kind : str
        What it is.
    facts : tuple
        Plain values: what is known of it at once.
    parts : sequence
        Objects, each of which has a digest of its own.
    order : Order
        Whether their order counts.
    """

    __slots__ = ("head", "order", "parts")

    def __init__(
        self,
        kind: str,
        facts: tuple[Any, ...] = (),
        parts: Sequence[Any] = (),
        order: Order = Order.FIXED,
    ) -> None:
        self.head = encode((kind, order.value, len(parts), facts))
        self.parts = parts
        self.order = order


class Token:
    """A part whose encoding is known."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Node:
    """A part to look into, in a scope that may be another than its owner's."""

    __slots__ = ("obj", "scope")

    def __init__(self, obj: object, scope: Scope) -> None:
        self.obj = obj
        self.scope = scope


class NoDigest(Exception):
    """An object has no digest.

    Attributes
    ----------
    path : list of object
        From the object that was asked for to the one at fault.
    """

    def __init__(self, path: list[object]) -> None:
        super().__init__()
        self.path = path


def encode(plain: Any) -> bytes:
    """Return the one encoding of a plain value, or of a tuple of such; it says where it ends.

    Version 2 of the format has floats as their bits, and, unlike later ones, nothing that depends
    on what is interned or referred to twice.
    """
    return marshal.dumps(plain, 2)


def hashed(data: bytes) -> bytes:
    """Return the digest of bytes."""
    return blake2b(data, digest_size=NBYTES).digest()


def token_of_plain(value: Any) -> bytes:
    """Return the token of a value whose type is among the plain ones."""
    if isinstance(value, (str, bytes)) and len(value) >= _LONG_NBYTES:
        kind = type(value).__name__.encode()
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return _LONG + hashed_pieces(_LONG, kind, data)
    return encode(value)


def token_of_flat(values: list[Any] | tuple[Any, ...]) -> bytes:
    """Return the token of a list or tuple of plain values."""
    return _NODE + hashed_pieces(_FLAT, encode(values))


def token_of_flat_pairs(values: dict[Any, Any]) -> bytes:
    """Return the token of a dictionary of plain values."""
    return _NODE + hashed_pieces(_FLAT_PAIRS, *sorted(map(encode, values.items())))


def hashed_pieces(*pieces: Any) -> bytes:
    """Return the digest of several runs of bytes, one after the other."""
    if len(pieces) == 2 and len(pieces[1]) < _LONG_NBYTES:
        return hashed(b"".join(pieces))
    state = blake2b(digest_size=NBYTES)
    for piece in pieces:
        state.update(piece)
    return state.digest()


class _Frame:
    """A node on the way: its parts so far, and the oldest open node that they lead back to."""

    __slots__ = ("form", "key", "low", "node", "number", "parts", "tokens")

    def __init__(self, node: Node, key: int, form: Form, number: int) -> None:
        self.node = node
        self.key = key
        self.form = form
        self.parts: Iterator[Any] = iter(form.parts)
        self.tokens: list[bytes | int] = []  # a key stands for an open node
        self.number = self.low = number


class Walk:
    """Goes through an object's parts.

    Parameters
    ----------
    look : callable
        Takes a part and its scope; returns its token, or the node that it is.
    form : callable
        Returns the form of a node, or its token; raises when it has none.
    """

    def __init__(
        self,
        look: Callable[[Any, Scope], bytes | Node],
        form: Callable[[Any, Scope], Form | bytes],
    ) -> None:
        self._look = look
        self._form = form
        self._done: dict[int, bytes] = {}
        self._open: dict[int, int] = {}
        self._frames: list[_Frame] = []
        self._waiting: list[_Frame] = []  # seen through, but for a circle that is not
        self._kept: list[object] = []  # keys are made of identities

    def digest(self, obj: object, scope: Scope) -> bytes:
        """Return the digest of `obj`.

        Raises
        ------
        NoDigest
            From what was raised.
        """
        found = self._look(obj, scope)
        if isinstance(found, Node):
            found = self._walk(found)
        return found[len(_NODE) :] if found.startswith(_NODE) else hashed(found)

    def _walk(self, root: Node) -> bytes:
        begun = self._begin(root)
        if begun is not None:
            return begun
        frames, done, opened, look = self._frames, self._done, self._open, self._look
        while True:
            frame = frames[-1]
            scope, tokens = frame.node.scope, frame.tokens
            for part in frame.parts:
                found = look(part, scope)
                if type(found) is bytes:
                    tokens.append(found)
                    continue
                assert isinstance(found, Node)
                key = _key(found)
                if key in done:
                    tokens.append(done[key])
                elif key in opened:
                    tokens.append(key)
                    frame.low = min(frame.low, opened[key])
                else:
                    begun = self._begin(found)
                    if begun is None:
                        break
                    tokens.append(begun)
            else:
                token = self._end(frame)
                if not frames:
                    assert isinstance(token, bytes)
                    return token
                frames[-1].tokens.append(token)
                frames[-1].low = min(frames[-1].low, frame.low)

    def _begin(self, node: Node) -> bytes | None:
        try:
            if len(self._frames) >= _DEEPEST:
                raise RecursionError(f"it is nested more than {_DEEPEST} levels deep")
            form = self._form(node.obj, node.scope)
        except Exception as error:
            raise NoDigest([*(frame.node.obj for frame in self._frames), node.obj]) from error
        self._kept.append(node.obj)
        key = _key(node)
        if isinstance(form, bytes):
            self._done[key] = form
            return form
        number = self._open[key] = len(self._kept)
        self._frames.append(_Frame(node, key, form, number))
        return None

    def _end(self, frame: _Frame) -> bytes | int:
        """Return the token of a node seen through; its key, while it is part of an open circle."""
        self._frames.pop()
        if frame.low < frame.number:
            self._waiting.append(frame)
            return frame.key
        circle = [frame]
        while self._waiting and self._waiting[-1].number > frame.number:
            circle.append(self._waiting.pop())
        if len(circle) > 1 or frame.key in frame.tokens:
            digests = _refined(circle)
        else:
            digests = {frame.key: _mixed(frame, {})}
        for key, digest in digests.items():
            self._done[key] = _NODE + digest
            del self._open[key]
        return self._done[frame.key]


def _key(node: Node) -> int:
    return id(node.obj) << 2 | node.scope


def _mixed(frame: _Frame, colours: dict[int, bytes]) -> bytes:
    """Return the digest of a node, with `colours` for the nodes that it is in a circle with."""
    tokens = [
        token if isinstance(token, bytes) else _BLANK + colours.get(token, b"")
        for token in frame.tokens
    ]
    order = frame.form.order
    if order is Order.ANY:
        tokens.sort()
    elif order is Order.PAIRS:
        pairs = sorted(zip(tokens[::2], tokens[1::2], strict=True))
        tokens = [token for pair in pairs for token in pair]
    return hashed(b"".join((_NODE, frame.form.head, *tokens)))


def _refined(circle: list[_Frame]) -> dict[int, bytes]:
    """Return the digests of nodes that all lead to each other."""
    colours = {frame.key: b"" for frame in circle}
    apart = 0
    while True:
        refined = {frame.key: _mixed(frame, colours) for frame in circle}
        now_apart = len(set(refined.values()))
        if now_apart == apart:
            break
        colours, apart = refined, now_apart
    # Which colour each became says how the nodes of each colour refer to the others.
    steps = sorted({colours[key] + refined[key] for key in colours})
    everything = hashed(b"".join(steps))
    return {key: hashed(colour + everything) for key, colour in refined.items()}
