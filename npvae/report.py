"""What a gradient check found: a `Check` for each array, and the `Report` of all, which prints as a table."""

import math
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The verdict on one array.

    `analytic`, `complex_step` and `central` are three derivatives with respect to the element `worst`, that which is
    furthest off, or along a random direction where `worst` is None; NaN is one that was not taken. The errors are the
    largest, relative to the largest entry of the array, or along a direction to the norm of its terms. `compared`
    counts the elements that were looked at one by one, `skipped` those of them at a kink of the loss, where there is no
    derivative, or where it has too few digits. Not `decided` is an array of which nothing could be told; it has not
    passed. `findings` say what a mistake looks like.
    """

    name: str
    shape: tuple
    worst: tuple | None
    analytic: float
    complex_step: float
    central: float
    complex_error: float
    central_error: float
    compared: int
    skipped: int
    passed: bool
    decided: bool
    findings: tuple

    @property
    def title(self):
        return f"{self.name} {'×'.join(map(str, self.shape)) or '1'}"

    def in_words(self):
        """How far it is off, and where."""
        place = "along a random direction" if self.worst is None else f"most at {list(self.worst)}"
        names = {"analytic": self.analytic, "complex step": self.complex_step, "central differences": self.central}
        values = [f"{name} {value:.9g}" for name, value in names.items() if not math.isnan(value)]
        return f"{self.name} {'is wrong' if self.decided else 'could not be decided'}, {place}: {', '.join(values)}"


class Report(tuple):
    """The checks of a gradient, in the order of its arrays, and notes on how they were made."""

    def __new__(cls, checks, notes=()):
        report = super().__new__(cls, checks)
        report.notes = tuple(notes)
        return report

    @property
    def passed(self):
        return all(check.passed for check in self)

    def worst(self, error):
        """The largest 'complex_error' or 'central_error' of all, NaN where none was measured."""
        return max((getattr(check, error) for check in self if not math.isnan(getattr(check, error))), default=math.nan)

    def __str__(self):
        return f"{self.table()}\n\n{self.in_words()}"

    def in_words(self):
        """The findings, the notes and the summary, in lines of at most 80 characters."""
        lines = [*self.findings(), *self.notes, self.summary()]
        return "\n".join(textwrap.fill(line, 80, subsequent_indent="  ", break_long_words=False) for line in lines)

    def table(self):
        """A line for each array, within 80 characters where a name allows it."""
        width = max(len(check.title) for check in self)
        lines = [f"{'array':<{width}} {'worst':>9} {'analytic':>9} {'complex':>9} {'central':>9} {'errors':>15}"]
        for check in self:
            worst = "direction" if check.worst is None else f"[{','.join(map(str, check.worst))}]"
            values = [_number(value, 9, ".2e") for value in (check.analytic, check.complex_step, check.central)]
            errors = [_number(error, 7, ".1e") for error in (check.complex_error, check.central_error)]
            verdict = "ok" if check.passed else "FAIL"
            lines.append(" ".join([f"{check.title:<{width}}", f"{worst:>9}", *values, *errors, verdict]))
        return "\n".join(lines)

    def findings(self):
        """What is wrong with which array, and what those that are wrong have in common; a list of lines."""
        failed, lines = [check for check in self if not check.passed], []
        for findings in dict.fromkeys(check.findings for check in failed):  # what arrays have in common is told once
            lines += [check.in_words() for check in failed if check.findings == findings]
            lines += [f"  {finding}" for finding in findings]
        if len(failed) == len(self) or not failed:
            return lines
        if all(len(check.shape) < 2 for check in failed) and all(
            len(check.shape) > 1 for check in self if check.passed
        ):
            lines.append("only vectors are wrong, and no matrix; a guess: how a bias is summed over the batch")
        elif len(failed) > 1 and not self[0].passed and self[-1].passed:
            last = max(i for i, check in enumerate(self) if not check.passed)
            lines.append(
                f"a guess: if the arrays are in the order of the forward pass, the fault enters between "
                f"{self[last + 1].name}, which is right, and {self[last].name}, which the gradient reaches next"
            )
        return lines

    def summary(self):
        """One line: how much was compared, the largest errors, the verdict."""
        count, compared = sum(math.prod(check.shape) for check in self), sum(check.compared for check in self)
        skipped = sum(check.skipped for check in self)
        how = "one by one" if compared == count else "along random directions"
        kinks = f" ({skipped} skipped, at a kink or for want of digits)" if skipped else ""
        errors = {"complex step": self.worst("complex_error"), "central differences": self.worst("central_error")}
        worst = [f"{error:.1e} by {name}" for name, error in errors.items() if not math.isnan(error)]
        verdict = "ok" if self.passed else "FAIL"
        return f"{count:,} elements{kinks}, {how}; worst error {', '.join(worst)}: {verdict}"


def _number(value, width, form):
    return f"{'—' if math.isnan(value) else format(value, form):>{width}}"
