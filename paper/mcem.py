"""Monte Carlo EM, the rival of AEVB in Figure 3 (App. E): no encoder, but a chain of z for each training example.

An iteration moves each chain by a proposal of Hamiltonian Monte Carlo with 10 leapfrog steps, towards p(z|x) of the
decoder as it is, and then the decoder by 5 steps along the gradient of −log p(x, z) of the whole training set. So all
of it is gone through before the decoder moves at all: this is no online method, as AEVB is.

How many "training samples evaluated" an iteration counts, the paper does not say, but its figure does: the published
curves begin at 13 and 27 (N = 1,000), 39 and 43 (N = 50,000) times 15 N. So each of the 10 leapfrog steps and of the 5
updates counts every example, and the 6·10⁷ of the figure are 80 iterations, 400 updates, for N = 50,000.
"""

import numpy as np
from hmc import FIRST_STEP_SIZE, posterior_transition, tuned

from npvae.data.pixels import batch

LEAPFROG_STEPS = 10
UPDATES = 5
EVALUATIONS = LEAPFROG_STEPS + UPDATES  # of each example in an iteration
BLOCK = 500  # examples at once: what is computed of them stays in the cache


def chains(count, latent, rng):
    """What there is beside the decoder: a chain for each example, z (N, J) from p(z), and their step size."""
    return {"z": rng.standard_normal((count, latent), np.float32), "step_size": np.array(FIRST_STEP_SIZE)}


def move(vae, images, z, step_size, rng):
    """Move the chains z (N, J) of images (N, D) by one proposal each, and tune their step size, an array: in place."""
    accepted = np.empty(len(z), bool)  # (N,)
    for rows, x in blocks(images):
        z[rows], accepted[rows] = posterior_transition(vae, x, z[rows], step_size.item(), LEAPFROG_STEPS, rng)
    step_size[...] = tuned(step_size.item(), accepted)


def learn(vae, images, z):
    """Write the derivative of −log p(x, z), averaged over the images (N, D), into the decoder's part of the gradient.

    The encoder's part is to be zero, and stays so.
    """
    total = np.zeros_like(vae.parameters.gradient)  # (P,)
    for rows, x in blocks(images):
        d_outputs = vae.likelihood.log_density_gradient(x, vae.decoder_outputs(z[rows]))
        d_outputs /= -len(images)
        vae.decoder_backward(d_outputs)
        total += vae.parameters.gradient
    vae.parameters.gradient[...] = total


def blocks(images):
    """(rows, x) of images (N, D), block by block."""
    for first in range(0, len(images), BLOCK):
        rows = slice(first, first + BLOCK)
        yield rows, batch(images, rows)
