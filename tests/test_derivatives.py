"""Numerical derivatives: of functions whose derivative is known, and of those that have none to be had."""

import numpy as np
import pytest

from npvae.derivatives import (
    Refused,
    central_difference_gradient,
    complex_step_gradient,
    depends_on,
    difference,
    precision_of,
)

BOTH = [complex_step_gradient, central_difference_gradient]
W = np.random.default_rng(0).normal(size=(2, 3))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_gradients_of_a_known_function_whatever_the_size_of_loss_and_parameters(size, scale):
    exact = scale * (np.exp(W) * np.cos(W) - np.exp(W) * np.sin(W)) / size

    def loss(theta):
        return scale * (np.exp(theta / size) * np.cos(theta / size)).sum()

    np.testing.assert_allclose(complex_step_gradient(loss, W * size), exact, rtol=1e-13)
    np.testing.assert_allclose(central_difference_gradient(loss, W * size), exact, rtol=1e-8)


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (3, 1, 2)])
def test_parameters_may_have_any_shape_and_are_left_alone(gradient, shape):
    theta = np.resize(W, shape)
    kept = theta.copy()
    np.testing.assert_allclose(gradient(lambda t: (t**3).sum(), theta), 3 * theta**2, rtol=1e-8)
    np.testing.assert_array_equal(theta, kept)


@pytest.mark.parametrize("gradient", BOTH)
def test_result_has_the_precision_of_the_parameters(gradient):
    for dtype in (np.float32, np.float64):
        assert gradient(lambda t: (t * t).sum(), W.astype(dtype)).dtype == dtype


def test_extrapolated_differences_have_ten_digits_where_one_difference_has_seven():
    theta = np.array([0.7])
    exact = np.exp(0.7)
    one = (np.exp(0.7 + 1e-3) - np.exp(0.7 - 1e-3)) / 2e-3
    assert abs(one / exact - 1) > 1e-7
    found = difference(lambda t: np.exp(t).sum(), theta, np.ones(1), exact)
    assert abs(found.value / exact - 1) < 1e-10
    assert abs(found.value - exact) <= found.error < 1e-8


LOST = {
    "abs": lambda t: np.abs(t).sum(),
    "norm": lambda t: np.linalg.norm(t),
    "float": lambda t: float(t.sum()),
    "real": lambda t: (t.real**2).sum(),
    "conj": lambda t: (np.conj(t) * t).sum(),
    "a small part": lambda t: np.tanh(t).sum() + 1e-6 * np.abs(t).sum(),
    "one element": lambda t: np.tanh(t).sum() + abs(t[1, 2]),
    "astype": lambda t: (t.astype(float) ** 2).sum(),
    "math": lambda t: __import__("math").exp(t[0, 0]),
}


@pytest.mark.parametrize("function", LOST)
def test_a_loss_that_does_not_hold_for_complex_numbers_is_refused(function):
    with pytest.raises(Refused, match=r"imaginary|complex"):
        complex_step_gradient(LOST[function], W)


@pytest.mark.parametrize("function", ["abs", "norm", "real", "math"])
def test_differences_take_what_complex_numbers_do_not(function):
    exact = {"abs": np.sign(W), "norm": W / np.linalg.norm(W), "real": 2 * W, "math": np.zeros_like(W)}[function]
    exact[0, 0] = np.exp(W[0, 0]) if function == "math" else exact[0, 0]
    np.testing.assert_allclose(central_difference_gradient(LOST[function], W), exact, rtol=1e-8, atol=1e-12)


NO_ANSWER = {
    "fresh noise": (lambda t: (t * np.random.default_rng().normal(size=t.shape)).sum(), "changed between two calls"),
    "not theta": (lambda t: (W**2).sum(), "does not depend on theta"),
    "an array": (lambda t: t**2, r"of the shape \(2, 3\), expected one number"),
    "nothing": (lambda t: None, "returned None"),
    "NaN": (lambda t: np.nan * t.sum(), "the loss is nan"),
    "infinite": (lambda t: np.inf + t.sum(), "the loss is inf"),
    "complex": (lambda t: 1j + t.sum(), "complex number"),
    "in place": (lambda t: t.__imul__(2).sum(), "writes into its parameters"),
}


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("loss", NO_ANSWER)
def test_a_loss_without_a_derivative_is_refused_by_name(loss, gradient):
    function, reason = NO_ANSWER[loss]
    with pytest.raises(Refused, match=reason) as error:
        gradient(function, W)
    assert isinstance(error.value, ValueError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize(
    ("theta", "reason"),
    [
        (np.arange(3), "theta is int64: whole numbers"),
        (W + 0j, "theta is complex128"),
        (W > 0, "theta is bool"),
        (W[:0], "theta is empty"),
        (W * np.nan, "theta holds a number that is not finite"),
    ],
)
def test_parameters_that_are_no_real_numbers_are_refused(gradient, theta, reason):
    with pytest.raises(Refused, match=reason):
        gradient(lambda t: (t * 1.0).sum(), theta)


class Typo(Exception):
    pass


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("error", [Typo, KeyboardInterrupt])
def test_a_loss_that_fails_half_way_leaves_the_parameters_alone(gradient, error):
    theta, kept, calls = W.copy(), W.copy(), []

    def loss(t):
        calls.append(1)
        if len(calls) == 9:
            raise error
        return (t**2).sum()

    try:
        gradient(loss, theta)
    except (error, Refused):
        pass
    np.testing.assert_array_equal(theta, kept)
    np.testing.assert_allclose(gradient(lambda t: (t**2).sum(), theta), 2 * W, rtol=1e-8)  # the corrected loss


def test_where_there_is_a_kink_there_is_no_difference():
    theta = np.array([1.0, 0.0, 1e-14, 1e-3])
    np.testing.assert_array_equal(np.isnan(central_difference_gradient(lambda t: np.abs(t).sum(), theta)), [0, 1, 1, 0])


def test_the_edge_of_the_domain_is_not_taken_for_a_kink():
    theta = np.array([4.0, 1e-9])
    with np.errstate(invalid="ignore"):
        found = central_difference_gradient(lambda t: np.sqrt(t[0]) + t[1], theta)
    np.testing.assert_allclose(found, [0.25, 1], rtol=1e-8)
    with pytest.raises(Refused, match="not finite beside"), np.errstate(invalid="ignore"):
        central_difference_gradient(lambda t: np.sqrt(t).sum(), theta)


@pytest.mark.parametrize("loss", [lambda t: np.maximum(t - 5, 0).sum(), lambda t: np.tanh(1e4 * t).sum()])
def test_what_a_dead_or_saturated_unit_hides_still_depends(loss):
    assert depends_on(loss, np.array([1.0, 2.0]))
    assert not depends_on(loss, np.array([1.0, 2.0, 3.0])[:2], changed=np.array([False, False]))


def test_a_loss_that_computes_in_float32_is_noticed():
    for dtype in (np.float32, np.float64):
        assert precision_of(lambda t: (t.astype(dtype) ** 2).sum(), W, W, (W.astype(dtype) ** 2).sum()) == dtype  # noqa: B023
