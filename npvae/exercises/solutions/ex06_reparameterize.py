"""Exercise 6: The reparameterization trick.

A draw z from N(mu, σ²) is written as z = mu + σ · eps, with noise eps from N(0, 1) that is
given: so z is a function of mu and of logvar = log σ², and has a derivative. L draws are made
for each image. See notebook 3 and section 2.4 of the paper.
"""

import numpy as np


def reparameterize(mu, logvar, eps):
    """z = mu + σ · eps.

    Parameters
    ----------
    mu, logvar : (B, J) arrays
    eps : (L, B, J) array

    Returns
    -------
    (L, B, J) array
    """
    return mu + np.exp(logvar / 2) * eps


def reparameterize_gradient(d_z, logvar, eps):
    """The derivatives of the loss with respect to mu and logvar, from that with respect to z.

    Parameters
    ----------
    d_z : (L, B, J) array
        Each draw's own derivative.
    logvar : (B, J) array
    eps : (L, B, J) array
        The noise that z was made with.

    Returns
    -------
    d_mu, d_logvar : (B, J) arrays
    """
    d_mu = d_z.sum(axis=0)
    d_logvar = (d_z * eps).sum(axis=0) * np.exp(logvar / 2) / 2
    return d_mu, d_logvar
