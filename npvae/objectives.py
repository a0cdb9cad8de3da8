"""What a VAE is trained on: bounds of −log p(x), from above, and the way that the gradient of each takes.

All of them are functions of the same arrays, so that they share one pass through encoder and decoder:

    log_p_x (L, B)      log p(x|z) of every sample         mu, logvar (B, J)   of q(z|x)
    z       (L, B, J)   mu + sigma ⊙ eps                   beta                weight of the KL term; a bound has 1

With log w = log p(x|z) + β (log p(z) − log q(z|x)), whose exponential at β = 1 is an importance weight, and with means
over the L samples, the losses, (B,) in nats, are

    elbo_loss           −mean log p(x|z) + β KL(q(z|x) ‖ p(z))   Kingma & Welling 2014, eq. 10 (estimator B, eq. 7)
    sampled_elbo_loss   −mean log w                               Kingma & Welling 2014, eq. 6 (estimator A)
    iwae_loss           −log mean w                               Burda et al. 2016, arXiv 1509.00519

The gradient of the batch's mean loss comes back from the decoder in two steps. `d_log_p_x`, (L, B), says how the
samples are weighted: all alike, or each by its share of the importance weight. The decoder makes d_z, (L, B, J), of it.
A road takes that d_z, adds what of the loss does not pass the decoder, and returns (d_z, d_mu, d_logvar): derivatives
with z, mu and logvar taken as independent of each other, or what stands in for them with the same mean. How z depends
on the others is the business of `npvae.vae.reparameterize_gradient`. Which objective takes which is the table below.
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


def log_mean_exp(a):
    """log mean exp over the first axis: (K, ...) -> (...). The maximum is taken out, so that nothing overflows."""
    highest = a.max(axis=0)
    return highest + np.log(np.exp(a - highest).mean(axis=0))


def normalized_weights(log_w):
    """w / Σ w over the first axis, (K, B): the derivative of log mean w with respect to log w."""
    w = np.exp(log_w - log_w.max(axis=0))
    return w / w.sum(axis=0)


# the losses, (B,)


def elbo_loss(log_p_x, z, mu, logvar, beta=1.0):
    """−mean log p(x|z) + β KL(q(z|x) ‖ p(z)): eq. 10."""
    return -log_p_x.mean(axis=0) + beta * gaussian_kl(mu, logvar)


def sampled_elbo_loss(log_p_x, z, mu, logvar, beta=1.0):
    """−mean log w: eq. 6."""
    return -log_weights(log_p_x, z, mu, logvar, beta).mean(axis=0)


def iwae_loss(log_p_x, z, mu, logvar, beta=1.0):
    """−log mean w: Burda et al. 2016."""
    return -log_mean_exp(log_weights(log_p_x, z, mu, logvar, beta))


# how the samples are weighted: the derivative of the mean loss with respect to log p(x|z), (L, B)


def all_alike(log_p_x, z, mu, logvar, beta):
    """−1 / LB."""
    return np.full_like(log_p_x, -1 / log_p_x.size)


def by_weight(log_p_x, z, mu, logvar, beta):
    """−w̃ / B with w̃ = w / Σ w."""
    return -normalized_weights(log_weights(log_p_x, z, mu, logvar, beta)) / len(mu)


# the roads from the decoder's d_z to (d_z, d_mu, d_logvar)


def through_kl(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta):
    """The KL in closed form reaches mu and logvar without passing z."""
    d_mu, d_logvar = gaussian_kl_gradient(mu, logvar)
    return d_z, beta * d_mu / len(mu), beta * d_logvar / len(mu)


def through_samples(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta):
    """β (log p(z) − log q(z|x)) of every sample: the other part of log w, weighted as log p(x|z) is."""
    q_d_z, q_d_mu, q_d_logvar = gaussian_log_density_gradient(z, mu, logvar)  # of log q(z|x)
    d_log_ratio = beta * d_log_p_x[..., None]  # (L, B, 1)
    d_z = d_z + d_log_ratio * (-z - q_d_z)  # d log p(z) / dz = −z
    return d_z, -(d_log_ratio * q_d_mu).sum(axis=0), -(d_log_ratio * q_d_logvar).sum(axis=0)


def without_score(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta):
    """Through the samples, but along the path through z only: "sticking the landing" (Roeder et al. 2017).

    What is left out, d log q(z|x) / d(mu, logvar) at a given z, is the score, whose mean over z ~ q(z|x) is zero. The
    gradient stays unbiased; where q(z|x) is the true posterior and β = 1, the encoder's part of it has no variance.
    See arXiv 1703.09194.
    """
    d_z, d_mu, d_logvar = through_samples(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta)
    return d_z, np.zeros_like(d_mu), np.zeros_like(d_logvar)


def doubly_reparameterized(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta):
    """Without the score where the samples are weighted (Tucker et al. 2018, arXiv 1810.04152).

    The score is weighted by w̃ = w / Σ w, which depends on z. Its mean is then not zero, but that of
    (dw̃/dz)(dz/d(mu, logvar)) with dw̃/dz = w̃ (1 − w̃) d log w / dz. Subtracted, times β, from the path's own
    w̃ d log w / dz this leaves w̃ (1 − β + β w̃) d log w / dz: at β = 1 Tucker's w̃². The decoder's parameters keep w̃.
    """
    d_z, d_mu, d_logvar = without_score(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta)
    w = normalized_weights(log_weights(log_p_x, z, mu, logvar, beta))  # (L, B)
    return d_z * (1 - beta + beta * w)[..., None], d_mu, d_logvar


@dataclass(frozen=True, eq=False)
class Objective:
    """A loss, and the two steps of its gradient; see the module's docstring for what each is given and returns."""

    loss: Callable
    d_log_p_x: Callable
    road: Callable

    @property
    def importance_weighted(self):
        """Whether the loss is −log mean w, a bound that gets tighter with more samples."""
        return self.loss is iwae_loss


OBJECTIVES = {
    "elbo": Objective(elbo_loss, all_alike, through_kl),
    "sampled-elbo": Objective(sampled_elbo_loss, all_alike, through_samples),
    "stl": Objective(sampled_elbo_loss, all_alike, without_score),
    "iwae": Objective(iwae_loss, by_weight, through_samples),
    "iwae-dreg": Objective(iwae_loss, by_weight, doubly_reparameterized),
}
