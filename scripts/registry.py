"""The experiments: their names, in the order in which they run and in which the report shows them.

An experiment's module is found by its name: ``fmu_audit`` is ``scripts/fmu/audit.py``, which declares it.
"""

import importlib

from scripts.harness.experiment import Experiment

NAMES = (
    "fmu_removal", "fmu_certificates", "fmu_tradeoff", "fmu_interventions", "fmu_stream", "fmu_published_noise",
    "fmu_releases", "fmu_release_curves", "fmu_faults", "fmu_audit", "fmu_groups", "fmu_embeddings",
    "fmu_image_heads", "fmu_deep_audit", "fmu_noisy_finetuning",
    "pags_train", "pags_autoencoder", "pags_score", "pags_robustness", "pags_alignment", "pags_distractor",
    "pags_answers", "pags_figures", "pags_generation", "pags_certify", "pags_converse",
    "pags_photographs", "pags_bayes",
)  # fmt: skip


def experiment(name: str) -> Experiment:
    """The experiment of a name.

    >>> experiment("fmu_audit").config.__module__
    'scripts.fmu.audit'
    """
    return importlib.import_module(f"scripts.{name.replace('_', '.', 1)}").EXPERIMENT
