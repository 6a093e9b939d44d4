"""Arrays in shared memory, for any program; it knows nothing of `parallel_core`.

::

    size and folder given by the user ──▶ sizes.parse_nbytes, folders.candidate_folders

- `sizes`: ``"1M"`` and the like.
- `folders`: where files for arrays would go, and how much room is there.
"""
