"""NLEEP: LEEP for networks without a classifier, through a Gaussian mixture of their features."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from leap.metrics.labelled import labelled
from leap.metrics.leep import leep
from leap.metrics.principal import principal_coordinates

if TYPE_CHECKING:
    import numpy as np

MixtureCovariance = Literal["diagonal", "full"]

PER_CLASS = 5  # components of the mixture, as in the paper
SAMPLES_EACH = 5  # that a component has on average at least; with fewer it follows single samples
STEPS = 200  # of expectation maximization; a mixture that is still moving then is used as it is
FLOOR = 1e-6  # of variances, as a share of the largest


def nleep(
    features: Any,
    labels: Any,
    *,
    generator: torch.Generator,
    components: int | None = None,
    energy: float = 0.8,
    covariance: MixtureCovariance = "diagonal",
) -> Tensor:
    r"""LEEP with the posteriors of a Gaussian mixture in place of a source's softmax.

    .. math:: \frac1m \sum_i \log \sum_v \hat P(y_i \mid v)\, P(v \mid s_i), \qquad
              P(v \mid s) \propto \pi_v \mathcal N(s; \mu_v, \Sigma_v)

    with s the principal coordinates of the features that hold the given share of their variance.

    Args:
        features: Of any layer, [m, k].
        labels: Target classes, [m], whole numbers from 0 on.
        generator: Draws the seed of the mixture's start. One seed moves the score by a few hundredths of a nat: report
            a mean over several, or hold the generator the same for all sources that are compared.
        components: Of the mixture, 1 to m. None: 5 a class, and fewer for few samples, such that a component has 5 of
            them on average; below 10 samples that is a single one, whose score is -H(Y), nothing known.
        energy: Share of the variance that the principal coordinates keep, in (0, 1].
        covariance: Of a component: `diagonal`, or `full`, which is what most public code fits.

    Returns:
        A scalar in [-H(Y), 0], float64, in nats; larger is better. Across targets compare `nleep + label_entropy`.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: as `leap.metrics.labelled.labelled`; components or energy out of range, an unknown covariance.

    Example:
        >>> from leap.randomness import generator
        >>> rings = torch.arange(4).repeat_interleave(20)
        >>> angle = torch.linspace(0, 6, 80)
        >>> features = torch.stack([9.0 * rings + angle.cos(), angle.sin()], dim=1)     # four far groups
        >>> bool(nleep(features, rings // 2, generator=generator(0)) > -1e-6)           # two in each class
        True

    Reference: Li et al. 2021, https://arxiv.org/abs/2011.11200.

    Variant: the paper's score with its 80% of energy and 5 components a class. Differences, each where the paper leaves
    a choice or public code goes another way:

    - The logarithm is kept; two public repositories drop it and report a mean probability in (0, 1].
    - Components have diagonal covariance by default: 2 p parameters each where a full one has p (p + 3) / 2, more
      numbers than a component has samples, whose posteriors then repeat single samples. And an iteration costs
      O(m p) a component in place of O(m p^2).
    - Variances are kept above 1e-6 of the largest variance of the coordinates. The library's absolute 1e-6 is nothing
      for features of size 100 and all there is for features of size 0.001; this score does not know the scale.
    - The number of components falls with few samples. A hard mixture of K components gains about
      (C - 1)(K - 1) / (2 m) nats on random labels, which 5 samples a component hold to about (C - 1) / 10.

    Cost: O(m k^2) for the coordinates, then O(m p K) an iteration for K components in p dimensions: with 5 a class that
    grows with the number of classes. Nothing is quadratic in m. The mixture runs on the CPU.
    """
    held = labelled(features, labels)
    count = _components(components, len(held.labels), held.classes)
    if covariance not in ("diagonal", "full"):
        raise ValueError(f"covariance must be 'diagonal' or 'full', got {covariance!r}")
    coordinates = principal_coordinates(held.features, energy=energy)
    coordinates = coordinates / coordinates.abs().max()  # squares could overflow
    coordinates = coordinates / coordinates.square().mean(0).max().sqrt()
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    posterior = _posteriors(coordinates.cpu().numpy(), count, covariance, seed)
    return leep(torch.from_numpy(posterior).to(held.features.device), held.labels)


def _components(components: int | None, samples: int, classes: int) -> int:
    if components is None:
        return max(1, min(PER_CLASS * classes, samples // SAMPLES_EACH))
    if not 1 <= components <= samples:
        raise ValueError(f"components must lie in 1 .. {samples}, the number of samples, got {components}")
    return components


def _posteriors(coordinates: np.ndarray, components: int, covariance: MixtureCovariance, seed: int) -> np.ndarray:
    """Probabilities [m, K] of the components, given each sample, after the mixture was fitted to all of them."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        components,
        covariance_type="full" if covariance == "full" else "diag",
        reg_covar=FLOOR,
        max_iter=STEPS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Of a start with fewer distinct samples than components, and of a last step: both leave a proper posterior.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(coordinates)
    posterior: np.ndarray = mixture.predict_proba(coordinates)
    return posterior
