"""What a VAE is trained on: bounds of −log p(x), from above, each beside its derivative.

All of them are functions of the same arrays, so that they share one pass through encoder and decoder:

    log_p_x (L, B)      log p(x|z) of every sample         mu, logvar (B, J)   of q(z|x)
    z       (L, B, J)   mu + sigma ⊙ eps                   beta                weight of the KL term; a bound has 1

With log w = log p(x|z) + β (log p(z) − log q(z|x)), whose exponential at β = 1 is an importance weight, and with means
over the L samples, they are

    elbo           −mean log p(x|z) + β KL(q(z|x) ‖ p(z))   Kingma & Welling 2014, eq. 10 (estimator B, eq. 7)
    sampled-elbo   −mean log w                               Kingma & Welling 2014, eq. 6 (estimator A)
    iwae           −log mean w                               Burda et al. 2016, arXiv 1509.00519

A loss is (B,), nats. A gradient returns d_z (L, B, J), d_mu and d_logvar (B, J): the derivatives of the batch's mean
loss with z, mu and logvar taken as independent of each other; how z depends on the others is the business of
`npvae.vae.reparameterize_gradient`. What the decoder contributes to d_z comes from `decoder_backward`, a function that
takes d_log_p_x (L, B), writes the derivatives of the decoder's parameters, and returns the decoder's part of d_z.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npvae.distributions import (
    gaussian_kl,
    gaussian_kl_gradient,
    gaussian_log_density,
    gaussian_log_density_gradient,
    standard_normal_log_density,
)


def log_weights(log_p_x, z, mu, logvar, beta=1.0):
    """log w = log p(x|z) + β (log p(z) − log q(z|x)), (L, B)."""
    return log_p_x + beta * (standard_normal_log_density(z) - gaussian_log_density(z, mu, logvar))


def log_weights_gradient(d_log_w, z, mu, logvar, beta, decoder_backward):
    """(d_z, d_mu, d_logvar) from d_log_w (L, B)."""
    q_d_z, q_d_mu, q_d_logvar = gaussian_log_density_gradient(z, mu, logvar)  # of log q(z|x)
    d_log_ratio = beta * d_log_w[..., None]  # (L, B, 1)
    d_z = decoder_backward(d_log_w) + d_log_ratio * (-z - q_d_z)  # d log p(z) / dz = −z
    return d_z, -(d_log_ratio * q_d_mu).sum(axis=0), -(d_log_ratio * q_d_logvar).sum(axis=0)


def log_mean_exp(a):
    """log mean exp over the first axis: (K, ...) -> (...). The maximum is taken out, so that nothing overflows."""
    highest = a.max(axis=0)
    return highest + np.log(np.exp(a - highest).mean(axis=0))


def normalized_weights(log_w):
    """w / Σ w over the first axis, (K, B): the derivative of log mean w with respect to log w."""
    w = np.exp(log_w - log_w.max(axis=0))
    return w / w.sum(axis=0)


def elbo(log_p_x, z, mu, logvar, beta=1.0):
    """−mean log p(x|z) + β KL(q(z|x) ‖ p(z)): eq. 10."""
    return -log_p_x.mean(axis=0) + beta * gaussian_kl(mu, logvar)


def elbo_gradient(log_p_x, z, mu, logvar, beta, decoder_backward):
    """Gradient of `elbo`: the KL reaches mu and logvar without passing z."""
    d_z = decoder_backward(np.full_like(log_p_x, -1 / log_p_x.size))
    d_mu, d_logvar = gaussian_kl_gradient(mu, logvar)
    return d_z, beta * d_mu / len(mu), beta * d_logvar / len(mu)


def sampled_elbo(log_p_x, z, mu, logvar, beta=1.0):
    """−mean log w: eq. 6."""
    return -log_weights(log_p_x, z, mu, logvar, beta).mean(axis=0)


def sampled_elbo_gradient(log_p_x, z, mu, logvar, beta, decoder_backward):
    """Gradient of `sampled_elbo`: every sample counts alike."""
    return log_weights_gradient(np.full_like(log_p_x, -1 / log_p_x.size), z, mu, logvar, beta, decoder_backward)


def iwae(log_p_x, z, mu, logvar, beta=1.0):
    """−log mean w: Burda et al. 2016."""
    return -log_mean_exp(log_weights(log_p_x, z, mu, logvar, beta))


def iwae_gradient(log_p_x, z, mu, logvar, beta, decoder_backward):
    """Gradient of `iwae`: every sample counts by its normalized weight."""
    w = normalized_weights(log_weights(log_p_x, z, mu, logvar, beta))  # (L, B)
    return log_weights_gradient(-w / len(mu), z, mu, logvar, beta, decoder_backward)


def stl_gradient(log_p_x, z, mu, logvar, beta, decoder_backward):
    """Gradient of `sampled_elbo` along the path through z only: "sticking the landing" (Roeder et al. 2017).

    What is left out, d log q(z|x) / d(mu, logvar) at a given z, is the score, whose mean over z ~ q(z|x) is zero. The
    gradient stays unbiased; where q(z|x) is the true posterior and β = 1, the encoder's part of it has no variance.
    See arXiv 1703.09194.
    """
    d_z, d_mu, d_logvar = sampled_elbo_gradient(log_p_x, z, mu, logvar, beta, decoder_backward)
    return d_z, np.zeros_like(d_mu), np.zeros_like(d_logvar)


def iwae_dreg_gradient(log_p_x, z, mu, logvar, beta, decoder_backward):
    """Gradient of `iwae`, doubly reparameterized for the encoder (Tucker et al. 2018, arXiv 1810.04152).

    In `iwae` the score is weighted by w̃ = w / Σ w, which depends on z. Its mean is then not zero, but that of
    (dw̃/dz)(dz/d(mu, logvar)) with dw̃/dz = w̃ (1 − w̃) d log w / dz. Subtracted, times β, from the path's own
    w̃ d log w / dz this leaves w̃ (1 − β + β w̃) d log w / dz: at β = 1 Tucker's w̃². The decoder's parameters keep w̃.
    """
    w = normalized_weights(log_weights(log_p_x, z, mu, logvar, beta))  # (L, B)
    d_z, d_mu, d_logvar = log_weights_gradient(-w / len(mu), z, mu, logvar, beta, decoder_backward)
    d_z *= (1 - beta + beta * w)[..., None]
    return d_z, np.zeros_like(d_mu), np.zeros_like(d_logvar)


@dataclass(frozen=True)
class Objective:
    """A loss and its gradient; see the module's docstring for what both are given and return."""

    loss: Callable
    gradient: Callable

    @property
    def importance_weighted(self):
        """Whether the loss is −log mean w, a bound that gets tighter with more samples."""
        return self.loss is iwae


OBJECTIVES = {
    "elbo": Objective(elbo, elbo_gradient),
    "sampled-elbo": Objective(sampled_elbo, sampled_elbo_gradient),
    "stl": Objective(sampled_elbo, stl_gradient),
    "iwae": Objective(iwae, iwae_gradient),
    "iwae-dreg": Objective(iwae, iwae_dreg_gradient),
}
