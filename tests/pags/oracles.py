"""Slow float64 NumPy oracles for attacks, losses and input gradients: a softplus network differentiated by hand.

The network: f(x) = softplus(x W + b) V + c, on images (n, d); params = (W, b, V, c), of shapes (d, h), (h,), (h, k),
(k,). Everything is analytic, so that derivatives by a complex step are exact to rounding.
"""

import numpy as np


def draw_params(seed, pixels, hidden=6, classes=3, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = ((pixels, hidden), (hidden,), (hidden, classes), (classes,))
    return tuple(scale * rng.normal(size=shape) for shape in shapes)


def logits(params, x):
    w, b, v, c = params
    return np.log1p(np.exp(x @ w + b)) @ v + c


def cross_entropies(f, y):
    """l_i = log sum_k exp(f_ik) - f_i,y_i."""
    return np.log(np.sum(np.exp(f), axis=1)) - f[np.arange(len(y)), y]


def input_gradients(params, x, y):
    """d l_i / d x_i = W (sigmoid(x_i W + b) * V (p_i - e_y)), by hand."""
    w, b, v, _ = params
    f = logits(params, x)
    p = np.exp(f) / np.sum(np.exp(f), axis=1, keepdims=True)
    return ((p - np.eye(f.shape[1])[y]) @ v.T / (1 + np.exp(-(x @ w + b)))) @ w.T


def penalised(params, x, y, strength):
    """mean_i l_i + strength mean_i |d l_i / d x_i|^2."""
    squares = np.sum(input_gradients(params, x, y) ** 2, axis=1)
    return np.mean(cross_entropies(logits(params, x), y)) + strength * np.mean(squares)


def complex_step(function, arrays, step=1e-30):
    """The gradient of an analytic function of a tuple of arrays: Im F(a + i h e_j) / h, without cancellation."""
    gradients = []
    for place, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            moved = [other.astype(complex) for other in arrays]
            moved[place][index] += 1j * step
            gradient[index] = function(tuple(moved)).imag / step
        gradients.append(gradient)
    return tuple(gradients)


def central_differences(function, x, step=1e-4):
    """The gradient of one number by ``x``: central differences of two widths, extrapolated to an O(step^4) error.

    ``function`` is called once, with all points that are needed ``(points, *x.shape)``, and gives a number for each.
    """
    one = np.eye(x.size).reshape(-1, *x.shape)
    moves = np.concatenate([h * sign * one for h in (step / 2, step) for sign in (1, -1)])
    near_up, near_down, far_up, far_down = np.asarray(function(x + moves)).reshape(4, *x.shape)
    return (4 * (near_up - near_down) / step - (far_up - far_down) / (2 * step)) / 3


def batch_pgd(params, x, y, start, eps, steps):
    """The attack of the paper's code: steps of 2 eps / steps along the gradient of the batch's mean loss.

    Gradient and perturbation are measured by the Euclidean norm of the whole batch.
    """
    delta = start.copy()
    for _ in range(steps):
        gradient = input_gradients(params, x + delta, y) / len(y)
        delta = delta + 2 * eps / steps * gradient / np.sqrt(np.sum(gradient**2))
        norm = np.sqrt(np.sum(delta**2))
        if norm > eps:
            delta = delta * eps / norm
    return delta


def example_pgd(params, x, y, start, eps, steps):
    """L2 PGD with a ball for each example, one example at a time; a zero gradient moves nothing."""
    rows = [batch_pgd(params, x[i : i + 1], y[i : i + 1], start[i : i + 1], eps, steps) for i in range(len(y))]
    return np.concatenate(rows)
