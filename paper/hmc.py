"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011, arXiv 1206.1901), for many chains at once: App. D and E.

A chain's state z (J,) is given a momentum r ~ N(0, I), and the two move as a particle in the potential −log p(z) does,

    dz/dt = r,    dr/dt = d log p(z) / dz,

which leaves the energy H = −log p(z) + ½ r² as it is, and with it the density exp(−H) = p(z) exp(−½ r²). Leapfrog steps
follow that motion but for an error of H of the order of the step size squared; a Metropolis step makes up for it. Rows
of z (N, J) are chains of their own. Any positive multiple of p will do: for the posterior p(z|x) it is p(x, z).
"""

import numpy as np

from npvae.distributions import standard_normal_log_density
from npvae.layers import Dense

JITTER = 0.5  # share by which a proposal's step size may differ: with the same, some motions end where they began
FIRST_STEP_SIZE = 0.01  # this one, and the next three: as in the authors' code
ACCEPTED = 0.9  # the share of proposals that the step size is tuned to
TUNING = 1.02  # the step size grows or shrinks by this factor for each proposal,
COUNTED = 11  # of which not more count in one transition; all chains share a step size, and 1.02^N would make it leap


def leapfrog(gradient, z, r, step_size, steps):
    """(z, r) after so many leapfrog steps; they leave volumes as they are, and lead back from (z, −r).

    Parameters
    ----------
    gradient : callable
        z (N, J) -> d log p(z) / dz (N, J).
    z, r : (N, J) arrays
    step_size : float or (N, 1) array
    steps : int

    Returns
    -------
    z, r : (N, J) arrays
    """
    d_z = gradient(z)
    for _ in range(steps):
        r = r + step_size / 2 * d_z
        z = z + step_size * r
        d_z = gradient(z)  # for the second half of this step and the first half of the next
        r = r + step_size / 2 * d_z
    return z, r


def energy(log_p, z, r):
    """H = −log p(z) + ½ r², (N,)."""
    return -log_p(z) + (r**2).sum(axis=1) / 2


def acceptance(log_p, z, r, new_z, new_r):
    """The probability min(1, exp(H − new H)), (N,), with which a proposal is accepted (Metropolis et al. 1953)."""
    return np.exp(np.minimum(energy(log_p, z, r) - energy(log_p, new_z, new_r), 0))


def transition(log_p, gradient, z, step_size, steps, rng):
    """One proposal for each chain: (z (N, J), accepted (N,)); a chain whose proposal is rejected stays where it is.

    `log_p` is a function z (N, J) -> (N,), and the others are those of `leapfrog`. Each chain's step size is drawn anew
    within `JITTER` of the given one, without regard to z (Neal 2011, section 3.2).
    """
    r = rng.standard_normal(z.shape, z.dtype)
    own = step_size * rng.uniform(1 - JITTER, 1 + JITTER, (len(z), 1)).astype(z.dtype)  # (N, 1)
    new_z, new_r = leapfrog(gradient, z, r, own, steps)
    accepted = rng.random(len(z)) < acceptance(log_p, z, r, new_z, new_r)
    return np.where(accepted[:, None], new_z, z), accepted


def tuned(step_size, accepted):
    """The step size after a transition: larger if more than 90 % of the proposals were accepted, else smaller."""
    factor = TUNING ** min(len(accepted), COUNTED)
    return step_size * factor if accepted.mean() > ACCEPTED else step_size / factor


def log_joint(vae, x, z):
    """log p(x, z) = log p(x|z) + log p(z), (N,), of x (N, D) and z (N, J)."""
    return vae.likelihood.log_density(x, vae.decoder_outputs(z)) + standard_normal_log_density(z)


def log_joint_gradient(vae, x, z):
    """d log p(x, z) / dz, (N, J): back through the decoder, past its weights, whose derivatives are not computed."""
    d = vae.likelihood.log_density_gradient(x, vae.decoder_outputs(z))
    for layer in reversed(vae.decoder.layers):
        d = d @ layer.W.T if isinstance(layer, Dense) else layer.backward(d)
    return d - z


def posterior_transition(vae, x, z, step_size, steps, rng):
    """A `transition` of one chain z for each x, whose density is p(z|x) ∝ p(x, z)."""
    return transition(lambda z: log_joint(vae, x, z), lambda z: log_joint_gradient(vae, x, z), z, step_size, steps, rng)
