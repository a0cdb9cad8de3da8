"""Numerical derivatives: of functions whose derivative is known, and of those that have none to be had."""

import warnings

import numpy as np
import pytest

from npvae import derivatives
from npvae.derivatives import (
    Difference,
    GradientError,
    NotComplex,
    Refused,
    central_difference_gradient,
    complex_step,
    complex_step_gradient,
    confirmation,
    depends_on,
    difference,
    explains,
    extrapolated,
    norm,
    precision_of,
    repeatable_value,
    scale_of,
    sharpest_difference,
    sizes_of,
    steps_of,
    units_of,
    unresolved,
    value_beside,
    value_of,
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
        (np.array([1.0, np.inf]), "theta holds a number that is not finite"),
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


# what a difference says of itself


def test_a_difference_is_as_good_as_it_says():
    """On smooth functions of all kinds it is within its error, and that error is small."""
    one = np.ones(1)
    functions = {  # with their derivatives
        np.sin: np.cos,
        np.exp: np.exp,
        (lambda t: t**3 - 2 * t): (lambda t: 3 * t**2 - 2),
        (lambda t: 1e3 + np.tanh(t)): (lambda t: 1 - np.tanh(t) ** 2),
        (lambda t: 1e-6 * np.log(t)): (lambda t: 1e-6 / t),
        (lambda t: -1e6 / t): (lambda t: 1e6 / t**2),
    }
    for function, derivative in functions.items():
        for t in (0.3, 1.0, 2.5):
            found = difference(lambda theta, f=function: f(theta).sum(), t * one, one * t / 4, function(t))
            exact = derivative(t) * t / 4
            assert explains(found, exact, abs(exact)) is True
            assert found.error <= 1e-9 * (abs(exact) + abs(function(t)))
            assert found.jump == 0


def test_error_of_a_difference_of_a_straight_line_is_that_of_rounding_alone():
    """Four roundings of the larger loss, over the second step: with these numbers nothing else is inexact."""
    for sign in (1, -1):
        found = difference(lambda t, s=sign: s * t.sum(), np.ones(1), np.ones(1), sign, steps=[1 / 4, 1 / 16, 1 / 64])
        assert found == (sign, 4 * np.finfo(float).eps * (1 + 1 / 16) * 16, 0)
    found = difference(lambda t: t.sum(), np.ones(1), np.ones(1), 1.0, [1 / 4, 1 / 16, 1 / 64], np.float32)
    assert found.error == 4 * np.finfo(np.float32).eps * (1 + 1 / 16) * 16


def test_limit_is_exact_where_the_errors_are_of_even_powers_of_the_step():
    for a, b, c in [(1.0, 3.0, 0.0), (-2.0, 5.0, 0.07), (0.5, -4.0, 0.05)]:
        best, error = extrapolated([a + b * h**2 + c * h**4 for h in (1, 1 / 4, 1 / 16)], [0, 0, 0])
        assert best == pytest.approx(a, rel=1e-14)
        assert abs(best - a) <= error <= (abs(b) + abs(c)) / 16
    assert extrapolated([1.0, 1.0, 1.0], [1e-6, 1e-4, 1e-2]) == (1, 1e-4)  # of a limit of two: what the finer one has
    best, error = extrapolated([1 + 1.0, 1 + 1 / 16, 2.0], [0, 0, 0])  # the last of them is nothing but noise
    assert (best, error) == (1, 1)
    assert extrapolated([1.0, 1.0, 5.0], [0, 0, 0]) == (1, 0)  # nor does it make the limit of the others uncertain


def test_steps_fall_by_four_each_time_from_where_the_formula_is_inexact_to_where_rounding_is():
    eps = np.finfo(float).eps
    ends = {
        "usual": (eps ** (1 / 6), eps ** (1 / 3)),
        "fine": (eps ** (1 / 3), eps ** (1 / 2)),
        "wide": (2, eps ** (1 / 6)),
    }
    for reach, (largest, smallest) in ends.items():
        steps = steps_of(np.float64, reach)
        np.testing.assert_allclose(steps, largest / 4.0 ** np.arange(5), rtol=1e-12)
        assert steps[-1] >= smallest > steps[-1] / 4
    assert steps_of(np.float64) == steps_of(np.float64, "usual")
    narrow = float(np.finfo(np.float32).eps) ** (1 / 6)
    np.testing.assert_allclose(steps_of(np.float32), [narrow, narrow / 4, narrow / 16])  # three or more: to extrapolate


def asked_at(steps=None, finite=np.inf):
    """How far from the given point a difference of a loss, finite only so far from it, asks for the loss."""
    points = []

    def loss(theta):
        points.append(theta[0] - 1)
        return theta.sum() if abs(points[-1]) <= finite else np.nan

    found = difference(loss, np.ones(1), np.ones(1), 1.0, steps)
    assert found.value == pytest.approx(1, rel=1e-7)
    above, below = points[::2], points[1::2]
    np.testing.assert_allclose(np.negative(below), above, rtol=1e-6)
    return above


def test_steps_that_are_given_are_those_that_are_taken():
    np.testing.assert_allclose(asked_at(), steps_of(np.float64), rtol=1e-9)
    np.testing.assert_allclose(asked_at([0.5, 0.125, 0.03125]), [0.5, 0.125, 0.03125])


def test_where_the_loss_is_not_finite_smaller_steps_are_tried_until_three_are_found():
    steps = [0.5, 0.125, 0.03125]
    np.testing.assert_allclose(asked_at(steps, finite=0.2), [*steps, 0.0078125])
    np.testing.assert_allclose(asked_at(steps, finite=0.01), [*steps, 0.0078125, 0.001953125, 0.00048828125])
    assert len(asked_at(steps, finite=1e-7)) == 14  # two of them are enough where the third would be below ε^1/2
    with pytest.raises(Refused, match="not finite beside"):
        asked_at(steps, finite=2e-8)  # one is not


def kinked(a, at=0.0, slope=1.0):
    """The difference at 0 of slope · t + a |t − at|."""
    return difference(lambda t: (slope * t + a * np.abs(t - at)).sum(), np.zeros(1), np.ones(1), a * abs(at))


def test_half_of_the_jump_of_the_derivative_at_a_kink():
    assert kinked(1.0, slope=0).jump == pytest.approx(1)
    assert kinked(-3.0).jump == pytest.approx(3)
    assert kinked(1e-5).jump == pytest.approx(1e-5)
    assert kinked(4e-8, slope=-1).jump == 0  # so small that a curved function has it too
    assert kinked(6e-8, slope=-1).jump == pytest.approx(6e-8)


def test_a_kink_that_may_be_rounding_is_none():
    """Of a loss of 1 in steps of 1/64 rounding makes jumps of up to 256 ε, of which twenty times as much is a kink."""
    eps = np.finfo(float).eps

    def jump(size):
        return difference(
            lambda t: 1 + size * abs(t[0]) / 2, np.zeros(1), np.ones(1), 1.0, [1 / 4, 1 / 16, 1 / 64]
        ).jump

    assert jump(4800 * eps) == 0
    assert jump(5600 * eps) == pytest.approx(2800 * eps, rel=0.05)


def test_beside_the_given_point_a_loss_may_overflow_without_a_word():
    assert value_beside(lambda t: np.log(t).sum(), np.zeros(1)) == -np.inf
    assert np.isnan(value_beside(lambda t: t.no_such_thing, np.zeros(1)))


def test_a_part_of_a_loss_that_casts_to_real_numbers_is_noticed_where_warnings_are_silenced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(NotComplex, match="ComplexWarning"):
            complex_step(lambda t: np.tanh(t).sum() + t.astype(float).sum(), W, W)


def test_a_kink_counts_where_the_three_finest_pairs_of_steps_meet_it():
    """Further away, finer differences do without it: the derivative is found in spite of it."""
    steps = steps_of(np.float64)
    assert kinked(1.0, at=(steps[1] + steps[2]) / 2).jump > 0.1
    far = kinked(1.0, at=(steps[0] + steps[1]) / 2)
    assert far.jump == 0
    assert abs(far.value - 0) <= far.error + 1e-12


def test_the_sharpest_of_three_sequences_of_steps_is_taken():
    def of(function, t=0.0):
        return sharpest_difference(lambda theta: function(theta).sum(), np.full(1, t), np.ones(1), float(function(t)))

    assert of(lambda t: np.sin(3e3 * t)).value == pytest.approx(3e3, rel=1e-6)  # steps of 0.002 are too wide for it
    assert of(lambda t: 1e6 + 1e-6 * t).value == pytest.approx(1e-6, rel=1e-3)  # and too small for this
    near_a_kink = of(lambda t: t + abs(t - 2e-4))
    assert near_a_kink.jump == 0
    assert near_a_kink.value == pytest.approx(0, abs=1e-7)
    assert of(np.abs).jump > 0  # no sequence escapes it


def test_a_derivative_within_twenty_errors_of_a_difference_is_not_accused():
    """Nor one that is a billionth of its scale away. A kink leaves it open up to ten times half of its jump."""
    for sign in (1, -1):
        for apart, answer in ((0.0195, True), (0.0205, False)):
            assert explains(Difference(1.0, 1e-3, 0.0), 1 + sign * apart, 1.0) is answer
            assert (
                explains(Difference(1.0, 0.0, 0.0), 1 + sign * apart, apart * (1.01e9 if answer else 0.99e9)) is answer
            )
        for apart, answer in ((0.95, None), (1.05, False), (0.01, True)):
            assert explains(Difference(1.0, 1e-3, 0.1), 1 + sign * apart, 1.0) is answer
    assert explains(Difference(0.0, 0.0, 0.0), 0.0, 0.0) is True  # what is exactly the same is right


def test_a_difference_whose_error_is_large_beside_the_derivative_says_nothing():
    """From 1e-4 / 20 on; of pure rounding, which no other step would lessen, from 1e-2 / 20 on."""
    assert not unresolved(4.95e-6, 1.0, 0.0, np.float64)
    assert unresolved(5.05e-6, 1.0, 0.0, np.float64)
    for value in (1.0, -1.0):  # of which the rounding in float32 is 100 × 1.192e-7
        assert not unresolved(1.186e-5, 1.0, value, np.float32)
        assert unresolved(1.198e-5, 1.0, value, np.float32)
        assert unresolved(1.186e-5, 1.186e-5 * 20 / 1.01e-2, value, np.float32)
        assert not unresolved(1.186e-5, 1.186e-5 * 20 / 0.99e-2, value, np.float32)
    assert not unresolved(0.0, 0.0, 0.0, np.float64)  # exactly zero
    assert unresolved(np.array([4e-6, 6e-6]), np.ones(2), 0.0, np.float64).tolist() == [False, True]


def test_norm_neither_overflows_nor_divides_by_zero():
    assert norm(np.array([[3.0, 0], [0, -4]])) == 5
    assert norm(np.array([3e200, 4e200])) == pytest.approx(5e200, rel=1e-15)
    assert norm(np.array([-3e200, 1e-200])) == 3e200
    assert norm(np.array([3e-200, -4e-200])) == pytest.approx(5e-200, rel=1e-15)
    assert norm(np.zeros(3)) == 0


def test_a_change_is_of_the_size_of_an_element_or_of_what_is_usual_where_that_is_small():
    array = np.array([10.0, 0.0, 1e-3, -10.0])
    usual = np.sqrt((100 + 1e-6 + 100) / 4)
    assert scale_of(array) == pytest.approx(usual, rel=1e-12)
    np.testing.assert_allclose(sizes_of(array), [10, usual, usual / 10, 10], rtol=1e-12)
    np.testing.assert_allclose(list(units_of(array)), np.diag(sizes_of(array)))
    assert scale_of(np.zeros(4)) == 1
    assert sizes_of(np.zeros(2)).tolist() == [1, 1]
    assert scale_of(np.ones(3, np.float32)).dtype == np.float32


def test_a_loss_that_gives_out_or_wavers_at_the_second_call_is_refused():
    for second, refused in ((np.nan, True), (np.inf, True), (1 + 2e-13, True), (1 - 2e-13, True), (1 + 5e-14, False)):
        calls = iter([1.0, second])
        loss = lambda theta, calls=calls: next(calls)  # noqa: E731
        if refused:
            with pytest.raises(Refused, match="the loss"):
                repeatable_value(loss, W)
        else:
            assert repeatable_value(loss, W) == 1
    for value in (0.0, 1e6, -1e-6):  # the same, but for rounding
        calls = iter([value, value * (1 + 5e-14)])
        assert repeatable_value(lambda theta, calls=calls: next(calls), W) == value
    calls = iter([1e-6, 1e-6 * (1 + 2e-13)])
    with pytest.raises(Refused, match="changed between two calls"):
        repeatable_value(lambda theta: next(calls), W)
    with pytest.raises(Refused, match=r"changed between two calls with the same parameters, from 5 to 6"):
        repeatable_value(lambda theta: 6.0, W, before=5.0)
    assert repeatable_value(lambda theta: -6.0, W, before=-6.0) == -6


def test_a_loss_that_is_no_number_is_told_by_what_it_is():
    for value, says in ((None, "returned None: does it lack its return?"), ([1.0], "a list, expected one number")):
        with pytest.raises(Refused, match=says):
            value_of(lambda theta: value, W)  # noqa: B023
    for value in (np.array([1.0]), np.array("1"), np.array(True)):
        with pytest.raises(Refused, match=rf"the loss is {value.dtype}".replace("<", r"\<")):
            value_of(lambda theta: value, W)  # noqa: B023
    for value in (1, 1.5, np.float32(1.5), np.array(2), 1j):
        assert value_of(lambda theta: value, W) == value  # noqa: B023


def test_parameters_that_are_not_a_number_are_not_taken_for_written_into():
    assert np.isnan(value_of(lambda theta: theta.sum(), np.array([np.nan, 1])))


def test_an_error_is_its_message_and_carries_its_report():
    for kind in (GradientError, Refused):
        error = kind("why", ["a check"])
        assert str(error) == "why"
        assert error.report == ["a check"]
        assert kind("why").report == ()


def test_a_derivative_along_a_direction_whatever_the_step():
    direction = np.arange(6.0).reshape(2, 3)
    for step in (1e-30, 1e-20, 1e-200):
        found = complex_step(lambda t: (t**2).sum(), W, direction, step)
        assert found == pytest.approx((2 * W * direction).sum(), rel=1e-14)
        np.testing.assert_allclose(complex_step_gradient(lambda t: (t**2).sum(), W, step), 2 * W, rtol=1e-14)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda t: 0.0 * t.real.sum(), "an imaginary part was dropped"),
        (lambda t: t.sum() * np.inf, "the loss of complex parameters is"),
        (lambda t: float(t.sum()), "does not take complex numbers"),
        (lambda t: np.zeros(2).astype(float) @ np.array(t.ravel()[:2], float), "does not take complex numbers"),
    ],
)
def test_a_loss_that_a_complex_step_cannot_take_is_told_by_what_it_does(loss, says):
    with np.errstate(invalid="ignore"), pytest.raises(NotComplex, match=says):
        complex_step(loss, W, np.ones_like(W))


def test_a_wrong_complex_step_is_contradicted_by_differences_and_a_right_one_is_not():
    loss, one = (lambda t: np.sin(t).sum()), np.ones(1)
    calls = []
    found = confirmation(lambda t: calls.append(t) or loss(t), one, one, np.sin(1.0), np.cos(1.0), 1.0, "b")
    assert found.value == pytest.approx(np.cos(1.0), rel=1e-9)
    assert len(calls) == 10  # one sequence of steps is enough where it agrees
    with pytest.raises(NotComplex, match=r"along b the derivative is 0.540303 by complex step, but 0.540302"):
        confirmation(loss, one, one, np.sin(1.0), np.cos(1.0) + 1e-6, 1.0, "b")
    # steps of 0.002 are too wide for this one: before they contradict it, others are tried
    steep = confirmation(lambda t: np.sin(3e3 * t).sum(), 0 * one, one, 0.0, 3e3, 3e3, "b")
    assert steep.value == pytest.approx(3e3, rel=1e-6)
    near_a_kink = confirmation(lambda t: (t + np.abs(t - 1e-5)).sum(), 0 * one, one, 1e-5, 0.0, 1.0, "b")
    assert near_a_kink.jump == 0  # finer ones stay on this side of it
    at_a_kink = confirmation(lambda t: np.abs(t).sum(), 0 * one, one, 0.0, 0.5, 1.0, "b")
    assert at_a_kink.jump == pytest.approx(1)  # which leaves the question open


def test_a_complex_step_gradient_is_confirmed_along_three_directions_or_more(monkeypatch):
    asked = []
    monkeypatch.setattr(
        derivatives, "confirmation", lambda loss, theta, direction, *others: asked.append((direction, *others))
    )
    complex_step_gradient(lambda t: (t**2).sum(), W)
    assert len(asked) >= 3
    for direction, value, along, scale, _ in asked:
        assert value == pytest.approx((W**2).sum())
        assert along == pytest.approx((2 * W * direction).sum(), rel=1e-12)
        assert scale == pytest.approx(np.linalg.norm(2 * W * direction), rel=1e-12)
        assert 0.1 < np.abs(direction).max() / np.sqrt((W**2).mean()) < 5
    assert not np.allclose(asked[0][0], asked[1][0])
    assert not np.allclose(asked[1][0], asked[2][0])


def test_float32_is_told_by_a_change_that_it_cannot_see_and_float64_sees_by_far():
    """The change is a thousandth of the precision of float32, and must be a hundred times that of float64."""
    change = float(np.finfo(np.float32).eps) / 1000
    limit = change / (100 * float(np.finfo(float).eps))  # of the loss, whose derivative is 1: 5369
    zero, one = np.zeros(1), np.ones(1)

    def blind(value, sign=1):
        """A loss that does not see a small change upwards."""
        return lambda t: value if 0 <= t[0] < 1e-8 else value + sign * t[0]

    for sign in (1, -1):
        assert precision_of(blind(limit - 3, sign), zero, one, limit - 3) == np.float32
        assert precision_of(blind(-limit + 3, sign), zero, one, -limit + 3) == np.float32
        assert precision_of(blind(limit + 3, sign), zero, one, limit + 3) == np.float64
    assert precision_of(lambda t: 1e8 + t[0], zero, one, 1e8) == np.float64  # which does not see it either
    assert precision_of(lambda t: np.maximum(t[0] - 5, 0), zero, one, 0.0) == np.float64  # there is nothing to see


def test_of_a_loss_in_float32_there_is_rather_no_derivative_than_a_wrong_one():
    for seed in range(60):
        theta = np.random.default_rng(seed).normal(size=2)
        found = central_difference_gradient(lambda t: (t.astype(np.float32) ** 2).sum(), theta)
        assert not (np.abs(found / (2 * theta) - 1) > 0.05).any()


def test_a_difference_with_too_few_digits_is_not_given():
    """Beside a loss of a billion a derivative of 10,000 has digits left, and one of 1/1000 none."""
    assert np.isnan(central_difference_gradient(lambda t: 1e9 + 1e-3 * t.sum(), W)).all()
    np.testing.assert_allclose(central_difference_gradient(lambda t: 1e9 + 1e4 * t.sum(), W), 1e4, rtol=1e-2)


def test_a_dependence_is_seen_however_the_elements_are_hidden():
    """At the given point, beside it, and far away, through a zero weight too; not where other elements change."""
    hidden = {
        "in a product with zero": (lambda t: t[0] * t[1], np.array([0.0, 0.0])),
        "behind a wall": (lambda t: np.maximum(t[0] - 12, 0) + 0 * t[1], np.array([3.0, 4.0])),
        "beyond where it is finite": (lambda t: np.log(t[0]) if t[0] > 0 else np.nan, np.array([1e-3, 1.0])),
        "in the last digit": (lambda t: 1 + 1e-15 * t[0], np.array([1.0, 1.0])),
    }
    for loss, theta in hidden.values():
        assert depends_on(loss, theta, changed=np.array([True, False]))
        assert depends_on(loss, theta)
    assert not depends_on(lambda t: t[0] ** 2, np.ones(2), changed=np.array([False, True]))
    assert not depends_on(lambda t: 7.0, np.ones(2))
    assert not depends_on(lambda t: 7.0 if t[0] > 0 else np.nan, np.ones(2))  # wherever it has a value it is the same


def test_a_dependence_is_looked_for_at_the_given_point_at_small_ones_and_at_large():
    points, size = [], 20_000
    theta, changed = np.repeat([2.0, 0.0], size), np.tile([True, False], size)
    assert not depends_on(lambda t: points.append(t) or 7.0, theta, changed)
    sizes = np.repeat([2 + 2**0.5 / 10, 2**0.5 / 10], size)  # of an element, and what is usual
    spreads = np.array([[0, 1, 0.1, 0.01, 10]] * 3).ravel()
    for spread, here, there in zip(spreads, points[::2], points[1::2], strict=True):
        np.testing.assert_array_equal(here[~changed], there[~changed])
        for half in (slice(size), slice(size, None)):
            if spread:
                assert (here / sizes)[half].std() == pytest.approx(spread, rel=0.03)
            else:
                np.testing.assert_array_equal(here, theta)
            assert ((there - here) / sizes)[half][changed[half]].std() == pytest.approx(spread or 0.1, rel=0.03)


def test_a_loss_that_has_no_value_anywhere_near_is_not_accused_of_independence():
    assert depends_on(lambda t: np.nan, np.ones(2))
    assert depends_on(lambda t: 7.0 if np.array_equal(t, [1, 1]) else np.nan, np.ones(2))
