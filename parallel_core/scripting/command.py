"""`parallelcmd`: a block of code, given as text, for each value of some variables.

::

    cmd ── dedent, parse ──▶ names that it reads and sets, checked ──▶ one task for each row
                                                                            │
    returnval ◀── the namespace of the task ◀── run_block: compiled once in each worker
"""

from __future__ import annotations

import ast
import builtins
import symtable
import textwrap
from collections.abc import Iterator
from typing import Any

from parallel_core.errors import without_our_frames
from parallel_core.scripting.block import FILE, compiled, run_block
from parallel_core.scripting.loads import with_former_name
from parallel_core.scripting.run import ParallelRun


def parallelcmd(
    cmd: str,
    parfor: Any,
    returnval: Any,
    maxcpu: float | None = None,
    maxmem: float | None = None,
    interval: float | None = None,
    die: bool = True,
    **kwargs: Any,
) -> list[Any]:
    """Run a block of code in parallel, once for each value of some variables.

    It is for quick trials. A function and `parallelize` do the same and can be tested.

    Parameters
    ----------
    cmd : str
        Code to run. It may be indented as a whole. It sees the names in `parfor` and `kwargs`, and
        what it imports or sets itself; not the variables around the call.
    parfor : dict of lists
        Values of the variables that differ, a list for each name; or a list of dictionaries.
    returnval : str
        Name of the variable whose values are returned. `cmd` sets it.
    maxcpu, maxmem, interval, die
        As for `parallelize`.
    **kwargs
        Variables that are the same each time.

    Returns
    -------
    list
        Values of the variable `returnval`.

    Raises
    ------
    SyntaxError
        If `cmd` does not compile; it has the line.
    NameError
        If `cmd` uses a name that nothing defines. It is raised before anything runs.
    ValueError
        If `cmd` never sets `returnval`.

    Examples
    --------
    >>> from parallel_core import parallelcmd
    >>> cmd = '''
    ... total = value + constant
    ... result = total**2
    ... '''
    >>> parallelcmd(cmd, parfor={"value": [3, 5, 9]}, returnval="result", constant=4)
    [49, 81, 169]
    """
    if not isinstance(returnval, str) or not returnval.isidentifier():
        raise TypeError(
            f"returnval must be the name of a variable that cmd sets, not {returnval!r}"
        )
    if parfor is None:
        raise ValueError("parfor must have the variables that differ, as in {'x': [1, 2, 3]}")
    maxcpu = with_former_name(maxcpu, kwargs)
    text = _dedented(cmd)
    run = ParallelRun(
        run_block,
        iterkwargs=parfor,
        args=(text, returnval),
        kwargs=kwargs,
        maxcpu=maxcpu,
        maxmem=maxmem,
        interval=interval,
        die=die,
    )
    given = {name for _, values in run.argslist for name in values}
    _check_names(text, returnval, given)
    try:
        return run.run().results
    except Exception as error:
        raise without_our_frames(error)  # noqa: B904 - it is the same


def _dedented(cmd: object) -> str:
    if not isinstance(cmd, str):
        raise TypeError(f"cmd must be a string of code, not {cmd!r}")
    return textwrap.dedent(cmd)


def _check_names(text: str, returnval: str, given: set[str]) -> None:
    """Raise unless `text` compiles, sets `returnval`, and every name that it uses is defined."""
    compiled(text)
    tables = list(_tables(symtable.symtable(text, FILE, "exec")))
    top = tables[0]
    own = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if (symbol.is_assigned() or symbol.is_imported())
        and (table is top or symbol.is_declared_global())
    }
    tree = ast.parse(text, FILE)
    imports_all = any(
        isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)
    )
    if imports_all:
        return
    if returnval not in own | given:
        raise ValueError(
            f"cmd never sets {returnval!r}, which is to be returned; it sets "
            f"{', '.join(sorted(own)) or 'nothing'}"
        )
    used = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (table is top or symbol.is_global())
    }
    unknown = used - own - given - set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in unknown:
            line = text.splitlines()[node.lineno - 1].strip()
            raise NameError(
                f"cmd uses {node.id!r}, which nothing defines, in line {node.lineno}: {line}. Give "
                f"its value as {node.id}=..., or import it in cmd"
            )


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """Yield the table of names of a block, and those of all blocks within it."""
    yield table
    for child in table.get_children():
        yield from _tables(child)
