"""The page: one HTML file, made of those in the folder ``static``; nothing is from elsewhere."""

from __future__ import annotations

import functools
import html
from pathlib import Path

from parallel_core._version import __version__

_FOLDER = Path(__file__).parent / "static"
_STYLES = ("page.css",)
_SCRIPTS = ("words.js", "stream.js", "charts.js", "page.js")


@functools.cache
def _template() -> str:
    """Return the page with styles and scripts in their places."""
    text = _read("page.html")
    styles = "\n".join(map(_read, _STYLES))
    scripts = "\n".join(map(_read, _SCRIPTS))
    text = text.replace("{{styles}}", styles).replace("{{scripts}}", scripts)
    return text.replace("{{version}}", html.escape(__version__))


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def page(nonce: str, base: str) -> str:
    """Return the page for one request.

    Its scripts and styles have the `nonce`, and `base` is the path of everything else.
    """
    return _template().replace("{{nonce}}", nonce).replace("{{base}}", base)
