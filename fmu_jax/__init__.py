"""Fair machine unlearning in JAX.

Train a model on a fair objective, forget rows by Newton steps, certify the removal, and measure its effect on fairness.
Reference: Oesterling, Ma, Calmon, Lakkaraju, "Fair Machine Unlearning: Data Removal while Mitigating Disparities",
AISTATS 2024, arXiv 2307.14754.

| module | what is in it |
|---|---|
| ``data`` | ``Data``: rows, labels, any number of groups, 0/1 weights; the eager checks |
| ``audit`` | tests whether the guarantee holds: empirical epsilon, U-LiRA, KLoM, membership attack |
| ``datasets`` | ``load``: compas, adult, hsls, synthetic; ``from_csv``, whole or in parts |
| ``objective`` | ``Objective``: loss, ridge, fairness penalty, perturbation; value, gradient, Hessian, products |
| ``penalties``, ``penalty_forms``, ``cells`` | the fairness penalties, by name, in O(n) from cell sums |
| ``fitting`` | ``fit``: damped Newton, Newton-CG, L-BFGS |
| ``conjugate_gradients`` | the matrix-free linear solver |
| ``linalg`` | factorisations that can be mapped over |
| ``spectrum`` | ``extreme_eigenvalues`` by Lanczos; ``damping_for``: the damping that they require |
| ``subsets`` | train or unlearn named parameters only, such as the last layer |
| ``removal`` | ``remove``: retrain, fair_newton, newton, influence, projective, sharded, descent; deep baselines |
| ``comparison``, ``timing`` | ``compare``: all methods on the same rows, beside retraining |
| ``removal_tables``, ``frontier`` | many removals from one model, certified networks beside retrained ones, as rows |
| ``forget_sets`` | draws the rows that an experiment forgets, and orders of requests |
| ``calibration`` | the smallest objective noise that certifies given removals |
| ``sharding`` | rows over devices and processes: pad, place, gather; work on several meshes side by side |
| ``stream``, ``moments`` | deletions one by one, certified at a cost independent of the number of rows |
| ``row_blocks`` | sums over many rows in blocks, so that no copy of them is made |
| ``certificates``, ``rounding`` | ``certify``: residual bounds, widened by their own rounding error |
| ``curvature`` | the Hessian with a bound on its rounding, and a factor that is checked afterwards |
| ``releases`` | fresh noise on every published model: Gaussian DP, composition, budgets |
| ``output_perturbation``, ``contraction`` | ``certify_descent``: the guarantee of noise on the published model |
| ``publication`` | ``publishable``: models after one deletion, by step or descent, and the noise that each needs |
| ``privacy``, ``tails`` | from residual to (epsilon, delta) and back, rounded to the safe side |
| ``distances`` | bounds on the distance to the retrained model, and on its predictions |
| ``intervals`` | ``fairness_interval``: group rates of the retrained model, without retraining |
| ``heads`` | a certified fair linear head on features, two classes or many; the price of private features |
| ``noisy_finetuning`` | certified unlearning of any model, fair or not: clipped noisy steps on what remains |
| ``private_training`` | DP-SGD by jax-privacy, for those features (extra ``private``, imported by itself) |
| ``networks`` | a small network and its training, for audits and for features |
| ``metrics`` | ``group_metrics``: accuracy and fairness by group |
| ``thresholds`` | group thresholds, refitted on what remains |
| ``deletion`` | deletion requests on your own table: a store in files, a Python API, the command ``fmu-delete`` |
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmu_jax import (
        audit,
        calibration,
        certificates,
        comparison,
        datasets,
        deletion,
        distances,
        forget_sets,
        heads,
        intervals,
        metrics,
        noisy_finetuning,
        output_perturbation,
        privacy,
        publication,
        releases,
        removal,
        sharding,
        spectrum,
        stream,
        thresholds,
    )
    from fmu_jax.certificates import Certificate, certify
    from fmu_jax.data import Data, make_data
    from fmu_jax.fitting import FitResult, NotConvergedError, fit
    from fmu_jax.intervals import fairness_interval
    from fmu_jax.objective import Objective, predict_labels, sample_noise
    from fmu_jax.output_perturbation import DescentCertificate, certify_descent
    from fmu_jax.removal import Removal, remove

__all__ = [
    "Certificate",
    "Data",
    "DescentCertificate",
    "FitResult",
    "NotConvergedError",
    "Objective",
    "Removal",
    "audit",
    "calibration",
    "certificates",
    "certify",
    "certify_descent",
    "comparison",
    "datasets",
    "deletion",
    "distances",
    "fairness_interval",
    "fit",
    "forget_sets",
    "heads",
    "intervals",
    "make_data",
    "metrics",
    "noisy_finetuning",
    "output_perturbation",
    "predict_labels",
    "privacy",
    "publication",
    "releases",
    "removal",
    "remove",
    "sample_noise",
    "sharding",
    "spectrum",
    "stream",
    "thresholds",
]


_HOMES = {
    **dict.fromkeys(("Certificate", "certify"), "certificates"),
    **dict.fromkeys(("Data", "make_data"), "data"),
    **dict.fromkeys(("FitResult", "NotConvergedError", "fit"), "fitting"),
    "fairness_interval": "intervals",
    **dict.fromkeys(("Objective", "predict_labels", "sample_noise"), "objective"),
    **dict.fromkeys(("DescentCertificate", "certify_descent"), "output_perturbation"),
    **dict.fromkeys(("Removal", "remove"), "removal"),
}


def __getattr__(name: str) -> Any:
    """A function, a class or a module, imported now that it is named; see PEP 562."""
    if name in _HOMES:
        globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return globals()[name]
    try:
        if not name.startswith("_"):
            return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, also of what is not imported yet."""
    return sorted({*globals(), *__all__})


try:
    __version__ = importlib.metadata.version("fmu-pags-jax")
except importlib.metadata.PackageNotFoundError:  # A checkout on the path, not installed.
    __version__ = "0+unknown"
