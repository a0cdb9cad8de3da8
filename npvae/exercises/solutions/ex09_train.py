"""Exercise 9: The training loop.

Algorithm 1 of the paper: minibatches, fresh noise for each, a step of the optimizer. See
notebook 7.
"""

import numpy as np

from ex01_idx import scale
from ex07_vae import backward, forward
from ex08_adam import adam_step


def initialize(pixels, hidden, latent, rng):
    """Parameters to begin with: of a layer with I inputs, W and b uniform within ±1/√I.

    Parameters
    ----------
    pixels, hidden, latent : int
        D, H and J.
    rng : numpy.random.Generator

    Returns
    -------
    dict of float32 arrays
        W1 (D, H), b1 (H,), W2 (H, 2J), b2 (2J,), W3 (J, H), b3 (H,), W4 (H, D), b4 (D,).
    """
    encoder = {"1": (pixels, hidden), "2": (hidden, 2 * latent)}
    decoder = {"3": (latent, hidden), "4": (hidden, pixels)}
    p = {}
    for layer, (inputs, outputs) in (encoder | decoder).items():
        bound = 1 / np.sqrt(inputs)
        p["W" + layer] = rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
        p["b" + layer] = rng.uniform(-bound, bound, outputs).astype(np.float32)
    return p


def train_epoch(p, moments, t, images, batch_size, rng, learning_rate=1e-3):
    """Show every image once, in an order drawn anew, and step after each batch.

    It calls `forward` and `backward` once for each batch, and `adam_step` for each array of p.

    Parameters
    ----------
    p : dict of arrays
        The parameters; the dict is to hold the new ones afterwards.
    moments : dict of (m, v)
        Adam's moments of each array of p; to hold the new ones afterwards.
    t : int
        How many steps were made before.
    images : (N, D) uint8 array
        The last batch is smaller where `batch_size` does not divide N.
    batch_size : int
    rng : numpy.random.Generator
        Draws the order, and for each batch standard normal noise eps (1, B, J), float32.
    learning_rate : float

    Returns
    -------
    loss : float
        The mean over all images of the loss when they were shown, in nats.
    t : int
        How many steps have been made now.
    """
    total, J = 0.0, p["W3"].shape[0]
    order = rng.permutation(len(images))
    for start in range(0, len(images), batch_size):
        x = scale(images[order[start : start + batch_size]])
        eps = rng.standard_normal((1, len(x), J), np.float32)
        loss, values = forward(p, x, eps)
        d = backward(p, values)
        t += 1
        for name in p:
            m, v = moments[name]
            p[name], m, v = adam_step(p[name], d[name], m, v, t, learning_rate)
            moments[name] = m, v
        total += loss * len(x)
    return total / len(images), t
