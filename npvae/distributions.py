"""Bernoulli and diagonal Gaussian: densities and the KL divergence, each beside its derivative; the decoder's p(x|z).

Pure functions of (..., D) arrays; densities sum over the last axis. They hold for float32, float64 and complex128
alike, so that the code that trains is the code that the complex step checks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npvae.layers import sigmoid, softplus

LOG_2_PI = math.log(2 * math.pi)
LOGVAR_FLOOR = -2 * math.log(255)  # of a pixel: sigma is at least 1/255, one grey level


def bernoulli_log_density(x, logits):
    """log p(x) = Σ x log y + (1 − x) log(1 − y) with y = sigmoid(logits), computed from the logits (App. C.1, eq. 11).

    Parameters
    ----------
    x : (..., D) array in [0, 1]
        Pixels; a grey value counts as the mean of many binary draws.
    logits : (..., D) array

    Returns
    -------
    (...,) array, nats
    """
    # x log y + (1 − x) log(1 − y) = x a − log(1 + eᵃ), because log y = a − softplus(a) and log(1 − y) = −softplus(a)
    terms = x * logits
    terms -= softplus(logits)
    return terms.sum(axis=-1)


def bernoulli_log_density_gradient(x, logits):
    """d log p(x) / d logits = x − y, of the shape of `logits`, to which x (..., D) is broadcast."""
    y = sigmoid(logits)
    return np.subtract(x, y, out=y)


def gaussian_log_density(z, mu, logvar):
    """log N(z; mu, diag(exp(logvar))), nats (App. C.2, eq. 12).

    Parameters
    ----------
    z, mu, logvar : (..., J) arrays

    Returns
    -------
    (...,) array, nats
    """
    return -(LOG_2_PI + logvar + (z - mu) ** 2 * np.exp(-logvar)).sum(axis=-1) / 2


def gaussian_log_density_gradient(z, mu, logvar):
    """(d_z, d_mu, d_logvar) of `gaussian_log_density`, each (..., J); arguments as there."""
    precision = np.exp(-logvar)
    d_mu = (z - mu) * precision
    d_logvar = ((z - mu) ** 2 * precision - 1) / 2
    return -d_mu, d_mu, d_logvar


def standard_normal_log_density(z):
    """log N(z; 0, I), nats: (..., J) -> (...)."""
    return -(LOG_2_PI + z**2).sum(axis=-1) / 2


def gaussian_kl(mu, logvar):
    """KL(N(mu, σ²) ‖ N(0, I)) = −½ Σ (1 + log σ² − mu² − σ²) with σ² = exp(logvar) (Appendix B).

    Parameters
    ----------
    mu, logvar : (..., J) arrays

    Returns
    -------
    (...,) array, nats, never negative
    """
    # σ² − 1 as expm1(logvar): near the prior, where σ² is close to 1, the difference would lose its digits
    return (mu**2 + np.expm1(logvar) - logvar).sum(axis=-1) / 2


def gaussian_kl_gradient(mu, logvar):
    """(d_mu, d_logvar) of `gaussian_kl`, each (..., J): mu and (σ² − 1) / 2."""
    return mu.copy(), np.expm1(logvar) / 2


def gaussian_pixels(outputs):
    """(mean, logvar), each (..., D), of Gaussian pixels from a decoder's outputs (..., 2D) (App. C.2).

    The mean goes through a sigmoid, as the paper has it for the Frey faces; logvar = floor + softplus(output − floor)
    is the output itself where that is well above `LOGVAR_FLOOR`. Without a floor the density of a pixel that is always
    the same grows without bound.
    """
    mean, logvar = np.split(outputs, 2, axis=-1)
    return sigmoid(mean), LOGVAR_FLOOR + softplus(logvar - LOGVAR_FLOOR)


def gaussian_pixels_log_density(x, outputs):
    """log N(x; mean, diag(exp(logvar))), nats, of x (..., D) in [0, 1] for a decoder's outputs (..., 2D) (eq. 12)."""
    return gaussian_log_density(x, *gaussian_pixels(outputs))


def gaussian_pixels_log_density_gradient(x, outputs):
    """d log p(x) / d outputs, (..., 2D)."""
    mean, logvar = gaussian_pixels(outputs)
    _, d_mean, d_logvar = gaussian_log_density_gradient(x, mean, logvar)
    d_mean *= mean * (1 - mean)
    d_logvar *= sigmoid(outputs[..., mean.shape[-1] :] - LOGVAR_FLOOR)
    return np.concatenate([d_mean, d_logvar], axis=-1)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """p(x|z) as a function of the decoder's outputs, of which there are `outputs_per_pixel` times D."""

    outputs_per_pixel: int
    log_density: Callable  # (x, outputs) -> (...)
    log_density_gradient: Callable  # (x, outputs) -> of the shape of outputs
    mean: Callable  # outputs -> E[x|z], (..., D)


LIKELIHOODS = {
    "bernoulli": Likelihood(1, bernoulli_log_density, bernoulli_log_density_gradient, sigmoid),
    "gaussian": Likelihood(
        2,
        gaussian_pixels_log_density,
        gaussian_pixels_log_density_gradient,
        lambda outputs: gaussian_pixels(outputs)[0],
    ),
}
