"""One-dimensional densities for the retrieval: a variational Gaussian mixture and a Gaussian kernel estimate.

Retrieval runs once per inspected image, on about a hundred similarities. scikit-learn's ``BayesianGaussianMixture``
gives the same model but takes longer than the backbone for it, mostly in per-call checks and k-means, and importing
it costs a cold start more than everything else in the retrieval. In one dimension the variational updates need only
the sums of 1, x and x² under the responsibilities, so all restarts advance together in two small matrix products.
The tests hold this module to scikit-learn (same bound, same parameters from the same responsibilities) and to
``scipy.stats.gaussian_kde``.

Source of the model: Blei & Jordan (2006), truncated stick-breaking; Bishop, Pattern Recognition and Machine
Learning (2006), section 10.2. ADSeeker (arXiv 2508.03088) uses a Bayesian Gaussian mixture on the similarities and
does not state its settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_EMPTY_MASS = 10.0 * float(np.finfo(np.float64).eps)  # keeps the mean of an empty component defined
_PATIENCE = 100.0  # a start that needs more such steps to catch up with the best one is not waited for
_SHIFT = np.arange(8.0)
_LOG_2 = math.log(2.0)
_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Mixture:
    """A fitted one-dimensional mixture of at most K Gaussians.

    Attributes:
        labels: (n,) most responsible component of each value; components that own no value do not appear.
        weights: (K,) expected share of each component, summing to 1.
        means: (K,) in the unit of the values.
        variances: (K,) in that unit squared.
        lower_bound: evidence lower bound of the best start, without its constant terms.
        n_iter: iterations run (all starts advance together).
        converged: whether the bound of the best start had stopped moving.
    """

    labels: NDArray[np.intp]
    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    lower_bound: float
    n_iter: int
    converged: bool


class _Posterior(NamedTuple):
    """Parameters of the variational posterior, each (K, R): components x starts.

    ``strength`` is three parameters at once: first stick parameter, precision of the mean and degrees of freedom all
    have the prior value 1 and grow with the component's mass.
    """

    strength: NDArray[np.float64]
    stick_b: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]  # inverse Wishart scale, one-dimensional


def gamma_functions(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-gamma and its derivative for positive arguments, to about 1e-12 (recurrence, then asymptotic series).

    Args:
        x: values above 0, any shape.

    Returns:
        log-gamma(x) and digamma(x), both of the shape of x.
    """
    steps = x + _SHIFT.reshape(-1, *([1] * x.ndim))
    shifted = x + float(_SHIFT.size)
    log_shifted, inverse = np.log(shifted), 1.0 / shifted
    square = inverse * inverse
    tail = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square * (1 / 1188)))))
    slope = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square * (1 / 132)))))
    log_gamma = (shifted - 0.5) * log_shifted - shifted + 0.5 * _LOG_2PI + tail - np.log(steps.prod(axis=0))
    return log_gamma, log_shifted - 0.5 * inverse - slope - (1.0 / steps).sum(axis=0)


def hard_starts(values: NDArray[np.float64], n_components: int) -> NDArray[np.float64]:
    """Three deterministic ways to begin: equal counts, equal widths and the widest gaps.

    Args:
        values: (n,) finite values, any order, not all equal.
        n_components: K, between 1 and n.

    Returns:
        (K, 3, n) responsibilities of 0 and 1. Components are numbered by falling size, because a stick-breaking
        prior expects the large ones first.
    """
    n = values.size
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.arange(n)
    span = ordered[-1] - ordered[0]
    by_count = ranks * n_components // n
    by_width = np.minimum((ordered - ordered[0]) / span * n_components, n_components - 1).astype(np.intp)
    gaps = np.argsort(-np.diff(ordered), kind="stable")[: n_components - 1]
    by_gap = np.searchsorted(np.sort(gaps), ranks, side="left")
    starts = np.zeros((n_components, 3, n))
    for start, bins in enumerate((by_count, by_width, by_gap)):
        by_size = np.argsort(-np.bincount(bins, minlength=n_components), kind="stable")
        component = np.argsort(by_size)[bins]
        starts[component, start, order] = 1.0
    return starts


def fit_mixture(
    values: NDArray[np.float64],
    starts: NDArray[np.float64],
    *,
    concentration: float = 0.1,
    reg_variance: float = 1e-4,
    max_iter: int = 100,
    tol: float = 1e-2,
    growth: float = 1.3,
) -> Mixture:
    """Fit a Dirichlet-process Gaussian mixture by variational inference and keep the start with the best bound.

    The prior has the form of scikit-learn's ``BayesianGaussianMixture``: the mean of the values with precision 1, a
    variance with one degree of freedom and stick breaks Beta(1, ``concentration``). Its variance is the sample
    variance over K² (Fraley & Raftery 2007): the whole sample variance, scikit-learn's default, cannot describe a
    group of five documents that is narrower than a third of the spread, and merges it with its neighbours.

    Args:
        values: (n,) finite values with n >= 2, not all equal.
        starts: (K, R, n) responsibilities of R starts, summing to 1 over K.
        concentration: prior of the stick breaks; small values empty superfluous components.
        reg_variance: added to each component's variance, in the unit of the values squared.
        max_iter: upper limit of iterations, at least 1.
        tol: a start has converged when its bound moves by less (nats over all values); the others are given up when
            a hundred more of their steps would not reach the best bound.
        growth: factor by which the update is lengthened while the bound keeps rising (adaptive over-relaxation,
            Salakhutdinov & Roweis 2003, which halves the iterations); 1 gives the textbook updates.

    Returns:
        The mixture of the start with the highest lower bound (the first one on a tie).
    """
    n_components, n_starts, n = starts.shape
    moments_of = np.stack([np.ones(n), values, values * values], axis=1)  # (n, 3)
    prior = (float(values.mean()), float(values.var(ddof=1)) / n_components**2, concentration, reg_variance)
    moments = (starts.reshape(-1, n) @ moments_of).reshape(n_components, n_starts, 3)
    target, _ = _evaluate(_maximise(moments, prior))
    quadratic, step = target, np.ones(n_starts)
    bound = np.full(n_starts, -np.inf)
    moved = np.full(n_starts, np.inf)
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        tried = quadratic + step[:, None] * (target - quadratic)
        resp, log_norm = _responsibilities(tried, moments_of)
        reached = (resp.reshape(-1, n) @ moments_of).reshape(n_components, n_starts, 3)
        next_target, posterior_terms = _evaluate(_maximise(reached, prior))
        tried_bound = log_norm.sum(axis=1) - (reached * tried).sum(axis=(0, 2)) + posterior_terms
        kept = (tried_bound >= bound) | (step <= 1.0)  # a step that was too long is taken back, and a plain one follows
        moved = np.where(kept, np.abs(tried_bound - bound), np.inf)
        bound = np.where(kept, tried_bound, bound)
        step = np.where(kept, step * growth, 1.0)
        quadratic = np.where(kept[:, None], tried, quadratic)
        target = np.where(kept[:, None], next_target, target)
        moments = np.where(kept[:, None], reached, moments)
        hopeful = bound + _PATIENCE * moved >= bound.max()
        if not bool((hopeful & (moved >= tol)).any()):
            break
    posterior = _maximise(moments, prior)
    resp, _ = _responsibilities(target, moments_of)
    best = int(np.argmax(bound))
    stick = posterior.strength / (posterior.strength + posterior.stick_b)
    left = np.concatenate([np.ones((1, n_starts)), np.cumprod(1.0 - stick, axis=0)[:-1]])
    weights = (stick * left)[:, best]
    return Mixture(
        labels=np.argmax(resp[:, best], axis=0),
        weights=weights / weights.sum(),
        means=posterior.mean[:, best],
        variances=(posterior.scale / posterior.strength)[:, best],
        lower_bound=float(bound[best]),
        n_iter=n_iter,
        converged=bool(moved[best] < tol),
    )


def _maximise(moments: NDArray[np.float64], prior: tuple[float, float, float, float]) -> _Posterior:
    """Posterior from the (K, R, 3) sums of 1, x and x² under the responsibilities (Bishop 10.58 to 10.63)."""
    mean_0, variance_0, concentration, reg_variance = prior
    mass = moments[..., 0] + _EMPTY_MASS
    centre = moments[..., 1] / mass
    spread = np.maximum(moments[..., 2] / mass - centre * centre, 0.0) + reg_variance
    later = mass[::-1].cumsum(axis=0)[::-1] - mass  # mass of the components after this one
    strength = mass + 1.0
    return _Posterior(
        strength=strength,
        stick_b=np.maximum(later, 0.0) + concentration,
        mean=(mean_0 + mass * centre) / strength,
        scale=variance_0 + mass * (spread + (centre - mean_0) ** 2 / strength),
    )


def _evaluate(posterior: _Posterior) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a posterior implies: the next responsibilities and its part of the lower bound.

    Returns:
        Coefficients (K, R, 3) of the expected log of weight times density, a quadratic in x (Bishop 10.46), and the
        terms (R,) of the bound that depend on the posterior (the entropy of the labels is added by the caller).
    """
    strength, stick_b, mean, scale = posterior
    (gamma_a, gamma_b, gamma_ab, gamma_dof), (psi_a, psi_b, psi_ab, psi_dof) = gamma_functions(
        np.array((strength, stick_b, strength + stick_b, 0.5 * strength))
    )
    log_weight = psi_a - psi_ab
    log_weight[1:] += (psi_b - psi_ab).cumsum(axis=0)[:-1]
    log_scale = np.log(scale)
    precision = strength / scale
    quadratic = np.empty((*strength.shape, 3))
    quadratic[..., 1] = precision * mean
    quadratic[..., 2] = -0.5 * precision
    quadratic[..., 0] = quadratic[..., 2] * mean * mean + log_weight
    quadratic[..., 0] += 0.5 * (psi_dof - log_scale + (_LOG_2 - _LOG_2PI) - 1.0 / strength)
    log_wishart = 0.5 * strength * (log_scale - _LOG_2) - gamma_dof
    terms = gamma_a + gamma_b - gamma_ab - log_wishart - 0.5 * np.log(strength)
    posterior_terms: NDArray[np.float64] = terms.sum(axis=0)
    return quadratic, posterior_terms


def _responsibilities(
    quadratic: NDArray[np.float64], moments_of: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Responsibilities (K, R, n) and their log normalisers (R, n)."""
    n_components, n_starts, _ = quadratic.shape
    logits = (quadratic.reshape(-1, 3) @ moments_of.T).reshape(n_components, n_starts, -1)
    top = logits.max(axis=0)
    resp = np.exp(logits - top)
    total = resp.sum(axis=0)
    resp /= total
    return resp, top + np.log(total)


def widest_gap_split(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Labels (n,) that cut the values in two at their widest gap: 0 above the gap, 1 below it."""
    ordered = np.sort(values)
    cut = int(np.argmax(np.diff(ordered)))
    labels: NDArray[np.intp] = (values <= ordered[cut]).astype(np.intp)
    return labels


def scott_density(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel density with Scott's bandwidth, evaluated at the values themselves.

    Args:
        values: (n,) finite values with n >= 2, not all equal.

    Returns:
        (n,) densities per unit of the values, as ``scipy.stats.gaussian_kde(values)(values)``.
    """
    n = values.size
    bandwidth = float(values.std(ddof=1)) * n**-0.2
    offsets = (values[:, None] - values[None, :]) / bandwidth
    density: NDArray[np.float64] = np.exp(-0.5 * offsets * offsets).sum(axis=1)
    density /= n * bandwidth * math.sqrt(2.0 * math.pi)
    return density
