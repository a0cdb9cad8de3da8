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
    KINKED,
    LOST_IMAGINARY_PART,
    SMALLEST_RELATIVE,
    GradientError,
    NotComplex,
    Refused,
    complex_step,
    confirmation,
    difference,
    explains,
    norm,
    precision_of,
    repeatable_value,
    require_dependence,
    scale_of,
    sharpest_difference,
    sizes_of,
    steps_of,
    unresolved,
)
from npvae.diagnosis import diagnose, factor_between
from npvae.problem import Point, Problem
from npvae.report import Check, Report

COMPLEX_TOLERANCE = 1e-12  # of an element, relative to the largest entry of its array
CENTRAL_TOLERANCE = 1e-6
DIRECTION_TOLERANCE = 1e-11  # of a sum over an array, relative to the norm of its terms
ROUNDING = 1e-14  # of that norm in the array where it is largest: less may be the rest of larger terms that cancel
DIRECTIONS = 2  # at the given point; one more at a point nearby
MORE_DIRECTIONS = 6  # by differences, which see less along each
NEGLIGIBLE = 1e-12  # relative to the loss: of a derivative along a direction
BLURRED = 1e-6  # relative: an imaginary part that is lost shows only if it is larger than the differences' error
SECONDS = 2.0  # for the elements of one array that fails, if it is large
FEWEST = 9  # elements of it, however long they take
CONFIRMED = 3  # of those that are wrong: by differences, too, away from a kink


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
    if report.passed:
        return report
    if all(check.passed or not check.decided for check in report):
        raise Refused(f"it could not be decided whether the gradient is right\n{report}", report)
    raise GradientError(f"the gradient is not the derivative of the loss\n{report}", report)


def examine(loss, gradient, parameters, *, elements="auto", seed=0, dtype=np.float64, nearby=True):
    """As `gradcheck`, but returns the report of a wrong gradient, too. Without `nearby` at the given point only."""
    if elements not in ("auto", "all"):
        raise ValueError(f"elements is {elements!r}, expected 'auto' or 'all'")
    problem = Problem(loss, gradient, parameters, dtype)
    here = problem.at(problem.theta)
    there, notes = problem.point_nearby(here, np.random.default_rng(seed)) if nearby else (None, [])
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
    blur: float = math.nan  # what differences do not tell apart, relative to the terms; NaN where none were taken
    open_question: bool = False  # they agree with the gradient and with the complex step, which differ

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
        parts = problem.parts.values()
        lengths = [scale_of(point.theta[part]) * norm(point.gradient[part]) for point in points for part in parts]
        self.least = max(ROUNDING * float(max(lengths)), float(np.finfo(float).tiny))

    def report(self):
        """Compare at the first point, and less at a second one."""
        here, *nearby = self.points
        count = DIRECTIONS if self.complexly else MORE_DIRECTIONS
        found = {name: [self.along(here, name, central=i == 0) for i in range(count)] for name in self.problem.parts}
        for name, comparisons in found.items():
            if not any(np.nan_to_num(c.complex_step) or np.nan_to_num(c.central) for c in comparisons):
                used = np.zeros(here.theta.size, bool)
                used[self.problem.parts[name]] = True
                require_dependence(self.problem.loss, here.theta, name, used)
            for there in nearby:
                undecided = all(comparison.right is None for comparison in comparisons)
                comparisons += [self.along(there, name, central=undecided) for _ in range(count - self.complexly)]
        notes = []
        if nearby and np.array_equal(nearby[0].gradient, here.gradient):
            notes = self.drop_if_wrong(nearby[0], found)
        elements = {}
        for name, comparisons in found.items():
            failed = next((comparison.point for comparison in comparisons if comparison.right is False), None)
            if failed is not None or self.everything:
                point = here if failed is None else failed
                chosen = self.chosen(point, name, comparisons)
                elements[name] = self.elements(point, name, chosen, self.everything or not self.complexly)
        checks = [self.verdict(name, comparisons, elements) for name, comparisons in found.items()]
        return Report(checks, [*notes, *self.sight(found)])

    def drop_if_wrong(self, there, found):
        """Leave a point out at which the gradient is wrong and the same as here: it was not computed from its p."""
        if all(c.right is not False for comparisons in found.values() for c in comparisons if c.point is there):
            return []
        for comparisons in found.values():
            comparisons[:] = [comparison for comparison in comparisons if comparison.point is not there]
        return [
            "compared at the given parameters only: at others the gradient is the same, and the derivative is not; is "
            "it computed from the p that it is given?"
        ]

    def sight(self, found):
        """What differences cannot see, as a note."""
        blur = max(
            min((c.blur for c in comparisons if c.right and not math.isnan(c.blur)), default=0)
            for comparisons in found.values()
        )
        if self.complexly:
            where = f"below {blur:.0e} of a gradient" if blur < 1 else "of an array whose gradient is next to zero"
            return [f"a lost imaginary part {where} may not show"] if blur > BLURRED else []
        # along `MORE_DIRECTIONS` the largest of the Gaussian factors is hardly ever below 0.1
        return [f"a mistake below {10 * blur:.0e} of the gradient of an array may not show"] if blur else []

    def along(self, point, name, central, some=True):
        """Compare along a random direction within an array, or within `some` of its elements, a mask."""
        theta, value, gradient = point
        loss, direction = self.problem.loss, self.direction(point, name, some)
        terms = gradient * direction
        analytic, length = float(terms.sum()), norm(terms)
        if not self.complexly:
            return self.along_by_differences(point, direction, analytic, length)
        derivative = complex_step(loss, theta, direction)
        length = max(length, abs(derivative))
        scale = max(length, self.least / DIRECTION_TOLERANCE)
        right = abs(analytic - derivative) <= DIRECTION_TOLERANCE * scale
        if right and not central:
            return Comparison(point, analytic, derivative, np.nan, scale, right)
        found = confirmation(loss, theta, direction, value, derivative, length, name)
        agrees, with_analytic = explains(found, derivative, length), explains(found, analytic, length)
        open_question = bool(not right and agrees and with_analytic)
        if open_question and length <= NEGLIGIBLE * abs(value):
            right = True
        if agrees is None or (not right and with_analytic is None):
            right = None
        blur = DIFFERENT * found.error / self.size(length)
        return Comparison(point, analytic, derivative, found.value, scale, right, blur, open_question)

    def direction(self, point, name, some=True):
        """A random one within an array, or `some` of it, about as long as the array itself."""
        direction, part = np.zeros_like(point.theta), self.problem.parts[name]
        noise = self.rng.standard_normal(self.problem.shapes[name])
        direction[part] = np.where(some, scale_of(point.theta[part]) * noise, 0).ravel()
        return direction

    def along_by_differences(self, point, direction, analytic, length):
        loss, theta, value = self.problem.loss, point.theta, point.value
        found = difference(loss, theta, direction, value, None, self.precision)
        if not explains(found, analytic, length) or unresolved(found.error, length, value, self.precision):
            found = sharpest_difference(loss, theta, direction, value, self.precision)
        length = max(self.size(length), abs(found.value))
        right = explains(found, analytic, length)
        if right and unresolved(found.error, length, value, self.precision):
            right = None
        return Comparison(point, analytic, np.nan, found.value, length, right, DIFFERENT * found.error / length)

    def size(self, length):
        """The norm to measure a derivative by: its own, or where it is but rounding that of the largest array."""
        return length if length > self.least else self.least / ROUNDING

    def chosen(self, point, name, found):
        """A mask of the elements to look at: all, if `SECONDS` allow it, else some on a grid through a wrong one.

        One, if the array is large and the directions tell already by what factor all of it is wrong. Of large arrays a
        slower machine looks at fewer.
        """
        shape, began = self.problem.shapes[name], time.perf_counter()
        if self.everything:
            return np.ones(shape, bool)
        mask, largest = np.zeros(shape, bool), np.abs(point.gradient[self.problem.parts[name]]).argmax()
        mask.flat[largest] = True
        self.elements(point, name, mask, central=True)
        most = max(FEWEST, int(SECONDS / (time.perf_counter() - began)))
        if mask.size <= most:
            return np.ones(shape, bool)
        if factor_along(found) is not None:
            return mask
        side, axes, some = max(2, int(most ** (1 / len(shape)))), [], np.ones(shape, bool)
        for axis, length in enumerate(shape):
            spread = np.linspace(0, length - 1, min(length, side)).astype(int)
            axes.append(np.union1d(spread, [self.narrow(point, name, some, axis)]))
        mask[np.ix_(*axes)] = True
        return mask

    def narrow(self, point, name, some, axis):
        """The row, column, … of a wrong element among `some`, a mask, by halving; restricts the mask to it."""
        shape = self.problem.shapes[name]
        place = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        low, high = 0, shape[axis]
        while high - low > 1:
            middle = (low + high) // 2
            half = some & (place >= low) & (place < middle)
            low, high = (low, middle) if self.along(point, name, False, half).right is False else (middle, high)
        some &= place == low
        return low

    def elements(self, point, name, chosen, central):
        """The derivatives with respect to the `chosen` elements of an array; by differences too, if `central`."""
        theta, value, gradient = point
        part, shape, loss = self.problem.parts[name], self.problem.shapes[name], self.problem.loss
        analytic = gradient[part].reshape(shape).astype(float)
        by_complex_step, by_differences, error, jump = (np.full(shape, np.nan) for _ in range(4))
        sizes = sizes_of(theta[part].reshape(shape))

        def axis(i):
            direction = np.zeros_like(theta)
            direction[part].reshape(shape)[i] = sizes[i]
            return direction

        def differences(i):
            if self.complexly:  # three steps are enough, unless a kink is near
                found = difference(loss, theta, axis(i), value, steps_of(theta.dtype)[:3])
                if found.jump or found.error > CENTRAL_TOLERANCE / DIFFERENT * sizes[i] * np.abs(analytic).max():
                    finer = difference(loss, theta, axis(i), value, steps_of(theta.dtype, "fine"))
                    found = finer._replace(jump=max(found.jump, finer.jump))
            else:
                found = sharpest_difference(loss, theta, axis(i), value, self.precision)
            by_differences[i], error[i], jump[i] = np.divide(found, sizes[i])

        for i in places(chosen):
            if self.complexly:
                by_complex_step[i] = complex_step(loss, theta, axis(i)) / sizes[i]
            if central:
                differences(i)
        if not central:  # but at the worst, and further until it is clear that a kink is not the reason
            distance = np.nan_to_num(np.abs(analytic - by_complex_step), nan=-1)
            doubtful = (distance > COMPLEX_TOLERANCE * np.abs(analytic).max()) | (distance == distance.max())
            for i in sorted(places(doubtful), key=distance.__getitem__, reverse=True):
                differences(i)
                if np.count_nonzero(jump == 0) == CONFIRMED:
                    break
        wrong, skipped, *errors = self.judge(analytic, by_complex_step, by_differences, error, jump, sizes, value)
        return Elements(point, analytic, by_complex_step, by_differences, *errors, wrong & chosen, skipped & chosen)

    def judge(self, analytic, by_complex_step, by_differences, error, jump, sizes, value):
        """(wrong, skipped, error by complex step, error by differences) of elements; NaN is what was not taken."""
        off, apart = (np.nan_to_num(np.abs(analytic - values)) for values in (by_complex_step, by_differences))
        taken = np.isfinite(by_complex_step) | np.isfinite(by_differences)
        numerical = [np.abs(values[np.isfinite(values)]).max(initial=0) for values in (by_complex_step, by_differences)]
        largest, least = max(np.abs(analytic[taken]).max(), *numerical), self.least / sizes
        error, jump = np.nan_to_num(error), np.nan_to_num(jump)
        tolerance = CENTRAL_TOLERANCE if self.complexly else SMALLEST_RELATIVE
        allowed = np.maximum(DIFFERENT * error, np.maximum(tolerance * largest, least))
        tolerated = np.maximum(COMPLEX_TOLERANCE * largest, least)
        skipped = (jump > allowed) & (apart <= KINKED * jump) & ((apart > allowed) | (off > tolerated))
        if not self.complexly:
            zero = largest * sizes.max() <= self.least
            skipped |= unresolved(
                error * sizes, self.least / ROUNDING if zero else largest * sizes, value, self.precision
            )
        wrong = ((off > tolerated) | (apart > allowed)) & ~skipped
        scale = np.where(largest > least, largest, least / COMPLEX_TOLERANCE)  # what is but rounding has no size
        return wrong, skipped, *(np.where(skipped, 0, distance) / scale for distance in (off, apart))

    def verdict(self, name, found, elements):
        """The `Check` of one array, of its comparisons along directions and of all elements that were looked at."""
        shape, looked_at = self.problem.shapes[name], elements.get(name)
        failed = [comparison for comparison in found if comparison.right is False]
        if looked_at is None:
            decided = [comparison for comparison in found if comparison.right is not None]
            findings = [] if decided else [self.why_undecided()]
            return self.along_a_direction(name, decided or found, 0, decided, decided, findings)
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
            known = np.where(looked_at.skipped, np.nan, looked_at.numerical)
            findings = diagnose(looked_at.analytic, known, looked_at.wrong, theta, others, factor_along(found))
        elif not passed:  # then no element tells what is wrong
            findings = ["of the elements that were compared none is wrong, but along a direction together they are"]
            if not failed:
                findings = [self.why_undecided()]
            return self.along_a_direction(name, failed or found, compared.sum(), False, failed, findings)
        if failed and all(comparison.open_question for comparison in failed):
            findings.append(
                "differences agree with both: it is a mistake too small for them, or " + LOST_IMAGINARY_PART
            )
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

    def why_undecided(self):
        if self.precision != self.points[0].theta.dtype:
            return "the loss computes in float32, which is too few digits for differences: let it keep those of its p"
        return "wherever it was tried, the loss has a kink, or too few digits for differences"

    def along_a_direction(self, name, found, compared, passed, decided, findings):
        """The `Check` of an array of which no single element is worst, by the worst of some comparisons."""
        worst = max(found, key=lambda comparison: np.nanmax([0, *comparison.errors]))
        verdict = (int(compared), 0, bool(passed), bool(decided), tuple(findings))
        return Check(name, self.problem.shapes[name], None, *worst[1:4], *worst.errors, *verdict)


def factor_along(found):
    """The number by which the analytic derivatives along all directions are too large; None if there is none."""
    numerical = [c.central if math.isnan(c.complex_step) else c.complex_step for c in found]
    return factor_between(np.array([c.analytic for c in found]), np.array(numerical))


def places(mask):
    """The indices at which a mask is true, also of an array without dimensions."""
    return zip(*np.nonzero(mask), strict=True) if mask.ndim else [()] * bool(mask)
