"""Sentences that say what to do about a call that was slower than it could be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from memmapping.sizes import format_nbytes
from parallel_core.insights.figures import Figures, count_of, duration_of

_LEAST_SECONDS = 0.05  # a call that is over so soon needs no advice
_TINY_SECONDS = 1e-4  # of a task
_PULL_SECONDS = 2e-5  # of an item, from which it is not the loop that takes so long
_MANY_NBYTES = 8 << 20
_LEAST_TAIL = 0.2  # of the duration of a call
_LONGER = 2.0  # than a task on average: a long one
_ONE_CORE = 0.6, 1.4

Rule = Callable[[Figures], "str | None"]


def advice_for(figures: Figures) -> list[str]:
    """Return what to do, the most important first; an empty list if there is nothing to do."""
    if figures.seconds < _LEAST_SECONDS and not figures.record.deaths:
        return []
    return list(_found(figures))


def _found(figures: Figures) -> Iterator[str]:
    for rule in RULES:
        said = rule(figures)
        if said is not None:
            yield said


def deaths(figures: Figures) -> str | None:
    """Workers died, so that tasks were lost or run again."""
    lost = figures.record.deaths
    if not lost:
        return None
    reasons = {reason for _, reason in lost}
    said = f"{count_of(len(lost), 'worker')} died: one {sorted(reasons)[0]}"
    if any("memory" in reason for reason in reasons):
        return (
            f"{said}. Use fewer jobs, give tasks less data, or have workers replaced in time by "
            "max_worker_memory"
        )
    return f"{said}. See WorkerDiedError.stack for where, and retries for what to do about it"


def low_memory(figures: Figures) -> str | None:
    """Tasks were held back for lack of memory."""
    held = figures.record.held_back
    if held < 0.1 * figures.seconds:
        return None
    return (
        f"tasks were held back for {_share(held, figures)} of the time, since less memory was free "
        "than min_free_memory. Use fewer jobs, or give tasks less data"
    )


def retries(figures: Figures) -> str | None:
    """Many tasks were run again."""
    retried = figures.record.retried
    if retried < max(0.05 * figures.tasks, 1):
        return None
    return (
        f"{count_of(retried, 'task')} had to run again, of {figures.tasks}. Have them fail less "
        "often: an observer is told each TaskRetried, with its error"
    )


def repeated_argument(figures: Figures) -> str | None:
    """The same large argument was pickled for each task."""
    repeated = figures.record.repeated
    if repeated is None or repeated.seconds < 0.1 * figures.seconds:
        return None
    name = repeated.name if isinstance(repeated.name, int) else repr(repeated.name)
    return (
        f"{_share(repeated.seconds, figures)} of the time went into pickling argument {name}, the "
        f"same {repeated.kind} of {format_nbytes(repeated.nbytes)} for "
        f"{count_of(repeated.times, 'task')}. Pass it through memmapping.share() once"
    )


def encoding(figures: Figures) -> str | None:
    """Arguments took long to pickle."""
    spent = figures.caller["encoding"]
    repeated = figures.record.repeated
    if repeated is not None:
        spent -= repeated.seconds
    if spent < 0.2 * figures.seconds or figures.efficiency > 0.7:
        return None
    return (
        f"{_share(spent, figures)} of the time went into pickling arguments, "
        f"{format_nbytes(figures.record.sent_nbytes)} in all. Give tasks less: a path, an index, "
        "or one object for all through memmapping.share()"
    )


def slow_iterable(figures: Figures) -> str | None:
    """Workers had nothing to do while the iterable of tasks made the next item."""
    spent, tasks = figures.caller["pulling"], max(figures.record.completed, 1)
    if spent < 0.4 * figures.seconds or figures.efficiency > 0.7 or not figures.workers:
        return None
    if spent / tasks < _PULL_SECONDS:
        return None
    idle = max(1, round(_idle(figures) * figures.n_workers))
    return (
        f"{idle} of {figures.n_workers} workers waited for the iterable of tasks: it takes "
        f"{duration_of(spent / tasks)} for an item, and a task takes "
        f"{duration_of(figures.task_seconds)}. Make the items in the tasks, which get what they "
        "are made from"
    )


def slow_consumer(figures: Figures) -> str | None:
    """Workers had nothing to do while the caller worked on results."""
    rest = figures.caller["rest"]
    if not figures.record.is_stream or rest < 0.5 * figures.seconds or figures.efficiency > 0.5:
        return None
    return (
        f"{_share(rest, figures)} of the time went into the loop over the results, while workers "
        "had nothing to do. Do more of it in the tasks, or raise pre_dispatch"
    )


def tiny_tasks(figures: Figures) -> str | None:
    """Handing a task over takes as long as running it."""
    tasks, caller = figures.tasks, figures.caller
    if tasks < 1000 or figures.task_seconds > _TINY_SECONDS or figures.efficiency > 0.5:
        return None
    parts = ["pulling", "encoding", "submitting", "reading"]
    if not figures.record.is_stream:
        parts.append("rest")
    busy = sum(caller[part] for part in parts)
    if busy < 0.5 * figures.seconds or caller["pulling"] / tasks > _PULL_SECONDS:
        return None
    return (
        f"a task takes {duration_of(figures.task_seconds)}, and handing it over takes "
        f"{duration_of(busy / tasks)}. Put a loop into the task: give each a part of the input "
        "that takes a millisecond or more"
    )


def held_lock(figures: Figures) -> str | None:
    """Threads took turns, since Python code holds the interpreter's lock."""
    record = figures.record
    if not record.runs_here or record.cores < 2 or figures.n_workers < 2:
        return None
    cores = record.processor_seconds / figures.seconds
    if not _ONE_CORE[0] <= cores <= _ONE_CORE[1] or figures.efficiency < 0.6:
        return None
    if figures.total("working") < 1.5 * record.processor_seconds:
        return None
    return (
        f"{figures.n_workers} threads used {cores:.1f} processors: they took turns, since Python "
        "code holds the interpreter's lock. Use processes (backend='processes')"
    )


def library_threads(figures: Figures) -> str | None:
    """Numeric libraries have more threads, in all workers, than there are cores."""
    record = figures.record
    extra, share = record.library_threads
    threads = extra + 1
    if record.runs_here or not extra or share < 0.2 or not record.cores:
        return None
    if figures.n_workers * threads <= 1.5 * record.cores:
        return None
    return (
        f"each of {figures.n_workers} workers computes with {threads} threads, on "
        f"{count_of(record.cores, 'core')}. Leave their number to the library: unset "
        "OMP_NUM_THREADS and the like, or pass inner_max_num_threads=1"
    )


def large_results(figures: Figures) -> str | None:
    """Results took long to come back."""
    nbytes = figures.received_nbytes
    spent = max(
        figures.caller["reading"] / figures.seconds,
        (figures.total("pickling") + figures.total("sending")) / figures.available,
    )
    if nbytes < _MANY_NBYTES or spent < 0.2:
        return None
    return (
        f"results have {format_nbytes(nbytes)}, and bringing them back took {spent:.0%} of the "
        "time. Return less, fold results in the workers (reduce), or write them into a shared "
        "array or a file"
    )


def slow_loading(figures: Figures) -> str | None:
    """Workers took long to load functions and arguments."""
    if figures.share("loading") < 0.25 or repeated_argument(figures) is not None:
        return None
    return (
        f"workers spent {figures.share('loading'):.0%} of their time on loading functions and "
        "arguments. If these import large modules, name them in preload; if they hold large "
        "objects, pass those through memmapping.share()"
    )


def start_up(figures: Figures) -> str | None:
    """Starting workers took a large part of the call."""
    longest = max((worker.start_up for worker in figures.workers), default=0.0)
    if longest < 0.3 * figures.seconds:
        return None
    return (
        f"workers took {duration_of(longest)} to start, of {duration_of(figures.seconds)}. Keep "
        "them for several calls: they stay for a while by themselves, within a with block for "
        "sure, and in a WorkerPool with keep_alive=True"
    )


def few_tasks(figures: Figures) -> str | None:
    """There were fewer tasks than workers, or hardly more."""
    tasks, n_workers = figures.tasks, figures.n_workers
    if not tasks or n_workers < 2 or figures.efficiency > 0.75 or _idle(figures) < 0.2:
        return None
    if tasks < n_workers:
        said = f"{count_of(tasks, 'task')} cannot keep {n_workers} workers busy"
    elif n_workers < tasks < 3 * n_workers and not _tail(figures)[0] and tasks % n_workers:
        said = f"{tasks} tasks do not divide well among {n_workers} workers"
    else:
        return None
    return f"{said}. Cut the work into more tasks, or use fewer jobs"


def slow_end(figures: Figures) -> str | None:
    """One task ran alone at the end."""
    seconds, which = _tail(figures)
    if not seconds:
        return None
    return (
        f"at the end one task ran alone for {duration_of(seconds)}, {_share(seconds, figures)} of "
        f"the time: {which}. Start long tasks first, or split them"
    )


def _tail(figures: Figures) -> tuple[float, str]:
    """Return how long the last worker was alone with one long task, and what that is."""
    ends = sorted(worker.slices[-1].ended for worker in figures.workers if worker.slices)
    if not figures.workers or not ends or figures.n_workers < 2:
        return 0.0, ""
    last = ends[-1]
    others = ends[-2] if len(ends) > 1 else figures.record.began
    if figures.tasks <= figures.n_workers and len(ends) < figures.n_workers:
        return 0.0, ""  # there were not enough tasks for all
    seconds = last - others
    if seconds < _LEAST_TAIL * figures.seconds:
        return 0.0, ""
    for slow in figures.slowest:
        took = slow.ended - slow.began
        is_longer = took >= _LONGER * figures.task_seconds
        if is_longer and slow.ended >= last - 0.1 * seconds and took >= 0.8 * seconds:
            return seconds, f"task {slow.position}, {slow.call}"
    return 0.0, ""


def _idle(figures: Figures) -> float:
    """Return the share of the time that all workers had nothing to do."""
    without = 1.0 - len(figures.workers) / figures.n_workers
    return figures.share("waiting") + max(without, 0.0)


def _share(seconds: float, figures: Figures) -> str:
    return f"{min(seconds / figures.seconds, 1.0):.0%}"


#: In the order of importance. Each returns what it has to say, or None.
RULES: tuple[Rule, ...] = (
    deaths,
    low_memory,
    repeated_argument,
    encoding,
    tiny_tasks,
    slow_iterable,
    slow_consumer,
    held_lock,
    library_threads,
    large_results,
    start_up,
    slow_loading,
    few_tasks,
    slow_end,
    retries,
)
