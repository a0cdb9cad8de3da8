"""One training step, written for each library: the same model, data, batch, precision and optimizer.

A contender is made from a `Setup` and the raw images, starts from the same parameters as all others, and has

    run(rows, eps=None)       a step for each row of `rows` (S, B); `eps` (S, B, J), or noise of its own; the S losses
    log_p(images, samples)    the mean over images of log p(x), by importance sampling, where it can do that

`run` returns when the work is done. What a library does not do well by itself is done as its users do it: PyTorch has
a plain loop, JAX one `jit` per step or one `lax.scan` over all steps, with donated buffers.
"""

import argparse
import os
from dataclasses import dataclass
from functools import partial

import numpy as np

from npvae import VAE, Adam
from npvae.commands import OneLineParser, UserError
from npvae.data.datasets import load
from npvae.data.pixels import batch
from npvae.evaluate import DECODED_AT_ONCE, ENCODED_AT_ONCE, estimates

PIXELS, LATENT = 784, 20
NAMES = ("encoder.0", "encoder.1", "decoder.0", "decoder.1")


@dataclass(frozen=True)
class Setup:
    hidden: int
    activation: str
    batch_size: int
    seed: int = 0  # of the initial parameters

    def __str__(self):
        return f"{PIXELS}-{self.hidden}-{LATENT} {self.activation}, batch {self.batch_size}"

    @property
    def operations(self):
        """Multiplications and additions of a step's matrix products: each W in forward, d_W and, but the first, d_x."""
        first, weights = PIXELS * self.hidden, 2 * PIXELS * self.hidden + 3 * LATENT * self.hidden
        return 2 * self.batch_size * (3 * weights - first)

    def vae(self):
        return VAE(PIXELS, (self.hidden,), LATENT, self.activation, rng=np.random.default_rng(self.seed))


class Npvae:
    def __init__(self, setup, images):
        self.batch, self.images, self.rng, self.vae = batch, images, np.random.default_rng(1), setup.vae()
        self.adam = Adam(self.vae.parameters)

    def run(self, rows, eps=None):
        return [self.step(rows[i], None if eps is None else eps[None, i]) for i in range(len(rows))]

    def step(self, rows, eps):
        return self.descend(*self.inputs(rows, eps))

    def inputs(self, rows, eps=None):
        x = self.batch(self.images, rows)
        if eps is None:
            eps = self.rng.standard_normal((1, len(x), LATENT), np.float32)
        return x, eps

    def descend(self, x, eps):
        loss = self.vae.loss(x, eps)
        self.vae.backward()
        self.adam.step()
        return loss

    def test_loss(self, images, eps):
        return self.vae.loss(batch(images), eps[None])

    def log_p(self, images, samples):
        return -estimates(self.vae, images, None, samples, (samples,))["iwae"].mean()


class Products:
    """The matrix products of a step and nothing else, on operands that no one touches between two steps."""

    def __init__(self, setup, images):
        rng = np.random.default_rng(0)
        batch, hidden = setup.batch_size, setup.hidden

        def operand(*shape):
            return rng.standard_normal(shape).astype(np.float32)

        sizes = [(PIXELS, hidden), (hidden, 2 * LATENT), (LATENT, hidden), (hidden, PIXELS)]
        self.W, self.d_W = [operand(*size) for size in sizes], [operand(*size) for size in sizes]
        self.x, self.d_y = [operand(batch, i) for i, _ in sizes], [operand(batch, o) for _, o in sizes]

    def run(self, rows, eps=None):
        for _ in rows:
            for product in self.products():
                product()

    def products(self):
        """The products in their order, as functions of no argument."""
        for x, W in zip(self.x, self.W, strict=True):
            yield partial(np.matmul, x, W)
        for i in reversed(range(len(self.W))):
            yield partial(np.matmul, self.x[i].T, self.d_y[i], out=self.d_W[i])
            if i > 0:
                yield partial(np.matmul, self.d_y[i], self.W[i].T)


class Peak:
    """Large square products: what the machine can do at most."""

    operations = 2 * 2048**3

    def __init__(self, setup, images):
        self.a = np.random.default_rng(0).standard_normal((2, 2048, 2048), np.float32)
        self.out = np.empty_like(self.a[0])

    def run(self, rows, eps=None):
        for _ in rows:
            np.matmul(*self.a, out=self.out)


class Torch:
    def __init__(self, setup, images, fused=None, compiled=False):
        import torch

        self.torch, self.images = torch, torch.from_numpy(images)
        vae, layers = setup.vae(), []
        for name in NAMES:
            W, b = vae.parameters[f"{name}.W"], vae.parameters[f"{name}.b"]
            layers.append(torch.nn.Linear(*W.shape))
            layers[-1].weight.data, layers[-1].bias.data = torch.from_numpy(W.T.copy()), torch.from_numpy(b.copy())
        activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[setup.activation]
        self.encoder = torch.nn.Sequential(layers[0], activation(), layers[1])
        self.decoder = torch.nn.Sequential(layers[2], activation(), layers[3])
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=1e-3, fused=fused)
        if compiled:
            self.loss = torch.compile(self.loss)

    def loss(self, x, eps):
        torch = self.torch
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        logits = self.decoder(mu + torch.exp(logvar / 2) * eps)
        reconstruction = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp())
        return (reconstruction + kl) / len(x)

    def run(self, rows, eps=None):
        rows, losses = self.torch.from_numpy(rows), []
        for i in range(len(rows)):
            x = self.images[rows[i]].float() / 255
            loss = self.loss(x, self.torch.randn(len(x), LATENT) if eps is None else self.torch.from_numpy(eps[i]))
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            losses.append(loss.item())
        return losses

    def test_loss(self, images, eps):
        with self.torch.no_grad():
            return self.loss(self.torch.from_numpy(images).float() / 255, self.torch.from_numpy(eps)).item()

    def log_p(self, images, samples):
        torch, total = self.torch, 0.0
        with torch.no_grad():
            for start in range(0, len(images), ENCODED_AT_ONCE):
                x = torch.from_numpy(images[start : start + ENCODED_AT_ONCE]).float() / 255
                mu, logvar = self.encoder(x).chunk(2, dim=1)
                log_w, size = [], max(1, DECODED_AT_ONCE // len(x))
                for first in range(0, samples, size):
                    eps = torch.randn(min(size, samples - first), *mu.shape)
                    z = mu + torch.exp(logvar / 2) * eps
                    logits = self.decoder(z)
                    log_p_x = -torch.nn.functional.binary_cross_entropy_with_logits(
                        logits, x.expand_as(logits), reduction="none"
                    ).sum(dim=-1)
                    log_w.append(log_p_x + 0.5 * (logvar + eps**2 - z**2).sum(dim=-1))  # the 2π of p and q cancel
                total += (torch.logsumexp(torch.cat(log_w), dim=0) - np.log(samples)).sum().item()
        return total / len(images)


class Jax:
    def __init__(self, setup, images, scan):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax
        from jax import numpy as jnp

        self.jax, self.scan, self.images = jax, scan, jnp.asarray(images)
        vae = setup.vae()
        theta = {name: jnp.array(vae.parameters[name]) for name in vae.parameters.shapes}
        m, v = jax.tree.map(jnp.zeros_like, theta), jax.tree.map(jnp.zeros_like, theta)
        self.state = theta, m, v, jnp.zeros(()), jax.random.key(1)
        activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[setup.activation]

        def mlp(theta, name, x):
            h = activation(x @ theta[f"{name}.0.W"] + theta[f"{name}.0.b"])
            return h @ theta[f"{name}.1.W"] + theta[f"{name}.1.b"]

        def loss(theta, x, eps):
            mu, logvar = jnp.split(mlp(theta, "encoder", x), 2, axis=1)
            logits = mlp(theta, "decoder", mu + jnp.exp(logvar / 2) * eps)
            reconstruction = jnp.sum(jax.nn.softplus(logits) - x * logits)
            kl = -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))
            return (reconstruction + kl) / len(x)

        def step(images, state, rows, eps):
            theta, m, v, t, key = state
            if eps is None:
                key, now = jax.random.split(key)
                eps = jax.random.normal(now, (len(rows), LATENT))
            value, g = jax.value_and_grad(loss)(theta, images[rows].astype(jnp.float32) / 255, eps)
            t = t + 1
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
            m_scale, v_scale = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
            theta = jax.tree.map(lambda p, m, v: p - 1e-3 * (m * m_scale) / (jnp.sqrt(v * v_scale) + 1e-8), theta, m, v)
            return (theta, m, v, t, key), value

        def epoch(images, state, rows, eps):
            return jax.lax.scan(lambda state, now: step(images, state, *now), state, (rows, eps))

        self.compiled = jax.jit(epoch if scan else step, donate_argnums=1)

    def run(self, rows, eps=None):
        if self.scan:
            self.state, losses = self.compiled(self.images, self.state, rows, eps)
            return np.asarray(losses).tolist()
        losses = []
        for i in range(len(rows)):
            self.state, loss = self.compiled(self.images, self.state, rows[i], None if eps is None else eps[i])
            losses.append(loss)
        return np.asarray(self.jax.device_get(losses)).tolist()  # waits for the last step, and only once


CONTENDERS = {
    "npvae": Npvae,
    "products": Products,
    "torch-fused": partial(Torch, fused=True),
    "torch": Torch,
    "torch-compile": partial(Torch, fused=True, compiled=True),
    "jax": partial(Jax, scan=False),
    "jax-scan": partial(Jax, scan=True),
    "peak": Peak,
}
TITLES = {
    "npvae": "npvae",
    "products": "the matrix products alone",
    "torch-fused": "PyTorch, fused Adam",
    "torch": "PyTorch, default Adam",
    "torch-compile": "PyTorch, compiled, fused Adam",
    "jax": "JAX, a jit per step",
    "jax-scan": "JAX, a scan per epoch",
}


def data_parser(program, description):
    """A parser that knows the options of the data."""
    parser = OneLineParser(program, description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="auto", help="as in npvae.train (default: auto)")
    parser.add_argument("--data-dir", default="", help="as in npvae.train")
    return parser


def load_data(options):
    """The data set that the options name; a UserError where it is missing or has other images."""
    data = load(options.dataset, options.data_dir)
    if data.train_images.shape[1] != PIXELS:
        raise UserError(f"{data.name} has {data.train_images.shape[1]} pixels, expected {PIXELS}")
    return data
