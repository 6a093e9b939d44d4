"""The local worker pool: start, channel, status board, death, leases.

::

      parent                                                    worker
    ┌──────────────────────────┐      socket pair      ┌─────────────────────────┐
    │ WorkerPool ─lease─▶      │ ───── batches ──────▶ │ main: receive, answer   │
    │   Worker (handle) ───────│ ◀──── answers ─────── │   execute: run a batch  │
    │      │    ▲              │                       │      │                  │
    │   output ◀───────────────│ ◀──── output ──────── │   output: print, log    │
    │      │    │              │   whole messages      │                         │
    │      │    └── pidfd: it has ended ───────────────│                         │
    │      │                   │     shared page       │                         │
    │      └── Board ──────────│ ─ LIMIT STOP STARTED ─│ Board                   │
    │                          │                       │                         │
    │   lifeline (write end) ──│ ─ ─ closed: SIGKILL ─▶│ lifeline (read end)     │
    └──────────────────────────┘                       └─────────────────────────┘

- `pool`: leases workers to calls and takes them back warm, keyed by their set-up; `reloads`: and by
  reloaded modules; `demand`: how many it keeps; `group`: workers that were leased together.
- `starting`: a bare interpreter by `subprocess`, or a child of a `multiprocessing` context;
  `interpreter`: the former, which reports its use of memory at its end; `context_child`: the first
  code of the latter.
- `forkserver`, `forkserver_main`: a process that has imported modules and forks workers on request;
  `forkserver_channel`: messages between the two; `preload`: the import, and how it fails.
- `worker`: the parent's handle on one worker; `sent`: its batches, and its end; `process`: the
  interface of its process.
- `main`, `execute`: the code of the child; `results`: what becomes of results; `folding`: the same
  if results are folded; `memory`: its use of memory; `forks`: cuts off children that it forks.
- `setup`: the state of the caller's process, as a worker is told; `threads`: limits of numeric
  libraries; `thread_pools`: the same in this process, while its threads run tasks.
- `channel`: frames over the socket; `passing`: descriptors beside them; `messages`: their kinds;
  `remote_memory`: large results, read in the worker's memory; `board`: the shared page.
- `stealing`: of tasks that a worker has not started, with a `barrier`; `bell`: rung by any thread.
- `requests`: calls that a worker makes between two tasks.
- `lifeline`: for workers that another engine starts.
- `system`: the seam to the operating system.
"""

from __future__ import annotations


def default_start_method() -> str:
    """Return how the default workers are started, for people who ask."""
    return "subprocess"
