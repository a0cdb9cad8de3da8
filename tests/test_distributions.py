import itertools

import numpy as np
import pytest

from npvae.distributions import (
    LIKELIHOODS,
    LOGVAR_FLOOR,
    bernoulli_log_density,
    bernoulli_log_density_gradient,
    gaussian_kl,
    gaussian_kl_gradient,
    gaussian_log_density,
    gaussian_log_density_gradient,
    gaussian_pixels,
    gaussian_pixels_log_density,
    gaussian_pixels_log_density_gradient,
    standard_normal_log_density,
)
from tests.test_layers import assert_derivative


def test_bernoulli_probabilities_of_all_binary_images_sum_to_one(rng):
    images = np.array(list(itertools.product([0.0, 1.0], repeat=6)))  # (64, 6)
    assert np.exp(bernoulli_log_density(images, rng.normal(0, 3, 6))).sum() == pytest.approx(1, rel=1e-13)


def test_bernoulli_log_density_is_eq_11_also_for_grey_values(rng):
    x, logits = rng.uniform(size=(4, 6)), rng.normal(0, 3, (4, 6))
    y = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(
        bernoulli_log_density(x, logits), (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1), rtol=1e-12
    )


def test_bernoulli_log_density_stays_finite_where_the_probability_underflows():
    x, logits = np.float32([[1, 0]]), np.float32([[-1e4, 1e4]])
    assert bernoulli_log_density(x, logits) == -2e4


def test_bernoulli_gradient_is_the_derivative_of_the_log_density(rng):
    x, logits = rng.uniform(size=(4, 6)), rng.normal(0, 3, (4, 6))
    analytic = bernoulli_log_density_gradient(x, logits)
    assert_derivative(analytic, lambda theta: bernoulli_log_density(x, theta.reshape(4, 6)).sum(), logits)


def test_bernoulli_gradient_has_shape_and_precision_of_the_logits(rng):
    """So that one pixel in double precision does not make all of the backward pass twice as slow."""
    analytic = bernoulli_log_density_gradient(rng.uniform(size=(4, 6)), rng.normal(size=(3, 4, 6)).astype(np.float32))
    assert (analytic.shape, analytic.dtype) == ((3, 4, 6), np.float32)


def test_gaussian_density_integrates_to_one_with_mean_mu_and_variance_exp_logvar():
    mu, logvar = 0.7, np.log(0.25)
    z = np.linspace(-9, 11, 20_001)
    density = np.exp(gaussian_log_density(z[:, None], np.array([mu]), np.array([logvar])))
    mass = density * (z[1] - z[0])
    assert mass.sum() == pytest.approx(1, rel=1e-12)
    assert (mass * z).sum() == pytest.approx(mu, rel=1e-12)
    assert (mass * (z - mu) ** 2).sum() == pytest.approx(0.25, rel=1e-12)


def test_gaussian_log_density_sums_over_independent_dimensions(rng):
    z, mu, logvar = rng.normal(size=(3, 4, 2))
    total = sum(gaussian_log_density(z[:, [j]], mu[:, [j]], logvar[:, [j]]) for j in range(2))
    np.testing.assert_allclose(gaussian_log_density(z, mu, logvar), total, rtol=1e-13)


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["z", "mu", "logvar"])
def test_gaussian_gradient_is_the_derivative_of_the_log_density(argument, rng):
    arrays = list(rng.normal(size=(3, 4, 5)))
    analytic = gaussian_log_density_gradient(*arrays)[argument]

    def loss(theta):
        return gaussian_log_density(*arrays[:argument], theta.reshape(4, 5), *arrays[argument + 1 :]).sum()

    assert_derivative(analytic, loss, arrays[argument])


@pytest.mark.parametrize("argument", [0, 1], ids=["mu", "logvar"])
def test_kl_gradient_is_the_derivative_of_the_kl(argument, rng):
    arrays = list(rng.normal(size=(2, 4, 5)))
    analytic = gaussian_kl_gradient(*arrays)[argument]

    def loss(theta):
        return gaussian_kl(*arrays[:argument], theta.reshape(4, 5), *arrays[argument + 1 :]).sum()

    assert_derivative(analytic, loss, arrays[argument])


def test_closed_form_kl_matches_monte_carlo(rng):
    mu, logvar = rng.normal(size=(2, 4, 3))
    z = mu + np.exp(logvar / 2) * rng.standard_normal((100_000, 4, 3))
    log_ratio = gaussian_log_density(z, mu, logvar) - gaussian_log_density(z, np.zeros(3), np.zeros(3))  # (S, 4)
    standard_error = log_ratio.std(axis=0) / np.sqrt(len(log_ratio))
    assert (np.abs(log_ratio.mean(axis=0) - gaussian_kl(mu, logvar)) < 5 * standard_error).all()
    assert (standard_error < 0.01 * gaussian_kl(mu, logvar)).all()  # narrow enough that a missing ½ would show


def test_kl_is_zero_for_the_prior_and_positive_elsewhere(rng):
    assert (gaussian_kl(np.zeros((1, 3)), np.zeros((1, 3))) == 0).all()
    assert (gaussian_kl(*rng.normal(size=(2, 100, 3))) > 0).all()
    mu, logvar = 1e-4 * rng.normal(size=(2, 1000, 3))
    exact = gaussian_kl(mu, logvar)
    rounded = gaussian_kl(mu.astype(np.float32), logvar.astype(np.float32))
    assert (rounded >= 0).all()
    np.testing.assert_allclose(rounded, exact, atol=1e-10, rtol=1e-2)


def test_densities_and_kl_sum_over_the_last_axis_alone(rng):
    """Of samples (L, B, J) every sample of every example has a number of its own."""
    z, mu, logvar = rng.normal(size=(3, 2, 4, 3))
    for function, arrays in (
        (gaussian_kl, (mu, logvar)),
        (standard_normal_log_density, (z,)),
        (gaussian_log_density, (z, mu, logvar)),
        (bernoulli_log_density, (z, mu)),
        (gaussian_pixels_log_density, (z, np.concatenate([mu, logvar], axis=-1))),
    ):
        found = function(*arrays)
        assert found.shape == (2, 4)
        np.testing.assert_allclose(found[1, 2], function(*(array[1, 2] for array in arrays)), rtol=1e-12)


def test_standard_normal_is_the_gaussian_with_mean_0_and_variance_1(rng):
    z = rng.normal(size=(3, 4, 2))
    np.testing.assert_allclose(
        standard_normal_log_density(z), gaussian_log_density(z, np.zeros(2), np.zeros(2)), rtol=1e-14
    )


def test_gaussian_pixels_have_a_mean_between_0_and_1_and_at_least_one_grey_level_of_spread(rng):
    outputs = rng.normal(0, 100, (50, 12))
    mean, logvar = gaussian_pixels(outputs)
    np.testing.assert_allclose(mean, 1 / (1 + np.exp(-outputs[:, :6])), atol=1e-15)
    assert (np.exp(logvar / 2) >= 1 / 255 - 1e-15).all()
    above = outputs[:, 6:] > LOGVAR_FLOOR + 25
    np.testing.assert_allclose(logvar[above], outputs[:, 6:][above], rtol=1e-10)  # far above the floor: the output


def test_density_of_gaussian_pixels_integrates_to_one(rng):
    outputs = rng.normal(size=(1, 2))
    x = np.linspace(-60, 60, 400_001)[:, None]
    density = np.exp(gaussian_pixels_log_density(x, outputs))
    assert density.sum() * (x[1, 0] - x[0, 0]) == pytest.approx(1, rel=1e-10)


def test_density_of_a_constant_pixel_cannot_diverge():
    outputs = np.float32([[0, -1e9]])
    x = np.float32([[0.5]])  # exactly the mean
    density = gaussian_pixels_log_density(x, outputs)
    assert density == pytest.approx(np.log(255) - np.log(2 * np.pi) / 2, rel=1e-6)
    assert np.isfinite(gaussian_pixels_log_density_gradient(x, outputs)).all()


def test_gaussian_pixels_gradient_is_the_derivative_of_the_log_density(rng):
    x, outputs = rng.uniform(size=(4, 6)), rng.normal(0, 3, (3, 4, 12))
    outputs[..., 6:] -= 4  # some of the log-variances near their floor
    analytic = gaussian_pixels_log_density_gradient(x, outputs)
    assert_derivative(analytic, lambda theta: gaussian_pixels_log_density(x, theta.reshape(3, 4, 12)).sum(), outputs)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_mean_of_a_likelihood_is_the_x_of_highest_expected_density(name, rng):
    """Of all constants the mean predicts draws best: for both families the density is highest there."""
    likelihood = LIKELIHOODS[name]
    outputs = rng.normal(size=(1, likelihood.outputs_per_pixel))
    mean = likelihood.mean(outputs)
    assert mean.shape == (1, 1)
    logit = np.log(mean / (1 - mean))
    candidates = np.concatenate([logit + np.linspace(-1, 1, 201)[:, None], np.tile(outputs[:, 1:], (201, 1))], axis=1)
    assert likelihood.log_density(mean, candidates).argmax() == 100
