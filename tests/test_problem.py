"""A loss and a gradient as the checker asks them: what is called when, and what is not taken for a gradient."""

import re
import warnings

import numpy as np
import pytest

from npvae.derivatives import GradientError
from npvae.problem import Point, Problem, nudged

P = {"W": np.arange(1.0, 7.0).reshape(2, 3), "b": np.array([-2.0, 0.5])}


def loss(p):
    return (p["W"] ** 3).sum() + (p["b"] ** 2).sum()


def gradient(p):
    return {"b": 2 * p["b"], "W": 3 * p["W"] ** 2}  # in an order of its own


def test_a_point_is_the_parameters_one_after_the_other_with_loss_and_gradient():
    problem = Problem(loss, gradient, P, float)
    point = problem.at(problem.theta)
    np.testing.assert_array_equal(point.theta, [1, 2, 3, 4, 5, 6, -2, 0.5])
    assert point.value == loss(P)
    np.testing.assert_array_equal(point.gradient, [3, 12, 27, 48, 75, 108, -4, 1])


def test_the_loss_is_computed_right_before_each_gradient():
    """A backward pass may need what the forward pass has left."""
    calls = []
    problem = Problem(
        lambda p: calls.append("loss") or loss(p), lambda p: calls.append("gradient") or gradient(p), P, float
    )
    problem.at(problem.theta)
    assert "".join(call[0] for call in calls).endswith("lglg")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_is_computed_in_the_dtype_that_is_asked_for(dtype):
    seen = []
    problem = Problem(lambda p: seen.extend(p.values()) or loss(p), gradient, P, dtype)
    point = problem.at(problem.theta)
    assert point.theta.dtype == point.gradient.dtype == dtype
    assert {array.dtype for array in seen} == {np.dtype(dtype)}


def turns(first, second):
    """A gradient that is so many times the right one at the first call, and at the second."""
    factors = iter([first, second])

    def by(p):
        factor = next(factors)
        return {name: factor * d for name, d in gradient(p).items()}

    return by


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (1, 2, "W is 2 times as large at a second call with the same parameters: it is accumulated"),
        (1, 1.5, "W is 1.5 times as large at a second call"),
        (1, 0.5, "W changes between two calls"),
        (1, -1, "W changes between two calls"),
        (0, 1, "W changes between two calls"),
        (1, 1 + 3e-8, "W is 1 times as large"),
    ],
)
def test_a_gradient_that_is_another_one_at_a_second_call_is_told_by_what_became_of_it(first, second, says):
    problem = Problem(loss, turns(first, second), P, float)
    with pytest.raises(GradientError, match=re.escape(f"the gradient of {says}")):
        problem.at(problem.theta)


def test_rounding_is_not_taken_for_a_gradient_that_changes():
    for turn in (turns(1, 1 + 1e-8), turns(0, 0)):  # less than √ε; and zero, which stays zero
        problem = Problem(loss, turn, P, float)
        assert problem.at(problem.theta).value == loss(P)


@pytest.mark.parametrize(
    ("off", "says"), [(1e-8, "is 2 times as large"), (4e-6, "changes between two"), (1e-3, "changes between two")]
)
def test_noise_is_not_taken_for_accumulation(off, says):
    """Twice as large on the whole, but in each element only up to rounding."""
    calls = []

    def noisy(p):
        calls.append(1)
        return gradient(p) | {"W": gradient(p)["W"] * (1 if len(calls) == 1 else np.array([2, 2, 2 * (1 + off)]))}

    problem = Problem(loss, noisy, P, float)
    with pytest.raises(GradientError, match=f"the gradient of W {says}"):
        problem.at(problem.theta)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ones((3, 2)), "W has the shape (3, 2), expected (2, 3): transposed?"),
        (np.ones((2, 4)), "W has the shape (2, 4), expected (2, 3)"),
        (np.ones(6), "W has the shape (6,), expected (2, 3)"),
        ([[1, 2, 3], [4, 5, 6]], "W is of the type list, expected an array"),
        (np.ones((2, 3), bool), "W is bool, expected real numbers"),
        (np.array([[1, 2, 3], [4, np.nan, np.inf]]), "W is nan at [1, 1]"),
    ],
)
def test_what_has_not_the_form_of_the_parameters_is_no_gradient(array, says):
    problem = Problem(loss, lambda p: gradient(p) | {"W": array}, P, float)
    with pytest.raises(GradientError) as error:
        problem.gradient(problem.theta)
    assert str(error.value) == f"the gradient of {says}"


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32])
def test_a_gradient_of_whole_or_narrow_numbers_is_one(dtype):
    problem = Problem(loss, lambda p: gradient(p) | {"W": np.full((2, 3), 7, dtype), "b": np.ones(2)}, P, float)
    np.testing.assert_array_equal(problem.gradient(problem.theta), [7] * 6 + [1, 1])


def test_a_point_nearby_is_a_tenth_of_the_scale_of_each_array_away_or_nearer_where_that_fails():
    large = {"W": np.full(3, 30.0), "b": np.full(2, -0.2)}
    for fails, distances in ((0, [0.1]), (1, [0.1, 0.01]), (2, [0.1, 0.01, 0.001]), (3, [0.1, 0.01, 0.001])):
        tried = []

        def squares(p, tried=tried, fails=fails):
            tried.append(np.concatenate([p["W"], p["b"]]))
            if len({array.tobytes() for array in tried}) <= fails:
                raise ZeroDivisionError
            return (p["W"] ** 2).sum() + (p["b"] ** 2).sum()

        problem = Problem(squares, lambda p: {name: 2 * array for name, array in p.items()}, large, float)
        point, notes = problem.point_nearby(Point(problem.theta, 1.0, problem.theta), np.random.default_rng(0))
        rng, found = np.random.default_rng(0), list({array.tobytes(): array for array in tried}.values())
        for distance, theta in zip(distances, found, strict=True):
            noise = np.concatenate([30 * rng.standard_normal(3), 0.2 * rng.standard_normal(2)])
            np.testing.assert_allclose(theta - problem.theta, distance * noise, rtol=1e-9)
        assert (point is None) == (fails == 3)
        assert notes == ["compared at the given parameters only: beside them loss or gradient fails"] * (fails == 3)


def test_nobody_hears_a_warning_from_a_point_nearby():
    problem = Problem(lambda p: np.log(p["a"]).sum(), lambda p: {"a": 1 / p["a"]}, {"a": np.full(50, 1e-9)}, float)
    problem.theta[0] = 1.0  # so that a tenth of the scale is further than zero is from the others
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        point, _ = problem.point_nearby(Point(problem.theta, 1.0, problem.theta), np.random.default_rng(0))
    assert point is None
    assert heard == []


def test_a_gradient_that_is_no_function_has_no_point_nearby():
    problem = Problem(loss, gradient(P), P, float)
    point, notes = problem.point_nearby(problem.at(problem.theta), np.random.default_rng(0))
    assert point is None
    assert notes == ["compared at the given parameters only: the gradient is not a function"]


def test_nudged_arrays_keep_their_precision():
    assert nudged(np.ones(5, np.float32), np.random.default_rng(0)).dtype == np.float32
    zeros = nudged(np.zeros(10_000), np.random.default_rng(0))  # whose scale counts as 1
    assert zeros.std() == pytest.approx(0.1, rel=0.03)
