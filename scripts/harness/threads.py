"""How many threads the linear algebra library takes."""

import contextlib

import scipy.linalg  # noqa: F401 - loads the library, jaxlib's own LAPACK, which is else not there to be limited
import threadpoolctl


def one_lapack_thread() -> contextlib.AbstractContextManager:
    """Factorisations on one thread, for as long as the context lasts.

    On CPUs JAX calls SciPy's LAPACK. Done with one factorisation, its threads wait for the next by spinning, and take
    the cores from XLA's.
    """
    return threadpoolctl.threadpool_limits(1, user_api="blas")
