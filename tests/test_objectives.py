"""The bounds of log p(x) beside their definitions, an exactly known log p(x), and each other."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from npvae import VAE
from npvae.distributions import LIKELIHOODS, bernoulli_log_density, gaussian_kl, gaussian_log_density
from npvae.gradcheck import small_problem
from npvae.objectives import (
    OBJECTIVES,
    iwae_loss,
    log_mean_exp,
    log_weights,
    normalized_weights,
    sampled_elbo_loss,
)
from npvae.vae import reparameterize
from tests.conftest import joint_on_a_line
from tests.test_layers import assert_derivative


def normal(z, mu, variance):
    return math.exp(-((z - mu) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def weight(log_p_x, z, mu, logvar):
    """p(x|z) p(z) / q(z|x) of one sample, in probabilities."""
    prior = math.prod(normal(value, 0, 1) for value in z)
    posterior = math.prod(map(normal, z, mu, np.exp(logvar)))
    return math.exp(log_p_x) * prior / posterior


@pytest.fixture
def arrays(rng):
    """log_p_x (3, 4), z (3, 4, 2), mu and logvar (4, 2)."""
    mu, logvar = rng.normal(size=(2, 4, 2))
    return -rng.exponential(5, (3, 4)), reparameterize(mu, logvar, rng.standard_normal((3, 4, 2))), mu, logvar


def test_losses_are_their_definitions_written_out_in_probabilities(arrays):
    log_p_x, z, mu, logvar = arrays
    for b in range(4):
        w = [weight(log_p_x[k, b], z[k, b], mu[b], logvar[b]) for k in range(3)]
        assert sampled_elbo_loss(*arrays)[b] == pytest.approx(-sum(map(math.log, w)) / 3, rel=1e-12)  # eq. 6
        assert iwae_loss(*arrays)[b] == pytest.approx(-math.log(sum(w) / 3), rel=1e-12)
        np.testing.assert_allclose(normalized_weights(log_weights(*arrays))[:, b], np.divide(w, sum(w)), rtol=1e-12)
        kl = sum((m**2 + math.exp(v) - 1 - v) / 2 for m, v in zip(mu[b], logvar[b], strict=True))
        assert OBJECTIVES["elbo"].loss(*arrays)[b] == pytest.approx(kl - log_p_x[:, b].mean(), rel=1e-12)  # eq. 10


def test_beta_weighs_what_is_not_reconstruction(arrays):
    log_p_x, _, mu, logvar = arrays
    kl, log_ratio = gaussian_kl(mu, logvar), log_weights(*arrays) - log_p_x  # (4,), (3, 4)
    np.testing.assert_allclose(OBJECTIVES["elbo"].loss(*arrays, 0.3), 0.3 * kl - log_p_x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sampled_elbo_loss(*arrays, 0.3), -(log_p_x + 0.3 * log_ratio).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(iwae_loss(*arrays, 0.3), -log_mean_exp(log_p_x + 0.3 * log_ratio), rtol=1e-12)


def test_log_mean_exp_of_weights_that_overflow_and_underflow():
    a = np.array([[1000.0, -2000.0, 3.0], [1000.0 + math.log(3), -2000.0, -1e4]])
    np.testing.assert_allclose(log_mean_exp(a), [1000 + math.log(2), -2000, 3 - math.log(2)], rtol=1e-15)
    np.testing.assert_allclose(normalized_weights(a), [[0.25, 0.5, 1], [0.75, 0.5, 0]], rtol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_derivatives_of_the_mean_loss_in_each_of_its_arguments(name, beta, arrays):
    """The road is given a d_z of zero: what it returns is what of the loss does not pass the decoder."""
    objective, (log_p_x, z, mu, logvar) = OBJECTIVES[name], arrays
    d_log_p_x = objective.d_log_p_x(*arrays, beta)
    d_z, d_mu, d_logvar = objective.road(np.zeros_like(z), d_log_p_x, *arrays, beta)

    def loss_of(i):
        return lambda theta: objective.loss(*arrays[:i], theta.reshape(arrays[i].shape), *arrays[i + 1 :], beta).mean()

    assert_derivative(d_log_p_x, loss_of(0), log_p_x)
    if name in ("stl", "iwae-dreg"):  # the path through z alone; for dreg once more with the weight of the sample
        assert not d_mu.any()
        assert not d_logvar.any()
        w = normalized_weights(log_weights(*arrays, beta))[..., None] if name == "iwae-dreg" else 1
        assert_derivative(d_z / (1 - beta + beta * w), loss_of(1), z)
        from_decoder = objective.road(np.ones_like(z), d_log_p_x, *arrays, beta)[0] - d_z
        np.testing.assert_allclose(from_decoder, np.broadcast_to(1 - beta + beta * w, z.shape), rtol=1e-12)
        return
    if name == "elbo":
        assert not d_z.any()  # the KL in closed form knows of no z
    else:
        assert_derivative(d_z, loss_of(1), z)
    assert_derivative(d_mu, loss_of(2), mu)
    assert_derivative(d_logvar, loss_of(3), logvar)
    from_decoder = objective.road(np.ones_like(z), d_log_p_x, *arrays, beta)[0] - d_z
    np.testing.assert_allclose(from_decoder, 1, rtol=1e-12)


@pytest.mark.parametrize("table", [OBJECTIVES, LIKELIHOODS], ids=["objectives", "likelihoods"])
def test_what_all_models_share_cannot_be_changed_in_one_of_them(table):
    for entry in table.values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(entry, dataclasses.fields(entry)[-1].name, None)


@pytest.mark.parametrize("gradient", [("iwae", "sampled-elbo"), ("iwae-dreg", "stl")])
def test_one_importance_sample_is_the_sampled_elbo_exactly(gradient):
    results = []
    for objective in gradient:
        vae, x, eps = small_problem(samples=1, objective=objective)
        loss = vae.loss(x, eps)
        vae.backward()
        results.append((loss, vae.parameters.gradient))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_sampled_elbo_has_the_mean_of_the_elbo():
    losses = {}
    for objective in ("elbo", "sampled-elbo"):
        vae, x, _ = small_problem(objective=objective)
        vae.parameters.values *= 0.5
        rng = np.random.default_rng(3)
        losses[objective] = np.array([vae.loss(x, rng.standard_normal((10, 4, 3))) for _ in range(2000)])
    difference = losses["sampled-elbo"] - losses["elbo"]
    standard_error = difference.std() / math.sqrt(2000)
    assert abs(difference.mean()) < 5 * standard_error
    assert standard_error < 0.01


def gradients(objective, beta, count=4000):
    """Gradients of the encoder's parameters for fresh noise, (count, P)."""
    vae, x, _ = small_problem("tanh", (5,), objective=objective)
    vae.parameters.values *= 0.6
    rng = np.random.default_rng(7)
    last = vae.parameters.d("encoder.1.b")
    size = sum(math.prod(shape) for name, shape in vae.parameters.shapes.items() if name.startswith("encoder"))
    rows = np.empty((count, size))
    for row in rows:
        vae.loss(x, rng.standard_normal((4, 4, 3)), None, beta)
        vae.backward()
        row[...] = vae.parameters.gradient[:size]
    assert rows[-1, -1] == last[-1]  # the encoder's arrays come first
    return rows


@pytest.mark.parametrize("beta", [1.0, *(pytest.param(beta, marks=pytest.mark.slow) for beta in (0.5, 2.0))])
@pytest.mark.parametrize(("plain", "path"), [("sampled-elbo", "stl"), ("iwae", "iwae-dreg")])
def test_path_derivative_has_the_same_mean_and_a_smaller_variance(plain, path, beta):
    plain, path = gradients(plain, beta), gradients(path, beta)
    difference = plain - path  # (count, P), of the same noise
    standard_error = difference.std(axis=0) / math.sqrt(len(difference))
    assert (np.abs(difference.mean(axis=0)) < 5 * standard_error).all()
    assert np.linalg.norm(standard_error) < 0.15 * np.linalg.norm(plain.mean(axis=0))  # so that a bias would show
    assert path.var(axis=0).sum() < 0.2 * plain.var(axis=0).sum()


def test_with_the_true_posterior_every_sample_gives_log_p_x_and_stl_has_no_variance(rng):
    """A linear-Gaussian model, z ~ N(0, 1), x ~ N(a z + b, s²), whose marginal and posterior are known exactly."""
    a, b, s2, x = 1.7, -0.4, 0.3, np.array([0.9, -2.0])  # two examples of one pixel
    variance = 1 / (1 + a**2 / s2)
    mu, logvar = (variance * a * (x - b) / s2)[:, None], np.full((2, 1), math.log(variance))
    z = reparameterize(mu, logvar, rng.standard_normal((6, 2, 1)))
    log_p_x = gaussian_log_density(x[:, None], a * z + b, np.full(1, math.log(s2)))  # (6, 2)
    exact = gaussian_log_density(x[:, None], b, np.full(1, math.log(s2 + a**2)))
    np.testing.assert_allclose(log_weights(log_p_x, z, mu, logvar), np.tile(exact, (6, 1)), rtol=1e-12)
    np.testing.assert_allclose(sampled_elbo_loss(log_p_x, z, mu, logvar), -exact, rtol=1e-12)
    np.testing.assert_allclose(iwae_loss(log_p_x, z, mu, logvar), -exact, rtol=1e-12)

    stl = OBJECTIVES["stl"]
    d_log_p_x = stl.d_log_p_x(log_p_x, z, mu, logvar, 1.0)
    d_z = d_log_p_x[..., None] * (x[:, None] - a * z - b) * a / s2  # what this decoder gives back
    d_z, d_mu, d_logvar = stl.road(d_z, d_log_p_x, log_p_x, z, mu, logvar, 1.0)
    np.testing.assert_allclose(d_z, 0, atol=1e-12)
    assert (d_mu == 0).all()
    assert (d_logvar == 0).all()


def test_bounds_rise_with_the_number_of_samples_towards_the_exact_log_likelihood(rng):
    """With one latent p(x) is an integral over a line."""
    vae = VAE(5, (4,), 1, zeros=True, dtype=float)
    vae.parameters.values[...] = rng.normal(0, 0.5, vae.parameters.values.size)
    images = np.array(list(itertools.product([0.0, 1.0], repeat=5)))  # (32, 5)
    _, dz, log_joint = joint_on_a_line(vae, images)
    exact = np.log(np.exp(log_joint).sum(axis=1) * dz)  # (32,)
    means = {}
    for K in (1, 5, 50):
        mu, logvar = vae.encode(images)
        losses = []
        for _ in range(20_000 // K):
            z = reparameterize(mu, logvar, rng.standard_normal((K, 32, 1)))
            losses.append(iwae_loss(bernoulli_log_density(images, vae.decoder_outputs(z)), z, mu, logvar))
        means[K] = np.mean(losses, axis=0)
    gaps = {K: (mean + exact).mean() for K, mean in means.items()}
    assert gaps[1] > gaps[5] > gaps[50] > 0
    assert gaps[50] < gaps[1] / 20  # the bias falls as 1 / K


def test_every_objective_is_in_float32_what_it_is_in_float64(arrays):
    narrow = [array.astype(np.float32) for array in arrays]
    for objective in OBJECTIVES.values():
        loss = objective.loss(*narrow)
        assert loss.dtype == np.float32
        np.testing.assert_allclose(loss, objective.loss(*arrays), rtol=1e-4)
        d_log_p_x = objective.d_log_p_x(*narrow, 0.5)
        for derivative in (d_log_p_x, *objective.road(narrow[1], d_log_p_x, *narrow, 0.5)):
            assert derivative.dtype == np.float32


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_pure_functions(objective, arrays):
    """The same arguments give the same derivatives, and are left as they were."""
    kept = [array.copy() for array in arrays]
    objective = OBJECTIVES[objective]
    d_log_p_x, d_z = objective.d_log_p_x(*arrays, 0.5), np.ones_like(arrays[1])
    given = d_log_p_x.copy()
    first, second = (objective.road(d_z, d_log_p_x, *arrays, 0.5) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    for array, before in zip((*arrays, d_log_p_x, d_z), (*kept, given, np.ones_like(d_z)), strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_weights_of_the_samples_of_an_example_add_up_to_its_share_of_the_batch(objective, arrays):
    d_log_p_x = OBJECTIVES[objective].d_log_p_x(*arrays, 1.0)  # (3, 4)
    np.testing.assert_allclose(d_log_p_x.sum(axis=0), -1 / 4, rtol=1e-12)
