"""What scikit-learn puts into every task, and need not go along with every task.

Its tasks are made for joblib, which pickles many of them together, so what they have in common goes
once for each batch. Here each is pickled by itself, at the yield; under joblib, its batches are.

- The function is an object with scikit-learn's configuration and the caller's warning filters. It
  is sent once for each function, configuration and list of filters.
- In searches, each task has the search itself and a node of a tree that has one for every other
  task: callbacks find their way in it. Where there are no callbacks nobody looks at either,
  and both stay here; else the cost of a search would grow with the square of its fits.

These are private to scikit-learn. What does not look as expected is pickled as ever.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from memmapping.modules import loaded
from parallel_core.serialization.definitions import Definitions, forms
from parallel_core.serialization.encoding import Slimmed, slimmers

#: The attribute of an estimator, on the search or inside the arguments, that has callbacks.
_CALLBACKS = b"_skl_callbacks"


def register_slimmers(parallel: Any) -> None:
    """Learn the types, once they are there: asked for an observer of each call, it has none."""
    del parallel
    kind = getattr(loaded("sklearn.utils.parallel"), "_FuncWrapper", None)
    if isinstance(kind, type):
        forms[kind] = _reduce_function
        slimmers[kind] = _without_callbacks
        batch = getattr(loaded("joblib.parallel"), "BatchedCalls", None)
        if isinstance(batch, type):
            slimmers[batch] = _batch_without_callbacks


def _reduce_function(definitions: Definitions, function: Any) -> Any:
    state = vars(function)
    try:
        config, filters = state["config"], state["warning_filters"]
        key = (id(state["function"]), tuple(config.items()), tuple(filters))
        return definitions.send_once(function, key)
    except (KeyError, AttributeError, TypeError):
        return NotImplemented


def _without_callbacks(function: Any, kwargs: dict[str, Any]) -> Slimmed | None:
    context = kwargs.get("callback_ctx")
    if context is None or getattr(context, "_callbacks", True) or "caller" not in kwargs:
        return None
    if getattr(getattr(function, "function", None), "__name__", "") != "_fit_and_score":
        return None
    return function, {**kwargs, "callback_ctx": None, "caller": None}, _CALLBACKS


def _batch_without_callbacks(batch: Any, kwargs: dict[str, Any]) -> Slimmed | None:
    """Do it for a batch of joblib's, if it is so for every task in it."""
    items = []
    for function, args, named in getattr(batch, "items", ()):
        lighten = slimmers.get(type(function))
        light = None if lighten is None else lighten(function, named)
        if light is None:
            return None
        items.append((light[0], args, light[1]))
    if not items:
        return None
    copied = copy(batch)
    copied.items = items
    return copied, kwargs, _CALLBACKS
