"""What people see of the record of a call: text, a mapping, a frame, or a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from memmapping.sizes import format_nbytes
from parallel_core.insights.advice import advice_for
from parallel_core.insights.figures import (
    CALLER_PARTS,
    PARTS,
    Figures,
    count_of,
    duration_of,
    figures_of,
)
from parallel_core.insights.record import latest_record

if TYPE_CHECKING:
    from parallel_core.insights.record import CallRecord

_MOST_ROWS = 16  # of workers, in text
_WORDS = {"start_up": "start-up", "rest": "all else"}


class Report(Mapping[str, Any]):
    """Where the time of a call went: printed, it is a text with advice.

    `Parallel.report` returns it. It is a mapping, too. In a notebook it is shown with a picture.

    Attributes
    ----------
    advice : list of str
        Sentences that say what to do, the most important first.

    Notes
    -----
    These are the keys. All times are in seconds.

    ``label``, ``backend``, ``n_jobs``
        The call in words, the name of its backend, and the number of workers.
    ``seconds``
        Duration of the call.
    ``tasks``, ``total``, ``failed``, ``retried``, ``resumed``
        Numbers of tasks: with an outcome, in the input (None if that is not known), failed, run
        again, and with results from the journal.
    ``efficiency``
        Share of the time of all workers that they spent in tasks, from 0 to 1.
    ``caller``
        Seconds of the thread that pulled the tasks, by ``pulling`` (in the iterable), ``encoding``
        (pickling arguments), ``submitting``, ``waiting`` (for workers), ``reading`` (results) and
        ``rest``, in which is the time of the loop over a generator of results. Before that comes
        ``starting``, the time until workers were asked for their first task.
    ``workers``
        A dictionary for each worker that had tasks: ``worker`` (its number), ``pid``, ``tasks``,
        seconds of ``start_up``, ``waiting``, ``loading`` (unpickling functions and arguments),
        ``working``, ``pickling`` (results) and ``sending``, and ``nbytes`` of results. For tasks
        shorter than 50 µs, loading and pickling are estimated from some of them.
    ``batches``
        Dictionaries of batches in the order of submission: seconds ``at`` which they were
        submitted, number of ``batches``, ``tasks`` and ``nbytes``. There are 1024 at most: in a
        long call, each stands for several batches.
    ``bytes_sent``, ``bytes_received``, ``shared_memory``
        Bytes of arguments and of results, and bytes of arrays that were put into shared memory.
        Numbers, and other small values, are not counted.
    ``slowest``
        Dictionaries of the five slowest tasks of 2 ms or more: ``position``, ``seconds``,
        ``worker``, and ``call`` in words.
    ``deaths``
        Dictionaries of workers that died: ``worker`` and ``reason``.
    ``advice``
        The attribute of that name.

    Examples
    --------
    >>> from parallel_core import Parallel, delayed
    >>> parallel = Parallel(n_jobs=2)
    >>> squares = parallel(delayed(pow)(x, 2) for x in range(1000))
    >>> report = parallel.report()
    >>> report["tasks"], report["n_jobs"], sum(each["tasks"] for each in report["workers"])
    (1000, 2, 1000)
    """

    def __init__(self, record: CallRecord) -> None:
        self._figures = figures_of(record)
        self.advice = advice_for(self._figures)
        self._values = _values(self._figures, self.advice)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def to_frame(self) -> Any:
        """Return the workers as a frame of pandas, with a row for each.

        Returns
        -------
        pandas.DataFrame
            Columns are the keys of a dictionary in ``report["workers"]``; the index is ``worker``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas: pip install pandas. Without it, report['workers'] has the "
                "same figures as a list of dictionaries"
            ) from error
        columns = ["worker", "pid", "tasks", *PARTS, "nbytes"]
        return pandas.DataFrame(self["workers"], columns=columns).set_index("worker")

    def __str__(self) -> str:
        figures = self._figures
        lines = [_headline(figures), *_caller_lines(figures), *_worker_lines(figures)]
        lines += _other_lines(figures)
        if self.advice:
            lines += ["", "Advice"]
            lines += [f"  {number}. {said}." for number, said in enumerate(self.advice, 1)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Report: {_headline(self._figures)}>"

    def _repr_html_(self) -> str:
        from parallel_core.insights.picture import html_of

        return html_of(self._figures, _headline(self._figures), self.advice)


def _values(figures: Figures, advice: list[str]) -> dict[str, Any]:
    """Return the mapping that a report is."""
    record = figures.record
    workers = []
    for worker in figures.workers:
        row: dict[str, Any] = worker._asdict()
        del row["slices"]
        workers.append(row)
    return {
        "label": record.label,
        "backend": record.backend,
        "n_jobs": record.n_jobs,
        "seconds": figures.seconds,
        "tasks": record.completed,
        "total": record.total,
        "failed": record.failed,
        "retried": record.retried,
        "resumed": record.resumed,
        "efficiency": figures.efficiency,
        "caller": dict(figures.caller),
        "workers": workers,
        "batches": [
            {"at": at - record.began, "batches": number, "tasks": tasks, "nbytes": nbytes}
            for at, number, tasks, nbytes in record.batches
        ],
        "bytes_sent": record.sent_nbytes,
        "bytes_received": figures.received_nbytes,
        "shared_memory": record.shared_nbytes,
        "slowest": [
            {
                "position": slow.position,
                "seconds": slow.seconds,
                "worker": slow.worker,
                "call": slow.call,
            }
            for slow in figures.slowest
        ],
        "deaths": [{"worker": worker, "reason": reason} for worker, reason in record.deaths],
        "advice": advice,
    }


def _headline(figures: Figures) -> str:
    record = figures.record
    tasks, took = count_of(record.completed, "task"), duration_of(figures.seconds)
    if not record.n_workers:
        return f"{record.label}: {tasks} in {took}, in the calling thread"
    workers = count_of(record.n_workers, "thread" if record.runs_here else "worker")
    return (
        f"{record.label}: {tasks} in {took}, on {workers} of backend {record.backend!r}; "
        f"efficiency {figures.efficiency:.0%}"
    )


def _caller_lines(figures: Figures) -> list[str]:
    record = figures.record
    if not record.n_workers:
        return []
    lines = ["", "Time of the caller"]
    for part in CALLER_PARTS:
        seconds = figures.caller[part]
        share = seconds / figures.seconds if figures.seconds else 0.0
        name = _WORDS.get(part, part)
        if part == "rest" and record.is_stream:
            name = "loop over results, and all else"
        lines.append(f"  {name:<31} {duration_of(seconds):>9}  {share:4.0%}")
    return lines


def _worker_lines(figures: Figures) -> list[str]:
    workers = figures.workers
    if not workers:
        return []
    names = [_WORDS.get(part, part) for part in PARTS]
    lines = ["", "Time of the workers", f"  {'worker':>6} {'tasks':>9} " + _row(names)]
    for worker in workers[:_MOST_ROWS]:
        times = [duration_of(getattr(worker, part)) for part in PARTS]
        lines.append(f"  {worker.worker:>6} {worker.tasks:>9,} " + _row(times))
    if len(workers) > _MOST_ROWS:
        lines.append(f"  ... {len(workers) - _MOST_ROWS} more")
    lines.append(
        f"  {'share':>6} {'':>9} " + _row([f"{figures.share(part):.0%}" for part in PARTS])
    )
    idle = figures.record.n_workers - len(workers)
    if idle > 0:
        lines.append(f"  {count_of(idle, 'worker')} had no task")
    return lines


def _row(cells: list[str]) -> str:
    return " ".join(f"{cell:>9}" for cell in cells)


def _other_lines(figures: Figures) -> list[str]:
    record = figures.record
    lines = []
    if record.batches:
        number = sum(batches[1] for batches in record.batches)
        tasks = sum(batches[2] for batches in record.batches)
        lines.append(f"{number:,} batches of {tasks / number:.3g} tasks on average")
    moved = [
        (record.sent_nbytes, "of arguments"),
        (figures.received_nbytes, "of results"),
        (record.shared_nbytes, "put into shared memory"),
    ]
    lines += [f"{format_nbytes(nbytes)} {what}" for nbytes, what in moved if nbytes]
    for number, what in (
        (record.failed, "failed"),
        (record.retried, "ran again"),
        (record.resumed, "came from the journal"),
    ):
        if number:
            lines.append(f"{count_of(number, 'task')} {what}")
    lines += [f"worker {worker} {reason}" for worker, reason in record.deaths]
    if lines:
        lines = ["", "; ".join(lines)]
    if figures.slowest:
        lines += ["", "Slowest tasks"]
        lines += [
            f"  {duration_of(slow.seconds):>9}  task {slow.position}: {slow.call}"
            for slow in figures.slowest
        ]
    return lines


def report_of(record: CallRecord | None, what_to_do: str) -> Report:
    """Return the report of a call; raise RuntimeError, with `what_to_do`, if there is none."""
    if record is None:
        raise RuntimeError(f"there is nothing to report: {what_to_do}")
    return Report(record)


def last_report() -> Report:
    """Return where the time of the call went that ended last in this process.

    It is for calls that are made by somebody else: by `pmap`, or by a library.

    Returns
    -------
    Report
        What `Parallel.report` returns.

    Raises
    ------
    RuntimeError
        If no call has ended yet.

    Examples
    --------
    >>> from parallel_core import last_report, pmap
    >>> pmap(abs, range(-5, 0), n_jobs=2)
    [5, 4, 3, 2, 1]
    >>> last_report()["tasks"]
    5
    """
    return report_of(latest_record(), "no call of this process has ended")
