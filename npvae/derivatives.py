"""Numerical derivatives of any function of an array, with NumPy alone.

    complex step          f'(θ) ≈ Im f(θ + ih) / h            no difference is taken, so h = 1e-30 loses no digit
    central differences   f'(θ) ≈ (f(θ + h) − f(θ − h)) / 2h  error h²/6 f''' from the formula, ε f / h from rounding

The first (Squire & Trapp 1998) is exact to rounding but needs a loss that holds for complex numbers: one that goes
through `abs`, `norm`, `float` or `.real` loses the imaginary part and would give zeros. The second works for any loss.
It is taken at several h and extrapolated to h = 0 (Richardson 1911; the table is that of Ridders 1982), which also
tells how far it can be trusted, and where there is no derivative: at a kink the derivatives to the right and to the
left differ.

A loss is a function of one array, `loss(theta)`, that returns a number. It is given copies: nothing of the caller's is
changed, whatever the loss does. What cannot be answered is `Refused`, with the reason.
"""

import itertools
import math
import warnings
from typing import NamedTuple

import numpy as np

COMPLEX_STEP = 1e-30
RATIO = 4  # of the steps of a difference
CONFIRMATIONS = 3  # of a gradient by complex step, along random directions
DIFFERENT = 20  # estimated errors apart: then two derivatives differ
KINKED = 10  # times the jump of f' at a kink: further from the difference no derivative is excused by it
FINEST = 3  # pairs of steps, at which a kink must show
SMOOTH = 1e-7  # relative to f': a smaller jump of f' may be the curvature of a smooth function
SMALLEST_RELATIVE = 1e-9  # to the scale of a derivative: closer than that, differences do not tell two apart
COARSE = 1e-4  # relative error from which on a difference says nothing,
COARSEST = 1e-2  # and from which on it does so even where all of it comes from rounding:
ROUNDED = 100  # times ε |loss|; no step would make such an error smaller
SAME_VALUE = 1e-13  # relative: a loss that is computed twice in the same way may differ by rounding
LOST_IMAGINARY_PART = "an imaginary part was lost (np.abs, np.linalg.norm, float(), .real, a comparison?)"


class GradientError(AssertionError):
    """A gradient that is not the derivative of its loss; `report` holds the checks, if it came to them."""

    def __init__(self, message, report=()):
        super().__init__(message)
        self.report = report


class Refused(GradientError, ValueError):
    """There is no answer: the function, or what it was given, is not of the kind that can be asked."""


class NotComplex(Refused):
    """The loss does not hold for complex numbers."""


class Difference(NamedTuple):
    """A derivative by differences, its estimated error, and half of the jump of f' at a kink, 0 where there is none."""

    value: float
    error: float
    jump: float


def value_of(loss, theta):
    """loss(theta) as a Python number; `Refused` unless it is one number and theta is left as it was."""
    given = theta.copy()
    value = loss(given)
    if value is None or isinstance(value, (tuple, list, dict, str)):
        missing = ": does it lack its return?" if value is None else ", expected one number"
        raise Refused(f"the loss returned {'None' if value is None else f'a {type(value).__name__}'}{missing}")
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "fciu":
        raise Refused(f"the loss is {array.dtype} of the shape {array.shape}, expected one number: sum it, or average")
    if not np.array_equal(given, theta, equal_nan=True):
        raise Refused("the loss writes into its parameters")
    return array.item()


def repeatable_value(loss, theta, before=None):
    """The finite real number that loss(theta) is, at each of two calls, or `before` and now."""
    first, second = value_of(loss, theta) if before is None else before, value_of(loss, theta)
    if np.iscomplexobj(first):
        raise Refused(f"the loss is the complex number {first}, expected a real one")
    if not np.isfinite([first, second]).all():
        raise Refused(f"the loss is {first}")
    if abs(first - second) > SAME_VALUE * abs(first):
        raise Refused(
            f"the loss changed between two calls with the same parameters, from {first:.9g} to {second:.9g}: does it "
            "draw fresh noise? Give it the same noise at each call, or a generator with the same seed"
        )
    return float(first)


def value_beside(loss, theta):
    """The loss at a point beside the given one; NaN where it has no value there."""
    try:
        with np.errstate(all="ignore"):
            return value_of(loss, theta)
    except Exception:  # of whatever kind: at the given point itself the loss was computed without one
        return np.nan


def complex_step(loss, theta, direction, step=COMPLEX_STEP):
    """The derivative of `loss` along `direction` (of theta's shape), by complex step.

    Raises `NotComplex` where the loss does not hold for complex numbers, as far as one call shows it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            value = value_of(loss, theta + 1j * (np.asarray(step, theta.dtype) * direction))
    except Exception as error:  # whatever a function for real numbers raises when it is given complex ones
        raise NotComplex(f"the loss does not take complex numbers ({type(error).__name__}: {error})") from error
    if not np.iscomplexobj(value):
        raise NotComplex("the loss is a real number where its parameters are complex: an imaginary part was dropped")
    if not np.isfinite(value):
        raise NotComplex(f"the loss of complex parameters is {value}")
    return value.imag / step


def steps_of(precision, reach="usual"):
    """Falling steps for differences of numbers of this precision, in units of the scale of what is changed.

    From ε^1/6 to ε^1/3, where the error of one central difference equals that of rounding. The 'fine' ones, to ε^1/2,
    stay on this side of a near kink; the 'wide' ones, from 2, are for what the loss hardly depends on.
    """
    eps = float(np.finfo(precision).eps)
    sixth, third, half = eps ** (1 / 6), eps ** (1 / 3), eps ** (1 / 2)
    largest, smallest = {"usual": (sixth, third), "fine": (third, half), "wide": (2.0, sixth)}[reach]
    count = max(3, 1 + int(np.log(largest / smallest) / np.log(RATIO)))
    return [largest / RATIO**k for k in range(count)]


def difference(loss, theta, direction, value, steps=None, precision=None):
    """The derivative of `loss` along `direction` (of theta's shape), by central differences, extrapolated to h = 0.

    Parameters
    ----------
    loss : callable
    theta, direction : float arrays of one shape
    value : float
        loss(theta).
    steps : sequence of float, optional
        Each `RATIO` times the next, in units of `direction`; by default `steps_of(precision)`. For those beside
        which the loss is not finite, smaller ones are tried.
    precision : NumPy dtype, optional
        Of the numbers that the loss computes with; by default that of theta.

    Returns
    -------
    Difference
    """
    precision = precision or theta.dtype
    eps, steps, pairs = float(np.finfo(precision).eps), steps or steps_of(precision), {}

    def ask(h):
        nudge = np.asarray(h, theta.dtype) * direction
        pair = value_beside(loss, theta + nudge), value_beside(loss, theta - nudge)
        if np.isfinite(pair).all():
            pairs[h] = pair

    for h in steps:
        ask(h)
    while len(pairs) < 3 and h > math.sqrt(eps):  # the edge of where the loss is finite is near
        h /= RATIO
        ask(h)
    if len(pairs) < 2:
        raise Refused("the loss is not finite beside the given parameters")
    odd = [(above - below) / (2 * h) for h, (above, below) in pairs.items()]
    even = [(above - 2 * value + below) / h for h, (above, below) in pairs.items()]
    rounding = [4 * eps * max(abs(value), *map(abs, pair)) / h for h, pair in pairs.items()]
    # odd(h) = f' + c₂ h² + c₄ h⁴ + …; even(h) = (f'₊ − f'₋) + c₁ h + c₃ h³ + …
    derivative, error = extrapolated(odd, rounding)
    jump, uncertain = max(
        (abs(RATIO * near - far) / (RATIO - 1), noise)
        for far, near, noise in list(zip(even, even[1:], rounding[1:], strict=False))[-FINEST:]
    )
    significant = jump > DIFFERENT * max(error, uncertain) and jump > SMOOTH * abs(derivative)
    return Difference(derivative, error, jump / 2 if significant else 0.0)


def sharpest_difference(loss, theta, direction, value, precision=None, reaches=("usual", "wide", "fine")):
    """The `difference` with the smallest error of those by several sequences of steps; best one that meets no kink."""
    precision = precision or theta.dtype
    found = [difference(loss, theta, direction, value, steps_of(precision, reach), precision) for reach in reaches]
    return min(found, key=lambda one: (one.jump > 0, one.error))


def precision_of(loss, theta, direction, value):
    """float32 if the loss computes with no more digits than that, else the dtype of theta.

    A change of theta that float64 resolves by far, and float32 does not, then leaves the loss as it is.
    """
    step = float(np.finfo(np.float32).eps) / 1000
    slope = difference(loss, theta, direction, value).value
    resolved = 100 * float(np.finfo(theta.dtype).eps) * abs(value) < abs(slope) * step
    return np.float32 if resolved and value_beside(loss, theta + step * direction) == value else theta.dtype


def extrapolated(values, rounding):
    """The limit at h = 0 of values with errors in h², h⁴, …, and how far it may be off."""
    best, smallest, column = values[-1], np.inf, values
    for order in range(1, len(values)):
        factor = RATIO ** (2 * order)
        following = [near + (near - far) / (factor - 1) for far, near in itertools.pairwise(column)]
        for i, estimate in enumerate(following):
            error = max(abs(estimate - column[i]), abs(estimate - column[i + 1])) + rounding[order + i]
            if error < smallest:
                best, smallest = estimate, error
        column = following
    return best, smallest


def explains(found, derivative, scale):
    """Whether a `Difference` is within its error of `derivative`: None where a kink leaves the question open."""
    apart = abs(found.value - derivative)
    if apart <= max(DIFFERENT * found.error, SMALLEST_RELATIVE * scale):
        return True
    return None if KINKED * found.jump > apart else False


def confirmation(loss, theta, direction, value, derivative, scale, along):
    """The `Difference` beside a derivative by complex step; `NotComplex` where the two contradict each other."""
    found = difference(loss, theta, direction, value)
    if not explains(found, derivative, scale):
        found = sharpest_difference(loss, theta, direction, value)
    if explains(found, derivative, scale) is False:
        raise NotComplex(
            f"along {along} the derivative is {derivative:.6g} by complex step, but {found.value:.6g} by differences: "
            f"{LOST_IMAGINARY_PART}"
        )
    return found


def unresolved(error, scale, value, precision):
    """Whether a difference with this error says nothing of a derivative of this scale, of a loss of this value."""
    rounded = error <= ROUNDED * float(np.finfo(precision).eps) * abs(value)
    return DIFFERENT * error > np.where(rounded, COARSEST, COARSE) * scale


def norm(array):
    """The Euclidean norm of all elements, without overflow of their squares."""
    largest = float(np.abs(array).max())
    return largest * float(np.sqrt(((array / largest) ** 2).sum())) if largest else 0.0


def depends_on(loss, theta, changed=True):
    """Whether the loss changes where the elements of theta that `changed` marks do, by much or by little.

    Random points are tried, small ones and large, because at theta itself a dead or saturated unit or a zero weight can
    hide a dependence. True, too, where the loss has no value at any of them.
    """
    rng, size, asked = np.random.default_rng(0), np.abs(theta) + scale_of(theta) / 10, False
    for spread in (0, 1, 0.1, 0.01, 10) * 3:
        noise, more = rng.standard_normal((2, *theta.shape))
        here = spread * size * noise if spread else theta
        there = np.where(changed, here + (spread or 0.1) * size * more, here)
        values = [value_beside(loss, point.astype(theta.dtype)) for point in (here, there)]
        asked |= bool(np.isfinite(values).all())
        if np.isfinite(values).all() and values[0] != values[1]:
            return True
    return not asked


def complex_step_gradient(loss, theta, step=COMPLEX_STEP):
    """The derivative of `loss` with respect to each element of `theta`, by complex step.

    Parameters
    ----------
    loss : callable
        loss(theta) -> a number; computed from the array that it is given, of the shape of `theta` and complex.
    theta : float array of any shape
    step : float

    Returns
    -------
    array of the shape and dtype of `theta`

    Raises
    ------
    Refused
        If the loss does not hold for complex numbers (it fails, or drops imaginary parts, which differences along
        random directions notice), does not depend on theta, or is not the same at two calls.
    """
    theta = real_array(theta, "theta")
    value = checked_value(loss, theta)
    found = [complex_step(loss, theta, unit, step) for unit in units_of(theta)]
    gradient = (np.reshape(found, theta.shape) / sizes_of(theta)).astype(theta.dtype)
    rng = np.random.default_rng(0)
    for _ in range(CONFIRMATIONS):
        direction = rng.standard_normal(theta.shape).astype(theta.dtype) * scale_of(theta)
        along = (gradient * direction).sum()
        confirmation(loss, theta, direction, value, along, norm(gradient * direction), "a random direction")
    return gradient


def central_difference_gradient(loss, theta):
    """The derivative of `loss` with respect to each element of `theta`, by central differences, extrapolated to h = 0.

    Parameters
    ----------
    loss : callable
        loss(theta) -> a number; computed from the array that it is given, of the shape and dtype of `theta`.
    theta : float array of any shape

    Returns
    -------
    array of the shape and dtype of `theta`; NaN where the loss has a kink within reach of the differences, or too few
        digits

    Raises
    ------
    Refused
        If the loss is not finite, does not depend on theta, or is not the same at two calls.
    """
    theta = real_array(theta, "theta")
    value, sizes = checked_value(loss, theta), sizes_of(theta)
    precision = precision_of(loss, theta, scale_of(theta) * np.ones_like(theta), value)
    found = [sharpest_difference(loss, theta, unit, value, precision, ("usual", "fine")) for unit in units_of(theta)]
    change, error, jump = (np.reshape(column, theta.shape) for column in zip(*found, strict=True))  # of these sizes
    gradient = change / sizes
    useless = unresolved(error, np.abs(gradient).max() * sizes, value, precision)
    return np.where((jump > 0) | useless, np.nan, gradient).astype(theta.dtype)


def checked_value(loss, theta):
    """The value of a loss that is the same at two calls and depends on theta."""
    value = repeatable_value(loss, theta)
    require_dependence(loss, theta, "theta")
    return value


def require_dependence(loss, theta, name, changed=True):
    """`Refused` by `name` if the loss does not change where the elements of theta do that `changed` marks."""
    if not depends_on(loss, theta, changed):
        raise Refused(f"the loss does not depend on {name}: does it compute from the array that it is given?")


def real_array(array, name):
    """`array` as an array of floats, by itself; `Refused` by `name` if that is not what it is."""
    array = np.array(array)
    if array.dtype.kind != "f":
        kinds = {"i": "whole numbers have no derivative", "u": "bytes have no derivative", "c": "expected real numbers"}
        raise Refused(
            f"{name} is {array.dtype}: {kinds.get(array.dtype.kind, 'expected numbers')}; {name}.astype(float)"
        )
    if array.size == 0:
        raise Refused(f"{name} is empty")
    if not np.isfinite(array).all():
        raise Refused(f"{name} holds a number that is not finite")
    return array


def scale_of(array):
    """How large a change of this array is neither tiny nor vast: its root mean square, or 1 where it is zero."""
    return array.dtype.type(norm(array) / math.sqrt(array.size) or 1)


def sizes_of(array):
    """How large a change of each element is neither tiny nor vast: its own, or what is usual where that is small."""
    scale = scale_of(array)
    return np.where(array == 0, scale, np.maximum(np.abs(array), scale / 10))


def units_of(theta):
    """A change of each element by itself, of its size by `sizes_of`."""
    sizes = sizes_of(theta)
    for i in np.ndindex(theta.shape):
        unit = np.zeros_like(theta)
        unit[i] = sizes[i]
        yield unit
