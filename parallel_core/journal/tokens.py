"""Tokens of what has no parts: plain values, names, compiled code.

A token says where it ends, so tokens can follow one another.
"""

from __future__ import annotations

import builtins
import marshal
from hashlib import blake2b
from types import CodeType
from typing import Any

from parallel_core.serialization.capture import SCALARS

NBYTES = 16  #: of a digest

#: Before a digest, in the place of an encoding; marshal begins with no such byte.
DIGEST = b"\0"

_LARGE_NBYTES = 1 << 12
#: Names to which the body of a class assigns what is no code: a line number, and a tuple of which
#: Python 3.13.0 leaves the order to chance.
_STORED_BY_COMPILER = frozenset({"__firstlineno__", "__static_attributes__"})

_codes: dict[CodeType, bytes] = {}


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


def token_of_name(obj: Any) -> bytes:
    """Return the token of what can be imported under its name."""
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", "")
    return encode(("name", getattr(obj, "__module__", None), name))


def token_of_missing(name: str) -> bytes:
    """Return the token of a global that is not there, or is a builtin."""
    return encode(("builtin" if hasattr(builtins, name) else "missing", name))


def code_token(code: CodeType) -> bytes:
    """Return the token of compiled code, wherever it stands."""
    found = _codes.get(code)
    if found is None:
        facts = (
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
            getattr(code, "co_exceptiontable", b""),  # since Python 3.11
            len(code.co_consts),
        )
        found = encode(("code",)) + hashed(encode(facts) + _steps(code))
        if len(_codes) > 1000:
            _codes.clear()
        _codes[code] = found
    return found


def _steps(code: CodeType) -> bytes:
    """Return the instructions and constants, but for those of the compiler's own in a class."""
    if _STORED_BY_COMPILER.isdisjoint(code.co_names):
        return encode(code.co_code) + b"".join(map(_constant, code.co_consts))
    import dis

    steps = [b""]
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith("STORE") and instruction.argval in _STORED_BY_COMPILER:
            steps.pop()  # the constant that is stored
            continue
        is_constant = instruction.opname in ("LOAD_CONST", "RETURN_CONST")
        operand = _constant(instruction.argval) if is_constant else encode(instruction.arg)
        steps.append(encode(instruction.opname) + operand)
    return b"".join(steps)


def _constant(value: object) -> bytes:
    if type(value) in SCALARS:
        return token_of_plain(value)
    if isinstance(value, CodeType):
        return code_token(value)
    if isinstance(value, (tuple, frozenset)):
        tokens = list(map(_constant, value))
        if isinstance(value, frozenset):
            tokens.sort()
        return encode((type(value).__name__, len(value))) + b"".join(tokens)
    return encode(("constant", type(value).__name__, repr(value)))  # an ellipsis, a slice
