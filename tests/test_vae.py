import itertools
import re

import numpy as np
import pytest

from npvae import VAE, Adam
from npvae.distributions import LIKELIHOODS, gaussian_log_density
from npvae.gradcheck import small_problem
from npvae.vae import reparameterize, reparameterize_gradient
from tests.conftest import joint_on_a_line
from tests.test_layers import assert_derivative


@pytest.mark.parametrize("argument", [0, 1], ids=["mu", "logvar"])
def test_reparameterization_gradient_is_the_derivative_of_z(argument, rng):
    arrays, eps, weight = list(rng.normal(size=(2, 4, 5))), rng.standard_normal((3, 4, 5)), rng.normal(size=(3, 4, 5))
    analytic = reparameterize_gradient(weight, arrays[1], eps)[argument]

    def loss(theta):
        return (weight * reparameterize(*arrays[:argument], theta.reshape(4, 5), *arrays[argument + 1 :], eps)).sum()

    assert_derivative(analytic, loss, arrays[argument])


def test_z_has_mean_mu_and_standard_deviation_sigma(rng):
    mu, logvar = np.array([[-1.0, 0.0, 2.0]]), np.log(np.array([[0.04, 1.0, 9.0]]))
    z = reparameterize(mu, logvar, rng.standard_normal((200_000, 1, 3)))
    assert np.abs(z.mean(axis=0) - mu).max() < 5 * 3 / np.sqrt(200_000)
    np.testing.assert_allclose(z.std(axis=0), [[0.2, 1, 3]], rtol=0.01)


def test_loss_is_eq_10_written_out_in_loops():
    vae, x, eps = small_problem("tanh", (7,), 3)
    p = vae.parameters
    total = 0.0
    for b in range(len(x)):
        h = np.tanh(x[b] @ p["encoder.0.W"] + p["encoder.0.b"])
        mu, logvar = np.split(h @ p["encoder.1.W"] + p["encoder.1.b"], 2)
        total -= 0.5 * sum(1 + logvar[j] - mu[j] ** 2 - np.exp(logvar[j]) for j in range(3))  # −KL, Appendix B
        for noise in eps[:, b]:
            z = mu + np.sqrt(np.exp(logvar)) * noise
            y = np.tanh(z @ p["decoder.0.W"] + p["decoder.0.b"]) @ p["decoder.1.W"] + p["decoder.1.b"]
            y = 1 / (1 + np.exp(-y))
            total -= sum(x[b, i] * np.log(y[i]) + (1 - x[b, i]) * np.log(1 - y[i]) for i in range(12)) / len(eps)
    assert vae.loss(x, eps) == pytest.approx(total / len(x), rel=1e-13)


def test_loss_exceeds_the_exact_negative_log_likelihood_by_kl_to_the_posterior(rng):
    """With one latent p(x) is an integral over a line: −ELBO = −log p(x) + KL(q(z|x) ‖ p(z|x)), exactly."""
    vae = VAE(5, (4,), 1, zeros=True, dtype=float)
    vae.parameters.values[...] = rng.normal(size=vae.parameters.values.size)
    images = np.array(list(itertools.product([0.0, 1.0], repeat=5)))  # (32, 5)
    z, dz, log_joint = joint_on_a_line(vae, images)  # (4001, 1), its step, (32, 4001)
    p_x = np.exp(log_joint).sum(axis=1) * dz
    assert p_x.sum() == pytest.approx(1, rel=1e-10)

    mu, logvar = vae.encode(images)
    log_q = gaussian_log_density(z, mu[:, None], logvar[:, None])  # (32, 4001)
    gap = (np.exp(log_q) * (log_q - log_joint + np.log(p_x)[:, None])).sum(axis=1) * dz
    expected = (gap - np.log(p_x)).mean()
    assert gap.min() > 0.001

    losses = [vae.loss(images, rng.standard_normal((100, 32, 1))) for _ in range(100)]
    standard_error = np.std(losses) / 10
    assert abs(np.mean(losses) - expected) < 5 * standard_error
    assert standard_error < 0.1 * gap.mean()


def test_loss_does_not_depend_on_how_a_batch_is_cut(rng):
    vae, x, eps = small_problem()
    whole = vae.loss(x, eps)
    parts = [vae.loss(x[i : i + 2], eps[:, i : i + 2]) for i in (0, 2)]
    assert whole == pytest.approx(np.mean(parts), rel=1e-14)


def test_terms_of_each_example_add_up_to_the_loss():
    vae, x, eps = small_problem()
    loss = vae.loss(x, eps)
    assert vae.reconstruction.shape == vae.kl.shape == (len(x),)
    assert (vae.reconstruction + vae.kl).mean() == loss


def test_backward_without_a_loss_just_before_it_is_refused(rng):
    vae, x, eps = small_problem()
    with pytest.raises(RuntimeError, match="call loss"):
        vae.backward()
    for in_between in (lambda: vae.encode(x), lambda: vae.reconstruct(x), lambda: vae.sample(2, rng)):
        vae.loss(x, eps)
        in_between()  # overwrites what the layers remember
        with pytest.raises(RuntimeError, match="call loss"):
            vae.backward()


@pytest.mark.parametrize("shape", [(4, 3), (3, 1, 3), (1, 4, 1)])
def test_noise_of_another_shape_is_refused_instead_of_broadcast(shape):
    vae, x, _ = small_problem()
    with pytest.raises(ValueError, match=r"expected \(L, 4, 3\)"):
        vae.loss(x, np.zeros(shape))


def test_training_arithmetic_stays_in_float32(rng):
    vae = VAE(12, (7, 5), 3, rng=rng)
    x, eps = rng.uniform(size=(4, 12)).astype(np.float32), rng.standard_normal((2, 4, 3), np.float32)
    vae.loss(x, eps)
    vae.backward()
    arrays = [*vae.encode(x), vae.reconstruct(x), vae.sample(2, rng), vae.reconstruction, vae.kl]
    arrays += [layer.x for layer in vae.decoder.layers if hasattr(layer, "x")]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_no_derivative_of_the_pixels_is_computed():
    """Nobody needs it, and it would be one of the largest products of the backward pass."""
    vae, x, eps = small_problem()
    first, returned = vae.encoder.layers[0], []
    right = first.backward
    first.backward = lambda *arguments: returned.append(right(*arguments))
    vae.loss(x, eps)
    vae.backward()
    assert returned == [None]


def test_samples_are_decoded_draws_of_the_prior():
    vae, _, _ = small_problem()
    z = np.random.default_rng(5).standard_normal((6, 3))
    np.testing.assert_array_equal(vae.sample(6, np.random.default_rng(5)), vae.decode(z))
    assert ((vae.decode(z) > 0) & (vae.decode(z) < 1)).all()


def test_a_few_images_can_be_learned_by_heart(rng):
    """If forward, backward and Adam work together, eight random images cost not much more than naming one of eight."""
    images = (rng.uniform(size=(8, 30)) < 0.5).astype(np.float32)
    vae = VAE(30, (40,), 4, rng=rng)
    adam = Adam(vae.parameters, 1e-2)
    for _ in range(1500):
        vae.loss(images, rng.standard_normal((1, 8, 4), np.float32))
        vae.backward()
        adam.step()
    loss = np.mean([vae.loss(images, rng.standard_normal((1, 8, 4), np.float32)) for _ in range(100)])
    assert np.log(8) < loss < 4 * np.log(8)  # 2.1 to 8.3; without a latent code it is 30 log 2 = 20.8 at least


def test_decoder_has_the_hidden_layers_of_the_encoder_in_reverse():
    shapes = VAE(12, (7, 5), 3).parameters.shapes
    assert [shapes[f"encoder.{i}.W"] for i in range(3)] == [(12, 7), (7, 5), (5, 6)]
    assert [shapes[f"decoder.{i}.W"] for i in range(3)] == [(3, 5), (5, 7), (7, 12)]


X, EPS = np.full((4, 12), 0.5, np.float32), np.zeros((1, 4, 3), np.float32)
MISTAKES = {
    "raw bytes": (X.astype(np.uint8), EPS, "x is uint8, expected floats"),
    "grey values as floats": (X * 510, EPS, "x holds values from 255 to 255, expected [0, 1]: divide"),
    "negative pixels": (X - 1, EPS, "x holds values from -0.5"),
    "not a number": (X * np.nan, EPS, "x holds values from nan"),
    "pictures with rows and columns": (X.reshape(4, 3, 4), EPS, "expected (B, 12); a single image is x.reshape(1, -1)"),
    "a single picture": (X[0].reshape(3, 4), EPS, "x has the shape (3, 4), expected (B, 12); a single"),
    "a flat picture": (X[0], EPS, "x has the shape (12,), expected (B, 12)"),
    "another size": (X[:, :7], EPS, "x has the shape (4, 7), expected (B, 12)"),
    "noise of another precision": (X, EPS.astype(float), "eps is float64, the model float32: draw rng.standard_normal"),
    "noise without samples": (X, EPS[:0], "no samples"),
    "no examples": (X[:0], EPS[:, :0], "no examples"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_a_batch_with_its_noise_is_refused_with_what_to_do(mistake, rng):
    x, eps, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        VAE(12, (7,), 3, rng=rng).loss(x, eps)
    assert "\n" not in str(error.value)


def test_pixels_of_double_precision_are_computed_in_that_of_the_model(rng):
    vae = VAE(12, (7,), 3, rng=rng)
    x = rng.uniform(size=(4, 12))
    assert vae.loss(x, EPS) == vae.loss(x.astype(np.float32), EPS)
    assert {array.dtype for array in (*vae.encode(x), vae.reconstruct(x), vae.losses)} == {np.dtype(np.float32)}


def test_parameters_are_drawn_unless_zeros_are_asked_for():
    drawn, others, zeros = VAE(12, (7,), 3), VAE(12, (7,), 3), VAE(12, (7,), 3, zeros=True)
    assert (drawn.parameters.values != 0).all()
    assert (drawn.parameters.values != others.parameters.values).any()
    assert not zeros.parameters.values.any()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_decoder_starts_at_the_mean_that_it_is_given(likelihood, rng):
    vae = VAE(12, (7,), 3, likelihood=likelihood, rng=rng)
    vae.parameters["decoder.1.W"][...] = 0
    mean = rng.uniform(size=12)
    mean[:2] = 0, 1  # whose logits are infinite
    vae.start_at(mean)
    np.testing.assert_allclose(vae.decode(EPS[0])[0], np.clip(mean, 0.001, 0.999), rtol=1e-4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("samples", [1, 3])
def test_a_conditional_vae_is_a_vae_of_its_own_for_each_label(likelihood, samples, rng):
    """A one-hot label only picks a row of weights, which adds to the biases of the first layers."""
    vae, x, eps, _ = small_problem(likelihood=likelihood, samples=samples, classes=3)
    for label in range(3):
        plain = VAE(12, (7, 5), 3, likelihood=likelihood, zeros=True, dtype=float)
        for name in plain.parameters.shapes:
            array = vae.parameters[name]
            if name in ("encoder.0.W", "decoder.0.W"):
                array = array[:-3]
            elif name in ("encoder.0.b", "decoder.0.b"):
                array = array + vae.parameters[name.replace("b", "W")][label - 3]
            plain.parameters[name][...] = array
        y = np.tile(np.eye(3)[label], (4, 1))
        assert vae.loss(x, eps, y) == pytest.approx(plain.loss(x, eps), rel=1e-13)
        np.testing.assert_allclose(vae.reconstruct(x, y), plain.reconstruct(x), rtol=1e-12)
        np.testing.assert_allclose(
            vae.sample(4, np.random.default_rng(1), y), plain.sample(4, np.random.default_rng(1)), rtol=1e-12
        )


@pytest.mark.parametrize(
    ("classes", "y"),
    [(0, np.eye(4)), (3, None), (3, np.eye(4)), (3, np.zeros((4, 0))), (4, np.arange(4)), (3, np.eye(3)[0])],
)
def test_a_label_that_is_missing_or_not_expected_is_refused(classes, y):
    vae, x, eps, *_ = small_problem(classes=classes)
    for method, arguments in ((vae.loss, (x, eps)), (vae.encode, (x,)), (vae.decode, (eps[0],))):
        with pytest.raises(ValueError, match="expected"):
            method(*arguments, y)


def test_model_without_settings_is_that_of_the_readme():
    model = VAE(zeros=True)
    assert str(model) == "VAE 784-500-20-500-784 (tanh, bernoulli, elbo)"
    assert model.parameters.shapes["encoder.1.W"] == (500, 40)
    assert model.parameters.values.size == 2 * (784 * 500 + 500) + 500 * 40 + 40 + 20 * 500 + 784 - 500 + 500


def test_label_weights_of_both_networks_start_as_large_as_the_one_input_that_is_on(rng):
    vae = VAE(90, (50,), 6, classes=10, rng=rng)
    for name, inputs in (("encoder.0.W", 90), ("decoder.0.W", 6)):
        W = np.abs(vae.parameters[name])
        assert W[:inputs].max() <= 1 / np.sqrt(inputs + 10)
        assert 0.9 < W[inputs:].max() <= 1


def test_copy_of_another_dtype_shares_nothing_with_the_model():
    vae, x, eps = small_problem()
    vae.loss(x, eps)
    vae.backward()
    before = vae.parameters.values.copy(), vae.parameters.gradient.copy()
    copy = vae.astype(np.float32)
    assert copy.parameters.values.dtype == copy.parameters.gradient.dtype == np.float32
    np.testing.assert_array_equal(copy.parameters.values, before[0].astype(np.float32))
    assert not copy.parameters.gradient.any()
    with pytest.raises(RuntimeError, match="call loss"):
        copy.backward()  # the copy has computed no loss
    copy.parameters.values[...] = 0
    np.testing.assert_array_equal(copy.parameters["encoder.0.W"], 0)
    np.testing.assert_array_equal(vae.parameters.values, before[0])
    np.testing.assert_array_equal(vae.parameters.gradient, before[1])
    vae.backward()  # which the model still can
    np.testing.assert_array_equal(vae.parameters.gradient, before[1])


def test_copy_of_another_dtype_is_the_same_model():
    vae, x, eps, y = small_problem("relu", (7,), 2, 0, "gaussian", "iwae", 3)
    copy = vae.astype(np.float32)
    assert str(copy) == str(vae) == "VAE 12-7-3-7-12 (relu, gaussian, iwae, 3 labels)"
    assert copy.loss(x.astype(np.float32), eps.astype(np.float32), y) == pytest.approx(vae.loss(x, eps, y), rel=1e-5)


def test_gaussian_pixel_means_and_densities_come_from_the_two_halves_of_the_outputs():
    vae, x, _ = small_problem(likelihood="gaussian")
    z = np.random.default_rng(5).standard_normal((4, 3))
    mean = vae.decode(z)
    assert mean.shape == (4, 12)
    outputs = vae.decoder_outputs(z)
    np.testing.assert_allclose(mean, 1 / (1 + np.exp(-outputs[:, :12])), rtol=1e-12)
    sigma = np.exp((np.log1p(np.exp(outputs[:, 12:] + 2 * np.log(255))) - 2 * np.log(255)) / 2)
    expected = (-(((x - mean) / sigma) ** 2) / 2 - np.log(sigma * np.sqrt(2 * np.pi))).sum(axis=1)
    np.testing.assert_allclose(vae.likelihood.log_density(x, outputs), expected, rtol=1e-10)
