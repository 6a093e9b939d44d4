"""Workers that others have started, on this host or elsewhere: ranks of MPI.

::

    rank 0                                                  rank n
    mpi.MpiBackend ──▶ mpi_meeting: who is there ◀────────▶ mpi_meeting
         │              mpi_links: how it is reached
         ▼
    mpi_ranks.Ranks ── starts a worker in a free rank ────▶ mpi_serving.RankServer
                        mpi_tunnel, mpi_pump: on other hosts
"""
