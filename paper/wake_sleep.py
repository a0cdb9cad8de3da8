"""The wake-sleep algorithm (Hinton, Dayan, Frey & Neal 1995), the rival of AEVB in Figures 2 and 3.

It trains the networks of a `VAE` on two losses in turn, each averaged over its batch:

wake    −log p(x|z) of data x, with z ~ q(z|x)           moves the decoder: no derivative passes through z
sleep   −log q(z|x) of dreams x ~ p(x|z), z ~ p(z)       moves the encoder

The first is the decoder's part of −ELBO. The second is KL(p(z|x) ‖ q(z|x)) and a constant, averaged over dreams, where
−ELBO has KL(q(z|x) ‖ p(z|x)) over data: the two losses are not parts of one, and nothing says that both will fall.
"""

import numpy as np

from npvae.distributions import gaussian_log_density, gaussian_log_density_gradient, gaussian_pixels
from npvae.layers import sigmoid
from npvae.vae import reparameterize


def wake(vae, x, eps):
    """−log p(x|z) of data x (B, D), nats per example, z from q(z|x) by the noise eps (1, B, J).

    Writes its derivative with respect to the decoder's parameters into `vae.parameters.gradient`.
    """
    z = reparameterize(*vae.encode(x), eps)  # (1, B, J), from here on a constant
    outputs = vae.decoder_outputs(z)  # (1, B, D) or (1, B, 2D)
    d_outputs = vae.likelihood.log_density_gradient(x, outputs)
    d_outputs /= -len(x)
    vae.decoder_backward(d_outputs)
    return -vae.likelihood.log_density(x, outputs).mean().item()


def sleep(vae, x, z):
    """−log q(z|x), nats per example, of dreams x (B, D) whose cause z (B, J) is known.

    Writes its derivative with respect to the encoder's parameters into `vae.parameters.gradient`.
    """
    mu, logvar = vae.encode(x)  # (B, J), (B, J)
    _, d_mu, d_logvar = gaussian_log_density_gradient(z, mu, logvar)
    vae.encoder_backward(-d_mu / len(z), -d_logvar / len(z))
    return -gaussian_log_density(z, mu, logvar).mean().item()


def dream(vae, count, rng):
    """(x, z) from the model: z ~ p(z), (count, J), and x ~ p(x|z), (count, D), in the precision of `vae`.

    Gaussian pixels are clipped to [0, 1], as in the authors' code: no encoder is given others.
    """
    z = rng.standard_normal((count, vae.latent), np.float32).astype(vae.precision)
    outputs = vae.decoder_outputs(z)
    if vae.likelihood.outputs_per_pixel == 1:  # Bernoulli
        return (rng.random(outputs.shape, np.float32) < sigmoid(outputs)).astype(vae.precision), z
    mean, logvar = gaussian_pixels(outputs)
    eps = rng.standard_normal(mean.shape, np.float32).astype(vae.precision)
    return np.clip(reparameterize(mean, logvar, eps), 0, 1), z
