"""The dashboard: a page in the browser that shows every call of a user on this machine.

::

    program: Reporter ── unix socket ──▶ programs ──▶ calls: WatchedCall
    (`observe.reporting`)   ◀── commands ── │            │ what is new, ten times a second
                                            │            ▼
    browser ◀── server-sent events ──────── app ◀────── feed: a ring of updates, snapshots
            ──  GET, POST ──▶ security ──▶ app ──▶ page

- `control`: what programs call: `start_dashboard` and so on. `server`: the process itself.
- `programs`: programs that report; `calls`: what is known of each call, of bounded size;
  `processes`: memory and CPU time of workers; `feed`: what browsers are sent.
- `security`: who may ask for anything; `app`: what there is to ask for; `page`: the one page, with
  its scripts and styles.

The server is a process of its own. Nothing here is imported by a program that is watched.
"""
