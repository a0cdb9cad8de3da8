"""log p(x) from samples of the posterior (App. D), and by importance sampling, which the first can be checked against.

With any density q(z), the mean of q(z) / p(x, z) over the posterior is ∫ q(z) / p(x, z) · p(z|x) dz = 1 / p(x). So

    1. Hamiltonian Monte Carlo draws z from p(z|x), and q is fitted to them;
    2. it draws fresh z, and p(x) ≈ 1 / mean q(z) / p(x, z).

The nearer q is to the posterior, the less the terms of the mean differ. Here q is a Gaussian with a full covariance,
of its own for each x: latents that p(z|x) correlates are then no burden. The same q can be drawn from instead,

    3. p(x) ≈ mean p(x, z) / q(z),  z ~ q,

and errs the other way: in the mean the log of 2. is too large, that of 3. too small. Only for a few latents, says the
paper, and for fewer than 5. Of a posterior with several modes far apart a chain sees only one, and both are too small.
"""

import numpy as np
from hmc import FIRST_STEP_SIZE, log_joint, posterior_transition, tuned

from npvae.distributions import LOG_2_PI
from npvae.objectives import log_mean_exp

LEAPFROG_STEPS = 4
SAMPLES = 50  # to fit q, and as many fresh ones
BURN_IN = 100  # transitions in which the step size is tuned, and then no longer
CANDIDATES = 5000  # draws from the prior, of which one is each chain's start
LEAST_VARIANCE = 1e-6  # is added to that of q, so that a chain that never moved has a density, though a poor one


def log_likelihoods(vae, x, rng, samples=SAMPLES):
    """Two estimates of log p(x), (N,) float64 arrays of nats, of x (N, D): by step 2 and by step 3."""
    z = posterior_samples(vae, x, rng, 2 * samples)  # (2S, N, J)
    q = Gaussian(z[:samples])
    fresh, drawn = z[samples:], q.draw(samples, rng)  # (S, N, J), (S, N, J)
    by_posterior = -log_mean_exp(q.log_density(fresh) - log_joints(vae, x, fresh))
    return by_posterior, log_mean_exp(log_joints(vae, x, drawn) - q.log_density(drawn))


def posterior_samples(vae, x, rng, samples):
    """z ~ p(z|x), (S, N, J): of a chain for each x, after its burn-in."""
    z, step_size, kept = start(vae, x, rng), FIRST_STEP_SIZE, []
    for i in range(BURN_IN + samples):
        z, accepted = posterior_transition(vae, x, z, step_size, LEAPFROG_STEPS, rng)
        if i < BURN_IN:
            step_size = tuned(step_size, accepted)
        else:
            kept.append(z)
    return np.stack(kept)


def start(vae, x, rng):
    """For each x a z, (N, J), of many from p(z), with a probability in proportion to p(x|z): nearly from p(z|x).

    A chain that starts anywhere in p(z) does not find its way: modes lie apart, and most of them are of other digits.
    """
    z = rng.standard_normal((CANDIDATES, vae.latent), vae.precision)
    log_p_x = np.stack([vae.likelihood.log_density(x, outputs) for outputs in vae.decoder_outputs(z)])  # (K, N)
    return z[np.argmax(log_p_x + rng.gumbel(size=log_p_x.shape), axis=0)]  # the Gumbel-max trick


def log_joints(vae, x, z):
    """log p(x, z), (S, N), of z (S, N, J)."""
    return np.stack([log_joint(vae, x, each.astype(vae.precision)) for each in z]).astype(np.float64)


class Gaussian:
    """N(mean, L Lᵀ) for each example, with the mean and the covariance of samples z (S, N, J)."""

    def __init__(self, z):
        z = z.astype(np.float64)
        self.mean = z.mean(axis=0)  # (N, J)
        centred = (z - self.mean).transpose(1, 2, 0)  # (N, J, S)
        covariance = centred @ centred.swapaxes(1, 2) / (len(z) - 1)  # (N, J, J)
        self.L = np.linalg.cholesky(covariance + LEAST_VARIANCE * np.eye(z.shape[2]))

    def draw(self, samples, rng):
        """(samples, N, J)."""
        eps = rng.standard_normal((samples, *self.mean.shape))
        return self.mean + (self.L @ eps[..., None])[..., 0]

    def log_density(self, z):
        """(S, N) of z (S, N, J), which is mean + L eps."""
        eps = np.linalg.solve(self.L, (z - self.mean)[..., None])[..., 0]  # (S, N, J)
        log_determinant = np.log(np.diagonal(self.L, axis1=1, axis2=2)).sum(axis=1)  # (N,), of L
        return -(LOG_2_PI + eps**2).sum(axis=2) / 2 - log_determinant
