"""Monte Carlo EM, the rival of AEVB in Figure 3 (App. E): no encoder, but a chain of z for each training example.

An iteration moves each chain by a proposal of Hamiltonian Monte Carlo with 10 leapfrog steps, towards p(z|x) of the
decoder as it is, and then the decoder by 5 steps along the gradient of −log p(x, z) of the whole training set. So all
of it has to be gone through before the decoder moves at all: there is no online version, which is the paper's point.

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


def chains(race):
    """What Monte Carlo EM adds to the state of a race: a chain for each example, from p(z), and their step size."""
    z = race.rng.standard_normal((len(race.images), race.vae.latent), np.float32)
    return {"z": z, "step_size": np.array(FIRST_STEP_SIZE)}


def mcem(race):
    """An iteration: all chains, then the decoder; returns how often an example was evaluated."""
    z, step_size = race.arrays["z"], race.arrays["step_size"]
    accepted = np.empty(len(z), bool)  # (N,)
    for rows, x in blocks(race.images):
        z[rows], accepted[rows] = posterior_transition(race.vae, x, z[rows], step_size.item(), LEAPFROG_STEPS, race.rng)
    step_size[...] = tuned(step_size.item(), accepted)
    for _ in range(UPDATES):
        learn(race.vae, race.images, z)
        race.descend()
    return EVALUATIONS * len(z)


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
