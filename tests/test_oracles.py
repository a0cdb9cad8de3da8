"""Exact answers: models whose log p(x) and posterior are known in closed form, calibrated posteriors, extreme numbers.

A VAE whose encoder and decoder are linear and whose pixels are Gaussian is probabilistic PCA (Tipping & Bishop 1999):

    p(z) = N(0, I),   p(x|z) = N(W z + b, σ² I),   so   p(x) = N(b, W Wᵀ + σ² I),
    p(z|x) = N(M⁻¹ Wᵀ (x − b), σ² M⁻¹)   with   M = Wᵀ W + σ² I.

What −ELBO averages over eps is then quadratic in eps, and Gauss–Hermite quadrature with two nodes for each latent, ±1
of equal weights, is exact: given as noise, it makes `vae.loss` and `vae.backward` exact, and comparisons are to 1e-10.
"""

import itertools
import math

import numpy as np
import pytest

from npvae import VAE, Adam, train
from npvae.config import Config
from npvae.data.datasets import FILES, load
from npvae.data.idx import write_idx
from npvae.data.pixels import batch
from npvae.derivatives import complex_step_gradient
from npvae.distributions import (
    Likelihood,
    gaussian_log_density,
    gaussian_log_density_gradient,
    standard_normal_log_density,
)
from npvae.evaluate import estimates, loss_terms
from npvae.layers import ReLU
from npvae.objectives import OBJECTIVES, log_weights, normalized_weights
from npvae.runs import Run
from npvae.training import Diverged, Training
from npvae.vae import reparameterize
from tests.conftest import dataset_of

LOG_2_PI = math.log(2 * math.pi)


def linear_log_density_gradient(x, outputs):
    _, d_mean, d_logvar = gaussian_log_density_gradient(x, *np.split(outputs, 2, axis=-1))
    return np.concatenate([d_mean, d_logvar], axis=-1)


LINEAR = Likelihood(  # Gaussian pixels without the sigmoid and the floor, which are not linear
    outputs_per_pixel=2,
    log_density=lambda x, outputs: gaussian_log_density(x, *np.split(outputs, 2, axis=-1)),
    log_density_gradient=linear_log_density_gradient,
    mean=lambda outputs: np.split(outputs, 2, axis=-1)[0],
)


class PPCA(VAE):
    """A VAE of linear maps, in float64: the log-variance of a pixel is the decoder's bias alone."""

    def __init__(self, pixels, latent, rng, objective="elbo", logvar=-1.0):
        super().__init__(pixels, (), latent, likelihood="gaussian", objective=objective, rng=rng, dtype=np.float64)
        self.likelihood = LINEAR
        self.parameters["decoder.0.W"][:, pixels:] = 0
        self.parameters["decoder.0.b"][pixels:] = logvar

    @property
    def W(self):
        return self.parameters["decoder.0.W"][:, : self.pixels].T  # (D, J)

    @property
    def b(self):
        return self.parameters["decoder.0.b"][: self.pixels]

    @property
    def variance(self):
        return np.exp(self.parameters["decoder.0.b"][-1])

    def log_p(self, x):
        return ppca_log_p(x, self.W, self.b, self.variance)

    def posterior(self, x):
        """Mean (B, J) and covariance (J, J) of p(z|x)."""
        M = self.W.T @ self.W + self.variance * np.eye(self.latent)
        return np.linalg.solve(M, self.W.T @ (x - self.b).T).T, self.variance * np.linalg.inv(M)

    def encode_the_posterior(self):
        """Let q(z|x) be p(z|x), which it can where the columns of W are orthogonal."""
        W, b = self.parameters["encoder.0.W"], self.parameters["encoder.0.b"]
        mean, covariance = self.posterior(np.zeros((1, self.pixels)))
        W[...] = 0
        W[:, : self.latent] = self.posterior(np.eye(self.pixels))[0] - mean
        b[: self.latent], b[self.latent :] = mean[0], np.log(np.diag(covariance))


def ppca_log_p(x, W, b, variance):
    """log N(x; b, W Wᵀ + σ² I), (B,); also of complex W, b and σ²."""
    C = W @ W.T + variance * np.eye(len(W))
    centred = x - b
    square = (centred * np.linalg.solve(C, centred.T).T).sum(axis=1)
    return -(len(W) * LOG_2_PI + np.log(np.linalg.det(C)) + square) / 2


def kl_to(mean, covariance, mu, logvar):
    """KL(N(mu, diag exp(logvar)) ‖ N(mean, covariance)) of each example, (B,)."""
    precision, away = np.linalg.inv(covariance), mu - mean
    trace = (np.diag(precision) * np.exp(logvar)).sum(axis=1)
    square = np.einsum("bi,ij,bj->b", away, precision, away)
    return (trace + square - mu.shape[1] + np.linalg.slogdet(covariance)[1] - logvar.sum(axis=1)) / 2


def quadrature(count, latent):
    """Nodes of Gauss–Hermite quadrature in the place of noise, (2**J, B, J): exact for polynomials of degree 3."""
    nodes = np.array(list(itertools.product([-1.0, 1.0], repeat=latent)))
    return np.repeat(nodes[:, None], count, axis=1)


def random_ppca(rng, objective="elbo", orthogonal=False):
    """A linear VAE of random parameters, of six pixels and three latents, and x (8, 6).

    If W has orthogonal columns, q(z|x) is the posterior.
    """
    vae = PPCA(6, 3, rng, objective, logvar=rng.normal(-1, 0.5))
    vae.parameters["encoder.0.W"][...] = rng.normal(0, 0.5, (6, 6))
    vae.parameters["encoder.0.b"][...] = rng.normal(0, 0.5, 6)
    vae.W[...], vae.b[...] = rng.normal(size=(6, 3)), rng.normal(size=6)
    if orthogonal:
        vae.W[...] = np.linalg.qr(vae.W)[0] * [1.5, 1, 0.5]
        vae.encode_the_posterior()
    return vae, rng.uniform(size=(8, 6))


# probabilistic PCA


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objective", ["elbo", "sampled-elbo", "stl"])
def test_elbo_is_log_p_x_minus_kl_to_the_posterior_exactly(objective, seed):
    vae, x = random_ppca(np.random.default_rng(seed), objective)
    vae.loss(x, quadrature(8, 3))
    gap = kl_to(*vae.posterior(x), *vae.encode(x))
    assert gap.min() > 0.1  # q(z|x) is not the posterior
    np.testing.assert_allclose(-vae.losses, vae.log_p(x) - gap, rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_with_the_posterior_for_q_every_sample_weighs_p_x_and_every_bound_is_log_p_x(objective, rng):
    vae, x = random_ppca(rng, objective, orthogonal=True)
    eps = rng.standard_normal((7, 8, 3))
    loss = vae.loss(x, eps if objective != "elbo" else quadrature(8, 3))
    np.testing.assert_allclose(-vae.losses, vae.log_p(x), rtol=0, atol=1e-10)
    assert loss == pytest.approx(-vae.log_p(x).mean(), abs=1e-10)

    mu, logvar = vae.encode(x)
    z = reparameterize(mu, logvar, eps)
    log_w = log_weights(vae.likelihood.log_density(x, vae.decoder_outputs(z)), z, mu, logvar)  # (7, 8)
    np.testing.assert_allclose(log_w, np.tile(vae.log_p(x), (7, 1)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_with_the_posterior_for_q_the_gradient_is_that_of_the_exact_log_likelihood(objective, rng):
    """Fisher's identity; and the gap, which is zero, has its minimum there: nothing is left for the encoder."""
    vae, x = random_ppca(rng, objective, orthogonal=True)
    vae.loss(x, quadrature(8, 3))
    vae.backward()

    def exact(theta):
        W, b, logvar = np.split(theta, [18, 24])
        return -ppca_log_p(x, W.reshape(6, 3), b, np.exp(logvar)).mean()

    theta = np.concatenate([vae.W.ravel(), vae.b, [np.log(vae.variance)]])
    d_W, d_b, d_logvar = np.split(complex_step_gradient(exact, theta), [18, 24])
    d = vae.parameters.d
    np.testing.assert_allclose(d("decoder.0.W")[:, :6], d_W.reshape(6, 3).T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(d("decoder.0.b")[:6], d_b, rtol=0, atol=1e-10)
    assert d("decoder.0.b")[6:].sum() == pytest.approx(d_logvar[0], abs=1e-10)
    assert np.abs(d_W).max() > 0.1
    for name in ("encoder.0.W", "encoder.0.b"):
        np.testing.assert_allclose(d(name), 0, atol=1e-10)


def test_importance_weighted_bounds_rise_to_log_p_x_as_theory_says(rng):
    """K = 1 is short of log p(x) by KL(q ‖ p(z|x)), a large K by χ² / 2K, and the mean weight is p(x) exactly.

    χ² = E_q (w / p(x))² − 1 = E_p(z|x) p(z|x) / q(z|x) − 1 is an integral over Gaussians.
    """
    vae, _ = random_ppca(rng, orthogonal=True)
    vae.parameters["encoder.0.W"][:, :3] += rng.normal(0, 0.1, (6, 3))
    vae.parameters["encoder.0.b"][3:] += 0.3  # wider than the posterior, so that the weights have a variance
    images = rng.integers(0, 256, (200, 6), np.uint8)
    x = batch(images).astype(np.float64)
    exact, (mean, covariance), (mu, logvar) = vae.log_p(x), vae.posterior(x), vae.encode(x)
    s, v = np.diag(covariance), np.exp(logvar)  # (3,), (200, 3)
    spread = 2 / s - 1 / v  # of the Gaussian p(z|x)² / q(z|x), whose integral over z is χ² + 1
    chi2 = np.sqrt(v / (s**2 * spread)) * np.exp((mean - mu) ** 2 / (2 * v - s))
    chi2 = chi2.prod(axis=1) - 1

    terms = estimates(vae, images, None, 2000, (1, 10, 100, 2000))
    gaps = terms["iwae"] + exact  # (4, 200)
    assert (np.diff(gaps, axis=0) <= 1e-12).all()
    for gap, expected in ((gaps[0], kl_to(mean, covariance, mu, logvar)), (gaps[3], chi2 / 4000)):
        error = gap - expected
        assert abs(error.mean()) < 4 * error.std() / math.sqrt(200)
    assert gaps[0].mean() > 20 * gaps[0].std() / math.sqrt(200)  # the error bars are narrow enough to tell them apart
    ratio = np.exp(-gaps[3])  # mean weight / p(x)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(200)
    assert ratio.std() / math.sqrt(200) < 0.002
    elbo = terms["reconstruction"] + terms["kl"].sum(axis=1)
    error = elbo + exact - kl_to(mean, covariance, mu, logvar)
    assert abs(error.mean()) < 4 * error.std() / math.sqrt(200)


TRAINED = {  # how far each may stay from the maximum: nats per example, sine of an angle, share of a variance
    "elbo": (1e-7, 1e-3, 1e-4),
    "iwae-dreg": (0.002, 0.01, 0.05),  # whose noise is drawn anew in each step
}


@pytest.mark.parametrize("objective", TRAINED)
def test_adam_and_backward_reach_the_maximum_likelihood_of_ppca(objective, rng):
    """W spans the first eigenvectors of the covariance, σ² is the mean of the rest (Tipping & Bishop 1999, eq. 7, 8).

    q(z|x) has a diagonal covariance, so that the bound reaches log p(x) only where the columns of W are orthogonal:
    unlike PPCA by maximum likelihood, a VAE finds the principal axes themselves (Lucas et al. 2019, arXiv 1911.02469).
    """
    nats, angle, share = TRAINED[objective]
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    spread = np.array([0.3, 0.17, 0.06, 0.06, 0.06, 0.06]) * math.sqrt(3)
    x = (0.5 + rng.uniform(-spread, spread, (40, 6)) @ axes.T).clip(0, 1)  # any x: only its mean and covariance matter
    eigenvalues, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    variance = eigenvalues[2:].mean()
    log_determinant = np.log(eigenvalues[:2]).sum() + 4 * math.log(variance)
    highest = -(6 * LOG_2_PI + log_determinant + 6) / 2  # mean log p(x)
    at_first = vectors[:, :2] * np.sqrt(eigenvalues[:2] - variance)
    assert ppca_log_p(x, at_first, x.mean(axis=0), variance).mean() == pytest.approx(highest, abs=1e-10)

    vae = PPCA(6, 2, rng, objective, logvar=-3.0)
    d_W, d_b = (vae.parameters.d(f"decoder.0.{name}")[..., 6:] for name in "Wb")
    adam = Adam(vae.parameters, beta2=0.98)
    assert vae.log_p(x).mean() < highest - 1
    for step in range(2500):
        adam.learning_rate = 0.1 * min(1, 10 ** ((1000 - step) / 400))
        vae.loss(x, rng.standard_normal((4, 40, 2)) if objective == "iwae-dreg" else quadrature(40, 2))
        vae.backward()
        d_W[...], d_b[...] = 0, d_b.mean()  # the same log-variance for each pixel, whatever z is
        adam.step()

    assert -1e-10 < highest - vae.log_p(x).mean() < nats
    assert vae.variance == pytest.approx(variance, rel=share)
    subspace, scales, _ = np.linalg.svd(vae.W, full_matrices=False)
    np.testing.assert_allclose(scales**2, eigenvalues[:2] - variance, rtol=share)
    assert np.linalg.norm(subspace - vectors[:, :2] @ (vectors[:, :2].T @ subspace), 2) < angle  # largest principal one
    if objective != "iwae-dreg":  # whose bound hardly minds what q(z|x) cannot be
        assert highest + vae.loss(x, quadrature(40, 2)) == pytest.approx(0, abs=nats)  # the gap is closed
        lengths = np.linalg.norm(vae.W, axis=0)
        columns = (vae.W / lengths)[:, lengths.argsort()[::-1]]
        cosine = np.abs(columns.T @ vectors[:, :2])  # of each column and each axis
        np.testing.assert_allclose(cosine, np.eye(2), atol=2 * angle)


# simulation-based calibration


def no_log_q(log_p_x, z, mu, logvar):
    return log_p_x + standard_normal_log_density(z)


def log_q_added(log_p_x, z, mu, logvar):
    return no_log_q(log_p_x, z, mu, logvar) + gaussian_log_density(z, mu, logvar)


def no_prior(log_p_x, z, mu, logvar):
    return log_p_x - gaussian_log_density(z, mu, logvar)


def prior_subtracted(log_p_x, z, mu, logvar):
    return no_prior(log_p_x, z, mu, logvar) - standard_normal_log_density(z)


def no_likelihood(log_p_x, z, mu, logvar):
    return log_weights(0, z, mu, logvar)


def likelihood_averaged_over_pixels(log_p_x, z, mu, logvar):
    return log_weights(log_p_x / 10, z, mu, logvar)


def variance_for_precision(log_p_x, z, mu, logvar):
    return log_weights(log_p_x, z, mu, -logvar)


def all_equal(log_p_x, z, mu, logvar):
    return 0 * log_p_x


WRONG_WEIGHTS = [no_log_q, log_q_added, no_prior, prior_subtracted, no_likelihood, likelihood_averaged_over_pixels]
WRONG_WEIGHTS += [variance_for_precision, all_equal]
SIMULATED, DRAWN, BINS = 2000, 500, 20
CHI2_19 = 43.82  # exceeded once in 1000 by chi-square with 19 degrees of freedom


@pytest.fixture(scope="module")
def simulation():
    """True z (S, J) with x of each, and samples of q(z|x): a dict of what weights and ranks are made from."""
    rng = np.random.default_rng(7)
    vae = VAE(10, (6,), 2, zeros=True, dtype=np.float64)
    vae.parameters.values[...] = rng.normal(0, 0.5, vae.parameters.values.size)
    vae.parameters["encoder.1.W"][...] *= 0.3  # q(z|x) is not the posterior, and covers it
    vae.parameters["encoder.1.b"][...] = [0.2, -0.2, 0.7, 0.7]
    z_true = rng.standard_normal((SIMULATED, 2))
    x = (rng.uniform(size=(SIMULATED, 10)) < vae.decode(z_true)).astype(float)
    mu, logvar = vae.encode(x)
    z = reparameterize(mu, logvar, rng.standard_normal((DRAWN, SIMULATED, 2)))
    log_p_x, log_p_x_true = (vae.likelihood.log_density(x, vae.decoder_outputs(a)) for a in (z, z_true))
    # ranks of z alone are uniform for whoever never looked at x: those of log p(x|z) are not (Modrák et al. 2023)
    below = np.stack([z[..., 0] < z_true[:, 0], z[..., 1] < z_true[:, 1], log_p_x < log_p_x_true])  # (3, K, S)
    return {"below": below, "arrays": (log_p_x, z, mu, logvar)}


def chi_squares(simulation, log_w):
    """Of the ranks of the true z₁, z₂ and log p(x|z) among the weighted samples, in `BINS` bins: (3,)."""
    ranks = (normalized_weights(log_w) * simulation["below"]).sum(axis=1)  # (3, S), in [0, 1]
    counts = np.stack([np.histogram(rank, BINS, (0, 1 + 1e-12))[0] for rank in ranks])
    expected = SIMULATED / BINS
    return ((counts - expected) ** 2 / expected).sum(axis=1)


def test_the_truth_has_a_uniform_rank_in_the_weighted_posterior(simulation):
    """With z ~ p(z) and x ~ p(x|z), z is a draw of p(z|x), as the samples are (Talts et al. 2018, arXiv 1804.06788)."""
    log_w = log_weights(*simulation["arrays"])
    w = normalized_weights(log_w)
    assert np.quantile(1 / (w**2).sum(axis=0), 0.01) > DRAWN / 20  # effective samples: ranks are fine enough
    assert (chi_squares(simulation, log_w) < CHI2_19).all()


@pytest.mark.parametrize("wrong", WRONG_WEIGHTS)
def test_ranks_catch_a_wrong_weight(wrong, simulation):
    assert chi_squares(simulation, wrong(*simulation["arrays"])).max() > 3 * CHI2_19


# numbers at their limits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_saturated_logits_cost_what_they_say_and_have_the_gradient_x_minus_y(objective, dtype, rng):
    """A pixel that is 1 where the logit is −10⁴ costs 10⁴ nats, whose derivative is exactly one."""
    vae = VAE(4, (7,), 3, objective=objective, rng=rng, dtype=dtype)
    vae.parameters["decoder.1.W"][...] = 0
    vae.parameters["decoder.1.b"][...] = [-1e4, 1e4, -1e4, 1e4]
    x, eps = np.array([[1, 0, 0, 1], [0, 1, 0.5, 0.5]], dtype), rng.standard_normal((2, 2, 3)).astype(dtype)
    with np.errstate(all="raise", under="ignore"):
        vae.loss(x, eps)
        vae.backward()
    np.testing.assert_allclose(vae.reconstruction, [2e4, 1e4], rtol=1e-6)
    np.testing.assert_allclose(vae.losses, vae.reconstruction, rtol=0.01)
    np.testing.assert_allclose(vae.parameters.d("decoder.1.b"), [-0.5, 0.5, -0.25, 0.25], atol=1e-6)
    assert np.isfinite(vae.parameters.gradient).all()


def narrow_and_wide(logvar, objective, dtype, rng):
    """(vae, x, eps): all log-variances of q(z|x) are the same, its means are not."""
    vae = VAE(12, (7,), 3, objective=objective, rng=rng, dtype=dtype)
    vae.parameters["encoder.1.W"][:, 3:] = 0
    vae.parameters["encoder.1.b"][:3] = [1, -2, 1.5]
    vae.parameters["encoder.1.b"][3:] = logvar
    return vae, rng.uniform(size=(50, 12)).astype(dtype), rng.standard_normal((5, 50, 3)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("logvar", [-50, 50])
def test_log_variances_of_50_have_finite_losses_and_gradients(logvar, objective, dtype, rng):
    vae, x, eps = narrow_and_wide(logvar, objective, dtype, rng)
    with np.errstate(all="raise", under="ignore"):
        loss = vae.loss(x, eps)
        vae.backward()
    mu = vae.encode(x)[0].astype(np.float64)
    kl = ((mu**2).sum(axis=1) + 3 * (math.expm1(logvar) - logvar)) / 2
    np.testing.assert_allclose(vae.kl, kl, rtol=1e-5)
    assert math.isfinite(loss)
    assert np.isfinite(vae.parameters.gradient).all()
    if objective == "elbo":
        np.testing.assert_allclose(vae.losses, kl + vae.reconstruction, rtol=1e-5)
        d_logvar = vae.parameters.d("encoder.1.b")[3:]
        np.testing.assert_allclose(d_logvar, math.expm1(logvar) / 2, rtol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_in_float32_a_posterior_of_a_two_thousandth_of_the_prior_is_still_resolved(objective, rng):
    """(z − mu) / sigma loses its digits where sigma is small beside mu; at logvar −15, sigma 0.0006, few of them."""
    narrow, x, eps = narrow_and_wide(-15, objective, np.float32, rng)
    wide = narrow.astype(np.float64)
    assert narrow.loss(x, eps) == pytest.approx(wide.loss(x, eps), abs=1e-3)
    narrow.backward()
    wide.backward()
    largest = np.abs(wide.parameters.gradient).max()
    np.testing.assert_allclose(narrow.parameters.gradient, wide.parameters.gradient, rtol=0, atol=1e-3 * largest)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_float32_is_float64_to_its_digits_at_the_default_sizes(objective, likelihood, rng):
    """784-500-20, batches of 100; relative to the largest entry.

    Weights of samples have four digits: the last of a log weight of some 500 nats stands for 6e-5.
    """
    narrow = VAE(objective=objective, likelihood=likelihood, rng=rng)
    wide = narrow.astype(np.float64)
    samples, tolerance = (5, 1e-4) if OBJECTIVES[objective].importance_weighted else (1, 1e-5)
    x, eps = rng.uniform(size=(100, 784)).astype(np.float32), rng.standard_normal((samples, 100, 20), np.float32)
    assert narrow.loss(x, eps) == pytest.approx(wide.loss(x, eps), rel=1e-6)
    narrow.backward()
    wide.backward()
    difference = np.abs(narrow.parameters.gradient - wide.parameters.gradient).max()
    assert difference <= tolerance * np.abs(wide.parameters.gradient).max()


def test_relu_at_exactly_zero_has_the_derivative_0():
    layer = ReLU()
    np.testing.assert_array_equal(layer.forward(np.array([[-0.0, 0.0, 1e-300]])), [[0, 0, 1e-300]])
    np.testing.assert_array_equal(layer.backward(np.array([[3.0, 3.0, 3.0]])), [[0, 0, 3]])


@pytest.fixture(scope="module")
def grey_noise(tmp_path_factory):
    """A folder with four IDX files of random images of 6 × 5, on which a run takes a moment."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for file, shape in zip(FILES, [(300, 6, 5), (300,), (100, 6, 5), (100,)], strict=True):
        write_idx(folder / file, rng.integers(0, 256 if len(shape) == 3 else 10, shape).astype(np.uint8))
    return folder


def train_on(folder, out, options):
    """The exit code of a run of three epochs of six steps."""
    small = f"--hidden 30 --latent 3 --batch-size 50 --samples 2 --epochs 3 {options}"
    return train.main(["--dataset", str(folder), "--out", str(out), *small.split()])


@pytest.mark.parametrize("settings", ["--objective elbo", "--objective iwae-dreg --likelihood gaussian"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_a_learning_rate_a_thousand_times_too_high_ends_well_or_in_one_line(
    optimizer, activation, settings, grey_noise, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("npvae.plot.draw", lambda *arguments: None)
    options = f"--optimizer {optimizer} --activation {activation} --learning-rate 1 {settings}"
    code = train_on(grey_noise, tmp_path / "run", options)
    error = capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    state, rows = run.load_checkpoint(), run.metrics()
    if code == 0:
        assert (len(rows), error) == (3, "")
    else:
        assert (code, error.count("\n")) == (1, 1)
        assert "the last good checkpoint is" in error
        assert len(rows) < 3
    assert state["epoch"] == len(rows)
    for name in state:
        assert name == "random_state" or np.isfinite(state[name]).all()
    assert all(math.isfinite(row["test_loss"]) for row in rows)


def test_a_run_that_diverges_later_keeps_its_last_good_epoch(grey_noise, tmp_path, capsys):
    assert train_on(grey_noise, tmp_path / "run", "--learning-rate-schedule 1:1000") == 1
    out, error = capsys.readouterr()
    assert "epoch 1/3" in out
    assert "epoch 2/3" not in out
    assert error.count("\n") == 1
    assert "learning rate 1000; the last good checkpoint is" in error
    run = Run.open(tmp_path / "run")
    (row,) = run.metrics()
    terms = loss_terms(run.vae(), run.dataset().test_images, samples=2)  # of the parameters that were measured
    assert terms["loss"].mean() == pytest.approx(row["test_loss"], abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_variance_that_overflows_stops_training_before_it_reaches_the_parameters(objective, rng):
    config = Config(hidden=(7,), latent=3, samples=2, batch_size=50, objective=objective)
    training = Training(config, dataset_of(rng.integers(0, 256, (100, 12), np.uint8)))
    next(training.steps())
    training.vae.parameters["encoder.1.b"][3:] = 100  # e¹⁰⁰ is beyond float32
    before = training.vae.parameters.values.copy()
    with pytest.raises(Diverged, match=r"the loss is (inf|nan)"), np.errstate(over="ignore", invalid="ignore"):
        next(training.steps())
    np.testing.assert_array_equal(training.vae.parameters.values, before)


@pytest.mark.parametrize(("optimizer", "squares"), [("adagrad", "optimizer.squares"), ("adam", "optimizer.V")])
def test_squares_of_gradients_that_overflow_stop_the_run_although_the_loss_is_finite(
    optimizer, squares, grey_noise, tmp_path
):
    """An entry whose squares are infinite is never moved again: the run would end with parameters that cannot learn."""
    dataset = load(str(grey_noise))
    settings = {"dataset": str(grey_noise), "hidden": (7,), "latent": 3, "epochs": 2, "optimizer": optimizer}
    run = Run.create(tmp_path / "run", Config(**settings))
    training = Training(run.config, dataset)
    training.save(run)
    before = run.checkpoint.read_bytes()
    training.vae.parameters["encoder.1.b"][3:] = 60  # loss and gradient are some e⁶⁰, whose square is beyond float32
    with train.StopRequest() as stop, np.errstate(over="ignore", invalid="ignore"):
        with pytest.raises(Diverged, match=f"{squares} is not finite"):
            train.fit(training, run, dataset, stop)
    assert run.checkpoint.read_bytes() == before
    assert run.metrics() == []
