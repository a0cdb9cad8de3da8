"""`gradcheck`: is this gradient the derivative of that loss?

What is compared, for each array of parameters:

- the derivative along random directions: by complex step, one loss for a direction, however large the array. Where the
  loss does not hold for complex numbers, central differences take the place of the complex step, and are trusted as
  far as their own estimate of their error goes;
- the same by central differences, so that a lost imaginary part is not taken for a derivative of zero;
- the same at a random point nearby, because at a special one (zeros, a kink) a wrong gradient can be right;
- where an array fails, or where all are asked for, its elements, one by one; `npvae.diagnosis` says what it looks like.

Along a Gaussian direction a mistake shows that is `DIRECTION_TOLERANCE` times the norm of the array's gradient or more,
whether it is in one element or in all; a smaller one passes. By differences it is their error, 1e-9 at best.
"""

import math
import time
from typing import NamedTuple

import numpy as np

from npvae.derivatives import (
    DIFFERENT,
    LOST_IMAGINARY_PART,
    SMALLEST_RELATIVE,
    GradientError,
    NotComplex,
    Refused,
    complex_step,
    depends_on,
    difference,
    explains,
    precision_of,
    repeatable_value,
    scale_of,
    sharpest_difference,
    steps_of,
)
from npvae.diagnosis import diagnose, factor_between
from npvae.problem import Point, Problem
from npvae.report import Check, Report

COMPLEX_TOLERANCE = 1e-12  # of an element, relative to the largest entry of its array
CENTRAL_TOLERANCE = 1e-6
DIRECTION_TOLERANCE = 1e-11  # of a sum over an array, relative to the norm of its terms
ROUNDING = 1e-14  # of that norm in the array where it is largest: less may be the rest of larger terms that cancel
COARSE = 1e-4  # relative error from which on a difference says nothing,
COARSEST = 1e-2  # and from which on it does so even where all of it comes from rounding
DIRECTIONS = 2  # at the given point; one more at a point nearby
MORE_DIRECTIONS = 6  # by differences, which see less along each
ROUNDED = 100  # times ε |loss|: an error so small comes from rounding, and no step would make it smaller
KINKED = 10  # times the jump of f' at a kink: further from the difference no derivative is excused by it
SECONDS = 2.0  # for the elements of one array that fails, if it is large
FEWEST = 16  # elements of it, however long they take


def gradcheck(loss, gradient, parameters, *, elements="auto", seed=0, dtype=np.float64):
    """Check that `gradient` is the derivative of `loss`; raises where it is not.

    Parameters
    ----------
    loss : callable
        loss(p) -> a number, computed from the p that it is given: like `parameters`, of floats or complex numbers. The
        same p must give the same number: noise has to be fixed.
    gradient : callable, or what it would return
        gradient(p) -> the derivatives, of the names and shapes of `parameters`. It is called right after loss(p).
    parameters : dict of str to float array, or one array
        Where to check. Copies are handed out; nothing of the caller's is changed.
    elements : {'auto', 'all'}
        Whether to look at elements one by one only in arrays that fail (in large ones at some), or at all of them.
    seed : int
        Of the random directions and of the point nearby.
    dtype : NumPy dtype
        In which all is computed; float32 shows how little a check in float32 proves.

    Returns
    -------
    Report
        One `Check` for each array; prints as a table.

    Raises
    ------
    GradientError
        An AssertionError. The gradient is wrong: the message names the array, the element that is furthest off, the
        derivatives, and what the mistake looks like. `report` is the Report, or empty where it did not come to that.
    Refused
        A GradientError and a ValueError. The question has no answer: the loss is not one finite number, changes from
        call to call or does not depend on an array, or the parameters are not floats.
    """
    report = examine(loss, gradient, parameters, elements=elements, seed=seed, dtype=dtype)
    if not report.passed:
        raise GradientError(f"the gradient is not the derivative of the loss\n{report}", report)
    return report


def examine(loss, gradient, parameters, *, elements="auto", seed=0, dtype=np.float64, nearby=True):
    """As `gradcheck`, but the report tells also what is wrong. Without `nearby` at the given parameters only."""
    if elements not in ("auto", "all"):
        raise ValueError(f"elements is {elements!r}, expected 'auto' or 'all'")
    problem = Problem(loss, gradient, parameters, dtype)
    here = problem.at(problem.theta)
    there, notes = problem.beside(here, np.random.default_rng(seed)) if nearby else (None, [])
    points = [here] if there is None else [here, there]
    report = None
    try:
        report = Examination(problem, points, elements == "all", seed, complexly=True).report()
    except NotComplex as reason:
        notes.append(f"by central differences alone, because {reason}")
    if report is None:
        report = Examination(problem, points, elements == "all", seed, complexly=False).report()
    repeatable_value(problem.loss, here.theta, here.value)
    return Report(report, [*notes, *report.notes])


class Comparison(NamedTuple):
    """Three derivatives along a direction at a point; `right` is None where a kink, or rounding, leaves it open."""

    point: Point
    analytic: float
    complex_step: float
    central: float
    scale: float
    right: bool | None
    blur: float = DIRECTION_TOLERANCE  # a mistake so large, relative to the gradient of the array, may not show

    @property
    def errors(self):
        return [abs(self.analytic - value) / self.scale for value in (self.complex_step, self.central)]


class Elements(NamedTuple):
    """Derivatives with respect to elements of an array at a point: arrays of its shape, NaN where none was taken."""

    point: Point
    analytic: np.ndarray
    complex_step: np.ndarray
    central: np.ndarray
    complex_error: np.ndarray  # relative to the largest entry, 0 where none was taken
    central_error: np.ndarray
    wrong: np.ndarray
    skipped: np.ndarray

    @property
    def numerical(self):
        return np.where(np.isnan(self.complex_step), self.central, self.complex_step)


class Examination:
    """The comparisons of one check: by complex step and central differences, or by these alone."""

    def __init__(self, problem, points, everything, seed, complexly):
        self.problem, self.points, self.everything, self.complexly = problem, points, everything, complexly
        self.rng = np.random.default_rng(seed)
        here, self.precision = points[0], points[0].theta.dtype
        if not complexly:
            anywhere = sum(self.direction(here, name) for name in problem.parts)
            self.precision = precision_of(problem.loss, here.theta, anywhere, here.value)
        # a derivative along a direction that may be nothing but the rounding of larger terms that cancel
        lengths = [
            scale_of(point.theta[part]) * np.sqrt((point.gradient[part] ** 2).sum())
            for point in points
            for part in problem.parts.values()
        ]
        self.least = max(ROUNDING * float(max(lengths)), np.finfo(float).tiny)

    def report(self):
        """Compare at the first point, and less at a second one."""
        here, *nearby = self.points
        count = DIRECTIONS if self.complexly else MORE_DIRECTIONS
        found = {name: [self.along(here, name, central=i == 0) for i in range(count)] for name in self.problem.parts}
        for name, comparisons in found.items():
            if not any(np.nan_to_num(c.complex_step) or np.nan_to_num(c.central) for c in comparisons):
                self.refuse_unless_used(name)
            for there in nearby:
                undecided = all(comparison.right is None for comparison in comparisons)
                comparisons += [self.along(there, name, central=undecided) for _ in range(count - self.complexly)]
        elements = {}
        for name, comparisons in found.items():
            failed = next((comparison.point for comparison in comparisons if comparison.right is False), None)
            if failed is not None or self.everything:
                point = here if failed is None else failed
                chosen = self.chosen(point, name, comparisons)
                elements[name] = self.elements(point, name, chosen, self.everything or not self.complexly)
        return Report(
            [self.verdict(name, comparisons, elements) for name, comparisons in found.items()], self.sight(found)
        )

    def sight(self, found):
        """What differences cannot see, as a note; the complex step sees more than anyone asks for."""
        blur = [min((c.blur for c in comparisons if c.right), default=0) for comparisons in found.values()]
        if self.complexly or not max(blur):
            return []
        # along six directions the largest of the Gaussian factors is hardly ever below 0.1
        return [f"a mistake below {10 * max(blur):.0e} of the gradient of an array may not show"]

    def refuse_unless_used(self, name):
        changed = np.zeros(self.problem.theta.size, bool)
        changed[self.problem.parts[name]] = True
        if not depends_on(self.problem.loss, self.problem.theta, changed):
            raise Refused(f"the loss does not depend on {name}: does it compute from the array that it is given?")

    def along(self, point, name, central, some=True):
        """Compare along a random direction within an array, or within `some` of its elements, a mask."""
        theta, value, gradient = point
        loss, direction = self.problem.loss, self.direction(point, name, some)
        terms = gradient * direction
        analytic = float(terms.sum())
        scale = max(float(np.sqrt((terms**2).sum())), self.least / DIRECTION_TOLERANCE)
        if not self.complexly:
            return self.along_by_differences(point, direction, analytic, scale)
        derivative = complex_step(loss, theta, direction)
        scale = max(scale, abs(derivative))
        right = abs(analytic - derivative) <= DIRECTION_TOLERANCE * scale
        if right and not central:
            return Comparison(point, analytic, derivative, np.nan, scale, right)
        found = difference(loss, theta, direction, value)
        if not explains(found, derivative, scale):
            found = sharpest_difference(loss, theta, direction, value)
        agrees, with_analytic = explains(found, derivative, scale), explains(found, analytic, scale)
        if agrees is False:
            raise NotComplex(
                f"along {name} the derivative is {derivative:.6g} by complex step, but {found.value:.6g} by "
                f"differences: {LOST_IMAGINARY_PART}"
            )
        if agrees is None or (not right and with_analytic is None):
            right = None
        return Comparison(point, analytic, derivative, found.value, scale, right)

    def direction(self, point, name, some=True):
        """A random one within an array, or `some` of it, about as long as the array itself."""
        direction, part = np.zeros_like(point.theta), self.problem.parts[name]
        noise = self.rng.standard_normal(self.problem.shapes[name])
        direction[part] = np.where(some, scale_of(point.theta[part]) * noise, 0).ravel()
        return direction

    def along_by_differences(self, point, direction, analytic, scale):
        loss, theta, value = self.problem.loss, point.theta, point.value
        found = difference(loss, theta, direction, value, None, self.precision)
        if not explains(found, analytic, scale) or self.unresolved(found.error, scale, value):
            found = sharpest_difference(loss, theta, direction, value, self.precision)
        length = max(scale, abs(found.value))
        right = explains(found, analytic, length)
        if right and self.unresolved(found.error, length, value):
            right = None
        return Comparison(point, analytic, np.nan, found.value, length, right, DIFFERENT * found.error / length)

    def unresolved(self, error, length, value):
        """Whether a difference with this error says nothing of a derivative of this size."""
        rounded = error <= ROUNDED * np.finfo(self.precision).eps * abs(value)
        return DIFFERENT * error > np.where(rounded, COARSEST, COARSE) * length

    def chosen(self, point, name, found):
        """A mask of the elements to look at: all, if `SECONDS` allow it, else some on a grid through a wrong one.

        One, if the array is large and the directions tell already by what factor all of it is wrong.
        """
        shape, began = self.problem.shapes[name], time.perf_counter()
        mask, largest = np.zeros(shape, bool), np.abs(point.gradient[self.problem.parts[name]]).argmax()
        mask.flat[largest] = True
        self.elements(point, name, mask, central=True)
        most = max(FEWEST, int(SECONDS / (time.perf_counter() - began)))
        if self.everything or mask.size <= most:
            return np.ones(shape, bool)
        if factor_along(found) is not None:
            return mask
        side = max(2, int(most ** (1 / len(shape))))
        axes = []
        for axis, length in enumerate(shape):
            spread = np.linspace(0, length - 1, min(length, side)).astype(int)
            axes.append(np.union1d(spread, [self.one_that_is_wrong(point, name, axis)]))
        mask[np.ix_(*axes)] = True
        return mask

    def one_that_is_wrong(self, point, name, axis):
        """A column, row, … in which an element is wrong, by halving."""
        shape = self.problem.shapes[name]
        place = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        low, high = 0, shape[axis]
        while high - low > 1:
            middle = (low + high) // 2
            first = self.along(point, name, central=False, some=(place >= low) & (place < middle))
            low, high = (low, middle) if first.right is False else (middle, high)
        return low

    def elements(self, point, name, chosen, central):
        """The derivatives with respect to the `chosen` elements of an array; by differences too, if `central`."""
        theta, value, gradient = point
        part, shape, loss = self.problem.parts[name], self.problem.shapes[name], self.problem.loss
        size, analytic = scale_of(theta[part]), gradient[part].reshape(shape).astype(float)
        by_complex_step, by_differences, error, jump = np.full((4, *shape), np.nan)

        def axis(i):
            direction = np.zeros_like(theta)
            direction[part].reshape(shape)[i] = size
            return direction

        def differences(i):
            if self.complexly:  # three steps are enough, unless a kink is near
                found = difference(loss, theta, axis(i), value, steps_of(theta.dtype)[:3])
                if found.jump or found.error > CENTRAL_TOLERANCE / DIFFERENT * size * np.abs(analytic).max():
                    found = difference(loss, theta, axis(i), value, steps_of(theta.dtype, "fine"))
            else:
                found = sharpest_difference(loss, theta, axis(i), value, self.precision)
            by_differences[i], error[i], jump[i] = np.divide(found, size)

        for i in places(chosen):
            if self.complexly:
                by_complex_step[i] = complex_step(loss, theta, axis(i)) / size
            if central:
                differences(i)
        if not central:  # but where a kink may be the reason, and at the worst
            distance = np.nan_to_num(np.abs(analytic - by_complex_step), nan=-1)
            doubtful = (distance > COMPLEX_TOLERANCE * np.abs(analytic).max()) | (distance == distance.max())
            for i in places(doubtful):
                differences(i)
        wrong, skipped, *errors = self.judge(analytic, by_complex_step, by_differences, error, jump, size, value)
        return Elements(point, analytic, by_complex_step, by_differences, *errors, wrong & chosen, skipped & chosen)

    def judge(self, analytic, by_complex_step, by_differences, error, jump, size, value):
        """(wrong, skipped, error by complex step, error by differences) of elements; NaN is what was not taken."""
        off, apart = np.nan_to_num(np.abs([analytic - by_complex_step, analytic - by_differences]))
        taken = np.isfinite(by_complex_step) | np.isfinite(by_differences)
        numerical = np.nanmax(np.abs([by_complex_step, by_differences]))
        largest = max(np.abs(analytic[taken]).max(), numerical, self.least / size / COMPLEX_TOLERANCE)
        error, jump = np.nan_to_num(error), np.nan_to_num(jump)
        tolerance = CENTRAL_TOLERANCE if self.complexly else SMALLEST_RELATIVE
        allowed = np.maximum(DIFFERENT * error, tolerance * largest)
        skipped = (jump > allowed) & (apart <= KINKED * jump)
        if not self.complexly:
            skipped |= self.unresolved(error * size, largest * size, value)
        wrong = ((off > COMPLEX_TOLERANCE * largest) | (apart > allowed)) & ~skipped
        return wrong, skipped, *(np.where(skipped, 0, distance) / largest for distance in (off, apart))

    def verdict(self, name, found, elements):
        """The `Check` of one array, of its comparisons along directions and of all elements that were looked at."""
        shape, looked_at = self.problem.shapes[name], elements.get(name)
        failed = [comparison for comparison in found if comparison.right is False]
        if looked_at is None:
            decided = [comparison for comparison in found if comparison.right is not None]
            worst = max(failed or decided or found, key=lambda comparison: np.nanmax([0, *comparison.errors]))
            findings = (
                ()
                if decided
                else ("at each point that was tried, the loss has a kink, or differences lose their digits",)
            )
            passed = bool(decided and not failed)
            return Check(name, shape, None, *worst[1:4], *worst.errors, 0, 0, passed, bool(decided), findings)
        compared = np.isfinite(looked_at.numerical)
        if compared.all():  # then it is known of each element, and what a direction said of all is superseded
            failed = [comparison for comparison in failed if comparison.point is not looked_at.point]
        decided = any(comparison.right for comparison in found) or not looked_at.skipped.all()
        passed = not failed and not looked_at.wrong.any() and decided
        severity = np.maximum(looked_at.complex_error / COMPLEX_TOLERANCE, looked_at.central_error / CENTRAL_TOLERANCE)
        worst = np.unravel_index(np.where(compared, severity, -1).argmax(), shape)
        findings = []
        if looked_at.wrong.any():
            others = {n: e.numerical for n, e in elements.items() if n != name and np.isfinite(e.numerical).all()}
            theta = looked_at.point.theta[self.problem.parts[name]].reshape(shape)
            findings = diagnose(
                looked_at.analytic, looked_at.numerical, looked_at.wrong, theta, others, factor_along(found)
            )
        elif not passed:
            findings = ["none of the elements that were looked at is wrong: others are"]
        if not passed and looked_at.point is not self.points[0]:
            findings.append("this is at a random point nearby; at the given parameters it is right, or at a kink")
        return Check(
            name,
            shape,
            tuple(map(int, worst)),
            float(looked_at.analytic[worst]),
            float(looked_at.complex_step[worst]),
            float(looked_at.central[worst]),
            float(looked_at.complex_error.max()) if self.complexly else np.nan,
            float(looked_at.central_error.max()),
            int(compared.sum()),
            int(looked_at.skipped.sum()),
            passed,
            decided,
            tuple(findings),
        )


def factor_along(found):
    """The number by which the analytic derivatives along all directions are too large; None if there is none."""
    numerical = [c.central if math.isnan(c.complex_step) else c.complex_step for c in found]
    return factor_between(np.array([c.analytic for c in found]), np.array(numerical))


def places(mask):
    """The indices at which a mask is true, also of an array without dimensions."""
    return zip(*np.nonzero(mask), strict=True) if mask.ndim else [()] * bool(mask)
