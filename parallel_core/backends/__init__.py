"""Backends: one small interface, and the engines behind it.

::

    Dispatch ──submit(Batch)──▶ Session ──▶ workers
        ▲                          │
        └──── wait() ──▶ Completion (results, timings, failures, what is left)

    Style.INLINE  local.SequentialBackend         no session: a loop
    Style.PULL    local.ThreadingBackend          no session: threads take tasks themselves
    Style.PUSH    processes.ProcessesBackend      channel_session.ChannelSession
                  loky.LokyBackend,               futures.FuturesSession
                  futures.ExecutorBackend
                  joblib_style.JoblibStyleBackend     joblib_session.JoblibStyleSession

- `base`: the interface: `Backend`, `Session`, `Completion`, `WorkerOptions`.
- `answers`: what a worker said becomes a `Completion`; `losses`: so does what one that died had.
- `engine_worker`: what runs in the workers of engines that are not ours; `engine_output`: what
  tasks print there.
- `joblib_style`, with `joblib_engine`, `joblib_session`, `joblib_job`, `joblib_batch` and
  `joblib_held`: classes by joblib's conventions; `conventions`: base classes for more of them.
- `shares`: who gets what of a busy worker's tasks; `initializer`: that of a call, on its way;
  `shutdown`: ending idle workers.
- `registry`: names, and what else may be passed as ``backend=``.
- `cores`: how many cores there are for us, what ``n_jobs=-2`` means, and each worker's share.
"""
