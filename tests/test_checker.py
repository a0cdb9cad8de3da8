"""`gradcheck` in the hands of others: what it says of right gradients, of wrong ones, and of what has no answer."""

import contextlib
import itertools
import os
import re
from collections import Counter

import numpy as np
import pytest

from npvae import checker
from npvae.gradcheck import Check, GradientError, Refused, Report, gradcheck
from npvae.problem import Problem
from tests.networks import MuseumVAE, random_network

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 3))
P = {
    "W1": RNG.normal(size=(4, 6)),
    "b1": RNG.normal(size=6),
    "W2": RNG.normal(size=(6, 6)),
    "b2": RNG.normal(size=6),
    "W3": RNG.normal(size=(6, 3)),
    "b3": RNG.normal(size=3),
}


def forward(p):
    h1 = np.tanh(X @ p["W1"] + p["b1"])
    h2 = np.tanh(h1 @ p["W2"] + p["b2"])
    return h1, h2, h2 @ p["W3"] + p["b3"]


def loss(p):
    return ((forward(p)[-1] - T) ** 2).sum() / 2 / len(X)


def gradient(p):
    h1, h2, y = forward(p)
    d_y = (y - T) / len(X)
    d_a2 = d_y @ p["W3"].T * (1 - h2**2)
    d_a1 = d_a2 @ p["W2"].T * (1 - h1**2)
    d = {"W3": h2.T @ d_y, "b3": d_y.sum(axis=0), "W2": h1.T @ d_a2, "b2": d_a2.sum(axis=0)}
    return d | {"W1": X.T @ d_a1, "b1": d_a1.sum(axis=0)}


@pytest.mark.parametrize("elements", ["auto", "all"])
def test_a_right_gradient_gives_a_report_that_prints_as_a_table(elements):
    report = gradcheck(loss, gradient, P, elements=elements)
    assert report.passed
    assert all(check.decided and check.findings == () for check in report)
    assert [check.name for check in report] == list(P)
    assert report.worst("complex_error") < 1e-13
    assert report.worst("central_error") < 1e-8
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(name) and line.endswith("ok") for name, line in zip(P, lines[1:], strict=False))


def test_one_array_in_place_of_the_dict():
    W = P["W1"]
    assert gradcheck(lambda W: np.sin(W).sum(), lambda W: np.cos(W), W).passed
    with pytest.raises(GradientError, match="theta is wrong"):
        gradcheck(lambda W: np.sin(W).sum(), lambda W: -np.cos(W), W)


@pytest.mark.parametrize("elements", ["auto", "all"])
def test_a_single_number_is_an_array_without_dimensions(elements):
    assert gradcheck(lambda w: w**3, lambda w: 3 * w**2, 0.7, elements=elements).passed
    with pytest.raises(GradientError, match=r"0\.666667 times"):
        gradcheck(lambda w: w**3, lambda w: 2 * w**2, 0.7, elements=elements)


def test_a_gradient_that_was_computed_before_is_compared_at_its_point():
    report = gradcheck(loss, gradient(P), P)
    assert "at the given parameters only" in str(report)
    wrong = gradient(P) | {"W2": 2 * gradient(P)["W2"]}
    for given in (wrong, lambda p: wrong):
        with pytest.raises(GradientError, match="W2 is wrong"):
            gradcheck(loss, given, P)
    assert gradcheck(loss, lambda p: gradient(P), P).passed


def test_float32_parameters_are_checked_in_float64():
    assert gradcheck(loss, gradient, {name: array.astype(np.float32) for name, array in P.items()}).passed


def changed(*names, by):
    """The gradient with some of its arrays, by default all, put through a function."""
    return lambda p: {name: by(d) if name in (names or P) else d for name, d in gradient(p).items()}


def one_column(d):
    d[:, 2] *= 3
    return d


def half_of_the_columns(d):
    d[:, 3:] *= -1
    return d


def one_element(d):
    d[1, 2] += 1e-8
    return d


def with_decay(p):
    return gradient(p) | {"W1": gradient(p)["W1"] + 0.01 * p["W1"]}


def swapped(p):
    d = gradient(p)
    return d | {"b1": d["b2"], "b2": d["b1"]}


def without_tanh(p):
    _, h2, y = forward(p)
    d_a2 = (y - T) / len(X) @ p["W3"].T * (1 - h2**2)
    d_a1 = d_a2 @ p["W2"].T
    return gradient(p) | {"W1": X.T @ d_a1, "b1": d_a1.sum(axis=0)}


WRONG = {  # the gradient, the arrays that are wrong, and what must be said
    "a sign": (changed(by=lambda d: -d), list(P), ["it is -1 times the derivative", "a guess: a sign"]),
    "twice": (changed(by=lambda d: 2 * d), list(P), ["it is 2 times", "½ of a square is missing"]),
    "half": (changed("W2", by=lambda d: d / 2), ["W2"], ["it is 0.5 times", "a ½ too many"]),
    "a sum for a mean": (
        changed(by=lambda d: 5 * d),
        list(P),
        ["5 times", "a sum in the gradient, a mean in the loss", "batch of 5"],
    ),
    "a mean for a sum": (
        changed(by=lambda d: d / 4),
        list(P),
        ["0.25 times", "a mean in the gradient, a sum in the loss"],
    ),
    "transposed": (changed("W2", by=np.transpose), ["W2"], ["the derivative transposed"]),
    "laid out wrongly": (
        changed("W1", by=lambda d: d.T.reshape(d.shape)),
        ["W1"],
        ["transposed, its numbers laid out"],
    ),
    "zero": (changed("W2", "b2", by=np.zeros_like), ["W2", "b2"], ["it is zero everywhere"]),
    "one column": (changed("W3", by=one_column), ["W3"], ["only column 2 of the 3 is wrong; there it is 3 times"]),
    "half of the columns": (
        changed("W1", by=half_of_the_columns),
        ["W1"],
        ["only the second half of its 6 columns", "-1 times"],
    ),
    "one element": (changed("W1", by=one_element), ["W1"], ["only element [1, 2] of the 24 is wrong"]),
    "rows in reverse": (changed("W2", by=np.flipud), ["W2"], ["rows in reverse order"]),
    "only biases": (changed("b1", "b2", "b3", by=lambda d: d / 5), ["b1", "b2", "b3"], ["only vectors are wrong"]),
    "decay": (with_decay, ["W1"], ["plus 0.01 times the parameters themselves"]),
    "two arrays mixed up": (swapped, ["b1", "b2"], ["with respect to b1", "with respect to b2"]),
    "derivative of tanh": (without_tanh, ["W1", "b1"], ["between W2, which is right, and b1"]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_gradient_is_told_with_its_arrays_and_what_it_looks_like(mistake):
    wrong, arrays, sentences = WRONG[mistake]
    with pytest.raises(GradientError) as error:
        gradcheck(loss, wrong, P)
    assert isinstance(error.value, AssertionError)
    report = error.value.report
    assert [check.name for check in report if not check.passed] == arrays
    said = " ".join(str(error.value).split())
    for sentence in sentences:
        assert sentence in said
    for check in report:
        if not check.passed:  # the worst element, with all three derivatives
            right = gradient(P)[check.name][check.worst]
            assert check.complex_step == pytest.approx(right, rel=1e-12)
            assert check.central == pytest.approx(right, rel=1e-6)
            assert check.analytic == wrong(P)[check.name][check.worst]
            assert f"{check.name} is wrong, most at {list(check.worst)}" in said


@pytest.mark.parametrize("mistake", ["a sign", "one column", "zero"])
def test_the_same_is_told_where_the_loss_takes_no_complex_numbers(mistake):
    wrong, arrays, sentences = WRONG[mistake]

    def real(p):
        return float(loss(p))

    assert gradcheck(real, gradient, P).passed
    with pytest.raises(GradientError) as error:
        gradcheck(real, wrong, P)
    said = " ".join(str(error.value).split())
    assert [check.name for check in error.value.report if not check.passed] == arrays
    assert "by central differences alone, because" in said
    assert all(sentence in said for sentence in sentences)


def test_a_loss_that_drops_digits_is_told_to_keep_them():
    def loss32(p):
        return loss({name: array.astype(np.float32) for name, array in p.items()}) + np.float32(1e4)

    with pytest.raises(Refused, match="computes in float32"):
        gradcheck(loss32, gradient, P)


def test_an_accumulated_gradient_is_recognized():
    total = {name: np.zeros_like(array) for name, array in P.items()}

    def accumulated(p):
        for name, d in gradient(p).items():
            total[name] += d
        return total

    with pytest.raises(GradientError, match=r"2 times as large at a second call.*accumulated, and never reset"):
        gradcheck(loss, accumulated, P)


NO_FORM = {
    "a name too few": (lambda p: {"W1": p["W1"]}, "has the names W1, expected W1, b1, W2"),
    "a name too many": (lambda p: gradient(p) | {"c": 1.0}, "has the names .*c, expected"),
    "no dict": (lambda p: 1.0, "type float, expected a dict"),
    "nothing": (lambda p: None, "type NoneType, expected a dict"),
    "another shape": (lambda p: gradient(p) | {"W1": gradient(p)["W1"].T}, r"W1 has the shape \(6, 4\).*transposed\?"),
    "NaN": (lambda p: gradient(p) | {"b1": gradient(p)["b1"] * [1, 1, np.nan, 1, 1, 1]}, r"b1 is nan at \[2\]"),
    "complex": (lambda p: gradient(p) | {"b1": gradient(p)["b1"] + 0j}, "b1 is complex128"),
    "noise of its own": (
        lambda p: changed(by=lambda d: d * np.random.default_rng().normal(size=d.shape))(p),
        "noise of its own",
    ),
}


@pytest.mark.parametrize("form", NO_FORM)
def test_a_gradient_without_the_form_of_the_parameters_is_wrong(form):
    wrong, message = NO_FORM[form]
    with pytest.raises(GradientError, match=message):
        gradcheck(loss, wrong, P)


def steps(p):
    for name, d in gradient(p).items():
        p[name] -= 0.1 * d
    return gradient(p)


REFUSED = {
    "noise": (lambda p: loss(p) + np.random.default_rng().normal(), gradient, P, "draw fresh noise"),
    "its own arrays": (lambda p: loss(P), gradient, P, "does not depend on W1"),
    "an array that it forgets": (lambda p: loss(p | {"b2": P["b2"]}), gradient, P, "does not depend on b2"),
    "an array that nothing uses": (
        loss,
        lambda p: gradient(p) | {"c": np.zeros(3)},
        P | {"c": np.ones(3)},
        "depend on c",
    ),
    "many numbers": (lambda p: forward(p)[-1], gradient, P, "expected one number"),
    "a loss with its gradient": (lambda p: (loss(p), gradient(p)), gradient, P, "returned a tuple"),
    "NaN": (lambda p: np.nan * loss(p), gradient, P, "the loss is nan"),
    "whole numbers": (loss, gradient, P | {"b1": np.arange(6)}, "b1 is int64: whole numbers have no derivative"),
    "complex parameters": (loss, gradient, P | {"b1": P["b1"] + 0j}, "b1 is complex128"),
    "no parameters": (loss, gradient, {}, "no parameters"),
    "a list": (loss, gradient, list(P.values()), "the parameters are a list"),
    "a step of the optimizer": (loss, steps, P, "writes into the parameters"),
}


@pytest.mark.parametrize("question", REFUSED)
def test_a_question_without_an_answer_is_refused_by_name(question):
    *arguments, reason = REFUSED[question]
    with pytest.raises(Refused, match=reason) as error:
        gradcheck(*arguments)
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, GradientError)


def test_a_typo_in_the_loss_is_its_own_error_and_changes_nothing():
    kept = {name: array.copy() for name, array in P.items()}
    with pytest.raises(KeyError, match="W4"):
        gradcheck(lambda p: p["W4"].sum(), gradient, P)
    for name, array in P.items():
        np.testing.assert_array_equal(array, kept[name])


def test_zeros_do_not_hide_a_mistake():
    """At zero, 1 − tanh² is 1, and the gradient of all weights but the last is 0: a second point tells."""
    zeros = {name: np.zeros_like(array) for name, array in P.items()}
    for name, d in without_tanh(zeros).items():
        np.testing.assert_array_equal(d, gradient(zeros)[name])
    assert gradcheck(loss, gradient, zeros).passed
    with pytest.raises(GradientError, match="nearby"):
        gradcheck(loss, without_tanh, zeros)


def test_a_gradient_that_is_zero_up_to_rounding_is_right():
    w = np.linalg.lstsq(X, T[:, 0], rcond=None)[0]  # the minimum: what is left of the terms is rounding
    report = gradcheck(lambda w: ((X @ w - T[:, 0]) ** 2).sum(), lambda w: 2 * X.T @ (X @ w - T[:, 0]), w)
    assert report.passed
    assert report.notes == ()


def test_parameters_that_must_be_positive_may_differ_in_size():
    variance = np.array([1e-4, 1.0, 100.0])
    for cast in (lambda value: value, float):
        assert gradcheck(
            lambda v, cast=cast: cast((np.log(v) + 1 / v).sum()), lambda v: 1 / v - 1 / v**2, variance
        ).passed
        with pytest.raises(GradientError, match="wrong"):
            gradcheck(lambda v, cast=cast: cast((np.log(v) + 1 / v).sum()), lambda v: 1 / v + 1 / v**2, variance)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(10))
def test_nobody_hears_of_a_point_that_nobody_asked_for(seed):
    """Of warnings and exceptions of the caller's functions at the random point nearby."""
    a = np.array([0.3, 0.01, 2.0])

    def log_gradient(p):
        assert (p > 0).all()
        return 1 / p

    assert gradcheck(lambda p: np.where(p.real > 0, np.log(p), 0).sum(), log_gradient, a, seed=seed).passed


def test_a_few_wrong_elements_of_a_large_array_are_found():
    a = np.linspace(1, 2, 90_000).reshape(300, 300)

    def wrong(a):
        d = 3 * a**2
        d[[7, 123, 299], [250, 40, 74]] *= 1.5
        return d

    with pytest.raises(GradientError) as error:
        gradcheck(lambda a: (a**3).sum(), wrong, a)
    (check,) = error.value.report
    assert check.worst in {(7, 250), (123, 40), (299, 74)}
    assert check.analytic == pytest.approx(1.5 * check.complex_step, rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (5,), (1, 1)])
def test_a_small_error_is_not_taken_for_a_rearranged_array(shape):
    a = np.linspace(0.1, 1, max(shape)).reshape(shape)

    def wrong(a):
        d = np.cos(a)
        d.flat[0] += 1e-8
        return d

    with pytest.raises(GradientError) as error:
        gradcheck(lambda a: np.sin(a).sum(), wrong, a)
    assert not re.search("transposed|reverse|mixed up", str(error.value))


def test_what_differences_cannot_confirm_is_said():
    """Of a loss beside a large constant, differences see too little to notice a lost imaginary part."""
    report = gradcheck(lambda w: 1e6 + 1e-3 * np.sin(w).sum(), lambda w: 1e-3 * np.cos(w), P["b1"])
    assert any("lost imaginary part below" in note for note in report.notes)
    assert gradcheck(loss, gradient, P).notes == ()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_verdict_does_not_depend_on_the_units_of_loss_and_parameters(scale):
    units = {name: scale if name.startswith("W") else 1 / scale for name in P}
    p = {name: array / units[name] for name, array in P.items()}

    def arrays(q):
        return {name: array * units[name] for name, array in q.items()}

    def in_units(by):
        return lambda q: {name: scale * units[name] * d for name, d in by(arrays(q)).items()}

    assert gradcheck(lambda q: scale * loss(arrays(q)), in_units(gradient), p).passed
    for name in P:
        with pytest.raises(GradientError, match=f"{name} is wrong"):
            gradcheck(lambda q: scale * loss(arrays(q)), in_units(changed(name, by=lambda d: d * (1 + 1e-6))), p)


@pytest.mark.parametrize("how", ["auto", "all", "real"])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_errors_are_relative_to_the_gradient(scale, how):
    """A gradient 0.1 % too large is off by 1e-3 whatever the units of its loss; a right one by next to nothing."""

    elements, cast = ("auto", float) if how == "real" else (how, lambda value: value)

    def times(factor):
        return lambda p: {name: factor * scale * d for name, d in gradient(p).items()}

    report = gradcheck(lambda p: cast(scale * loss(p)), times(1), P, elements=elements)
    assert report.worst("central_error") < 1e-8
    assert not report.worst("complex_error") >= 1e-13  # NaN where the loss takes no complex numbers
    with pytest.raises(GradientError) as error:
        gradcheck(lambda p: cast(scale * loss(p)), times(1.001), P, elements=elements)
    for check in error.value.report:
        assert check.central_error == pytest.approx(1e-3, rel=0.01)
        assert np.isnan(check.complex_error) if cast is float else check.complex_error == pytest.approx(1e-3, rel=0.01)


def test_the_error_of_an_array_is_that_of_its_worst_element():
    largest = np.abs(gradient(P)["W1"]).max()

    def wrong(p):
        d = gradient(p)
        d["W1"][1, 2] += 1e-3 * largest
        d["W1"][2, 3] -= 1e-2 * largest
        return d

    with pytest.raises(GradientError) as error:
        gradcheck(loss, wrong, P)
    check, *others = error.value.report
    assert check.worst == (2, 3)
    assert check.complex_error == pytest.approx(1e-2, rel=0.02)  # one element of the gradient has grown, or shrunk
    assert check.central_error == pytest.approx(1e-2, rel=0.02)
    assert max(other.complex_error for other in others) < 1e-13
    assert error.value.report.worst("complex_error") == check.complex_error
    assert error.value.report.worst("central_error") == check.central_error


def test_each_column_of_the_table_is_what_its_head_says():
    check = Check("W", (2, 3), (0, 1), 1.0, 2.0, 3.0, 0.4, 0.5, 6, 0, False, True, ())
    head, row = Report([check]).table().splitlines()
    assert head.split() == ["array", "worst", "analytic", "complex", "central", "errors"]
    assert row.split() == ["W", "2×3", "[0,1]", "1.00e+00", "2.00e+00", "3.00e+00", "4.0e-01", "5.0e-01", "FAIL"]
    assert "analytic 1, complex step 2, central differences 3" in check.in_words()
    assert "4.0e-01 by complex step, 5.0e-01 by central differences" in Report([check]).summary()


@pytest.mark.parametrize("elements", ["auto", "all"])
def test_the_derivatives_of_a_check_are_what_they_are_named_after(elements):
    """The complex step has all digits, a central difference has not: they are told apart by their errors."""
    for check in gradcheck(loss, gradient, P, elements=elements):
        assert abs(check.complex_step - check.analytic) < 1e-14 < abs(check.central - check.analytic)
        assert check.complex_error < 1e-14 < check.central_error


@pytest.mark.parametrize("seed", range(5))
def test_a_direction_sees_a_mistake_of_a_ten_billionth_of_the_gradient(seed):
    """1e-10 of the norm of one array, in one element or in all; 1e-13 is rounding, and passes."""
    rng = np.random.default_rng(seed)

    def off(size, noise):
        def wrong(p):
            d = gradient(p)
            return d | {"W2": d["W2"] + size * np.linalg.norm(d["W2"]) * noise / np.linalg.norm(noise)}

        return wrong

    everywhere, somewhere = rng.normal(size=(6, 6)), np.zeros((6, 6))
    somewhere[tuple(rng.integers(6, size=2))] = 1
    for noise in (everywhere, somewhere):
        assert gradcheck(loss, off(1e-13, noise), P, seed=seed).passed
        with pytest.raises(GradientError, match="W2 is wrong"):
            gradcheck(loss, off(1e-10, noise), P, seed=seed)


NETWORKS = int(os.environ.get("NPVAE_FUZZ", 100))  # NPVAE_FUZZ=1000 python -m pytest -k false_alarm


@pytest.mark.slow
def test_no_false_alarm_on_random_networks():
    """Of all depths, activations and losses, with kinks, dead units, zero biases, inputs that are zero, penalties."""
    alarms = {}
    for seed in range(NETWORKS):
        *network, what = random_network(seed)
        try:
            gradcheck(*network)
        except GradientError as error:
            alarms[seed] = f"{what}: {error}"
    assert not alarms


@pytest.mark.slow
def test_no_mistake_in_a_random_network_passes():
    passed, found, refused = [], 0, 0
    mistakes = (lambda d: -d, lambda d: d * 1.001, np.zeros_like, lambda d: d + 1e-3 * np.abs(d).max())
    for seed in range(NETWORKS // 2):
        loss, right, p, what = random_network(seed)
        rng = np.random.default_rng(seed)
        name, by = list(p)[rng.integers(len(p))], mistakes[rng.integers(len(mistakes))]
        if np.array_equal(by(right(p)[name]), right(p)[name]):  # it happens to be right
            continue
        try:
            gradcheck(loss, lambda p, r=right, n=name, by=by: r(p) | {n: by(r(p)[n])}, p)
            passed.append((seed, what))
        except Refused:
            refused += 1
        except GradientError:
            found += 1
    assert not passed
    assert found > 0.8 * NETWORKS // 2
    assert refused < 5 + NETWORKS / 100


MUSEUM = {  # bugs of notebook 10 that can be in the backward pass alone, and two more: the arrays that they reach
    "σ² used as σ": ("W1 b1 W2 b2", "W3, which is right, and b2"),
    "noise drawn again": ("", "draw noise of its own"),
    "KL without its ½": ("W1 b1 W2 b2", "W3, which is right, and b2"),
    "KL with the wrong sign": ("W1 b1 W2 b2", "W3, which is right, and b2"),
    "KL: sign of logvar": ("W1 b1 W2 b2", "only the second half of its 4 columns is wrong"),
    "mean for sum": ("W1 b1 W2 b2 W3 b3 W4 b4", "it is 0.166667 times the derivative"),
    "skipped activation": ("W1 b1 W2 b2 W3 b3", "W4, which is right, and b3"),
    "(1 − x) term missing": ("W1 b1 W2 b2 W3 b3 W4 b4", "every element is wrong"),
    "extra y (1 − y)": ("W1 b1 W2 b2 W3 b3 W4 b4", "every element is wrong"),
    "sum for the mean over the batch": ("W1 b1 W2 b2 W3 b3 W4 b4", "it is 3 times the derivative"),
}


@pytest.mark.parametrize("bug", MUSEUM)
def test_bugs_that_were_shipped_are_found_in_a_network_of_plain_numpy(bug):
    names, sentence = MUSEUM[bug]
    model = MuseumVAE()
    assert gradcheck(model.loss, model.gradient, model.p).passed
    wrong = MuseumVAE(bug)
    with pytest.raises(GradientError) as error:
        gradcheck(wrong.loss, wrong.gradient, wrong.p)
    said = " ".join(str(error.value).split())
    assert sentence in said
    assert [check.name for check in error.value.report if not check.passed] == names.split()


# what is decided of elements and directions, on numbers that are made up


def examination(complexly):
    gradient = np.array([1.0, 0.5, 0.5])
    problem = Problem(lambda p: (p["a"] * gradient).sum(), lambda p: {"a": gradient}, {"a": np.ones(3)}, float)
    return checker.Examination(problem, [problem.at(problem.theta)], True, 0, complexly)


def judged(analytic=(1.0, 0.5, 0.5), off=0.0, apart=0.0, error=0.0, jump=0.0, complexly=True, sizes=(1.0, 1.0, 1.0)):
    """What is made of elements whose complex step is so far off, and whose difference is."""
    analytic, zeros = np.array(analytic), np.zeros(3)
    by_complex_step = analytic + off if complexly else np.full(3, np.nan)
    given = (analytic, by_complex_step, analytic + apart, zeros + error, zeros + jump, np.array(sizes), 1.0)
    wrong, skipped, *errors = examination(complexly).judge(*given)
    return wrong.tolist(), skipped.tolist(), *errors


NONE, THIRD = [False] * 3, [False, False, True]


@pytest.mark.parametrize("sign", [1, -1])
def test_an_element_is_wrong_from_the_stated_tolerances_on_and_where_a_difference_is_sure(sign):
    def wrong(off=0.0, apart=0.0, **given):
        return judged(off=sign * np.array(off), apart=sign * np.array(apart), **given)[0]

    assert wrong(off=[0, 0.9e-12, 1.1e-12]) == THIRD
    assert wrong(apart=[0, 0.9e-6, 1.1e-6]) == THIRD
    assert wrong(apart=[0, 1.9e-3, 2.1e-3], error=1e-4) == THIRD  # twenty errors
    assert wrong(apart=[0, 0.9e-9, 1.1e-9], complexly=False) == THIRD
    assert wrong(analytic=(0, 0, 0), off=[2, 0, 0]) == [True, False, False]
    assert wrong(analytic=(4, 2, 2), off=[0, 3.9e-12, 4.1e-12]) == THIRD  # relative to the largest
    assert wrong(analytic=(4, 2, 2), apart=[0, 3.9e-6, 4.1e-6]) == THIRD
    # what is left of terms of 1 that cancel is 1e-14 per change of the parameter: here 0.1, 1 and 10
    assert wrong(analytic=(0, 0, 0), off=[1e-13, 1e-14, 1e-14], sizes=(0.1, 1, 10)) == THIRD


def test_an_element_at_a_kink_is_skipped_where_the_kink_can_be_the_reason():
    half = [0, 0.5, 0.5]
    assert judged(apart=half, jump=[0, 0.06, 0.04])[:2] == (THIRD, [False, True, False])
    assert judged(off=half, apart=half, jump=[0, 0.06, 0.04])[:2] == (THIRD, [False, True, False])
    assert judged(off=[0, 0, 1e-3], jump=0.01)[:2] == (NONE, THIRD)  # between both derivatives
    assert judged(jump=0.06)[:2] == (NONE, NONE)  # where all three agree there is nothing to excuse
    assert judged(apart=[0, 0, 2e-3], jump=5e-4, error=2e-5)[:2] == (NONE, THIRD)
    assert judged(apart=[0, 0, 2e-3], jump=3e-4, error=2e-5)[:2] == (THIRD, NONE)  # a jump less than its error


def test_errors_are_relative_to_the_largest_of_the_three_derivatives():
    *_, complex_error, central_error = judged(analytic=(4.0, 2, 2), off=[0, 0.4, 0], apart=[0, 0, -0.8])
    np.testing.assert_allclose(complex_error, [0, 0.1, 0])
    np.testing.assert_allclose(central_error, [0, 0, 0.2])
    *_, complex_error, central_error = judged(analytic=(4.0, 2, 2), off=[-3.6, 0, 0], apart=[-3.6, 0, 0])
    np.testing.assert_allclose((complex_error, central_error), [[0.9, 0, 0]] * 2)
    *_, complex_error, central_error = judged(analytic=(0, 0, 0), off=[8, 0, 0], apart=[0, 2, 0])
    np.testing.assert_allclose(complex_error, [1, 0, 0])
    np.testing.assert_allclose(central_error, [0, 0.25, 0])
    *_, central_error = judged(apart=[0, 0.5, 0.5], jump=[0, 0.06, 0.04])
    np.testing.assert_allclose(central_error, [0, 0, 0.5])  # of what is skipped there is none
    *_, complex_error, central_error = judged(analytic=(0, 0, 0), off=[1e-15, 0, 0], apart=[1e-15, 0, 0])
    assert 0 < complex_error[0] == central_error[0] < checker.COMPLEX_TOLERANCE  # rounding is as small beside itself


def test_an_element_that_differences_cannot_resolve_is_skipped_where_there_is_nothing_else():
    assert judged(error=[0, 4e-6, 6e-6], complexly=False)[:2] == (NONE, THIRD)
    assert judged(error=[0, 4e-6, 6e-6], complexly=False, sizes=(10, 10, 10))[:2] == (NONE, THIRD)  # in any units
    assert judged(error=[0, 4e-6, 6e-6])[:2] == (NONE, NONE)  # the complex step has decided


def test_differences_of_a_gradient_that_is_zero_up_to_rounding_are_measured_by_what_cancels():
    """By terms of about 1; or by the gradient itself, where the size of a parameter makes more of it than rounding."""
    for apart, sizes, skipped in ((1e-15, (1, 1, 1), NONE), (2e-15, (0.1, 1, 10), THIRD)):
        given = {"analytic": (0, 0, 0), "apart": [apart, 0, 0], "error": [0, 0, 1e-15], "sizes": sizes}
        assert judged(**given, complexly=False)[:2] == (NONE, skipped)


def test_all_elements_are_held_to_a_trillionth_of_the_largest():
    def wrong(size):
        def by(p):
            d = gradient(p)
            d["W1"][1, 2] += size * np.abs(d["W1"]).max()
            return d

        return by

    assert gradcheck(loss, wrong(3e-13), P, elements="all").passed
    with pytest.raises(GradientError, match=r"W1 is wrong, most at \[1, 2\]"):
        gradcheck(loss, wrong(3e-12), P, elements="all")


def test_a_small_mistake_is_found_beside_a_large_loss_and_a_derivative_next_to_nothing_is_let_be():
    def wrong(p):
        return gradient(p) | {"W2": gradient(p)["W2"] * (1 + 1e-10)}

    assert gradcheck(lambda p: 100 + loss(p), gradient, P).passed
    with pytest.raises(GradientError, match="W2 is wrong"):
        gradcheck(lambda p: 100 + loss(p), wrong, P)
    b = P["b1"]  # a derivative of 1e-13 of a loss of 1 may be the rest of terms that cancel
    assert gradcheck(lambda w: 1 + 1e-13 * np.sin(w).sum(), lambda w: 1e-13 * np.cos(w) * (1 + 1e-6), b).passed
    with pytest.raises(GradientError, match="theta is wrong"):
        gradcheck(lambda w: 1 + 1e-10 * np.sin(w).sum(), lambda w: 1e-10 * np.cos(w) * (1 + 1e-6), b)


@pytest.mark.parametrize(("cast", "here", "nearby"), [(lambda value: value, 2, 1), (float, 6, 6)])
def test_each_array_is_compared_along_so_many_directions(cast, here, nearby, monkeypatch):
    asked, along = Counter(), checker.Examination.along

    def counted(self, point, name, *others, **how):
        asked[name, point is self.points[0], self.complexly] += 1
        return along(self, point, name, *others, **how)

    monkeypatch.setattr(checker.Examination, "along", counted)
    assert gradcheck(lambda p: cast(loss(p)), gradient, P).passed
    complexly = cast is not float
    for name in P:
        assert (asked[name, True, complexly], asked[name, False, complexly]) == (here, nearby)


def test_options_of_the_check_are_those_of_its_caller():
    few, other, all_of_it = (
        gradcheck(loss, gradient, P, **how) for how in ({}, {"seed": 1}, {"elements": "all", "seed": 0})
    )
    assert all(check.compared == 0 and check.worst is None for check in few)
    assert all(check.compared == np.prod(check.shape) for check in all_of_it)
    assert all(one.analytic != two.analytic for one, two in zip(few, other, strict=True))  # along other directions
    assert few == gradcheck(loss, gradient, P, seed=0)
    for elements, compared in (("auto", 0), ("all", 1)):  # by differences alone, too
        for check in gradcheck(lambda p: float(loss(p)), gradient, P, elements=elements):
            assert check.compared == compared * np.prod(check.shape)
    seen = set()
    with contextlib.suppress(GradientError):
        gradcheck(lambda p: seen.update(array.dtype.name for array in p.values()) or loss(p), gradient, P, dtype="f4")
    assert seen <= {"float32", "complex64"}
    with pytest.raises(ValueError, match="elements is 'some', expected 'auto' or 'all'"):
        gradcheck(loss, gradient, P, elements="some")


def test_a_wrong_gradient_is_not_called_undecided_nor_an_undecided_one_wrong():
    p = {"a": np.linspace(0.1, 1, 4), "kink": np.zeros(2)}

    def verdict(factor):
        given = {
            "a": factor * np.cos(p["a"]),
            "kink": np.full(2, 0.5),
        }  # at this point only: any slope from −1 to 1 will do
        with pytest.raises(GradientError) as error:
            gradcheck(lambda p: np.sin(p["a"]).sum() + np.abs(p["kink"]).sum(), given, p)
        return error.value

    wrong = verdict(2)
    assert not isinstance(wrong, Refused)
    assert str(wrong).startswith("the gradient is not the derivative of the loss\n")
    undecided = verdict(1)
    assert isinstance(undecided, Refused)
    assert str(undecided).startswith("it could not be decided whether the gradient is right\n")
    for error, passed in ((wrong, [False, False]), (undecided, [True, False])):
        assert [check.passed for check in error.report] == passed
        assert [check.decided for check in error.report] == [True, False]


@pytest.mark.parametrize(("seconds", "looked_at"), [(0.1, 20), (1.0, 9), (0.001, 100)])
def test_a_slow_machine_looks_at_fewer_elements_of_a_large_array_and_at_nine_at_least(seconds, looked_at, monkeypatch):
    """Two seconds are what the elements of an array that is wrong may take; the first one tells how long each does."""
    clock = itertools.count()
    monkeypatch.setattr(checker.time, "perf_counter", lambda: seconds * next(clock))
    a = np.linspace(0.1, 1, 100)

    def wrong(a):
        return np.cos(a) + 0.1 * (np.arange(100) == 99)

    with pytest.raises(GradientError) as error:
        gradcheck(lambda a: np.sin(a).sum(), wrong, a)
    (check,) = error.value.report
    assert check.worst == (99,)
    assert check.compared == looked_at


def test_three_of_the_elements_that_are_wrong_are_confirmed_by_differences():
    here = np.linspace(0.1, 1, 8)
    problem = Problem(
        lambda p: np.sin(p["a"]).sum(), lambda p: {"a": np.cos(p["a"]) + np.arange(8)}, {"a": here}, float
    )
    found = checker.Examination(problem, [problem.at(problem.theta)], False, 0, True)
    elements = found.elements(found.points[0], "a", np.ones(8, bool), central=False)
    assert np.isfinite(elements.central).tolist() == [False] * 5 + [True] * 3  # the three that are furthest off
    assert elements.wrong.tolist() == [False] + [True] * 7
    np.testing.assert_allclose(elements.complex_step, np.cos(here), rtol=1e-14)
    np.testing.assert_allclose(elements.central[5:], np.cos(here)[5:], rtol=1e-8)
    np.testing.assert_array_equal(elements.numerical, elements.complex_step)


def test_of_several_directions_the_worst_is_reported():
    found, nan = examination(True), np.nan
    here = found.points[0]
    comparisons = [
        checker.Comparison(here, 1.0, 1.0, nan, 2.0, True),
        checker.Comparison(here, 5.0, 4.0, 3.0, 2.0, False),  # off by 1/2, and by 1
        checker.Comparison(here, 7.0, 5.5, nan, 2.0, False),  # off by 3/4
    ]
    check = found.along_a_direction("a", comparisons, 2, False, True, ["a finding"])
    assert check == Check("a", (3,), None, 5.0, 4.0, 3.0, 0.5, 1.0, 2, 0, False, True, ("a finding",))
    assert comparisons[2].errors[0] == 0.75
    check = found.along_a_direction("a", comparisons[::2], 0, [], True, [])
    assert (check.analytic, check.complex_step, check.complex_error, check.passed) == (7.0, 5.5, 0.75, False)


def test_a_lost_imaginary_part_too_small_for_differences_is_offered_as_an_explanation():
    """The gradient is right, and the complex step, without a term of 1e-8, is not; differences cannot tell the two."""
    b, blind = P["b1"], 1e6

    def lossy(w):
        return blind + np.sin(w).sum() + 1e-8 * (w.real**2).sum()

    with pytest.raises(GradientError) as error:
        gradcheck(lossy, lambda w: np.cos(w) + 2e-8 * w, b)
    said = " ".join(str(error.value).split())
    assert "differences agree with both: it is a mistake too small for them, or an imaginary part was lost" in said
    with pytest.raises(GradientError) as error:
        gradcheck(loss, changed("W2", by=lambda d: 2 * d), P)
    assert "differences agree with both" not in str(error.value)
    assert "nearby" not in str(error.value)


def verdict(rights, wrong=NONE, skipped=NONE, compared=(True,) * 3, elsewhere=(), errors=((0, 0, 0), (0, 0, 0))):
    """What is made of directions with these outcomes at the given point and elsewhere, and of elements at the first."""
    found = examination(True)
    here = found.points[0]
    there = here._replace(theta=here.theta + 1)
    comparisons = [checker.Comparison(here, 1.0, 1.0, 1.0, 1.0, right) for right in rights]
    comparisons += [checker.Comparison(there, 1.0, 1.0, 1.0, 1.0, right) for right in elsewhere]
    analytic = np.array([1.0, 2.0, 3.0])
    numerical = np.where(compared, analytic + np.array(wrong), np.nan)
    elements = checker.Elements(
        *(here, analytic, numerical, numerical, *map(np.array, errors), np.array(wrong), np.array(skipped))
    )
    return found.verdict("a", comparisons, {"a": elements})


def test_elements_that_were_all_compared_overrule_a_direction_at_their_point_and_only_there():
    assert verdict([False, True]).passed
    assert verdict([True, True]).passed
    assert verdict([True, True]).findings == ()
    some = verdict([False, True], compared=(True, True, False))
    assert (some.passed, some.compared, some.worst) == (False, 2, None)
    assert "none is wrong, but along a direction together they are" in some.findings[0]
    assert not verdict([True, True], elsewhere=[False]).passed
    assert not verdict([True, True], wrong=THIRD).passed


def test_an_array_is_decided_by_one_direction_or_one_element():
    every = [True] * 3
    assert verdict([True, None], skipped=every).decided
    assert verdict([None, None], skipped=[True, True, False]).decided
    undecided = verdict([None, None], skipped=every)
    assert (undecided.decided, undecided.passed) == (False, False)
    assert "has a kink, or too few digits" in undecided.findings[0]
    assert verdict([True, None], skipped=[True, True, False]).skipped == 2


def test_the_worst_element_is_the_one_furthest_beyond_what_is_allowed():
    """By complex step a trillionth is, by differences a millionth."""
    check = verdict([True], wrong=THIRD, errors=((3e-12, 1e-12, 0), (0, 0, 2e-6)))
    assert (check.worst, check.complex_error, check.central_error) == ((0,), 3e-12, 2e-6)
    check = verdict([True], wrong=THIRD, errors=((3e-12, 1e-12, 0), (0, 0, 4e-6)))
    assert check.worst == (2,)
    assert (check.analytic, check.complex_step, check.central) == (3.0, 4.0, 4.0)
    assert (check.compared, check.skipped, check.passed, check.decided) == (3, 0, False, True)
    check = verdict([True], compared=(False, True, True))
    assert check.worst in {(1,), (2,)}  # not one that was not compared
