"""The rivals of AEVB in the paper's figures, and what they are measured by: derivatives, distributions, known answers.

The checks of the second kind are functions, so that a test can inject a mistake and see that its check fails.
"""

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npvae import VAE
from npvae.commands import UserError
from npvae.config import Config
from npvae.data.pixels import batch
from npvae.derivatives import complex_step_gradient
from npvae.distributions import standard_normal_log_density
from npvae.gradcheck import small_problem
from npvae.layers import ACTIVATIONS
from npvae.objectives import log_mean_exp
from npvae.options import add_settings, given_settings
from tests.conftest import heeding, joint_on_a_line
from tests.jobs import LIMIT, wait_for
from tests.test_oracles import random_ppca

sys.path.insert(0, str(Path(__file__).parents[1] / "paper"))
import figure2
import figure3
import hmc
import marginal
import mcem
import race
import table1
import wake_sleep
from tables import FOLDER, read_table, update_table

LIKELIHOODS = ("bernoulli", "gaussian")


def one_latent(pixels, dtype=np.float64):
    """A VAE of one latent, whose posteriors are far from the prior, and not Gaussian."""
    rng = np.random.default_rng(4)
    vae = VAE(pixels, (16,), 1, rng=rng, dtype=dtype)
    for name in ("decoder.0.W", "decoder.0.b", "decoder.1.W"):
        vae.parameters[name][...] = rng.normal(size=vae.parameters[name].shape)
    return vae


def moments_on_a_line(vae, x):
    """log p(x) (N,), and the mean and the variance of p(z|x), (N,) and (N,), by quadrature."""
    z, dz, log_p = joint_on_a_line(vae, x)
    highest = log_p.max(axis=1, keepdims=True)
    p = np.exp(log_p - highest)  # (N, G)
    mean = p @ z[:, 0] / p.sum(axis=1)
    return highest[:, 0] + np.log(p.sum(axis=1) * dz), mean, p @ z[:, 0] ** 2 / p.sum(axis=1) - mean**2


def assert_moments(z, mean, covariance):
    """Independent z (S, J) have this mean (J,) and covariance (J, J), within 4.5 standard errors."""
    away = z - mean
    products = away[:, :, None] * away[:, None, :]  # (S, J, J)
    for values, expected in ((away, np.zeros_like(mean)), (products, covariance)):
        error = values.std(axis=0) / np.sqrt(len(z))
        assert (np.abs(values.mean(axis=0) - expected) < 4.5 * error).all()


# derivatives


def assert_gradient_of(vae, part, written, loss):
    """`written` (P,) is the derivative of loss(vae) in that part, 'encoder' or 'decoder', and zero in the other."""
    of_part = np.concatenate(
        [np.full(array.size, name.startswith(part)) for name, array in vae.parameters.views.items()]
    )

    def loss_of(theta):
        other = vae.astype(theta.dtype)
        other.parameters.values[of_part] = theta
        return loss(other)

    exact = complex_step_gradient(loss_of, vae.parameters.values[of_part])
    assert np.abs(written[of_part] - exact).max() <= 1e-12 * np.abs(exact).max()
    assert (written[~of_part] == 0).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_of_log_joint_is_its_derivative_and_no_weight_gradient_is_written(likelihood, activation, rng):
    vae, x, _ = small_problem(activation, likelihood=likelihood)
    z = rng.standard_normal((4, 3))
    found = hmc.log_joint_gradient(vae, x, z)
    exact = complex_step_gradient(lambda z: hmc.log_joint(vae, x, z).sum(), z)
    assert np.abs(found - exact).max() <= 1e-12 * np.abs(exact).max()
    assert not vae.parameters.gradient.any()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_decoder_gradient_of_monte_carlo_em_is_that_of_the_mean_over_all_blocks(likelihood, rng, monkeypatch):
    monkeypatch.setattr(mcem, "BLOCK", 3)
    vae, _, _ = small_problem(likelihood=likelihood)
    images, z = rng.integers(0, 256, (7, 12), np.uint8), rng.standard_normal((7, 3))
    mcem.learn(vae, images, z)
    assert_gradient_of(
        vae, "decoder", vae.parameters.gradient, lambda vae: -hmc.log_joint(vae, batch(images), z).mean()
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_wake_writes_the_derivative_of_its_loss_into_the_decoder_alone(likelihood):
    vae, x, eps = small_problem(likelihood=likelihood, samples=1)
    loss = wake_sleep.wake(vae, x, eps)
    assert_gradient_of(vae, "decoder", vae.parameters.gradient, lambda vae: wake_sleep.wake(vae, x, eps))
    written = vae.parameters.gradient.copy()
    vae.loss(x, eps)  # of −ELBO, with the same z, the decoder sees nothing else
    vae.backward()
    assert loss == pytest.approx(vae.reconstruction.mean(), rel=1e-14)
    assert np.allclose(written[written != 0], vae.parameters.gradient[written != 0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_sleep_writes_the_derivative_of_its_loss_into_the_encoder_alone(likelihood, rng):
    vae, _, _ = small_problem(likelihood=likelihood)
    x, z = wake_sleep.dream(vae, 4, rng)
    wake_sleep.sleep(vae, x, z)
    assert_gradient_of(vae, "encoder", vae.parameters.gradient, lambda vae: wake_sleep.sleep(vae, x, z))


def test_the_prior_on_the_weights_adds_the_derivative_of_its_log_density_over_the_number_of_examples():
    vae, _, _ = small_problem()
    race.add_prior(vae, 50)

    def loss(vae):
        weights = [array for name, array in vae.parameters.views.items() if name.startswith("decoder") and "W" in name]
        return -sum(standard_normal_log_density(W.ravel()) for W in weights) / 50

    assert_gradient_of(vae, "decoder", vae.parameters.gradient, loss)


# Hamiltonian Monte Carlo


def particle(rng, count=5):
    """The potential of a posterior, and z and r in it: (log_p, gradient, z, r)."""
    vae, _, _ = small_problem()
    x = rng.uniform(size=(count, 12))
    log_p, gradient = lambda z: hmc.log_joint(vae, x, z), lambda z: hmc.log_joint_gradient(vae, x, z)
    return log_p, gradient, *rng.standard_normal((2, count, 3))


def test_leapfrog_leads_back_when_the_momentum_is_reversed(rng):
    _, gradient, z, r = particle(rng)
    new_z, new_r = hmc.leapfrog(gradient, z, r, 0.3, 10)
    assert np.abs(new_z - z).max() > 1
    back_z, back_r = hmc.leapfrog(gradient, new_z, -new_r, 0.3, 10)
    np.testing.assert_allclose(back_z, z, rtol=0, atol=1e-10)
    np.testing.assert_allclose(back_r, -r, rtol=0, atol=1e-10)


def test_leapfrog_leaves_volumes_as_they_are(rng):
    _, gradient, z, r = particle(rng, 1)
    jacobian = []
    for direction in np.eye(6).reshape(6, 2, 1, 3):
        dz, dr = 1e-30j * direction
        jacobian.append(np.concatenate(hmc.leapfrog(gradient, z + dz, r + dr, 0.3, 10), axis=None).imag / 1e-30)
    assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-10)


def check_that_energy_errs_in_the_order_of_the_step_size_squared():
    log_p, gradient, z, r = particle(np.random.default_rng(1), 200)
    errors = []
    for steps in (20, 40):
        moved = hmc.leapfrog(gradient, z, r, 1 / steps, steps)
        errors.append(np.abs(hmc.energy(log_p, *moved) - hmc.energy(log_p, z, r)).mean())
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_half_the_step_size_has_a_quarter_of_the_error_of_energy():
    check_that_energy_errs_in_the_order_of_the_step_size_squared()


def test_proposals_and_their_way_back_are_in_balance(rng):
    log_p, gradient, z, r = particle(rng, 200)
    new_z, new_r = hmc.leapfrog(gradient, z, r, 0.5, 5)
    there, back = hmc.acceptance(log_p, z, r, new_z, new_r), hmc.acceptance(log_p, new_z, -new_r, z, -r)
    np.testing.assert_allclose(
        -hmc.energy(log_p, z, r) + np.log(there), -hmc.energy(log_p, new_z, -new_r) + np.log(back), rtol=0, atol=1e-10
    )
    assert there.min() < 0.9
    assert (np.maximum(there, back) == 1).all()


def check_that_chains_find_a_gaussian():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(3, 3))
    mean, covariance = rng.normal(size=3), A @ A.T + np.eye(3) / 4
    precision = np.linalg.inv(covariance)
    z = np.zeros((4000, 3))
    for _ in range(60):
        z, _ = hmc.transition(
            lambda z: -np.einsum("nj,jk,nk->n", z - mean, precision, z - mean) / 2,
            lambda z: (mean - z) @ precision,
            z,
            0.5,
            10,
            rng,
        )
    assert_moments(z, mean, covariance)


def test_chains_sample_a_correlated_gaussian():
    check_that_chains_find_a_gaussian()


def check_that_chains_find_the_posterior():
    rng, vae = np.random.default_rng(3), one_latent(4)
    some = rng.integers(0, 2, (3, 4)) * 1.0
    x, z = np.repeat(some, 1500, axis=0), rng.standard_normal((4500, 1))
    for _ in range(40):
        z, _ = hmc.posterior_transition(vae, x, z, 0.6, 5, rng)
    for each, mean, variance in zip(z.reshape(3, 1500, 1), *moments_on_a_line(vae, some)[1:], strict=True):
        assert_moments(each, mean[None], variance[None, None])


def test_chains_sample_the_posterior_of_a_vae():
    check_that_chains_find_the_posterior()


def check_that_the_cause_of_x_ranks_anywhere_in_its_posterior():
    """Of z ~ p(z) with x ~ p(x|z), and samples of p(z|x), any is the k-th smallest alike (Talts et al. 2018)."""
    rng, vae, samples = np.random.default_rng(4), one_latent(4), 9
    x, cause = wake_sleep.dream(vae, 4000, rng)
    z, ranks = rng.standard_normal(cause.shape), 0
    for i in range(20 + 6 * samples):
        z, _ = hmc.posterior_transition(vae, x, z, 0.6, 5, rng)
        if i >= 20 and i % 6 == 0:
            ranks = ranks + (z < cause)[:, 0]
    counts, expected = np.bincount(ranks, minlength=samples + 1), 4000 / (samples + 1)
    assert len(counts) == samples + 1
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # 99.9 % of chi-square, 9 degrees of freedom


def test_the_cause_of_an_example_ranks_uniformly_among_the_samples_of_its_posterior():
    check_that_the_cause_of_x_ranks_anywhere_in_its_posterior()


def test_a_motion_that_ends_where_it_began_traps_no_chain(rng):
    """In a standard normal four leapfrog steps of √2 turn (z, r) by a whole circle."""
    z = first = rng.standard_normal((500, 2))
    there, _ = hmc.leapfrog(np.negative, z, rng.standard_normal(z.shape), 2**0.5, 4)
    np.testing.assert_allclose(there, z, atol=1e-12)
    for _ in range(20):
        z, _ = hmc.transition(standard_normal_log_density, np.negative, z, 2**0.5, 4, rng)
    assert abs((z * first).mean()) < 0.15


@pytest.mark.parametrize("first", [0.01, 10.0])
def test_step_size_comes_to_accept_nine_proposals_in_ten(first, rng):
    log_p, gradient, z, _ = particle(rng, 300)
    step_size, shares = first, []
    for _ in range(60):
        z, accepted = hmc.transition(log_p, gradient, z, step_size, 5, rng)
        step_size = hmc.tuned(step_size, accepted)
        shares.append(accepted.mean())
    assert np.mean(shares[-30:]) == pytest.approx(0.9, abs=0.04)


def test_a_chain_alone_is_tuned_by_the_factor_of_the_authors():
    assert hmc.tuned(1.0, np.array([True])) == 1.02
    assert hmc.tuned(1.0, np.array([False])) == 1 / 1.02


# log p(x)


def check_that_log_p_x_is_found_with_one_latent():
    vae, rng = one_latent(12), np.random.default_rng(5)
    x, _ = wake_sleep.dream(vae, 200, rng)
    exact = moments_on_a_line(vae, x)[0]
    for found in marginal.log_likelihoods(vae, x, rng):
        assert abs((found - exact).mean()) < 0.02
        assert (found - exact).std() < 0.2


def test_both_estimates_of_log_p_x_agree_with_quadrature_over_one_latent():
    check_that_log_p_x_is_found_with_one_latent()


def check_that_log_p_x_is_found_with_correlated_latents():
    rng = np.random.default_rng(6)
    vae, x = random_ppca(rng)
    for found in marginal.log_likelihoods(vae, np.tile(x, (100, 1)), rng):
        error = found - np.tile(vae.log_p(x), 100)
        assert abs(error.mean()) < 0.03
        assert error.std() < 0.2


def test_both_estimates_of_log_p_x_are_exact_in_a_linear_model_whose_latents_correlate():
    check_that_log_p_x_is_found_with_correlated_latents()


def test_the_density_fitted_to_samples_has_their_moments_and_is_that_of_its_draws(rng, monkeypatch):
    monkeypatch.setattr(marginal, "LEAST_VARIANCE", 0)
    z = rng.normal(size=(40, 2, 3)) @ rng.normal(size=(3, 3)) + rng.normal(size=3)  # (S, N, J)
    q = marginal.Gaussian(z)
    drawn = q.draw(5000, rng)
    for n in range(2):
        covariance = np.cov(z[:, n].T)
        assert_moments(drawn[:, n], z[:, n].mean(axis=0), covariance)
        away = drawn[:, n] - z[:, n].mean(axis=0)
        square = np.einsum("sj,jk,sk->s", away, np.linalg.inv(covariance), away)
        log_density = -(3 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + square) / 2
        np.testing.assert_allclose(q.log_density(drawn)[:, n], log_density, rtol=1e-9)


def test_a_model_that_is_not_a_number_has_no_log_p_x_and_stops_nothing(rng):
    vae = one_latent(4)
    vae.parameters.values[...] = np.nan
    for found in marginal.log_likelihoods(vae, np.ones((3, 4)), rng, samples=5):
        assert np.isnan(found).all()


def test_chains_start_in_each_mode_as_often_as_it_is_likely(rng):
    """p(x|z) of z² has two modes; z of the other side of zero would not be reached by leapfrog steps."""
    vae = VAE(6, (2,), 1, zeros=True, dtype=np.float64)
    vae.parameters["decoder.0.W"][...], vae.parameters["decoder.0.b"][...] = [[4, -4]], [-4, -4]
    vae.parameters["decoder.1.W"][...], vae.parameters["decoder.1.b"][...] = 5, 5
    z = marginal.start(vae, np.ones((500, 6)), rng)
    assert (z < -0.7).mean() == pytest.approx(0.5, abs=0.1)
    assert (z > 0.7).mean() == pytest.approx(0.5, abs=0.1)


# the racers


def small_race(method, images, optimizer="adagrad", hidden=8, latent=2, rate=0.1, start="paper"):
    return race.Race(race.Racer("mnist", len(images), hidden, latent, method, optimizer, start), rate, images)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (130, 12), np.uint8)


@pytest.mark.parametrize("method", race.METHODS)
def test_a_race_resumes_bit_for_bit(method, images, tmp_path, monkeypatch):
    monkeypatch.setattr(mcem, "BLOCK", 50)
    uninterrupted, stopped, resumed = (small_race(method, images) for _ in range(3))
    uninterrupted.run(60_000)
    stopped.run(50_000)
    stopped.save(tmp_path / "race.npz")
    resumed.load(tmp_path / "race.npz")
    resumed.run(60_000)
    assert uninterrupted.arrays["steps"] > race.STANDING[method]
    for name, array in uninterrupted.arrays.items():
        if name != "seconds":
            assert resumed.arrays[name].tobytes() == array.tobytes(), name
    assert (resumed.vae.parameters.values == uninterrupted.vae.parameters.values).all()
    assert resumed.rng.bit_generator.state == uninterrupted.rng.bit_generator.state


def test_an_iteration_of_monte_carlo_em_moves_chains_and_decoder_and_counts_each_example_15_times(images):
    em = small_race("mcem", images)
    em.run(15 * 130)  # the iteration in which Adagrad stands
    before = {name: array.copy() for name, array in (em.arrays | em.vae.parameters.views).items()}
    em.run(2 * 15 * 130)
    assert em.arrays["examples"] == 2 * 15 * 130
    assert em.arrays["steps"] == 2 * 5
    assert (em.arrays["z"] != before["z"]).any(axis=1).mean() > 0.5
    assert em.arrays["z"].dtype == np.float32
    for name, array in em.vae.parameters.views.items():
        assert np.array_equal(array, before[name]) == name.startswith("encoder"), name


def every_picture(pixels):
    return np.array(list(itertools.product([0, 255], repeat=pixels)), np.uint8)


def test_monte_carlo_em_finds_a_model_as_likely_as_the_one_that_made_the_data(rng):
    truth = one_latent(6)
    x, _ = wake_sleep.dream(truth, 400, rng)
    em = small_race("mcem", (255 * x).astype(np.uint8), latent=1)
    em.run(400 * 15 * 150)
    likely, true = (moments_on_a_line(vae, x)[0].mean() for vae in (em.vae.astype(np.float64), truth))
    assert likely > true - 0.02


class DreamingRace(race.Race):
    """A race in which the decoder stays what it is, so that its posterior is to be found."""

    def descend(self):
        for name, d in self.vae.parameters.d_views.items():
            if name.startswith("decoder"):
                d[...] = 0
        self.optimizer.step()


def check_that_sleep_finds_the_posterior():
    """Where −log q(z|x) is least over dreams, q(z|x) has the mean and the variance of p(z|x)."""
    images, truth = every_picture(4), one_latent(4, np.float32)
    dreaming = DreamingRace(race.Racer("mnist", 16, 16, 1, "wake-sleep", "adam"), 0.003, images)
    dreaming.vae.parameters.values[...] = truth.parameters.values
    for rate in (0.01, 0.001):
        dreaming.optimizer.learning_rate = rate
        for _ in range(1500):
            dreaming.step(dreaming)
    x = batch(images)
    log_p, mean, variance = moments_on_a_line(truth, x)
    mu, logvar = dreaming.vae.encode(x)
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1, abs=1e-4)
    assert p @ (mu[:, 0] - mean) ** 2 < 0.01
    assert p @ (logvar[:, 0] - np.log(variance)) ** 2 < 0.02


def test_sleep_matches_the_moments_of_the_posterior():
    check_that_sleep_finds_the_posterior()


# injected mistakes: the check that each fails


def leapfrog_uphill(gradient, z, r, step_size, steps, leapfrog=hmc.leapfrog):
    return leapfrog(lambda z: -gradient(z), z, r, step_size, steps)


def whole_steps_of_momentum(gradient, z, r, step_size, steps):
    for _ in range(steps):
        r = r + step_size * gradient(z)
        z = z + step_size * r
    return z, r


def always_accepted(log_p, z, r, new_z, new_r):
    return np.ones(len(z))


def momentum_without_its_half(log_p, z, r):
    return -log_p(z) + (r**2).sum(axis=1)


def joint_without_prior(vae, x, z):
    return vae.likelihood.log_density(x, vae.decoder_outputs(z))


def data_for_dreams(vae, count, rng):
    """Data and what the encoder says of them: the sleep phase then teaches it what it already thinks."""
    x = batch(every_picture(4), rng.integers(0, 16, count))
    mu, logvar = vae.encode(x)
    return x, mu + np.exp(logvar / 2) * rng.standard_normal(mu.shape, np.float32)


def dreams_of_other_causes(vae, count, rng, dream=wake_sleep.dream):
    x, z = dream(vae, count, rng)
    return x, rng.permutation(z)


def determinant_upside_down(q, z, log_density=marginal.Gaussian.log_density):
    return log_density(q, z) + 2 * np.log(np.diagonal(q.L, axis1=1, axis2=2)).sum(axis=1)


def mean_of_the_inverse(a):
    return -log_mean_exp(-a)


@pytest.mark.parametrize(
    ("where", "name", "mistake", "check"),
    [
        (hmc, "leapfrog", leapfrog_uphill, check_that_energy_errs_in_the_order_of_the_step_size_squared),
        (hmc, "leapfrog", whole_steps_of_momentum, check_that_energy_errs_in_the_order_of_the_step_size_squared),
        (hmc, "acceptance", always_accepted, check_that_chains_find_a_gaussian),
        (hmc, "acceptance", always_accepted, check_that_chains_find_the_posterior),
        (hmc, "acceptance", always_accepted, check_that_the_cause_of_x_ranks_anywhere_in_its_posterior),
        (hmc, "energy", momentum_without_its_half, check_that_chains_find_a_gaussian),
        (hmc, "log_joint", joint_without_prior, check_that_chains_find_the_posterior),
        (race, "dream", data_for_dreams, check_that_sleep_finds_the_posterior),
        (race, "dream", dreams_of_other_causes, check_that_sleep_finds_the_posterior),
        (marginal, "log_joint", joint_without_prior, check_that_log_p_x_is_found_with_one_latent),
        (marginal.Gaussian, "log_density", determinant_upside_down, check_that_log_p_x_is_found_with_one_latent),
        (marginal, "log_mean_exp", mean_of_the_inverse, check_that_log_p_x_is_found_with_correlated_latents),
    ],
)
def test_an_injected_mistake_is_caught(where, name, mistake, check, monkeypatch):
    monkeypatch.setattr(where, name, mistake)
    with pytest.raises(AssertionError):
        check()


# the figures


def test_a_racer_goes_on_from_its_checkpoint_and_has_a_row_for_each_mark(images, tmp_path, monkeypatch):
    def measure(race, images):
        return {"": race.vae.parameters.values.sum().item(), "_of": len(images)}

    racer = race.Racer("mnist", 130, 8, 2, "mcem")
    monkeypatch.setattr(race, "images_of", lambda racer: (images, images[:30]))
    monkeypatch.setattr(race, "TRIAL", 5)
    tables = []
    for folder, visits in (("stopped", ([3000], [3000, 4000])), ("uninterrupted", ([3000, 4000],))):
        monkeypatch.setattr(race, "RUNS", tmp_path / folder)
        for marks in visits:
            rows = race.compete(racer, marks, measure)
        assert [row["examples"] for row in rows] == [2 * 15 * 130, 3 * 15 * 130]  # whole iterations
        key = [*vars(racer), "examples"]
        update_table(tmp_path / "table.csv", rows[:1], key)
        update_table(tmp_path / "table.csv", rows, key)
        update_table(tmp_path / "table.csv", [], key)
        tables.append([row | {"minutes": 0} for row in read_table(tmp_path / "table.csv")])
        (tmp_path / "table.csv").unlink()
    assert len(tables[0]) == 2
    assert tables[0] == tables[1]


def test_figure3_measures_log_p_x_by_both_estimates(images, monkeypatch):
    monkeypatch.setattr(figure3, "MEASURED", 20)
    learning = small_race("aevb", images)
    truth = one_latent(12, np.float32)
    learning.vae = truth
    found = figure3.marginals(learning, images)
    exact = moments_on_a_line(truth, batch(images[:20]))[0].mean()
    assert list(found) == ["", "_is"]
    for value in found.values():
        assert value == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize(("method", "examples"), [("aevb", 130), ("mcem", 100)])
def test_learning_rates_are_tried_for_as_many_steps_whatever_the_method(method, examples, images, monkeypatch):
    monkeypatch.setattr(race, "TRIAL", 10)
    tried = []

    def measure(race, images):
        tried.append((race.learning_rate, int(race.arrays["steps"]), len(images)))
        return {"": {0.01: -3, 0.02: -1, 0.1: np.nan}[race.learning_rate]}

    monkeypatch.setattr(race, "TRIED", 100)
    racer = race.Racer("mnist", 130, 8, 2, method)
    assert race.best_rate(racer, images, measure) == 0.02
    assert tried == [(rate, 10, examples) for rate in race.ADAGRAD_RATES]
    assert race.best_rate(race.Racer("mnist", 130, 8, 2, method, fixed_rate=0.05), images, measure) == 0.05
    assert len(tried) == 3


def test_models_of_figure_2_have_the_rate_of_one_of_them(images, monkeypatch):
    """After so few steps 0.01 and 0.02 are as good as each other with few latents; the sizes would differ by chance."""
    monkeypatch.setattr(race, "TRIAL", 1)
    for (dataset, hidden), latent in race.TRIAL_LATENTS.items():
        racers = [racer for racer in figure2.RACERS if racer.dataset == dataset]
        assert {racer.hidden for racer in racers} == {hidden}
        assert latent in {racer.latent for racer in racers}
        for racer in racers[:4:3]:  # with 20 and with 10 latents
            tried = []
            race.best_rate(racer, images, lambda race, _, tried=tried: {"": tried.append(race.racer.latent) or 0.0})
            assert tried == [latent] * 3
    (racer, *_) = figure3.RACERS
    assert (racer.dataset, racer.hidden) not in race.TRIAL_LATENTS


def test_a_race_of_the_paper_starts_from_random_numbers_of_variance_one_hundredth(images):
    vae = race.Race(race.Racer("frey", 130, 50, 20, "aevb"), 0.1, np.repeat(images, 10, axis=1)).vae
    for name, array in vae.parameters.views.items():
        assert array.var() == pytest.approx(0.01, rel=0.6 if name.endswith(".b") else 0.1), name
        assert array.mean() == pytest.approx(0, abs=0.05), name


def test_a_race_of_the_code_starts_from_small_weights_and_nothing_else(images):
    racer = race.Racer("frey", 130, 50, 20, "aevb", start="code")
    vae = race.Race(racer, 0.1, np.repeat(images, 10, axis=1)).vae
    for name, array in vae.parameters.views.items():
        if name.endswith(".b"):
            assert not array.any(), name
    encoder, decoder = vae.parameters["encoder.1.W"], vae.parameters["decoder.1.W"]
    assert not encoder[:, 20:].any()  # log-variances
    assert not decoder[:, 120:].any()
    for weights in (vae.parameters["encoder.0.W"], encoder[:, :20], vae.parameters["decoder.0.W"], decoder[:, :120]):
        assert weights.std() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("method", "standing"), [("aevb", 100), ("wake-sleep", 100), ("mcem", 5)])
def test_adagrad_of_the_code_gathers_squares_before_it_moves(method, standing, images):
    learning = small_race(method, images, start="code")
    started = learning.vae.parameters.values.copy()
    while learning.arrays["steps"] < standing:
        learning.step(learning)
    assert learning.arrays["steps"] == standing
    assert np.array_equal(learning.vae.parameters.values, started)
    assert (learning.optimizer.state["squares"] > 0).any()
    learning.step(learning)
    assert (learning.vae.parameters.values != started).any()
    at_once = small_race(method, images, start="paper")
    started = at_once.vae.parameters.values.copy()
    at_once.step(at_once)
    assert (at_once.vae.parameters.values != started).any()


def test_a_step_of_aevb_follows_minus_elbo_and_the_prior_on_the_decoders_weights(images):
    learning, other = (small_race("aevb", images, optimizer="adam") for _ in range(2))
    learning.vae.parameters.values[...] = other.vae.parameters.values[...] = 0.1
    learning.step(learning)
    x = other.draw_batch()
    other.vae.loss(x, other.rng.standard_normal((1, 100, 2), np.float32))
    other.vae.backward()
    expected = other.vae.parameters.gradient
    for name in ("decoder.0.W", "decoder.1.W"):
        other.vae.parameters.d(name)[...] += np.float32(0.1) / 130
    assert np.array_equal(learning.vae.parameters.gradient, expected)


def test_the_bound_of_faces_is_that_of_the_density_of_byte_over_256(images):
    """A density of x / 256 · 255 is 256 / 255 times as high in each of its dimensions."""
    faces = race.Race(race.Racer("frey", 130, 8, 2, "aevb"), 0.1, images)
    digits = race.Race(race.Racer("mnist", 130, 8, 2, "aevb"), 0.1, images)
    digits.vae = faces.vae
    assert race.elbo(faces, images)[""] - race.elbo(digits, images)[""] == pytest.approx(12 * np.log(256 / 255))


def test_racers_are_chosen_by_whole_parts_of_their_names():
    chosen = [racer.latent for racer in figure2.RACERS if race.is_called(racer, ["mnist-50000-500-20"])]
    assert chosen == [20] * 6


@pytest.mark.parametrize("figure", [figure2, figure3])
def test_pictures_and_readme_are_of_what_was_measured(figure, tmp_path, monkeypatch):
    monkeypatch.setattr(figure, "PICTURE", tmp_path / "picture.png")
    rows = read_table(figure.TABLE)
    keys = [tuple(row[name] for name in [*vars(figure.RACERS[0]), "examples"]) for row in rows]
    assert len(set(keys)) == len(keys)
    figure.draw(rows)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "\n".join(figure.compare(rows)) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_table1_in_the_readme_is_what_was_measured():
    lines = list(table1.compare(read_table(table1.TABLE)))
    assert len(lines) > 5
    assert "\n".join(lines) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_schedule_of_table1_is_one_that_npvae_takes():
    for epochs in (40, 800, 3280):
        parser = argparse.ArgumentParser()
        add_settings(parser)
        config = Config(**given_settings(parser.parse_args(table1.settings("iwae-5", 1, epochs))))
        assert (config.epochs, config.seed, config.samples) == (epochs, 1, 5)
        assert config.learning_rate_after(epochs - 1) == 1e-4


# what is broken, and what is stopped


def without(name):
    """A checkpoint from which something is missing."""

    def damage(data, path):
        np.savez(path, **{key: array for key, array in np.load(path).items() if key != name})
        return path.read_bytes()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda data, path: b"",
        lambda data, path: b"text",
        lambda data, path: data[: len(data) // 2],
        lambda data, path: data.replace(*(text.encode("utf-32-le") for text in ("PCG64", "PCX64"))),  # a wrong checksum
        without("rng"),
        without("rows"),
        without("learning_rate"),
    ],
)
def test_a_broken_checkpoint_of_any_racer_is_told_before_the_race(damage, images, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(race, "RUNS", tmp_path)
    monkeypatch.setattr(race, "load", lambda name: None)
    monkeypatch.setattr(figure2, "TABLE", tmp_path / "table.csv")
    path = figure2.RACERS[-1].checkpoint
    small_race("aevb", images).save(path)
    before = path.read_bytes()
    path.write_bytes(damage(before, path))
    assert path.read_bytes() != before
    message = refused(figure2.main, [figure2.RACERS[0].name])
    assert f"{path} is broken" in message
    assert "remove it, and that racer begins anew" in message


def test_a_checkpoint_of_another_model_is_not_taken(images, tmp_path):
    small_race("aevb", images, hidden=9).save(tmp_path / "race.npz")
    with pytest.raises(UserError, match=r"race.npz holds parameters as float32 \(\d+,\), expected"):
        small_race("aevb", images).load(tmp_path / "race.npz")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (r",[\d.]+\r\n$", "", "line 3 has 3 values, expected 4"),
        (r"^", "<<<<<<< HEAD\r\n", "line 2 has 4 values, expected 1"),
        (r"(?s).*", "", "is broken"),
        (r"model", "what", "KeyError"),
        (r"epochs", "epoch", "rows of different columns"),
        (r"a,1", "a,one", "TypeError"),
        (r"b", "\x96", "can't decode byte 0x96"),
    ],
)
def test_a_broken_table_is_told_and_left_as_it_is(old, new, says, tmp_path):
    path = tmp_path / "table.csv"
    rows = [{"model": model, "seed": 1, "epochs": 2, "nll": 86.5} for model in ("a", "b")]
    update_table(path, rows, ("model", "seed"))
    broken = re.sub(old, new, path.read_bytes().decode(), count=1).encode("latin-1")
    path.write_bytes(broken)
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        update_table(path, rows[:1], ("model", "seed"))
    assert says in str(error.value)
    assert path.read_bytes() == broken


@pytest.mark.parametrize("found", [None, "", "{", "[]", "{}", '{"importance_samples": 5}'])
def test_an_evaluation_is_kept_and_done_again_where_it_is_not_whole(found, tmp_path, monkeypatch):
    ran, kept = [], tmp_path / "evaluation-1.json"
    if found is not None:
        kept.write_text(found)

    def run(main, *arguments):
        ran.append(arguments)
        (tmp_path / "evaluation.json").write_text(json.dumps({"importance_samples": 50}))

    monkeypatch.setattr(table1, "run", run)
    for _ in range(2):
        assert table1.evaluated(tmp_path, 50, 1) == {"importance_samples": 50}
    assert ran == [(tmp_path, "--importance-samples", 50, "--noise-seed", 1)]


SIDE_BY_SIDE = """
import os, sys, time
from pathlib import Path
from npvae.commands import StopRequest, UserError, command
from processes import in_processes

def task(number, fails):
    with StopRequest() as stop:
        Path(f"{number}.begun").touch()
        while not stop.signal:
            time.sleep(0.01)
            if fails and Path("0.begun").exists():
                raise UserError("no room")
        time.sleep(0.5)  # for a second signal, which would act at once
    Path(f"{number}.saved").touch()

@command("program")
def main(failing):
    for _ in in_processes(task, [(number, str(number) in failing) for number in range(5)], 2):
        pass
    return 0

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def side_by_side(folder, *failing):
    """A program that does five tasks, two at a time, each until it is stopped; it is doing the first two."""
    (folder / "program.py").write_text(SIDE_BY_SIDE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parent)])}
    process = subprocess.Popen(
        [sys.executable, "program.py", *failing],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeding,
    )
    for number in (0, 1):
        wait_for(folder / f"{number}.begun", process)
    return process


@posix
@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGINT, 130, "program: interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_a_signal_to_all_programs_stops_each_task_once_and_no_other_begins(number, code, says, tmp_path):
    process = side_by_side(tmp_path)
    os.killpg(process.pid, number)
    assert (process.communicate(timeout=LIMIT)[1], process.returncode) == (says, code)
    assert sorted(path.name for path in tmp_path.glob("[0-9]*")) == ["0.begun", "0.saved", "1.begun", "1.saved"]


@posix
def test_a_task_that_fails_stops_the_other_once_and_no_other_begins(tmp_path):
    process = side_by_side(tmp_path, "1")
    assert (process.communicate(timeout=LIMIT)[1], process.returncode) == ("program: no room\n", 2)
    assert sorted(path.name for path in tmp_path.glob("[0-9]*")) == ["0.begun", "0.saved", "1.begun"]


@posix
def test_tasks_end_with_a_program_that_is_killed(tmp_path):
    process = side_by_side(tmp_path)
    process.kill()
    process.communicate(timeout=LIMIT)  # returns when nobody is left who could write to stderr
    assert not list(tmp_path.glob("*.saved"))
