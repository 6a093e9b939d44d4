"""The works, a file for each; `benchmarks.workload.discover` finds every file that is here.

::

    warm_call, warm_call_main, warm_call_within        what a call costs
    sqrt            what a task costs              progress       ... with a bar
    start_up        the first result           main_function   ... of a function from __main__
    import_time     the import alone           small_lists     ... with something to pickle
    stream          results as they come       sequential, threads     ... without processes
    scaling         the cost at 10³ … 10⁶      computing       how well workers are kept busy
    nested          calls within tasks

    one_array       a large array for all tasks, and once more       freshness    what a look costs
    new_arrays      a new one for each call          array_memory   how often it is in memory
    array_results   arrays that come back            bytes_arguments    a large one for each task
    shared_dict     an object that is no array       folding        results added up

    makespan        tasks of which nobody knows how long they take: a heavy tail, slow ones last or
                    first, a straggler, a slow generator, more workers than cores

    grid_search     searches of scikit-learn, with quick fits and on a large array

    worker_death    what is lost with a worker       stuck_task     ... with a task without end
    two_arguments, unpicklable      errors as themselves, and soon
    parent_death    what outlives the program        hundred_calls  what outlives a call
    paused_consumer                 how far ahead of a consumer items are pulled
    carried         what the caller has set up, and tasks do not see
    pool_maps, pool_extras          `WorkerPool` beside MPIRE's: maps, single calls, bars, state
    one_call        `parallelize` beside sciris's
    same_numbers    random numbers that depend on more than their seed

No module here may import a contestant before it is measured.
"""
