"""Sparse coding as a torch layer: ISTA unrolled, so that the dictionary learns through the iterations.

The same problem, step and relative lambda as ``sparse_coding`` (ADSeeker, arXiv 2508.03088, equation 9, with the
gradient corrected); that module is the reference which the tests hold this one to. ``Lista`` lets every iteration learn
its own map and thresholds (Gregor and LeCun, 2010, in the form with the dictionary in the residual) and begins as ISTA.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

LIPSCHITZ_FLOOR = 1e-6


@contextmanager
def full_precision(like: torch.Tensor) -> Iterator[None]:
    """Autocast off on the device of ``like``: thresholds of half precision make supports flicker."""
    with torch.autocast(device_type=like.device.type, enabled=False):
        yield


def lipschitz(dictionary: torch.Tensor) -> torch.Tensor:
    """Largest eigenvalue of the Gram matrix of (K, d), a scalar without gradient, at least 1e-6.

    No gradient: it sets the length of the steps, not where they lead, and the derivative of the largest eigenvalue is
    undefined where two are equal.
    """
    atoms = dictionary.detach().double()
    return torch.linalg.eigvalsh(atoms @ atoms.T)[-1].clamp_min(LIPSCHITZ_FLOOR).to(dictionary.dtype)


def soft_threshold(values: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Shrink towards zero by ``limits`` and stop there."""
    return values.sign() * (values.abs() - limits).clamp_min(0.0)


class Ista(nn.Module):  # type: ignore[misc]
    """Codes of feature rows over a learnable dictionary by unrolled soft-thresholding.

    Parameters: ``dictionary`` (K, d), unit rows at the start and after each ``normalise_atoms``; buffer:
    ``rho``, a scalar.

    Args:
        dim: d, width of the rows.
        atoms: K.
        rho: relative lambda in [0, 1), the share of a row's largest correlation that every correlation loses. 0 makes
            the code dense, with the same parameters.
        train_steps: iterations in training mode; gradients flow through all of them.
        eval_steps: iterations in evaluation mode.
    """

    def __init__(
        self, dim: int, atoms: int = 64, *, rho: float = 0.1, train_steps: int = 8, eval_steps: int = 100
    ) -> None:
        super().__init__()
        if not 0 <= rho < 1:
            raise ValueError(f"rho must be in [0, 1), got {rho}")
        if min(dim, atoms, train_steps, eval_steps) < 1:
            raise ValueError("dim, atoms and steps must be at least 1")
        # kept with the weights, since a code means nothing without its lambda
        self.register_buffer("rho", torch.tensor(rho, dtype=torch.float64))
        self.train_steps = train_steps
        self.eval_steps = eval_steps
        self.dictionary = nn.Parameter(functional.normalize(torch.randn(atoms, dim), dim=1))

    def lambdas(self, queries: torch.Tensor) -> torch.Tensor:
        """The weight of the L1 term of each row, (B, 1) for queries (B, d)."""
        return self.rho * (queries @ self.dictionary.T).abs().amax(dim=1, keepdim=True)

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Codes (B, K) of queries (B, d), in the dictionary's precision whatever autocast says."""
        with full_precision(queries):
            rows = queries.to(self.dictionary.dtype)
            return self._solve(rows, self.train_steps if self.training else self.eval_steps)

    def _solve(self, rows: torch.Tensor, steps: int) -> torch.Tensor:
        step = 1.0 / lipschitz(self.dictionary)
        gram, correlations = self.dictionary @ self.dictionary.T, rows @ self.dictionary.T
        limits = step * self.lambdas(rows)
        codes = torch.zeros_like(correlations)
        for _ in range(steps):
            codes = soft_threshold(codes + step * (correlations - codes @ gram), limits)
        return codes

    def normalise_atoms(self) -> None:
        """Scale the atoms to unit length in place; call it after each optimiser step.

        Else growing atoms would buy smaller codes, and the price of a code would mean nothing.
        """
        with torch.no_grad():
            self.dictionary.copy_(functional.normalize(self.dictionary, dim=1))


class Lista(Ista):
    """ISTA with learnt iterations: as many in evaluation as in training, since each has its own weights.

    Iteration n is ``soft(P + (E_q - P E_l) W_n, theta_n * lambda)``; theta_n is kept positive by a softplus. At the
    start W_n is E_l^T / L and theta_n is 1 / L, which is ISTA to rounding.

    Parameters beside ``dictionary``: ``maps`` (steps, d, K), ``raw_thresholds`` (steps,).

    Args:
        dim: d, width of the rows.
        atoms: K.
        rho: relative lambda in [0, 1).
        steps: iterations, in training and in evaluation.
    """

    def __init__(self, dim: int, atoms: int = 64, *, rho: float = 0.1, steps: int = 8) -> None:
        super().__init__(dim, atoms, rho=rho, train_steps=steps, eval_steps=steps)
        self.maps = nn.Parameter(torch.empty(steps, dim, atoms))
        self.raw_thresholds = nn.Parameter(torch.empty(steps))
        self.reset_to_ista()

    def reset_to_ista(self) -> None:
        """Make every iteration a step of ISTA for the present dictionary."""
        with torch.no_grad():
            step = 1.0 / lipschitz(self.dictionary)
            self.maps.copy_((step * self.dictionary.T).expand_as(self.maps))
            self.raw_thresholds.fill_(_inverse_softplus(float(step)))

    def _solve(self, rows: torch.Tensor, steps: int) -> torch.Tensor:
        lambdas = self.lambdas(rows)
        codes = rows.new_zeros(len(rows), len(self.dictionary))
        for step_map, threshold in zip(self.maps, functional.softplus(self.raw_thresholds), strict=True):
            residual = rows - codes @ self.dictionary
            codes = soft_threshold(codes + residual @ step_map, threshold * lambdas)
        return codes


def _inverse_softplus(value: float) -> float:
    return value if value > 30 else math.log(math.expm1(value))
