"""Parallelism in one call: `parallelize` and `parallel_progress`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parallel_core.errors import without_our_frames
from parallel_core.pool.mapping import pmap, pstarmap
from parallel_core.scripting.run import ParallelRun, Record

if TYPE_CHECKING:
    from parallel_core.observe.progress import ProgressLike


def parallelize(
    func: Callable[..., Any],
    iterarg: Any = None,
    iterkwargs: Any = None,
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    ncpus: float | None = None,
    maxcpu: float | None = None,
    maxmem: float | None = None,
    interval: float | None = None,
    parallelizer: Any = None,
    serial: bool = False,
    progress: ProgressLike = False,
    callback: Callable[[Record], object] | None = None,
    globaldict: dict[Any, Any] | None = None,
    capture: bool = False,
    die: bool = True,
    lbkwargs: dict[str, Any] | None = None,
    start_method: str | None = None,
    **func_kwargs: Any,
) -> list[Any]:
    """Run a function in parallel, and return the list of its results.

    Parameters
    ----------
    func : callable
        Function to run.
    iterarg : sequence or int, optional
        First argument of each job. A tuple has several arguments, a list is one. A number is the
        number of jobs, which do not get it.
    iterkwargs : dict of lists or list of dicts, optional
        Keyword arguments of each job: a list of values for each name, or a dictionary for each job.
        With `iterarg`, both have one item for each job.
    args : tuple or list, optional
        Further positional arguments, the same for all jobs. They follow those of `iterarg`.
    kwargs : dict, optional
        Keyword arguments, the same for all jobs.
    ncpus : int or float, optional
        Number of workers, or a part of the cores between 0 and 1. By default, and with 0, one for
        each core that this process may use. There are no more workers than jobs.
    maxcpu, maxmem : float, optional
        Load of the processors, and part of the memory in use, above which no further job starts,
        from 0 to 1. Numbers above 1 are percentages. They need the extra ``scripting``.
    interval : float, default 0.1
        Seconds between two looks at the load.
    parallelizer : str, callable, Backend or Executor, optional
        What runs the jobs. ``"robust"``, ``"fast"`` and their other names in sciris: processes.
        ``"multiprocessing"``, ``"thread"``, ``"serial"``; any name of a backend. With ``"-copy"``
        behind it, jobs in this process get copies of their arguments. A function such as the `map`
        of a pool is called with a function and a list.
    serial : bool, default False
        Whether to run the jobs one after the other in this thread, whatever `parallelizer` says.
    progress : bool, str, callable or dict, default False
        What shows the progress, as for `Parallel`.
    callback : callable, optional
        Function that is called in this process after each job. It gets a `dict` with attributes:
        `index`, `njobs`, `args`, `kwargs`, `globaldict`, and `outdict`, which has `result`,
        `success`, `exception`, `elapsed`, `skipped` and `stdout`. When it sets `stop` to True, the
        run ends at once; jobs without a result have None.
    globaldict : dict, optional
        Dictionary that all jobs share, passed as the keyword argument `globaldict`. It has their
        values at the end.
    capture : bool, default False
        Whether to keep what jobs print: `ParallelRun.stdout` has it.
    die : bool, default True
        Whether the first error of a job ends the run and is raised. If not, the exception takes the
        place of the result, and warnings tell of it.
    lbkwargs : dict, optional
        `maxcpu`, `maxmem`, `interval` and `maxtime` of `loadbalancer`.
    start_method : {"fork", "spawn", "forkserver"}, optional
        How processes are started. By default, by this library, which needs no guard around the
        main program.
    **func_kwargs
        Further keyword arguments for all jobs.

    Returns
    -------
    list
        Results in the order of the jobs.

    Raises
    ------
    ValueError, TypeError
        For invalid parameters, before any job starts.

    Notes
    -----
    Where the program uses numpy, the jobs' random numbers follow from its global generator: after
    ``numpy.random.seed(1)``, jobs in processes and in this thread draw the same numbers for any
    `ncpus`.

    Examples
    --------
    >>> from parallel_core import parallelize
    >>> def multiply(x, y):
    ...     return x * y
    >>> parallelize(multiply, [(1, 2), (2, 3), (3, 4)])
    [2, 6, 12]
    >>> parallelize(multiply, iterkwargs={"x": [1, 2, 3], "y": [2, 3, 4]})
    [2, 6, 12]
    >>> parallelize(multiply, [1, 2, 3], y=10, ncpus=2)
    [10, 20, 30]
    """
    params = locals()  # all of them by name
    del params["func_kwargs"]
    run = ParallelRun(**params, **func_kwargs)
    try:
        return run.run_for_results()
    except Exception as error:
        raise without_our_frames(error)  # noqa: B904 - it is the same


def parallel_progress(
    fcn: Callable[..., Any],
    inputs: Any,
    num_workers: int | None = None,
    show_progress: bool = True,
    initializer: Callable[[], object] | None = None,
) -> list[Any]:
    """Return ``list(map(fcn, inputs))``, made by several workers, with a progress bar.

    `pmap` does the same and takes more parameters.

    Parameters
    ----------
    fcn : callable
        Function of one argument; or of none, if `inputs` is a number.
    inputs : iterable or int
        Arguments, or the number of calls.
    num_workers : int, optional
        Number of workers. By default, one for each core.
    show_progress : bool, default True
        Whether to show a bar, which needs the extra ``progress``.
    initializer : callable, optional
        Function that each worker calls before its first task.

    Returns
    -------
    list
        Results in the order of `inputs`.

    Examples
    --------
    >>> from parallel_core import parallel_progress
    >>> parallel_progress(abs, [-1, 2, -3], num_workers=2, show_progress=False)
    [1, 2, 3]
    """
    options: dict[str, Any] = {"progress": show_progress, "initializer": initializer}
    options["n_jobs"] = num_workers or -1
    if isinstance(inputs, int):
        return pstarmap(fcn, [()] * inputs, **options)
    return pmap(fcn, inputs, **options)
