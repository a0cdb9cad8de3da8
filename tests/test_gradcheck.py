"""The checker: of npvae's own gradients, of wrong ones, and of VAEs that are not what they seem."""

import dataclasses
import itertools

import numpy as np
import pytest

from npvae import VAE, distributions, gradcheck, objectives, vae
from npvae.data.datasets import load
from npvae.data.pixels import batch
from npvae.distributions import LIKELIHOODS
from npvae.gradcheck import check_vae, small_problem
from npvae.layers import ACTIVATIONS, Dense, Tanh, sigmoid
from npvae.objectives import OBJECTIVES
from npvae.runs import Run

SETUPS = [(activation, hidden, L) for activation in ACTIVATIONS for hidden in ((7,), (7, 5)) for L in (1, 3)]


def assert_right_in_every_element(report):
    assert all(check.compared == np.prod(check.shape, dtype=int) for check in report)
    assert report.worst("complex_error") <= 1e-12
    assert report.worst("central_error") <= 1e-6
    assert report.passed


@pytest.mark.parametrize(("activation", "hidden", "samples"), SETUPS)
def test_every_element_of_every_gradient_is_right(activation, hidden, samples):
    model, x, eps = small_problem(activation, hidden, samples)
    assert all((model.parameters[name] != 0).all() for name in model.parameters.shapes)  # biases too
    report = check_vae(model, x, eps)
    assert [check.name for check in report] == list(model.parameters.shapes)
    assert_right_in_every_element(report)
    assert sum(check.skipped for check in report) == 0


@pytest.mark.parametrize(("classes", "beta"), [(0, 1.0), (3, 0.3)], ids=["unconditional", "conditional, beta"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_gradient_of_every_objective_likelihood_and_conditioning_is_right(objective, likelihood, classes, beta):
    model, *data = small_problem(objective=objective, likelihood=likelihood, classes=classes, hidden=(3,))
    assert_right_in_every_element(check_vae(model, *data, beta=beta))


@pytest.mark.parametrize("objective", ["stl", "iwae-dreg"])
def test_path_derivatives_are_not_the_derivative_of_their_loss(objective, monkeypatch):
    monkeypatch.setattr(gradcheck, "held_fixed", lambda vae: dict.fromkeys((True, False), vae.objective.loss))
    report = check_vae(*small_problem(objective=objective))
    assert all(check.passed == check.name.startswith("decoder") for check in report)


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


def wrong_road(objective, change):
    """The objective with its road's results (d_z, d_mu, d_logvar) changed, given z and d_log_p_x."""
    right = OBJECTIVES[objective]

    def road(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta):
        found = right.road(d_z, d_log_p_x, log_p_x, z, mu, logvar, beta)
        return change(*found, beta * d_log_p_x[..., None] * z)

    return OBJECTIVES, objective, dataclasses.replace(right, road=road)


def without_score(d_z, d_mu, d_logvar, prior):
    return d_z, 0 * d_mu, 0 * d_logvar


def without_prior(d_z, d_mu, d_logvar, prior):
    return d_z + prior, d_mu, d_logvar


def without_sigmoid(x, outputs):
    mean, logvar = distributions.gaussian_pixels(outputs)
    _, d_mean, d_logvar = distributions.gaussian_log_density_gradient(x, mean, logvar)
    return np.concatenate([d_mean, d_logvar * sigmoid(outputs[..., 12:] - distributions.LOGVAR_FLOOR)], axis=-1)


OBJECTIVE_BUGS = {
    "iwae: weights not normalized": ("iwae", objectives, "normalized_weights", wrong_weights),
    "iwae: score of q(z|x) left out": ("iwae", *wrong_road("iwae", without_score)),
    "sampled-elbo: score of q(z|x) left out": ("sampled-elbo", *wrong_road("sampled-elbo", without_score)),
    "sampled-elbo: prior left out": ("sampled-elbo", *wrong_road("sampled-elbo", without_prior)),
    "stl: prior left out": ("stl", *wrong_road("stl", without_prior)),
    "iwae-dreg: prior left out": ("iwae-dreg", *wrong_road("iwae-dreg", without_prior)),
    "iwae-dreg: weights not squared": (
        *("iwae-dreg", OBJECTIVES, "iwae-dreg"),
        dataclasses.replace(OBJECTIVES["iwae-dreg"], road=objectives.without_score),
    ),
    "gaussian: derivative of the mean's sigmoid left out": (
        *("elbo", LIKELIHOODS, "gaussian"),
        dataclasses.replace(LIKELIHOODS["gaussian"], log_density_gradient=without_sigmoid),
    ),
}


@pytest.mark.parametrize("bug", OBJECTIVE_BUGS)
def test_a_mistake_in_an_objective_or_a_likelihood_fails_the_check(bug, monkeypatch):
    objective, *where = OBJECTIVE_BUGS[bug]
    inject(monkeypatch, *where)
    likelihood = "gaussian" if bug.startswith("gaussian") else "bernoulli"
    report = check_vae(*small_problem(objective=objective, likelihood=likelihood))
    assert not report.passed
    assert report.worst("complex_error") > 1e-3


def inject(monkeypatch, target, name, wrong):
    (monkeypatch.setitem if isinstance(target, dict) else monkeypatch.setattr)(target, name, wrong)


@pytest.mark.parametrize("bug", BACKWARD_BUGS)
def test_a_mistake_in_the_backward_pass_fails_the_check(bug, monkeypatch):
    inject(monkeypatch, *BACKWARD_BUGS[bug])
    report = check_vae(*small_problem())
    assert not report.passed
    assert report.worst("complex_error") > 1e-3


def test_a_wrong_forward_pass_with_its_own_derivative_passes_the_check(monkeypatch):
    """Why distributions have tests of their own: σ² used as σ is consistent with itself."""
    monkeypatch.setattr(vae, "reparameterize", lambda mu, logvar, eps: mu + np.exp(logvar) * eps)
    monkeypatch.setattr(
        vae,
        "reparameterize_gradient",
        lambda d_z, logvar, eps: (d_z.sum(axis=0), (d_z * eps).sum(axis=0) * np.exp(logvar)),
    )
    assert check_vae(*small_problem()).passed


class ThreeTimesUphill(VAE):
    def backward(self):
        super().backward()
        self.parameters.gradient *= -3


class HalfABias(Dense):
    def backward(self, d_y, need_d_x=True):
        d_x = super().backward(d_y, need_d_x)
        self.d_b[...] *= 0.5
        return d_x


def impostors():
    rng = np.random.default_rng(0)
    subclass = ThreeTimesUphill(12, (7,), 3, rng=rng)
    objective = VAE(12, (7,), 3, rng=rng)
    sum_for_mean = lambda log_p_x, *others: np.full_like(log_p_x, -1 / len(log_p_x))  # noqa: E731
    objective.objective = dataclasses.replace(objective.objective, d_log_p_x=sum_for_mean)
    layer = VAE(12, (7,), 3, rng=rng)
    layer.encoder.layers[0] = HalfABias(layer.parameters, "encoder.0")
    method = VAE(12, (7,), 3, rng=rng)
    right = method.backward

    def backward():
        right()
        method.parameters.d("decoder.1.b")[...] = 0

    method.backward = backward
    return {
        "a subclass": (subclass, "-3 times"),
        "a replaced objective": (objective, "4 times"),
        "a wrong layer": (layer, "0.5 times"),
        "a replaced method": (method, "zero everywhere"),
    }


@pytest.mark.parametrize("elements", ["all", "auto"])
@pytest.mark.parametrize("impostor", impostors())
def test_the_object_that_is_given_is_the_one_that_is_checked(impostor, elements):
    model, what = impostors()[impostor]
    _, x, eps = small_problem()
    before = model.parameters.values.copy(), model.parameters.gradient.copy()
    report = check_vae(model, x, eps, elements=elements)
    assert not report.passed
    assert what in str(report)
    assert model.parameters.values.dtype == np.float32
    for array, kept in zip((model.parameters.values, model.parameters.gradient), before, strict=True):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("objective", ["elbo", "stl", "iwae-dreg"])
def test_parameters_beside_the_two_networks_are_checked_too(objective):
    class Tempered(VAE):
        """Has a factor of its own before the loss, whose derivative is wrong."""

        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            shapes = {**self.parameters.shapes, "temperature": (1,)}
            values = np.append(self.parameters.values, 1.5)
            self.parameters.shapes = shapes
            self.parameters.bind(values, np.zeros_like(values))

        def loss(self, *arguments):
            self.bare = super().loss(*arguments)
            return self.bare * self.parameters["temperature"][0]

        def backward(self):
            super().backward()
            self.parameters.gradient *= self.parameters["temperature"][0]
            self.parameters.d("temperature")[...] = -5 * self.bare

    _, x, eps = small_problem()
    report = check_vae(Tempered(12, (5,), 3, objective=objective, rng=np.random.default_rng(0), dtype=float), x, eps)
    assert [check.name for check in report if not check.passed] == ["temperature"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_model_of_zeros_is_checked_where_it_is_not_zero(objective):
    _, x, eps = small_problem()
    model = VAE(12, (5,), 3, "tanh", objective=objective, zeros=True, dtype=float)
    assert check_vae(model, x, eps).passed
    model.encoder.layers[1].backward = lambda d_y: d_y.copy()  # without the derivative of tanh, which is 1 at zero
    assert not check_vae(model, x, eps).passed


def test_what_the_last_loss_has_left_stays_after_a_check():
    model, x, eps = small_problem(objective="iwae")
    model.loss(x, eps)
    losses = model.losses.copy()
    check_vae(model, x, eps[:, ::-1])
    np.testing.assert_array_equal(model.losses, losses)


def test_a_check_that_is_interrupted_leaves_the_model_as_it_was(monkeypatch):
    model, x, eps = small_problem("tanh", (7,), 1, objective="stl")
    values, objective, calls = model.parameters.values, model.objective, itertools.count()
    kept, right = values.copy(), model.encode

    def encode(*arguments):
        if next(calls) == 40:
            raise KeyboardInterrupt
        return right(*arguments)

    monkeypatch.setattr(model, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        check_vae(model, x, eps)
    assert model.parameters.values is values
    assert model.objective is objective
    np.testing.assert_array_equal(values, kept)
    monkeypatch.undo()
    model.loss(x, eps)
    model.backward()  # the views are those of the parameters again
    assert model.parameters.gradient.any()


@pytest.mark.parametrize("hair", [1e-9, -1e-9])
def test_elements_whose_relu_flips_within_the_step_are_skipped_and_counted(hair):
    model, x, eps = small_problem("relu", (7,), 1)
    W, b = model.parameters["encoder.0.W"], model.parameters["encoder.0.b"]
    b[2] = -(x[1] @ W[:, 2]) + hair  # unit 2 is a hair from its kink for example 1
    report = check_vae(model, x, eps)
    skipped = {check.name: check.skipped for check in report}
    assert skipped["encoder.0.b"] == 1
    assert skipped["encoder.0.W"] >= 10  # of the 12 weights, but those that are so small that they are nudged by less
    assert report.passed
    assert "skipped, at a kink" in report.summary()


@pytest.mark.parametrize("wrong", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_of_full_size_is_checked_in_every_array(wrong):
    rng = np.random.default_rng(0)
    model = VAE(rng=rng)
    if wrong:

        class OneColumn(Dense):
            def backward(self, d_y, need_d_x=True):
                d_x = super().backward(d_y, need_d_x)
                self.d_W[:, 437] *= 1.01
                return d_x

        model.decoder.layers[-1] = OneColumn(model.parameters, "decoder.1")
    report = check_vae(model, rng.random((10, 784)), rng.standard_normal((1, 10, 20)))
    assert sum(np.prod(check.shape) for check in report) == 815_824
    assert [check.name for check in report if not check.passed] == ["decoder.1.W"] * wrong
    if wrong:
        (finding, *_) = next(check.findings for check in report if not check.passed)
        assert "column 437 of the" in finding
        assert "1.01 times" in finding


def test_command_prints_a_row_per_array_within_80_columns_and_passes(capsys):
    assert gradcheck.main([]) == 0
    out = capsys.readouterr().out
    for name in small_problem()[0].parameters.shapes:
        assert any(line.startswith(name) and line.endswith("ok") for line in out.splitlines())
    assert max(map(len, out.splitlines())) <= 80


def printed(out):
    """Of each array in a table that the command printed: the worst element, and its analytic derivative."""
    rows = [line.split() for line in out.splitlines() if line.endswith(("ok", "FAIL")) and "[" in line]
    return {name: (tuple(map(int, worst[1:-1].split(","))), float(value)) for name, _, worst, value, *_ in rows}


OPTIONS = {  # of the command: of `small_problem`, and beta
    "": ({}, 1.0),
    "--hidden 4 --samples 2 --seed 4 --beta 0.25": ({"hidden": (4,), "samples": 2, "seed": 4}, 0.25),
    "--hidden 3 --activation softplus --likelihood gaussian --conditional --objective iwae --seed 0 --beta 0": (
        {"hidden": (3,), "activation": "softplus", "likelihood": "gaussian", "classes": 3, "objective": "iwae"}
        | {"seed": 0},
        0.0,
    ),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_command_checks_the_model_that_its_options_describe(options, capsys):
    settings, beta = OPTIONS[options]
    assert gradcheck.main(options.split()) == 0
    model, *data = small_problem(**{"seed": 1} | settings)
    out = capsys.readouterr().out
    assert f"{model}, L = {settings.get('samples', 3)}, 4 examples" in out
    model.loss(*data, beta=beta)
    model.backward()
    found = printed(out)
    assert list(found) == list(model.parameters.shapes)
    for name, (worst, value) in found.items():
        assert value == pytest.approx(model.parameters.d(name)[worst], rel=0.006)  # three digits are printed


def test_command_fails_where_a_gradient_is_wrong(capsys, monkeypatch):
    inject(monkeypatch, *BACKWARD_BUGS["bias left out"])
    assert gradcheck.main([]) == 1
    rows = capsys.readouterr().out.splitlines()[1:13]
    assert all(row.endswith("FAIL") == (row.split()[0].endswith(".b")) for row in rows)


def test_float32_cannot_tell_a_right_gradient_from_a_slightly_wrong_one(capsys):
    assert gradcheck.main(["--dtype", "float32"]) == 1
    assert check_vae(*small_problem(), dtype=np.float32).worst("central_error") > 1e-5


def test_command_checks_every_set_up_with_all_and_ends_with_the_worst(capsys, monkeypatch):
    monkeypatch.setattr(gradcheck, "SETUPS", gradcheck.SETUPS[::4])  # which leaves some of each kind
    assert gradcheck.main(["--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.endswith(" ok")]) == len(gradcheck.SETUPS)
    assert max(map(len, lines)) <= 80
    place = next(i for i, line in enumerate(lines) if line.startswith("worst of all"))
    errors = [float(line.split()[0]) for line in lines[place + 1 : place + 3]]
    assert 0 < errors[0] < 1e-12 < errors[1] < 1e-6


def test_command_checks_the_model_of_a_run_on_its_data(finished, capsys):
    folder, _ = finished
    assert gradcheck.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"{Run.open(folder).vae()}, L = 1, 100 examples" in out
    assert len([line for line in out.splitlines() if line.endswith("ok")]) >= 8


def test_command_checks_a_run_on_the_batch_and_with_the_beta_that_its_options_say(finished, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(
        gradcheck, "check_vae", lambda *data, **how: given.append((data, how)) or check_vae(*data, **how)
    )
    assert gradcheck.main([str(finished[0]), "--seed", "5", "--beta", "0.5"]) == 0
    ((_, *data), how), (_, *expected) = given[0], gradcheck.trained_problem(finished[0], "", 5)
    np.testing.assert_array_equal(data[0], expected[0])
    np.testing.assert_array_equal(data[1], expected[1])
    assert how == {"beta": 0.5, "dtype": np.float64}


def test_a_run_is_checked_on_a_batch_of_its_test_images_that_the_seed_picks(finished, few_digits):
    test_images = batch(load(str(few_digits)).test_images)
    _, *first = gradcheck.trained_problem(finished[0], "", 1)
    for seed, same in ((1, True), (2, False)):
        _, x, eps, y = gradcheck.trained_problem(finished[0], "", seed)
        assert np.array_equal(x, first[0]) == np.array_equal(eps, first[1]) == same
        assert len(np.unique(x, axis=0)) == 100
        assert (x[:, None] == test_images).all(axis=2).any(axis=1).all()
        assert eps.shape == (1, 100, 3)
        assert y is None


def test_command_checks_a_run_on_the_data_of_data_dir(moved, capsys):
    run, elsewhere = moved
    assert gradcheck.main([str(run.folder), "--data-dir", str(elsewhere)]) == 0
    out = capsys.readouterr().out
    assert f"{len(load('strokes', str(elsewhere)).test_images)} examples" in out


def test_command_tells_a_gradient_that_is_none(capsys, monkeypatch):
    monkeypatch.setattr(Tanh, "backward", lambda self, d_y: d_y * np.nan)
    assert gradcheck.main([]) == 1
    assert "the gradient of encoder.0.W is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nowhere"], "nowhere is not a run"),
        (["--beta", "nan"], "from 0 to 1,000"),
        (["--beta", "-1"], "from 0 to 1,000"),
        (["RUN", "--hidden", "3"], "--hidden is about the small VAE"),
        (["RUN", "--all"], "--all is about the small VAE"),
        (["--data-dir", "data"], "--data-dir is about a RUN"),
    ],
)
def test_command_refuses_in_one_line(arguments, what, finished, refused):
    assert what in refused(gradcheck.main, [finished[0] if word == "RUN" else word for word in arguments])
