"""Exercise 4: The Bernoulli log-likelihood, from logits.

How probable a decoder finds an image, log p(x|z), and the derivative. The decoder gives a logit
a for each pixel: the probability of ink is y = sigmoid(a) = 1 / (1 + e⁻ᵃ). For one pixel

    log p = x log y + (1 − x) log(1 − y) = x a − softplus(a)   with softplus(a) = log(1 + eᵃ).

Logits can be large, such as ±1000, and nothing may become inf or nan then. See notebook 4 and
the paper, Appendix C.1.
"""

import numpy as np


def softplus(a):
    """log(1 + eᵃ) of each element; for large a it is a itself, never inf."""
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def sigmoid(a):
    """1 / (1 + e⁻ᵃ) of each element; for large a it is 1, for large −a it is 0, never nan."""
    return (1 + np.tanh(a / 2)) / 2


def bernoulli_log_density(x, logits):
    """log p(x) of each image, in nats: summed over its pixels (the paper's eq. 11).

    Parameters
    ----------
    x : (B, D) array
        Pixels in [0, 1].
    logits : (B, D) array, or (L, B, D)
        For one draw of z, or for each of L draws.

    Returns
    -------
    (B,) array, or (L, B)
    """
    return (x * logits - softplus(logits)).sum(axis=-1)


def bernoulli_log_density_gradient(x, logits):
    """d log p(x) / d logits, of the shape of logits; the arguments are those above."""
    return x - sigmoid(logits)
