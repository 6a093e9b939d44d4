"""Runs tests of arrays where the kernel refuses to watch pages, as `test_unwatched` has it do."""

import sys

import pytest

from benchmarks.refusing import refuse_userfaultfd
from parallel_core import parallel_config

refuse_userfaultfd()
with parallel_config(check_arrays="always"):
    sys.exit(pytest.main(sys.argv[1:]))
