"""Exercise 7: The whole VAE, forward and backward.

It is made from the parts that you have written. The parameters are a dict p of arrays, for D
pixels, H hidden units and J latents:

    encoder   W1 (D, H), b1 (H,), W2 (H, 2J), b2 (2J,)    the first J columns give mu,
    decoder   W3 (J, H), b3 (H,), W4 (H, D), b4 (D,)      the last J logvar

Between the two layers of each is a tanh. The loss is −ELBO in nats per image: KL minus the mean
log p(x|z) over the L draws, averaged over the B images (the paper's eq. 10; notebook 5).
"""

import numpy as np

from ex02_dense import dense, dense_backward
from ex03_tanh import tanh, tanh_backward
from ex04_bernoulli import bernoulli_log_density, bernoulli_log_density_gradient
from ex05_kl import gaussian_kl, gaussian_kl_gradient
from ex06_reparameterize import reparameterize, reparameterize_gradient


def encode(p, x):
    """h, mu and logvar for images x (B, D): arrays (B, H), (B, J) and (B, J)."""
    h = tanh(dense(x, p["W1"], p["b1"]))
    mu, logvar = np.split(dense(h, p["W2"], p["b2"]), 2, axis=1)
    return h, mu, logvar


def decode(p, z):
    """g and logits for latents z (N, J): arrays (N, H) and (N, D)."""
    g = tanh(dense(z, p["W3"], p["b3"]))
    return g, dense(g, p["W4"], p["b4"])


def forward(p, x, eps):
    """The loss, and what `backward` needs.

    Parameters
    ----------
    p : dict of arrays
    x : (B, D) array
    eps : (L, B, J) array
        Standard normal noise.

    Returns
    -------
    loss : float
    values : dict of arrays
        x (B, D), eps (L, B, J), h (B, H), mu (B, J), logvar (B, J), z (L, B, J), g (L · B, H),
        logits (L, B, D). The decoder takes all draws at once, as L · B rows.
    """
    (L, B, J), D = eps.shape, x.shape[1]
    h, mu, logvar = encode(p, x)
    z = reparameterize(mu, logvar, eps)
    g, logits = decode(p, z.reshape(L * B, J))
    logits = logits.reshape(L, B, D)
    log_p_x = bernoulli_log_density(x, logits)  # (L, B)
    loss = (gaussian_kl(mu, logvar) - log_p_x.mean(axis=0)).mean()
    values = {"x": x, "eps": eps, "h": h, "mu": mu, "logvar": logvar, "z": z}
    values |= {"g": g, "logits": logits}
    return loss, values


def backward(p, values):
    """The derivatives of the loss with respect to every array of p.

    Parameters
    ----------
    p : dict of arrays
    values : dict of arrays
        What `forward` returned for this p.

    Returns
    -------
    dict of arrays, with the names and shapes of p
    """
    x, eps, h, mu, logvar = (values[name] for name in ("x", "eps", "h", "mu", "logvar"))
    z, g, logits = values["z"], values["g"], values["logits"]
    (L, B, J), D = eps.shape, x.shape[1]
    d = {}
    d_logits = -bernoulli_log_density_gradient(x, logits) / (L * B)
    d_g, d["W4"], d["b4"] = dense_backward(d_logits.reshape(L * B, D), g, p["W4"])
    d_a = tanh_backward(d_g, g)
    d_z, d["W3"], d["b3"] = dense_backward(d_a, z.reshape(L * B, J), p["W3"])
    d_mu, d_logvar = reparameterize_gradient(d_z.reshape(L, B, J), logvar, eps)
    kl_d_mu, kl_d_logvar = gaussian_kl_gradient(mu, logvar)
    d_mu = d_mu + kl_d_mu / B
    d_logvar = d_logvar + kl_d_logvar / B
    d_h, d["W2"], d["b2"] = dense_backward(np.concatenate([d_mu, d_logvar], axis=1), h, p["W2"])
    _, d["W1"], d["b1"] = dense_backward(tanh_backward(d_h, h), x, p["W1"])
    return d
