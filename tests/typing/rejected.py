"""What type checkers have to reject: where, and mypy's and pyright's codes for it; never run."""

import functools
import math

from subjects import Model, add, by_list, half, twice

from parallel_core import Parallel, delayed, get_executor, parallel_config

# The arguments of a task.
delayed(half)("1")  # error: arg-type, reportArgumentType
delayed(half)()  # error: call-arg, reportCallIssue
delayed(half)(1, 2)  # error: call-arg, arg-type, reportCallIssue
delayed(half)(1, named="x")  # error: call-arg, reportCallIssue
delayed(half)(1, name=2)  # error: arg-type, reportArgumentType
delayed(math.sqrt)("2")  # error: arg-type, reportArgumentType
delayed(Model)("1")  # error: arg-type, reportArgumentType
delayed(Model(1).fit)(["1"])  # error: list-item, reportArgumentType
delayed(Model.load)(1)  # error: arg-type, reportArgumentType
delayed(Model(1))("x")  # error: arg-type, reportArgumentType
delayed(twice)(b"")  # error: call-overload, reportCallIssue, reportArgumentType
delayed(lambda: 3)(1)  # error: call-arg, reportCallIssue
delayed(functools.partial(half, name=2))  # error: arg-type, reportArgumentType

# What is no task.
delayed(3)  # error: arg-type, reportArgumentType
delayed(half(1))(1)  # error: arg-type, reportArgumentType
Parallel()(half(i) for i in range(3))  # error: arg-type, reportArgumentType
Parallel()(half)  # error: arg-type, reportArgumentType
Parallel()(delayed(half) for i in range(3))  # error: arg-type, reportArgumentType
Parallel(return_as="generator")([half(1)])  # error: arg-type, reportArgumentType
Parallel()([(half, 1, {})])  # error: list-item, reportArgumentType

# Parameters that there are not.
Parallel(2, retrys=3)  # error: call-overload, reportCallIssue
Parallel(n_jobs=2, return_as="generator", njobs=3)  # error: call-overload, reportCallIssue
Parallel(n_jobs=2, timeout="3")  # error: call-overload, reportCallIssue, reportArgumentType
Parallel(2, output="drop")  # error: call-overload, reportCallIssue, reportArgumentType
parallel_config(n_jobs="2")  # error: arg-type, reportArgumentType
get_executor(2, timeout="3")  # error: arg-type, reportArgumentType

# What comes back.
task = delayed(half)(1)
names: list[str] = Parallel()([task])  # error: list-item, reportAssignmentType
lazy: list[float]
lazy = Parallel(return_as="generator")([task])  # error: assignment, reportAssignmentType
some: list[float] = Parallel(on_error="return")([task])  # error: assignment, reportAssignmentType
next(Parallel()([task]))  # error: call-overload, reportArgumentType
Parallel(return_as="generator")([task])[0]  # error: index, reportIndexIssue
Parallel(reduce=add)([task]).append()  # error: attr-defined, reportAttributeAccessIssue
by_list(Parallel(return_as="generator"))  # error: arg-type, reportArgumentType
print(Parallel().acall(half(i) for i in range(3)))  # error: arg-type, reportArgumentType
