"""Ten steps of each optimizer beside ten steps of its published formula, written out for one number at a time."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from npvae import SGD, Adagrad, Adam
from npvae.optimizers import OPTIMIZERS, Optimizer
from npvae.parameters import Parameters

STEPS = 10


def run(make, start, gradients):
    """The vector after each step, (STEPS, P)."""
    parameters = Parameters({"theta": (len(start),)}, float)
    parameters.values[...] = start
    optimizer = make(parameters)
    path = []
    for gradient in gradients:
        parameters.gradient[...] = gradient
        optimizer.step()
        path.append(parameters.values.copy())
    return np.array(path)


@pytest.fixture
def problem(rng):
    scale = np.array([1e-6, 1e-2, 1, 1e3])  # so that ε matters for one and not for another
    return rng.normal(size=4), rng.normal(size=(STEPS, 4)) * scale


def test_adam_is_algorithm_1_of_kingma_and_ba(problem):
    start, gradients = problem
    alpha, beta1, beta2, epsilon = 0.05, 0.9, 0.999, 1e-4
    path = run(lambda p: Adam(p, alpha, beta1, beta2, epsilon), start, gradients)
    for j in range(4):
        theta, m, v = start[j], 0.0, 0.0
        for t in range(1, STEPS + 1):
            g = gradients[t - 1, j]
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
            theta -= alpha * m_hat / (math.sqrt(v_hat) + epsilon)
            assert path[t - 1, j] == pytest.approx(theta, rel=1e-13)


def test_first_step_of_adam_is_the_learning_rate_in_the_direction_of_the_sign():
    path = run(lambda p: Adam(p, 0.01), [0, 0, 0], np.array([[1e-3, -5.0, 1e5]]))
    np.testing.assert_allclose(path[0], [-0.01, 0.01, -0.01], rtol=1e-4)


def test_adagrad_divides_by_the_root_of_all_squares_so_far(problem):
    start, gradients = problem
    path = run(lambda p: Adagrad(p, 0.1, 1e-4), start, gradients)
    for t in range(1, STEPS + 1):
        steps = [0.1 * gradients[k] / (np.sqrt((gradients[: k + 1] ** 2).sum(axis=0)) + 1e-4) for k in range(t)]
        np.testing.assert_allclose(path[t - 1], start - sum(steps), rtol=1e-12)


def test_sgd_with_momentum_worked_out_by_hand():
    # with g = 1 throughout the velocity is 1 + ½ + ¼ + …: exact in binary, and summed here in fractions
    path = run(lambda p: SGD(p, learning_rate=0.25, momentum=0.5), [8.0], np.ones((STEPS, 1)))
    theta, velocity = Fraction(8), Fraction(0)
    for t in range(STEPS):
        velocity = velocity / 2 + 1
        theta -= velocity / 4
        assert path[t, 0] == theta
    assert path[:3, 0].tolist() == [7.75, 7.375, 6.9375]


def test_sgd_without_momentum_is_plain_gradient_descent(problem):
    start, gradients = problem
    path = run(lambda p: SGD(p, 0.1, momentum=0), start, gradients)
    np.testing.assert_allclose(path[-1], start - 0.1 * gradients.sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_from_its_state_as_if_never_stopped(name, rng):
    gradients = rng.normal(size=(STEPS, 50)).astype(np.float32)

    def steps(optimizer, rows):
        for gradient in rows:
            optimizer.parameters.gradient[...] = gradient
            optimizer.step()

    whole = OPTIMIZERS[name](Parameters({"theta": (50,)}))
    steps(whole, gradients)

    first = OPTIMIZERS[name](Parameters({"theta": (50,)}))
    steps(first, gradients[:4])
    second = OPTIMIZERS[name](Parameters({"theta": (50,)}))
    second.parameters.values[...] = first.parameters.values
    for key, array in first.state.items():
        second.state[key][...] = array
    steps(second, gradients[4:])
    np.testing.assert_array_equal(second.parameters.values, whole.parameters.values)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_steps_in_place_and_keeps_float32(name):
    parameters = Parameters({"theta": (3,)})
    view = parameters["theta"]
    parameters.gradient[...] = [1, 0, -1]
    OPTIMIZERS[name](parameters).step()
    assert parameters.values.dtype == np.float32
    assert view[0] < 0
    assert view[1] == 0
    assert view[2] > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_allocates_no_vector(name):
    """The vector is all parameters of a model: each more would cost a pass over memory, and its room."""
    parameters = Parameters({"theta": (100_000,)})
    parameters.gradient[...] = 1
    optimizer = OPTIMIZERS[name](parameters)
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < parameters.values.nbytes / 4


def test_an_optimizer_without_memory_has_an_empty_state():
    assert Optimizer(Parameters({"theta": (1,)}), 0.1).state == {}


def test_defaults_are_the_constants_of_the_papers():
    parameters = Parameters({"theta": (1,)})
    adam = Adam(parameters)
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (1e-3, 0.9, 0.999, 1e-8)
    sgd, adagrad = SGD(parameters), Adagrad(parameters)
    assert (sgd.learning_rate, sgd.momentum) == (0.01, 0.9)
    assert (adagrad.learning_rate, adagrad.epsilon) == (0.01, 1e-8)
