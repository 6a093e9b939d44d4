"""What a call looks like, what its tasks do, and what is to happen to it: all by the seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

#: What a task may do; the calm ones simply have a result.
CALM = ("quick", "slow")
RAISING = ("raise", "exit", "flaky")
DEADLY = ("kill", "quit", "fault", "abort", "dies-once")
STICKING = ("stick", "stick-hard")
LEGS = ("out", "in", "res-out", "res-in")
NESTED = ("nested:", "nested:processes")

RETURNS = ("list", "generator", "generator_unordered")
#: The policies: a word for `on_error`, or a function that decides task by task.
POLICIES = ("decide", "return", "skip", "raise")
#: How a call ends.
ENDINGS = ("whole", "whole", "whole", "source raises", "stop_when", "call_timeout")
GENERATOR_ENDINGS = ("whole", "whole", "closed", "dropped", "source raises", "stop_when")
#: What happens while the tasks are pulled.
EVENTS = ("kill", "kill all", "stop", "fork", "fork long", "shut down", "starve", "fill")


@dataclass(frozen=True)
class Task:
    """One task of a call.

    Attributes
    ----------
    deed : str
        What it does.
    form : str
        What its result looks like.
    payload : str
        What argument it has, besides its number.
    """

    deed: str
    form: str
    payload: str

    @property
    def cause(self) -> str:
        """What its failure is expected to come from; empty where none is."""
        if self.payload in ("out", "in"):
            return f"argument {self.payload}"
        if self.deed in CALM or self.deed in NESTED or self.deed == "nap":
            return ""
        return self.deed


@dataclass(frozen=True)
class Shape:
    """One call.

    Attributes
    ----------
    call : int
        Its number in the run.
    backend, n_jobs, return_as, params
        Parameters of `Parallel`.
    policy : str
        See `POLICIES`.
    tasks : tuple of Task
        Its tasks.
    ending : str
        See `ENDINGS`.
    ends_at : int
        The task at which that happens.
    events : dict
        What the caller's generator does to the workers before it yields a task.
    interrupt_after : float or None
        Seconds after which the caller's thread gets SIGINT.
    keeps_diary : bool
        Whether tasks note that they were run.
    block : bool
        Whether the call is made within a ``with`` block, between two others.
    """

    call: int
    backend: str
    n_jobs: int
    return_as: str
    policy: str
    tasks: tuple[Task, ...]
    ending: str
    ends_at: int
    events: dict[int, str]
    interrupt_after: float | None
    keeps_diary: bool
    block: bool
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def has_workers(self) -> bool:
        """Whether its tasks are meant to run in processes of their own."""
        return self.n_jobs > 1 and self.backend != "threading"

    def __str__(self) -> str:
        deeds = sorted({task.cause for task in self.tasks} - {""})
        return (
            f"call {self.call}: {self.backend}, n_jobs={self.n_jobs}, {self.return_as}, "
            f"{self.policy}, {len(self.tasks)} tasks, {self.params}, {self.ending} at "
            f"{self.ends_at}, events {self.events}, tasks that {', '.join(deeds) or 'are calm'}"
            + (", in a block" if self.block else "")
            + (f", SIGINT after {self.interrupt_after}" if self.interrupt_after else "")
        )


#: How often each backend is chosen, as a rule.
BACKENDS = {"processes": 80, "threading": 8, "spawn": 4, "forkserver": 4, "loky": 4}


def draw(
    random: Random,
    call: int,
    may_be_interrupted: bool,
    small_folder: str | None,
    backends: dict[str, int],
) -> Shape:
    """Return a shape.

    Parameters
    ----------
    random : Random
        Where all choices come from.
    call : int
        Number of the call in the run.
    may_be_interrupted : bool
        Whether the call is made in the main thread.
    small_folder : str or None
        A folder on a small file system, which may be filled.
    backends : dict
        From the name of each to how often it is to be chosen.
    """
    backend = random.choices(list(backends), list(backends.values()))[0]
    n_jobs = random.choice((1, 2, 2, 2, 3, 4))
    return_as = random.choice(RETURNS)
    policy = "decide" if backend == "loky" else random.choice(POLICIES)
    has_workers = n_jobs > 1 and backend != "threading"
    params: dict[str, Any] = {
        "batch_size": random.choice(("auto", "auto", 1, 5, 50)),
        "pre_dispatch": random.choice(("2*n_jobs", "2*n_jobs", "all", 1, 7, "5*n_jobs")),
        "retry_backoff": random.choice((0, 0, 0.0001)),
    }
    if random.random() < 0.15:
        params["worker_lifespan"] = random.choice((1, 4, 30))
    if random.random() < 0.1:
        params["max_worker_memory"] = random.choice(("90M", "10G"))
    if random.random() < 0.1:
        params["pre_dispatch_nbytes"] = random.choice((1000, "3M"))
    if small_folder is not None and random.random() < 0.2:
        params["temp_folder"] = small_folder
    deeds = _deeds(random, backend, n_jobs, params)
    tasks = _tasks(random, deeds, has_workers)
    if "worker_lifespan" in params:  # a start takes its time
        params["worker_lifespan"] = max(params["worker_lifespan"], len(tasks) // 8)
    ending = random.choice(ENDINGS if return_as == "list" else GENERATOR_ENDINGS)
    if ending == "call_timeout":
        params["call_timeout"] = random.uniform(0.02, 0.6)
    events = {}
    if random.random() < 0.3:
        events = {
            random.randrange(len(tasks)): random.choice(EVENTS)
            for _ in range(random.choice((1, 2)))
        }
    interrupted = may_be_interrupted and random.random() < 0.12
    if interrupted:  # which may come before the saboteur has noted its child
        events = {at: event for at, event in events.items() if not event.startswith("fork")}
    return Shape(
        call,
        backend,
        n_jobs,
        return_as,
        policy,
        tasks,
        ending,
        random.randrange(len(tasks)),
        events,
        random.uniform(0, 0.3) if interrupted else None,
        random.random() < 0.5 and not interrupted,  # a task may leave it open then
        random.random() < 0.3,
        params,
    )


def _deeds(random: Random, backend: str, n_jobs: int, params: dict[str, Any]) -> list[str]:
    """Return which misdeeds the tasks of a call may do; note the time limit that they need."""
    deeds = random.sample(RAISING, random.choice((0, 1, 2)))
    if n_jobs == 1:
        return deeds
    if backend != "threading":
        deeds += random.sample(LEGS, random.choice((0, 0, 1, 2)))
        deeds += random.sample(DEADLY, random.choice((0, 0, 1, 2)))
        if random.random() < 0.15:
            deeds.append(random.choice(NESTED))
    if random.random() < (0.03 if backend == "loky" else 0.12):
        params["timeout"] = 6.0 if backend == "loky" else 1.0
        deeds.append(random.choice(STICKING) if backend != "threading" else "stick")
    return deeds


def _tasks(random: Random, deeds: list[str], has_workers: bool) -> tuple[Task, ...]:
    count = random.choice((1, 3, 10, 30, 30, 60, 100, 400))
    pace = random.choice(("quick", "quick", "slow", "mixed", "heavy tail"))
    forms = random.choice((("number",), ("number", "list", "text"), ("list", "array"), ("large",)))
    payloads = random.choice((("",), ("",), ("list",), ("", "bytes"), ("array",)))
    if "large" in forms or "array" in payloads or pace == "slow":
        count = min(count, 60)
    if not has_workers:
        forms = ("number",) if random.random() < 0.5 else forms
    share = random.choice((0.02, 0.1, 0.4)) if deeds else 0.0
    costly = {*DEADLY, *STICKING, *NESTED}
    left = 6  # deaths and the like, each of which takes its time
    tasks = []
    for _ in range(count):
        deed = "slow" if pace == "slow" or (pace == "mixed" and random.random() < 0.2) else "quick"
        if pace == "heavy tail" and random.random() < 0.03:
            deed = "nap"
        payload = random.choice(payloads)
        if random.random() < share:
            chosen = random.choice(deeds)
            if chosen in costly:
                chosen, left = (chosen, left - 1) if left else ("quick", 0)
            if chosen in ("out", "in"):
                payload = chosen
            else:
                deed = chosen
        tasks.append(Task(deed, random.choice(forms), payload))
    return tuple(tasks)
