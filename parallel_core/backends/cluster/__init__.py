"""Workers that others have started: on engines that users run, and in ranks of MPI.

::

    caller                                    a host of the engine
    ┌───────────────────────────┐             ┌──────────────────────────────────────────┐
    │ ChannelSession            │             │ the engine's process                     │
    │   RemoteWorkers ── launch ┼─▶ Engine ───┼─▶ begin_agent ─▶ Agent (a thread)        │
    │     Listener ◀────────────┼── greeting ─┼──────────────────  │    │               │
    │     AgentHandle ══════════┼── control ══┼════════════════════╝    │ start, watch  │
    │     RemoteWorker ═════════┼── channel ══┼═══════════╗             ▼               │
    │                           │             │           ╚══ worker (a child process)   │
    └───────────────────────────┘             └──────────────────────────────────────────┘

    rank 0                                                  rank n
    mpi.MpiBackend ──▶ mpi_meeting: who is there ◀────────▶ mpi_meeting
         │              mpi_links: how it is reached
         ▼
    mpi_ranks.Ranks ── starts a worker in a free rank ────▶ mpi_serving.RankServer
                        mpi_tunnel, mpi_pump: on other hosts

Of the engines (dask, ray):

- `engine`: what an engine has to do: say where there is room, and start an agent there. `dask`,
  `ray`: their clusters; `backend`: what their backends have in common.
- `listener`, `greeting`: how agents and workers call back, and prove who they are.
- `agent`: starts workers in the engine's process, and watches them; `control`: what it and the
  caller say to each other; `agent_handle`: the caller's end of that.
- `remote_worker`: the caller's handle on a worker; `held_channel`: frames that wait for the agent.
- `sent_files`, `stored_files`: arrays, once on each host.
- `remote_workers`: the workers of a session; `teams`: those of this process, busy or warm.

A worker is the same program as one of the local pool, with the same channel, board and output. So
stealing, time limits, blame, context, retries and progress are those of every session.
"""
