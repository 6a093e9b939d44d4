"""Settings of the documentation. `make doc` builds it and tries its examples, without a network."""

from pathlib import Path

from parallel_core import __version__

project = "parallel-core"
author = "the parallel-core developers"
copyright = author
release = __version__
version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
default_role = "py:obj"

html_theme = "furo"
html_title = f"parallel-core {release}"
html_static_path = ["_static"]

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

# The examples stand for a script of the user's, so what they define belongs to `__main__`.
# Some are for libraries that need not be there: `:skipif: find_spec("pandas") is None`.
# Each page is a program of its own: one that wants to be there before scikit-learn is imported has
# not to find it imported by the page before.
doctest_global_setup = """
import sys
from importlib.util import find_spec

__name__ = "__main__"
for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
    del sys.modules[name]
"""
doctest_path = [str(Path(__file__).parent / "examples")]
doctest_global_cleanup = "import parallel_core; parallel_core.shutdown_workers()"
