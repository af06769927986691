r"""Certified unlearning of any model by noisy fine-tuning: fair, deep and certified, at a price.

**Two worlds.** In one, a model ``x_hat`` was trained on all rows; in the other, ``x_hat'`` by anything whatever without
the forgotten ones (retrained, say). Both are clipped to a ball of radius ``C_0`` around a center that is the same in
both, and fine-tuned alike on what remains:

    x_0 = clip(x_hat, C_0),      x_t = phi_t(x_{t-1}) + xi_t,   xi_t ~ N(0, sigma^2 I),   t = 1 .. T,
    phi_t(x) = clip(x - eta (clip(g_t(x), C_1) + lambda x), C_2).

``g_t`` is the gradient of any loss on a batch of remaining rows: no convexity, no smoothness, no minimum, and **a fair
loss is as good as any**. Only ``x_T`` is published. Whatever follows (fine-tuning without noise on what remains) reads
``x_T`` and remaining rows alone, and costs nothing. The published models of the two worlds cannot be told apart better
than two Gaussians ``mu`` apart, but for an event of probability ``failure``, by either of two routes.

**Iteration** (gradient clipping, in Koloskova et al. 2025). ``|phi_t(x) - phi_t(y)| <= a |x - y| + s`` holds with
``a = 1 - eta lambda`` in [0, 1] and ``s = 2 eta C_1``, as clipping to a ball does not expand. Of the shift
``z_0 = 2 C_0`` that parts the worlds, each step's noise hides a part ``b_t``: ``z_t = a z_{t-1} + s - b_t >= 0``,
``z_T = 0``, at a cost ``sum b_t^2 / sigma^2`` in ``mu^2`` (the shifted interpolation of Bok, Su & Altschuler 2024,
section 3, whose proof needs that bound on ``phi_t`` and no contraction). Hence ``sum a^{T-t} b_t = D`` with
``D = 2 C_0 a^T + s (1 + a + .. + a^{T-1})``. Cauchy-Schwarz gives the least cost, at ``b_t`` proportional to
``a^{T-t}``, which never overdraws since ``b_t`` grows with ``t``:

    mu = D / (sigma sqrt(S)),   S = 1 + a^2 + .. + a^{2(T-1)}.

With ``C_2`` the last ``k`` steps alone will do, from images at most ``2 C_2`` apart; the least of all ``k`` counts.
The paper's Renyi divergence of order ``alpha`` is ``alpha mu^2 / 2``; its theorem bounds what follows by constants.

**Contraction** (model clipping, there). Images of ``phi_t`` are at most ``2 C_2`` apart, so each step keeps at most a
share of the ``delta(epsilon)`` that came in (Balle et al. 2019, "Privacy amplification by mixing and diffusion
mechanisms", Theorem 1), with ``delta_0 = 1``:

    delta_t = delta_{t-1} theta(log(1 + (e^epsilon - 1) / delta_{t-1})),

``theta(epsilon)`` that of two Gaussians ``2 C_2 / sigma`` apart. Proof: of two laws at ``delta`` what one has beyond
``e^epsilon`` times the other has mass ``delta``, the other way about ``e^epsilon - 1 + delta``, and the rest is shared.
The gradient need not be clipped. ``mu`` is the least whose curve lies above.

**Conditions**, each checked or made true: radii, noise, step size and decay in range (``Schedule``); parameters of
one floating type, finite; a key that is given; the schedule fixed beforehand, the same in both worlds; gradients that
are not finite count as zero; batches are drawn by rank among remaining rows, and a forgotten row's entries are never
read. **Everything of the model that has seen a row must be in ``params``** (batch statistics too, which are clipped
and noised like the rest); center, initialisation, architecture, scaling of columns and the number of rows are taken
as public. **Rounding**: clips divide by an upper bound of the norm; the rounding of ``phi_t`` is added to ``s`` for
models up to a norm that is exceeded with the probability ``failure``; after each noise the model is rounded to a grid
that depends on ``sigma`` alone, as for ``releases``, whose remarks on generators hold here too.

**Series.** Start each request at the model published last. Everything published after a row's deletion is then a
function of the first release since that deletion and of remaining rows, so the row's guarantee stays ``mu``, however
many requests follow. If a request starts from a secret model instead, guarantees must be composed
(``releases.compose``).

**Bias of a fair batch.** The penalty squares a gap estimated from the batch, so its expected gradient is that of
the squared gap plus that of the estimate's variance, of order ``1 / batch`` in each group's share, and a batch without
one of the groups has no penalty at all. This biases what is learnt, not what is guaranteed. ``batch=None`` has no bias.

**What it costs.** A part of the trained model of length ``C_0`` remains, under noise of length ``2 C_0 sqrt(d) / mu``.
In ``d`` dimensions that is nearly nothing, unless ``C_0`` is so small that training must start over anyway. This route
is useful with a center that was trained on public rows; see the guide.
"""

from fmu_jax.noisy_finetuning.accounting import (
    Guarantee,
    contraction_delta,
    guarantee,
    iteration_mu,
    noise_for,
)
from fmu_jax.noisy_finetuning.blocks import finetune_blocks
from fmu_jax.noisy_finetuning.convex import Rewound, langevin, rewind
from fmu_jax.noisy_finetuning.routes import ROUTES, Routed, finetune_by, finetune_by_all, schedule_of
from fmu_jax.noisy_finetuning.schedule import Schedule
from fmu_jax.noisy_finetuning.steps import Finetuned, finetune

__all__ = [
    "ROUTES",
    "Finetuned",
    "Guarantee",
    "Rewound",
    "Routed",
    "Schedule",
    "contraction_delta",
    "finetune",
    "finetune_blocks",
    "finetune_by",
    "finetune_by_all",
    "guarantee",
    "iteration_mu",
    "langevin",
    "noise_for",
    "rewind",
    "schedule_of",
]
