"""The variational autoencoder of Kingma & Welling 2014 (arXiv 1312.6114), its bound, and the derivative of its bound.

encoder   q(z|x) = N(z; mu, diag(sigma²)), mu and logvar = log sigma² from an MLP     eq. 9, Appendix C.2
prior     p(z) = N(z; 0, I)
decoder   p(x|z) = Π Bernoulli(x; sigmoid(logits)), logits from an MLP                Appendix C.1
loss      −ELBO = KL(q(z|x) ‖ p(z)) − 1/L Σₗ log p(x|zₗ)                              eq. 10 (estimator B, eq. 7)
          with zₗ = mu + sigma ⊙ epsₗ, epsₗ ~ N(0, I)
"""

import numpy as np

from npvae.distributions import (
    bernoulli_log_density,
    bernoulli_log_density_gradient,
    gaussian_kl,
    gaussian_kl_gradient,
)
from npvae.layers import MLP, sigmoid
from npvae.parameters import Parameters


def reparameterize(mu, logvar, eps):
    """z = mu + sigma ⊙ eps, (L, B, J): draws from q(z|x) as a function of its parameters and of noise (section 2.4)."""
    return mu + np.exp(logvar / 2) * eps


def reparameterize_gradient(d_z, logvar, eps):
    """(d_mu, d_logvar), each (B, J), from d_z (L, B, J): dz/dmu = 1 and dz/dlogvar = eps sigma / 2, summed over L."""
    return d_z.sum(axis=0), (d_z * eps).sum(axis=0) * np.exp(logvar / 2) / 2


class VAE:
    """A VAE whose encoder and decoder are MLPs.

    Parameters
    ----------
    pixels, latent : int
        D, the size of x, and J, the size of z.
    hidden : sequence of int
        Units of the encoder's hidden layers; the decoder's are the same in reverse.
    activation : {'tanh', 'relu', 'softplus'}
        Of the hidden layers.
    rng : numpy.random.Generator, optional
        Draws the initial parameters; without it they are zero, to be written by the caller.
    dtype : NumPy dtype
        float32 to train; float64 and complex128 to check derivatives.
    """

    def __init__(self, pixels=784, hidden=(500,), latent=20, activation="tanh", rng=None, dtype=np.float32):
        self.pixels, self.hidden, self.latent, self.activation = pixels, tuple(hidden), latent, activation
        # of the encoder's last columns the first J are mu, the others logvar
        encoder_sizes = [pixels, *hidden, 2 * latent]
        decoder_sizes = [latent, *reversed(hidden), pixels]
        shapes = MLP.shapes("encoder", encoder_sizes) | MLP.shapes("decoder", decoder_sizes)
        self.parameters = Parameters(shapes, dtype)
        self.encoder = MLP(self.parameters, "encoder", encoder_sizes, activation)
        self.decoder = MLP(self.parameters, "decoder", decoder_sizes, activation)
        self.remembered = None
        if rng is not None:
            self.encoder.initialize(rng)
            self.decoder.initialize(rng)

    def __str__(self):
        sizes = [self.pixels, *self.hidden, self.latent, *reversed(self.hidden), self.pixels]
        return f"VAE {'-'.join(map(str, sizes))} ({self.activation})"

    def astype(self, dtype):
        """A copy of this VAE whose parameters have another dtype."""
        copy = VAE(self.pixels, self.hidden, self.latent, self.activation, dtype=dtype)
        copy.parameters.values[...] = self.parameters.values
        return copy

    def loss(self, x, eps):
        """−ELBO of a batch (eq. 10), estimated with L samples.

        Parameters
        ----------
        x : (B, D) array in [0, 1]
        eps : (L, B, J) array
            Standard normal noise; given, so that the same parameters, data and noise have the same loss. Both arrays
            are kept for `backward`: do not write into them before it.

        Returns
        -------
        loss : float
            Nats per example: summed over pixels and latents, averaged over the batch. Its two terms stay in
            `reconstruction` (B,) and `kl` (B,), nats, one per example.

        Raises
        ------
        ValueError
            If the shapes do not belong together, or x holds integers.
        """
        mu, logvar = self.encode(x)  # (B, J), (B, J)
        if eps.shape[1:] != mu.shape:
            raise ValueError(f"eps has the shape {eps.shape}, expected (L, {mu.shape[0]}, {mu.shape[1]})")
        z = reparameterize(mu, logvar, eps)  # (L, B, J)
        logits = self.decoder.forward(z.reshape(-1, self.latent)).reshape(-1, *x.shape)  # (L, B, D)

        self.reconstruction = -bernoulli_log_density(x, logits).mean(axis=0)  # (B,)
        self.kl = gaussian_kl(mu, logvar)  # (B,)
        self.remembered = x, eps, mu, logvar, logits
        return (self.reconstruction + self.kl).mean().item()

    def backward(self):
        """Write the derivative of the last `loss` with respect to every parameter into `parameters.gradient`."""
        if self.remembered is None:
            raise RuntimeError("backward() differentiates the last loss(x, eps): call loss, then backward at once")
        x, eps, mu, logvar, logits = self.remembered
        L, B, J = eps.shape

        d_logits = bernoulli_log_density_gradient(x, logits)  # (L, B, D)
        d_logits *= -1 / (L * B)
        d_z = self.decoder.backward(d_logits.reshape(L * B, -1)).reshape(L, B, J)

        d_mu, d_logvar = reparameterize_gradient(d_z, logvar, eps)  # through z
        kl_d_mu, kl_d_logvar = gaussian_kl_gradient(mu, logvar)  # and past it, straight from the KL
        d_mu += kl_d_mu / B
        d_logvar += kl_d_logvar / B
        self.encoder.backward(np.concatenate([d_mu, d_logvar], axis=1), need_d_x=False)

    def encode(self, x):
        """Mean and log-variance of q(z|x) (eq. 9).

        Parameters
        ----------
        x : (B, D) float array in [0, 1]

        Returns
        -------
        mu, logvar : (B, J) arrays
        """
        if x.dtype.kind not in "fc":
            raise ValueError(f"x is {x.dtype}, expected floats in [0, 1]: npvae.data.datasets.batch scales raw images")
        self.remembered = None  # the layers now remember this x
        mu_logvar = self.encoder.forward(x)  # (B, 2J)
        return mu_logvar[:, : self.latent], mu_logvar[:, self.latent :]

    def decode(self, z):
        """Pixel probabilities, the means of p(x|z): (B, D) for z (B, J) (eq. 11)."""
        self.remembered = None
        return sigmoid(self.decoder.forward(z))

    def reconstruct(self, x):
        """Pixel probabilities (B, D) decoded from the posterior mean of x (B, D)."""
        mu, _ = self.encode(x)
        return self.decode(mu)

    def sample(self, count, rng):
        """Pixel probabilities (count, D) decoded from draws z ~ p(z) of a numpy.random.Generator."""
        return self.decode(rng.standard_normal((count, self.latent)).astype(self.parameters.values.dtype))
