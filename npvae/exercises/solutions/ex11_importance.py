"""Exercise 11: Importance weights, and log p(x).

With K draws from q(z|x) and the weights w = p(x|z) p(z) / q(z|x), the mean of the weights is an
estimate of p(x). The weights are of the size e⁻¹⁰⁰: only their logarithms can be computed with.
See notebook 9, and Burda et al. 2016.
"""

import numpy as np

from ex04_bernoulli import bernoulli_log_density
from ex06_reparameterize import reparameterize
from ex07_vae import decode, encode


def log_mean_exp(a):
    """log(1/K Σₖ exp(aₖ)) over the first axis: (K, B) -> (B,); also for elements of −1000."""
    highest = a.max(axis=0)
    return highest + np.log(np.exp(a - highest).mean(axis=0))


def normalized_weights(log_w):
    """w / Σₖ w over the first axis, from log w: (K, B) -> (K, B), each column of sum 1."""
    w = np.exp(log_w - log_w.max(axis=0))
    return w / w.sum(axis=0)


def log_weights(log_p_x, z, mu, logvar):
    """log w = log p(x|z) + log p(z) − log q(z|x).

    Parameters
    ----------
    log_p_x : (K, B) array
        log p(x|z) of every draw.
    z : (K, B, J) array
    mu, logvar : (B, J) arrays
        q(z|x) is N(mu, exp(logvar)), p(z) is N(0, 1).

    Returns
    -------
    (K, B) array
    """
    log_p_z = -0.5 * (np.log(2 * np.pi) + z**2).sum(axis=-1)
    log_q_z = -0.5 * (np.log(2 * np.pi) + logvar + (z - mu) ** 2 / np.exp(logvar)).sum(axis=-1)
    return log_p_x + log_p_z - log_q_z


def log_likelihood(p, x, eps):
    """An estimate of log p(x) of each image, in nats: the log of the mean weight.

    Parameters
    ----------
    p : dict of arrays
    x : (B, D) array
    eps : (K, B, J) array
        Standard normal noise.

    Returns
    -------
    (B,) array
    """
    (K, B, J), D = eps.shape, x.shape[1]
    _, mu, logvar = encode(p, x)
    z = reparameterize(mu, logvar, eps)
    _, logits = decode(p, z.reshape(K * B, J))
    log_p_x = bernoulli_log_density(x, logits.reshape(K, B, D))
    return log_mean_exp(log_weights(log_p_x, z, mu, logvar))
