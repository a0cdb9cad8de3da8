"""Exercise 10: Sample, reconstruct, interpolate.

Use the model: new images, images decoded again, and the way from one to another. See
notebook 8.
"""

import numpy as np

from ex04_bernoulli import sigmoid
from ex07_vae import decode, encode


def sample(p, count, rng):
    """New images: z from the prior N(0, 1), decoded; the probability of ink in each pixel.

    It calls `decode` once.

    Parameters
    ----------
    p : dict of arrays
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    (count, D) array, between 0 and 1
    """
    z = rng.standard_normal((count, p["W3"].shape[0]))
    _, logits = decode(p, z)
    return sigmoid(logits)


def reconstruct(p, x):
    """What is left of images after their way through z, which is the mean of q(z|x).

    Parameters
    ----------
    p : dict of arrays
    x : (B, D) array

    Returns
    -------
    (B, D) array, between 0 and 1
    """
    _, mu, _ = encode(p, x)
    _, logits = decode(p, mu)
    return sigmoid(logits)


def interpolate(p, first, last, steps):
    """From one image to another in equal steps along the line between their means mu.

    Parameters
    ----------
    p : dict of arrays
    first, last : (D,) arrays
    steps : int
        How many images, both ends included; at least 2.

    Returns
    -------
    (steps, D) array, between 0 and 1
    """
    _, mu, _ = encode(p, np.stack([first, last]))
    t = np.linspace(0, 1, steps)[:, None]
    _, logits = decode(p, (1 - t) * mu[0] + t * mu[1])
    return sigmoid(logits)
