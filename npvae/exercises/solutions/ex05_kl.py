"""Exercise 5: The KL divergence, in closed form.

Of q(z|x) = N(mu, σ²) from the prior N(0, 1), and its derivative. The network gives
logvar = log σ², so σ² = exp(logvar). For each latent

    KL = −½ (1 + log σ² − mu² − σ²)

(the paper's Appendix B, notebook 4). It is 0 where q is the prior, and positive elsewhere.
"""

import numpy as np


def gaussian_kl(mu, logvar):
    """The KL of each image, in nats: summed over its latents.

    Parameters
    ----------
    mu, logvar : (B, J) arrays

    Returns
    -------
    (B,) array
    """
    return -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(axis=-1)


def gaussian_kl_gradient(mu, logvar):
    """The derivatives of `gaussian_kl` with respect to mu and logvar: two (B, J) arrays."""
    return mu.copy(), (np.exp(logvar) - 1) / 2
