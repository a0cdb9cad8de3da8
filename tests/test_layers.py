import numpy as np
import pytest

from npvae.derivatives import central_difference_gradient, complex_step_gradient
from npvae.layers import ACTIVATIONS, MLP, Dense, sigmoid, softplus
from npvae.parameters import Parameters


def assert_derivative(analytic, loss, at):
    """Compare with both numerical derivatives of `loss(theta)` at `at`; errors are relative to the largest entry."""
    theta = at.ravel().astype(float)
    complex_step, central = complex_step_gradient(loss, theta), central_difference_gradient(loss, theta)
    scale = np.abs(complex_step).max()
    assert np.abs(analytic.ravel() - complex_step).max() <= 1e-12 * scale
    assert np.abs(analytic.ravel() - central).max() <= 1e-6 * scale


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_backward_is_the_derivative_of_forward(activation, rng):
    x, weight = rng.normal(0, 2, (4, 5)), rng.normal(size=(4, 5))
    layer = ACTIVATIONS[activation]()
    layer.forward(x)
    d_x = layer.backward(weight)
    assert_derivative(d_x, lambda theta: (weight * ACTIVATIONS[activation]().forward(theta.reshape(4, 5))).sum(), x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_leaves_its_input_and_the_derivative_it_is_given_alone(activation, rng):
    x, d_y = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    kept = x.copy(), d_y.copy()
    layer = ACTIVATIONS[activation]()
    layer.forward(x)
    layer.backward(d_y)
    np.testing.assert_array_equal((x, d_y), kept)


def test_activations_are_the_functions_they_are_named_after():
    x = np.array([[-700.0, -1.0, 0.0, 1.0, 700.0]])
    np.testing.assert_allclose(ACTIVATIONS["tanh"]().forward(x), [[-1, -0.7615941559557649, 0, 0.7615941559557649, 1]])
    np.testing.assert_array_equal(ACTIVATIONS["relu"]().forward(x), [[0, 0, 0, 1, 700]])
    np.testing.assert_array_equal(ACTIVATIONS["relu"]().forward(x / 2), [[0, 0, 0, 0.5, 350]])  # between −1 and 0 too
    expected = [[np.exp(-700), 0.31326168751822286, np.log(2), 1.3132616875182228, 700]]
    np.testing.assert_allclose(ACTIVATIONS["softplus"]().forward(x), expected, rtol=1e-15)


def test_relu_gives_no_gradient_at_exactly_zero():
    """The derivative there is a convention, 0 in Glorot et al. 2011 and since: a unit whose input is zero is off."""
    relu = ACTIVATIONS["relu"]()
    relu.forward(np.array([[-0.0, 0.0, 5e-324]]))
    np.testing.assert_array_equal(relu.backward(np.ones((1, 3))), [[0, 0, 1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus_and_sigmoid_neither_overflow_nor_lose_the_tail(dtype):
    a = np.array([-1e30, -80, 80, 1e30], dtype)
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_allclose(softplus(a), [0, np.exp(-80.0), 80, 1e30], rtol=1e-6)
        np.testing.assert_allclose(sigmoid(a), [0, 0, 1, 1], atol=1e-7)
    assert softplus(a).dtype == sigmoid(a).dtype == dtype


@pytest.mark.parametrize("number", [3, -2.5, np.float32(1.5), np.float64(-4), np.array(0.5), 1 + 2j])
def test_softplus_and_sigmoid_of_a_single_number(number):
    np.testing.assert_allclose(softplus(number), np.log1p(np.exp(number)), rtol=1e-6)
    np.testing.assert_allclose(sigmoid(number), 1 / (1 + np.exp(-number)), rtol=1e-6)
    assert np.shape(softplus(number)) == np.shape(sigmoid(number)) == ()


def test_softplus_and_sigmoid_of_whole_numbers():
    np.testing.assert_allclose(softplus(np.array([-1, 0, 1])), np.log1p(np.exp([-1.0, 0, 1])), rtol=1e-15)
    np.testing.assert_allclose(sigmoid([-1, 0, 1]), 1 / (1 + np.exp([1.0, 0, -1])), rtol=1e-15)


def dense(rng, inputs=5, outputs=3):
    parameters = Parameters({"layer.W": (inputs, outputs), "layer.b": (outputs,)}, float)
    parameters.values[...] = rng.normal(size=parameters.values.size)
    return parameters, Dense(parameters, "layer")


def test_dense_backward_is_the_derivative_of_forward_in_x_w_and_b(rng):
    x, weight = rng.normal(size=(4, 5)), rng.normal(size=(4, 3))
    _, layer = dense(rng)
    layer.forward(x)
    d_x = layer.backward(weight)
    W, b = layer.W.copy(), layer.b.copy()
    assert_derivative(d_x, lambda theta: (weight * (theta.reshape(4, 5) @ W + b)).sum(), x)
    assert_derivative(layer.d_W, lambda theta: (weight * (x @ theta.reshape(5, 3) + b)).sum(), W)
    assert_derivative(layer.d_b, lambda theta: (weight * (x @ W + theta)).sum(), b)


def test_dense_backward_overwrites_the_last_gradient(rng):
    parameters, layer = dense(rng)
    layer.forward(rng.normal(size=(4, 5)))
    d_y = rng.normal(size=(4, 3))
    layer.backward(d_y)
    first = parameters.gradient.copy()
    assert layer.backward(d_y, need_d_x=False) is None
    np.testing.assert_array_equal(parameters.gradient, first)


def test_dense_starts_with_units_of_the_stated_spread(rng):
    _, layer = dense(rng, 400, 300)
    layer.initialize(rng)
    for array in (layer.W, layer.b):
        assert np.abs(array).max() <= 1 / 20
        np.testing.assert_allclose(array.std(), 1 / 20 / np.sqrt(3), rtol=0.1)


def test_label_weights_start_as_large_as_the_one_input_that_is_on(rng):
    """Of the inputs of a label one is on: weights of ±1/√I would make the label next to unseen at the start."""
    sizes = [390, 300, 200]
    parameters = Parameters(MLP.shapes("net", sizes), float)
    MLP(parameters, "net", sizes, "tanh").initialize(rng, one_hot=10)
    pixels, labels = np.split(parameters["net.0.W"], [380])
    for array, bound in ((pixels, 390**-0.5), (labels, 1), (parameters["net.0.b"], 390**-0.5)):
        assert 0.98 * bound < np.abs(array).max() <= bound
    assert 0.98 * 300**-0.5 < np.abs(parameters["net.1.W"]).max() <= 300**-0.5  # no input of this layer is a label


def test_without_labels_all_inputs_start_alike(rng):
    parameters = Parameters(MLP.shapes("net", [400, 300]), float)
    MLP(parameters, "net", [400, 300], "tanh").initialize(rng)
    assert np.abs(parameters["net.0.W"]).max(axis=1).max() <= 1 / 20


def test_mlp_is_its_layers_one_after_the_other(rng):
    sizes = [5, 4, 3, 2]
    parameters = Parameters(MLP.shapes("net", sizes), float)
    network = MLP(parameters, "net", sizes, "softplus")
    network.initialize(rng)
    x = rng.normal(size=(6, 5))
    y = x
    for i in range(3):
        y = y @ parameters[f"net.{i}.W"] + parameters[f"net.{i}.b"]
        y = np.log1p(np.exp(y)) if i < 2 else y  # the last layer is linear
    np.testing.assert_allclose(network.forward(x), y, rtol=1e-13)


def test_mlp_does_not_compute_the_input_gradient_that_nobody_needs(rng):
    parameters = Parameters(MLP.shapes("net", [5, 4, 2]), float)
    network = MLP(parameters, "net", [5, 4, 2], "tanh")
    network.forward(rng.normal(size=(6, 5)))
    assert network.backward(rng.normal(size=(6, 2)), need_d_x=False) is None
    assert network.backward(rng.normal(size=(6, 2))).shape == (6, 5)
