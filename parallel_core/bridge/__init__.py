"""The way from joblib to here, for libraries that know joblib and not us.

::

    in joblib's place                          under joblib

    library ─▶ joblib.Parallel                 library ─▶ joblib.Parallel, joblib's loop
                    ║ patch                                  │ submit, get
                    ▼                                        ▼
               our Parallel                             backend ─▶ workers of ours

- `joblib_patch`: `install` and `uninstall` put our names into joblib's modules and back.
- `bars`: drives progress bars that replace joblib's callback.
- `slimming`: sends what all tasks of scikit-learn share to each worker once.
- `backend`: `register_joblib` gives joblib a backend over our workers.

joblib is imported only when one of these is called.
"""
