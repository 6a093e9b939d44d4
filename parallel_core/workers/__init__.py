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

- `pool`: workers are leased to a call and go back warm, keyed by what was set up in them;
  `reloads`: and by which modules were reloaded; `group`: those leased together.
- `starting`: a trimmed child by `subprocess`, or one of any `multiprocessing` context;
  `interpreter`: the former, which tells afterwards how much memory it had; `context_child`: the
  first that the latter runs.
- `forkserver`, `forkserver_main`: a process that has imported modules and forks workers on request;
  `forkserver_channel`: what the two say to each other; `preload`: the import, and how it fails.
- `worker`: the parent's handle on one worker, and how it ends.
- `main`, `execute`: what runs in the child; `folding`: the same where results are folded; `memory`:
  how much it holds; `forks`: what it forks is cut off.
- `setup`: what a worker is told of the caller's process; `threads`: of numeric libraries;
  `thread_pools`: of those here, while threads of this process run tasks.
- `channel`: frames over the socket; `passing`: descriptors beside them; `board`: the shared page;
  `messages`: what is said.
- `stealing`: of what a worker has not started, with a `barrier`; `bell`: rung by any thread.
- `requests`: calls that a worker makes between two tasks; `sent`, `process`: what a worker has, and
  what it is.
- `lifeline`: for workers that another engine starts.
- `system`: the seam to the operating system.
"""

from __future__ import annotations


def default_start_method() -> str:
    """Return how the default workers are started, for people who ask."""
    return "subprocess"
