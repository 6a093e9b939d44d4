"""``mpire.utils``: items and their chunks."""

from parallel_core.pool.chunking import chunk_tasks as chunk_tasks
from parallel_core.pool.chunking import make_single_arguments as make_single_arguments
