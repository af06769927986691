"""Tests whether the guarantee holds, by attacks that a certificate must withstand and that catch a missing removal.

| module | what is in it |
|---|---|
| ``draws`` | ``draw_models``: trained, unlearned and retrained models under thousands of noise draws |
| ``epsilon`` | ``empirical_epsilon``: a lower bound on epsilon from such draws, valid at 95 % |
| ``gaussian`` | ``empirical_mu``: a lower bound on the Gaussian-DP parameter of releases |
| ``distinguishers``, ``binomial`` | the statistics that it tries, and the exact bounds of their error rates |
| ``shadow`` | ``plant``, ``shadow_models``: planted rows, and pairs of models with and without them |
| ``networks`` | ``twins``, ``shadow_networks``: the same for any model that a function trains |
| ``one_run`` | ``one_run``: lower bounds from a single published model and many canaries |
| ``canaries`` | ``mislabelled``, ``score_canaries``: canaries in one network, and their scores for ``one_run`` |
| ``relative`` | ``relative_test``: whether unlearned models are nearer to retrained ones than untouched models |
| ``likelihood_ratio`` | ``lira``: the per-example likelihood-ratio attack U-LiRA |
| ``margin_divergence`` | ``klom``: divergence of margins from those of retrained models |
| ``tables`` | ``epsilon_table``, ``attack_table``: an audit of every method as rows |
| ``network_tables`` | ``network_table``: the same for networks; the methods that run on them, certified or not |
| ``worlds`` | series of releases in both worlds, honest or not, and whether a test beats the certified curve |
| ``faults``, ``mechanisms`` | ``audit_mechanism``: which audit finds which fault in releases and the paper's scheme |
| ``loss_threshold``, ``roc`` | ``membership``: the loss-threshold attack; areas under the ROC curve |
"""

from fmu_jax.audit.canaries import Canaries, mislabelled, score_canaries
from fmu_jax.audit.draws import AUDITED, NO_REMOVAL, PERTURBED, Draws, draw_models
from fmu_jax.audit.epsilon import EmpiricalEpsilon, empirical_epsilon, largest_bound
from fmu_jax.audit.gaussian import EmpiricalMu, empirical_mu
from fmu_jax.audit.likelihood_ratio import LiRA, lira
from fmu_jax.audit.loss_threshold import Membership, membership
from fmu_jax.audit.margin_divergence import klom
from fmu_jax.audit.network_tables import network_table, noisy_methods, uncertified_methods
from fmu_jax.audit.networks import ShadowNetworks, shadow_networks, twins
from fmu_jax.audit.one_run import OneRun, one_run
from fmu_jax.audit.relative import Relative, relative_test
from fmu_jax.audit.shadow import ShadowModels, by_membership, plant, shadow_models
from fmu_jax.audit.tables import attack_columns, attack_table, epsilon_table

__all__ = [
    "AUDITED",
    "NO_REMOVAL",
    "PERTURBED",
    "Canaries",
    "Draws",
    "EmpiricalEpsilon",
    "EmpiricalMu",
    "LiRA",
    "Membership",
    "OneRun",
    "Relative",
    "ShadowModels",
    "ShadowNetworks",
    "attack_columns",
    "attack_table",
    "by_membership",
    "draw_models",
    "empirical_epsilon",
    "empirical_mu",
    "epsilon_table",
    "klom",
    "largest_bound",
    "lira",
    "membership",
    "mislabelled",
    "network_table",
    "noisy_methods",
    "one_run",
    "plant",
    "relative_test",
    "score_canaries",
    "shadow_models",
    "shadow_networks",
    "twins",
    "uncertified_methods",
]
