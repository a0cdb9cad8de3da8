"""The variational autoencoder of Kingma & Welling 2014 (arXiv 1312.6114), its loss, and the derivative of its loss.

encoder   q(z|x) = N(z; mu, diag(sigma²)), mu and logvar = log sigma² from an MLP     eq. 9, Appendix C.2
prior     p(z) = N(z; 0, I)
decoder   p(x|z) = Π Bernoulli(x; sigmoid(outputs)), or Gaussian, from an MLP         Appendix C.1, C.2
loss      −ELBO = KL(q(z|x) ‖ p(z)) − 1/L Σₗ log p(x|zₗ)                              eq. 10 (estimator B, eq. 7)
          with zₗ = mu + sigma ⊙ epsₗ, epsₗ ~ N(0, I), or another objective of `npvae.objectives`

A conditional VAE (Sohn et al. 2015) is given a label y with every x: its encoder is q(z|x, y), its decoder p(x|z, y),
its prior still p(z).
"""

import copy
from typing import NamedTuple

import numpy as np

from npvae.distributions import LIKELIHOODS, gaussian_kl
from npvae.inputs import check_images, check_labels, check_noise, narrowed
from npvae.layers import MLP
from npvae.objectives import OBJECTIVES
from npvae.parameters import Parameters

PIXEL_MARGIN = 0.001  # a mean pixel is kept so far from 0 and 1, where its logit is infinite


def reparameterize(mu, logvar, eps):
    """z = mu + sigma ⊙ eps, (L, B, J): draws from q(z|x) as a function of its parameters and of noise (section 2.4)."""
    return mu + np.exp(logvar / 2) * eps


def reparameterize_gradient(d_z, logvar, eps):
    """(d_mu, d_logvar), each (B, J), from d_z (L, B, J): dz/dmu = 1 and dz/dlogvar = eps sigma / 2, summed over L."""
    return d_z.sum(axis=0), (d_z * eps).sum(axis=0) * np.exp(logvar / 2) / 2


class ForwardPass(NamedTuple):
    """What `VAE.loss` leaves for `VAE.backward`, beside what the layers remember."""

    x: np.ndarray  # (B, D)
    eps: np.ndarray  # (L, B, J)
    mu: np.ndarray  # (B, J)
    logvar: np.ndarray  # (B, J)
    z: np.ndarray  # (L, B, J)
    outputs: np.ndarray  # (L, B, D) or (L, B, 2D)
    log_p_x: np.ndarray  # (L, B)
    beta: float


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
    likelihood : {'bernoulli', 'gaussian'}
        p(x|z); see `npvae.distributions`.
    objective : {'elbo', 'sampled-elbo', 'stl', 'iwae', 'iwae-dreg'}
        What `loss` and `backward` compute; see `npvae.objectives`.
    classes : int
        C, the number of labels of a conditional VAE; 0 for one that knows of no labels. Where a method takes y, that
        is (B, C), one-hot, for the first kind and None for the second.
    rng : numpy.random.Generator, optional
        Draws the initial parameters; without it they are drawn too, but are others each time.
    zeros : bool
        Let all parameters be zero instead, to be written by the caller.
    dtype : NumPy dtype
        float32 to train; float64 and complex128 to check derivatives.

    Attributes
    ----------
    parameters : Parameters
    image_shape : (int, int) or None
        Rows and columns of the images, where they are known: `npvae.load` knows them.
    losses, reconstruction, kl : (B,) arrays
        Of the last `loss`, nats: what it averages, and the two terms of −ELBO.
    """

    def __init__(
        self,
        pixels=784,
        hidden=(500,),
        latent=20,
        activation="tanh",
        likelihood="bernoulli",
        objective="elbo",
        classes=0,
        rng=None,
        zeros=False,
        dtype=np.float32,
    ):
        self.settings = {"pixels": pixels, "hidden": tuple(hidden), "latent": latent, "activation": activation}
        self.settings |= {"likelihood": likelihood, "objective": objective, "classes": classes}
        self.pixels, self.latent, self.classes, self.image_shape = pixels, latent, classes, None
        self.likelihood, self.objective = LIKELIHOODS[likelihood], OBJECTIVES[objective]
        # of the encoder's last columns the first J are mu, the others logvar
        encoder_sizes = [pixels + classes, *hidden, 2 * latent]
        decoder_sizes = [latent + classes, *reversed(hidden), self.likelihood.outputs_per_pixel * pixels]
        shapes = MLP.shapes("encoder", encoder_sizes) | MLP.shapes("decoder", decoder_sizes)
        self.parameters = Parameters(shapes, dtype)
        self.encoder = MLP(self.parameters, "encoder", encoder_sizes, activation)
        self.decoder = MLP(self.parameters, "decoder", decoder_sizes, activation)
        self.forward_pass = None
        if not zeros:
            rng = np.random.default_rng() if rng is None else rng
            self.encoder.initialize(rng, one_hot=classes)
            self.decoder.initialize(rng, one_hot=classes)

    def __str__(self):
        pixels, hidden, latent, *words, classes = self.settings.values()
        sizes = "-".join(map(str, [pixels, *hidden, latent, *reversed(hidden), pixels]))
        return f"VAE {sizes} ({', '.join(words)}{f', {classes} labels' if classes else ''})"

    def astype(self, dtype):
        """A copy of this VAE whose parameters have another dtype."""
        other = copy.deepcopy(self)
        other.parameters.bind(self.parameters.values.astype(dtype), np.zeros_like(self.parameters.gradient, dtype))
        other.forward_pass = None
        return other

    def start_at(self, mean):
        """Write the decoder's last bias so that, before anything is learned, it decodes to about `mean`, (D,)."""
        mean = np.clip(mean, PIXEL_MARGIN, 1 - PIXEL_MARGIN)
        self.decoder.layers[-1].b[: self.pixels] = np.log(mean / (1 - mean))  # sigmoid⁻¹

    def loss(self, x, eps, y=None, beta=1.0):
        """The objective of a batch, by default −ELBO (eq. 10), estimated with L samples.

        Parameters
        ----------
        x : (B, D) float array in [0, 1]
        eps : (L, B, J) array
            Standard normal noise; given, so that the same parameters, data and noise have the same loss. `backward`
            needs x and eps again: do not write into them before it.
        y : (B, C) array or None
        beta : float
            Weight of the KL term; the loss is a bound of −log p(x) where it is 1.

        Returns
        -------
        loss : float
            Nats per example: summed over pixels and latents, averaged over the batch.

        Raises
        ------
        ValueError
            If an array has not the shape, the type or the range that it should; the message says what to do.
        """
        x = narrowed(x, self.precision)
        mu, logvar = self.encode(x, y)  # (B, J), (B, J)
        eps = check_noise(eps, mu.shape, self.precision)
        z = reparameterize(mu, logvar, eps)  # (L, B, J)
        outputs = self.decoder_outputs(z, y)  # (L, B, D) or (L, B, 2D)
        log_p_x = self.likelihood.log_density(x, outputs)  # (L, B)
        self.losses = self.objective.loss(log_p_x, z, mu, logvar, beta)  # (B,)

        self.reconstruction, self.kl = -log_p_x.mean(axis=0), gaussian_kl(mu, logvar)  # (B,), (B,)
        self.forward_pass = ForwardPass(x, eps, mu, logvar, z, outputs, log_p_x, beta)
        return self.losses.mean().item()

    def backward(self):
        """Write the derivative of the last `loss` with respect to every parameter into `parameters.gradient`."""
        if self.forward_pass is None:
            raise RuntimeError("backward() differentiates the last loss(x, eps): call loss, then backward at once")
        x, eps, mu, logvar, z, outputs, log_p_x, beta = self.forward_pass

        d_log_p_x = self.objective.d_log_p_x(log_p_x, z, mu, logvar, beta)  # (L, B), of the mean over the batch
        d_outputs = self.likelihood.log_density_gradient(x, outputs)  # (L, B, D) or (L, B, 2D)
        d_outputs *= d_log_p_x[..., None]
        d_z = self.decoder_backward(d_outputs)  # (L, B, J)
        # and what of the objective reaches z, mu and logvar without passing the decoder
        d_z, d_mu, d_logvar = self.objective.road(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta)
        z_d_mu, z_d_logvar = reparameterize_gradient(d_z, logvar, eps)  # (B, J), (B, J)
        self.encoder_backward(z_d_mu + d_mu, z_d_logvar + d_logvar)

    def encode(self, x, y=None):
        """Mean and log-variance of q(z|x) (eq. 9): (B, J) and (B, J) for x (B, D) in [0, 1] and y (B, C) or None."""
        self.forward_pass = None  # the layers are about to remember something else
        x = check_images(x, self.pixels, self.precision)
        mu_logvar = self.encoder.forward(self.with_label(x, y))  # (B, 2J)
        return mu_logvar[:, : self.latent], mu_logvar[:, self.latent :]

    def encoder_backward(self, d_mu, d_logvar):  # (B, J), (B, J)
        self.encoder.backward(np.concatenate([d_mu, d_logvar], axis=1), need_d_x=False)

    def decoder_outputs(self, z, y=None):
        """What p(x|z) is computed from: (..., B, D) or (..., B, 2D) for z (..., B, J) and y (B, C) or None."""
        self.forward_pass = None  # the layers are about to remember something else
        z_y = self.with_label(z, y)
        outputs = self.decoder.forward(z_y.reshape(-1, z_y.shape[-1]))
        return outputs.reshape(*z.shape[:-1], outputs.shape[-1])

    def decoder_backward(self, d_outputs):  # (L, B, D) or (L, B, 2D) -> (L, B, J)
        d_z_y = self.decoder.backward(d_outputs.reshape(-1, d_outputs.shape[-1]))
        return d_z_y[:, : self.latent].reshape(*d_outputs.shape[:-1], self.latent)

    def with_label(self, a, y):
        """What encoder or decoder is given: `a` (..., B, I), and beside it the label, (..., B, I + C)."""
        y = check_labels(y, a.shape[-2], self.classes)
        if y is None:
            return a
        return np.concatenate([a, np.broadcast_to(y.astype(a.dtype), (*a.shape[:-1], self.classes))], axis=-1)

    def decode(self, z, y=None):
        """Pixel means E[x|z] (eq. 11, 12): (..., B, D) for z (..., B, J) and y (B, C) or None."""
        return self.likelihood.mean(self.decoder_outputs(z, y))

    def reconstruct(self, x, y=None):
        """Pixel means (B, D) decoded from the posterior mean of x (B, D)."""
        mu, _ = self.encode(x, y)
        return self.decode(mu, y)

    def sample(self, count, rng, y=None):
        """Pixel means (count, D) decoded from draws z ~ p(z) of a numpy.random.Generator."""
        return self.decode(rng.standard_normal((count, self.latent)).astype(self.parameters.values.dtype), y)

    @property
    def precision(self):
        """The dtype of x and eps: that of the parameters, or of their real part."""
        return self.parameters.values.real.dtype
