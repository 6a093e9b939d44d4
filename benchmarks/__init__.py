"""Speed of parallel-core beside its peers, for a sceptic to run: ``python -m benchmarks``.

How a figure comes about::

    workloads/*.py      one class per work: a method per contestant, figures, bars to reach
         │ discover()
         ▼
    runner              for each work, for each round, for each contestant in turn
         │  python -m benchmarks.child  MODULE:CLASS  CONTESTANT  CONDITIONS
         ▼
    child               a fresh process: warms up, measures, checks the results,
         │              prints one line of JSON
         ▼
    outcome             every sample and every error of every contestant; medians over rounds
         │
         ├──▶ bars      each bar judged: met, missed, or not judged and why
         ▼
    report, picture     table on the terminal; results/*.json, *.md, *.png, *.svg

`conditions`
    What holds for a whole run: workers, rounds, full or quick sizes.
`contestants`
    Who is measured, and in which version.
`workload`
    What a work is made of, and how the classes in ``workloads/`` are found. A later work is one
    more file there; nothing else needs to change.
`many_tasks`
    The shape that most works share: one function over many items.
`doors`
    How each contestant is asked, in its most idiomatic fast way, to map a function.
`measure`
    What a child measures time with: repeated calls, whole processes, one ``write()``.
`memory`
    The same for memory: of the parent, of all processes together.
`payloads`, `array_payloads`
    The functions that workers run.
`hardship`, `watch`, `trial`, `askers`, `mishaps`, `setting_up`
    Works in which something goes wrong: the child has a further program go through a trial, watches
    it, kills it if need be, and tidies up. What the program asks of a contestant, what its workers
    run, and what it sets up around them.
`machine`
    Facts about the machine that make figures comparable, and none that would name it.
"""
