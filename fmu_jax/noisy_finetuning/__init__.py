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
The curve itself says less than that Gaussian does: ``Guarantee.epsilon`` reads it, ``mu`` is for what composes.

**Rounding.** Only ``x_T``, the published model, is rounded to a grid that depends on ``sigma`` alone, as for
``releases``, whose remarks on generators hold here too. That reads ``x_T`` and nothing else, so it is free. The states
in between stay as they are, since nothing of them is published. Were each rounded to a grid of spacing ``h``, the next
map would be ``phi_t`` of the rounded state, where two states parted by next to nothing may land ``h`` apart in every
coordinate: ``s`` would grow by ``a h sqrt(d)`` (at ``h = sigma / 256`` and ``d = 145`` by 0.047 ``a sigma`` a step).
What the dtype itself does to a state is the same kind of map, only finer, and is counted: let ``R`` round
``phi_t(x) + xi_t`` to floating point. Then ``|R(x) - R(y)| <= |x - y| + 2 u max(|x|, |y|)``, and the next map
``phi_{t+1} R`` has a ``s`` that is larger by that and by the rounding of ``phi_{t+1}`` itself, for models up to a norm
that is exceeded with the probability ``failure``; the last ``R`` reads ``x_T`` alone. Clips divide by an upper bound of
the norm. By the contraction route ``R`` enters a clip and changes no diameter.

**Conditions that are checked or made true**: radii, noise, step size and decay in range (``Schedule``); parameters of
one floating type, finite; a key that is given; gradients that are not finite count as zero; batches are drawn by rank
among remaining rows, and a forgotten row's entries are never read.

**Conditions that are yours**, since nothing here can see them: the schedule is fixed beforehand, without a look at the
rows that will be forgotten, and is the same in both worlds. The key is secret and used once. The loss reads the rows
that it is given and no others. **Everything of the model that has seen a row is in ``params``** (batch
statistics too, which are clipped and noised like the rest); center, initialisation, architecture, scaling of columns
and the number of rows are taken as public.

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
    guarantee,
    iteration_mu,
    noise_for,
)
from fmu_jax.noisy_finetuning.blocks import finetune_blocks, guarantee_of_blocks, noise_for_blocks
from fmu_jax.noisy_finetuning.convex import Rewound, langevin, rewind
from fmu_jax.noisy_finetuning.mixing import contraction_delta, contraction_epsilon
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
    "contraction_epsilon",
    "finetune",
    "finetune_blocks",
    "finetune_by",
    "finetune_by_all",
    "guarantee",
    "guarantee_of_blocks",
    "iteration_mu",
    "langevin",
    "noise_for",
    "noise_for_blocks",
    "rewind",
    "schedule_of",
]
