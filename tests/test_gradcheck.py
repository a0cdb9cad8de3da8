import dataclasses

import numpy as np
import pytest

from npvae import distributions, gradcheck, objectives, vae
from npvae.distributions import LIKELIHOODS
from npvae.gradcheck import (
    central_difference_gradient,
    check_gradient,
    check_vae,
    complex_step_gradient,
    small_problem,
)
from npvae.layers import ACTIVATIONS, Dense, Tanh, sigmoid
from npvae.objectives import OBJECTIVES, log_weights_gradient
from npvae.parameters import Parameters

SETUPS = [(activation, hidden, L) for activation in ACTIVATIONS for hidden in ((7,), (7, 5)) for L in (1, 3)]


@pytest.mark.parametrize(("activation", "hidden", "samples"), SETUPS)
def test_every_element_of_every_gradient_is_right(activation, hidden, samples):
    model, x, eps = small_problem(activation, hidden, samples)
    assert all((model.parameters[name] != 0).all() for name in model.parameters.shapes)  # biases too
    checks = check_vae(model, x, eps)
    assert [check.name for check in checks] == list(model.parameters.shapes)
    assert max(check.complex_error for check in checks) <= 1e-12
    assert max(check.central_error for check in checks) <= 1e-6
    assert all(check.passed for check in checks)
    assert sum(check.skipped for check in checks) == 0


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_gradient_of_every_objective_likelihood_and_conditioning_is_right(objective, likelihood, classes, beta):
    model, *data = small_problem(objective=objective, likelihood=likelihood, classes=classes)
    checks = check_vae(model, *data, beta=beta)
    assert max(check.complex_error for check in checks) <= 1e-12
    assert max(check.central_error for check in checks) <= 1e-6
    assert all(check.passed for check in checks)


@pytest.mark.parametrize("objective", ["stl", "iwae-dreg"])
def test_path_derivatives_are_not_the_derivative_of_their_loss(objective, monkeypatch):
    monkeypatch.setattr(gradcheck, "held_fixed", lambda vae: (vae.objective.loss,) * 2)
    checks = {check.name: check for check in check_vae(*small_problem(objective=objective))}
    assert all(check.passed == name.startswith("decoder") for name, check in checks.items())


def without_bias(self, d_y, need_d_x=True):
    self.d_W[...] = self.x.T @ d_y
    return d_y @ self.W.T


def wrong_kl(scale_mu, scale_logvar):
    return lambda mu, logvar: (scale_mu * mu, scale_logvar * (np.exp(logvar) - 1) / 2)


def wrong_trick(scale_mu, scale_logvar):
    def gradient(d_z, logvar, eps):
        return scale_mu * d_z.sum(axis=0), scale_logvar * (d_z * eps).sum(axis=0) * np.exp(logvar / 2) / 2

    return gradient


def wrong_decoder(gradient):
    wrong = dataclasses.replace(distributions.LIKELIHOODS["bernoulli"], log_density_gradient=gradient)
    return distributions.LIKELIHOODS, "bernoulli", wrong


BACKWARD_BUGS = {
    "bias left out": (Dense, "backward", without_bias),
    "tanh's derivative left out": (Tanh, "backward", lambda self, d_y: d_y.copy()),
    "KL: sign of mu": (objectives, "gaussian_kl_gradient", wrong_kl(-1, 1)),
    "KL: sign of logvar": (objectives, "gaussian_kl_gradient", wrong_kl(1, -1)),
    "KL: ½ of logvar left out": (objectives, "gaussian_kl_gradient", wrong_kl(1, 2)),
    "KL: left out": (objectives, "gaussian_kl_gradient", wrong_kl(0, 0)),
    "trick: ½ left out": (vae, "reparameterize_gradient", wrong_trick(1, 2)),
    "trick: sign": (vae, "reparameterize_gradient", wrong_trick(1, -1)),
    "trick: noise taken for constant": (vae, "reparameterize_gradient", wrong_trick(1, 0)),
    "decoder: sign": wrong_decoder(lambda x, logits: sigmoid(logits) - x),
    "decoder: an extra y(1 − y)": wrong_decoder(
        lambda x, logits: (x - sigmoid(logits)) * sigmoid(logits) * (1 - sigmoid(logits))
    ),
}


def wrong_weights(log_w):
    w = np.exp(log_w - log_w.max(axis=0))
    return w / len(w)  # not normalized


def without_score(d_log_w, z, mu, logvar, beta, decoder_backward):
    d_z, d_mu, d_logvar = log_weights_gradient(d_log_w, z, mu, logvar, beta, decoder_backward)
    return d_z, 0 * d_mu, 0 * d_logvar


def without_prior(d_log_w, z, mu, logvar, beta, decoder_backward):
    d_z, d_mu, d_logvar = log_weights_gradient(d_log_w, z, mu, logvar, beta, decoder_backward)
    return d_z + beta * d_log_w[..., None] * z, d_mu, d_logvar


def without_sigmoid(x, outputs):
    mean, logvar = distributions.gaussian_pixels(outputs)
    _, d_mean, d_logvar = distributions.gaussian_log_density_gradient(x, mean, logvar)
    return np.concatenate([d_mean, d_logvar * sigmoid(outputs[..., 12:] - distributions.LOGVAR_FLOOR)], axis=-1)


def dreg_with(factor):
    def gradient(log_p_x, z, mu, logvar, beta, decoder_backward):
        d_z, d_mu, d_logvar = objectives.iwae_gradient(log_p_x, z, mu, logvar, beta, decoder_backward)
        w = objectives.normalized_weights(objectives.log_weights(log_p_x, z, mu, logvar, beta))
        return d_z * factor(w)[..., None], 0 * d_mu, 0 * d_logvar

    return OBJECTIVES, "iwae-dreg", dataclasses.replace(OBJECTIVES["iwae-dreg"], gradient=gradient)


WRONG_GAUSSIAN = dataclasses.replace(LIKELIHOODS["gaussian"], log_density_gradient=without_sigmoid)
OBJECTIVE_BUGS = {
    "iwae: weights not normalized": ("iwae", objectives, "normalized_weights", wrong_weights),
    "iwae: score of q(z|x) left out": ("iwae", objectives, "log_weights_gradient", without_score),
    "sampled-elbo: score of q(z|x) left out": ("sampled-elbo", objectives, "log_weights_gradient", without_score),
    "sampled-elbo: prior left out": ("sampled-elbo", objectives, "log_weights_gradient", without_prior),
    "stl: prior left out": ("stl", objectives, "log_weights_gradient", without_prior),
    "iwae-dreg: weights not squared": ("iwae-dreg", *dreg_with(np.ones_like)),
    "gaussian: derivative of the mean's sigmoid left out": ("elbo", LIKELIHOODS, "gaussian", WRONG_GAUSSIAN),
}


@pytest.mark.parametrize("bug", OBJECTIVE_BUGS)
def test_a_mistake_in_an_objective_or_a_likelihood_fails_the_check(bug, monkeypatch):
    objective, *where = OBJECTIVE_BUGS[bug]
    inject(monkeypatch, *where)
    checks = check_vae(
        *small_problem(objective=objective, likelihood=bug.split(":")[0] if "gaussian" in bug else "bernoulli")
    )
    assert max(check.complex_error for check in checks) > 1e-3


def test_the_doubly_reparameterized_gradient_that_the_bugs_are_made_from_passes(monkeypatch):
    inject(monkeypatch, *dreg_with(lambda w: w))
    assert all(check.passed for check in check_vae(*small_problem(objective="iwae-dreg")))


def inject(monkeypatch, target, name, wrong):
    (monkeypatch.setitem if isinstance(target, dict) else monkeypatch.setattr)(target, name, wrong)


@pytest.mark.parametrize("bug", BACKWARD_BUGS)
def test_a_mistake_in_the_backward_pass_fails_the_check(bug, monkeypatch):
    inject(monkeypatch, *BACKWARD_BUGS[bug])
    checks = check_vae(*small_problem())
    assert not all(check.passed for check in checks)
    assert max(check.complex_error for check in checks) > 1e-3


def test_a_wrong_forward_pass_with_its_own_derivative_passes_the_check(monkeypatch):
    """Why distributions have tests of their own: σ² used as σ is consistent with itself."""
    monkeypatch.setattr(vae, "reparameterize", lambda mu, logvar, eps: mu + np.exp(logvar) * eps)
    monkeypatch.setattr(
        vae,
        "reparameterize_gradient",
        lambda d_z, logvar, eps: (d_z.sum(axis=0), (d_z * eps).sum(axis=0) * np.exp(logvar)),
    )
    assert all(check.passed for check in check_vae(*small_problem()))


def test_numerical_gradients_of_a_known_function(rng):
    theta = rng.normal(size=6)
    exact = np.exp(theta) * np.cos(theta) - np.exp(theta) * np.sin(theta)
    complex_theta = theta.astype(complex)
    by_complex_step = complex_step_gradient(
        lambda: (np.exp(complex_theta) * np.cos(complex_theta)).sum(), complex_theta
    )
    np.testing.assert_allclose(by_complex_step, exact, rtol=1e-14)
    np.testing.assert_array_equal(complex_theta, theta)  # restored
    real_theta = theta.copy()
    by_difference = central_difference_gradient(lambda: (np.exp(real_theta) * np.cos(real_theta)).sum(), real_theta)
    np.testing.assert_allclose(by_difference, exact, rtol=1e-8)
    np.testing.assert_array_equal(real_theta, theta)


@pytest.mark.parametrize("hair", [1e-9, -1e-9])
def test_elements_whose_relu_flips_within_the_step_are_skipped_and_counted(hair):
    model, x, eps = small_problem("relu", (7,), 1)
    W, b = model.parameters["encoder.0.W"], model.parameters["encoder.0.b"]
    b[2] = -(x[1] @ W[:, 2]) + hair  # unit 2 is a hair from its kink for example 1
    checks = {check.name: check for check in check_vae(model, x, eps)}
    assert checks["encoder.0.b"].skipped == 1
    assert checks["encoder.0.W"].skipped == np.count_nonzero(x[1] > 1e-3)
    assert all(check.passed for check in checks.values())
    assert "flips" in gradcheck.summary(checks.values())


def test_command_prints_a_row_per_array_and_passes(capsys):
    assert gradcheck.main([]) == 0
    out = capsys.readouterr().out
    for name in small_problem()[0].parameters.shapes:
        assert any(line.startswith(name) and line.endswith("ok") for line in out.splitlines())


def test_command_fails_where_a_gradient_is_wrong(capsys, monkeypatch):
    inject(monkeypatch, *BACKWARD_BUGS["bias left out"])
    assert gradcheck.main([]) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("encoder", "decoder"))]
    assert all(row.endswith("FAIL") == (row.split()[0].endswith(".b")) for row in rows)


def test_float32_cannot_tell_a_right_gradient_from_a_slightly_wrong_one(capsys):
    assert gradcheck.main(["--dtype", "float32"]) == 1
    checks = check_vae(*small_problem(), dtype=np.float32)
    assert max(check.central_error for check in checks) > 1e-5


def test_command_checks_every_set_up_with_all(capsys):
    assert gradcheck.main(["--all"]) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if line.endswith(": ok")]) == len(
        gradcheck.SETUPS
    )


@pytest.mark.parametrize("wrong", ["analytic", "complex_step", "central"])
def test_verdict_needs_all_three_derivatives_to_agree(wrong, rng):
    parameters = Parameters({"W": (2, 3)}, float)
    right = rng.normal(size=6)
    gradients = {name: right.copy() for name in ("analytic", "complex_step", "central")}
    assert check_gradient(parameters, **gradients)[0].passed
    gradients[wrong][4] *= 1.01
    check = check_gradient(parameters, **gradients)[0]
    assert not check.passed
    assert check.worst == (1, 1)


def test_parameters_may_have_any_shape():
    W = np.arange(1.0, 7).reshape(2, 3)
    theta, real = W.astype(complex), W.copy()
    np.testing.assert_allclose(complex_step_gradient(lambda: (theta**3).sum(), theta), 3 * W**2, rtol=1e-14)
    np.testing.assert_allclose(central_difference_gradient(lambda: (real**3).sum(), real), 3 * W**2, rtol=1e-8)
    with pytest.raises(TypeError, match="complex"):
        complex_step_gradient(lambda: 0, W)


def test_a_loss_that_is_nan_is_not_taken_for_a_kink():
    theta = np.array([4.0, 1e-9])
    with pytest.raises(ValueError, match="NaN"), np.errstate(invalid="ignore"):
        central_difference_gradient(lambda: np.sqrt(theta).sum(), theta)
    np.testing.assert_array_equal(theta, [4.0, 1e-9])  # restored
