"""Check a hand-written gradient, element by element, against two numerical derivatives of the loss.

    complex step          f'(θ) ≈ Im f(θ + ih) / h            no difference is taken, so h = 1e-30 loses no digit
    central differences   f'(θ) ≈ (f(θ + h) − f(θ − h)) / 2h  error h²/6 f''' from the formula, ε f / h from rounding

The first (Squire & Trapp 1998) is exact to rounding but needs a loss that holds for complex numbers; the second works
for any loss. `python -m npvae.gradcheck` checks a small VAE. For a gradient of your own, give `complex_step_gradient`
or `central_difference_gradient` a function that computes your loss from an array of parameters, and compare.
"""

import dataclasses
import functools
import itertools
import math
import sys
from dataclasses import dataclass

import numpy as np

from npvae.commands import OneLineParser, command, positive
from npvae.distributions import LIKELIHOODS
from npvae.layers import ACTIVATIONS, ReLU
from npvae.objectives import OBJECTIVES, log_weights, normalized_weights
from npvae.vae import VAE

COMPLEX_STEP = 1e-30
COMPLEX_TOLERANCE = 1e-12
CENTRAL_TOLERANCE = 1e-6

LABELS = 3  # of a conditional model
SETUPS = [  # of --all
    *itertools.product(ACTIVATIONS, [(7,), (7, 5)], (1, 3), ["bernoulli"], ["elbo"], [0]),
    *itertools.product(["tanh"], [(7,)], [4], LIKELIHOODS, OBJECTIVES, [0, LABELS]),
]

READING_A_FAILURE = """\
Backward goes from the last array to the first: a fault enters at the lowest FAIL. In the encoder's last layer the first
half of the columns belongs to mu, the other half to logvar."""

FLOAT32_LESSON = """\
float32 carries 7 digits, and a difference of two losses loses most of them: a check in float32 must allow an error at
which a forgotten term can hide. The same code in float64 and complex128 shows what is right."""


@dataclass(frozen=True)
class Check:
    """The verdict on one array; errors are relative to the largest entry of the array.

    `worst` is the index of the element that is furthest off; `analytic`, `complex_step` and `central` are its three
    derivatives. `skipped` counts elements whose step crosses a kink of the loss, where a difference is no derivative.
    """

    name: str
    shape: tuple
    worst: tuple
    analytic: float
    complex_step: float
    central: float
    complex_error: float
    central_error: float
    skipped: int
    passed: bool


def complex_step_gradient(loss, theta, step=COMPLEX_STEP):
    """Derivative of `loss` with respect to each element of `theta`, by complex step.

    Parameters
    ----------
    loss : callable of no arguments
        Returns a complex number, computed from the current content of `theta`.
    theta : complex array of any shape
        Changed element by element while this runs, and restored.
    step : float

    Returns
    -------
    array of the shape and the real dtype of `theta`
    """
    if theta.dtype.kind != "c":
        raise TypeError(f"theta is {theta.dtype}, expected a complex array: use theta.astype(complex)")
    gradient = np.empty(theta.shape, theta.real.dtype)
    for i in np.ndindex(theta.shape):
        value = theta[i]
        theta[i] = value + 1j * step
        gradient[i] = loss().imag / step
        theta[i] = value
    return gradient


def central_difference_gradient(loss, theta, step=None, kinks=lambda: ()):
    """Derivative of `loss` with respect to each element of `theta`, by central differences.

    Parameters
    ----------
    loss : callable of no arguments
        Returns a number, computed from the current content of `theta`.
    theta : float array of any shape
        Changed element by element while this runs, and restored.
    step : float, optional
        By default the cube root of the machine epsilon, where the error of the formula and that of rounding balance.
    kinks : callable of no arguments, optional
        Returns a list of boolean arrays that say on which side of each kink the last `loss()` was: the masks of ReLUs.

    Returns
    -------
    array of the shape and dtype of `theta`; NaN where the step crosses a kink, and only there

    Raises
    ------
    ValueError
        If the loss is NaN.
    """
    if theta.dtype.kind != "f":
        raise TypeError(f"theta is {theta.dtype}, expected a float array: use theta.astype(float)")
    step = np.finfo(theta.dtype).eps ** (1 / 3) if step is None else step
    loss()
    sides = [side.copy() for side in kinks()]
    gradient = np.empty_like(theta)
    for i in np.ndindex(theta.shape):
        value, difference, crossed = theta[i], 0.0, False
        for sign in (1, -1):
            theta[i] = value + sign * step
            difference += sign * loss()
            crossed |= any((now != side).any() for now, side in zip(kinks(), sides, strict=True))
        theta[i] = value
        if np.isnan(difference):
            raise ValueError(f"the loss is NaN within the step of element {i}")
        gradient[i] = np.nan if crossed else difference / (2 * step)
    return gradient


def check_gradient(parameters, analytic, complex_step, central):
    """Compare a gradient with its two numerical ones, array by array.

    Parameters
    ----------
    parameters : Parameters
        Names and shapes the arrays.
    analytic, complex_step, central : (P,) arrays
        The gradient in question; the results of `complex_step_gradient` and `central_difference_gradient`.

    Returns
    -------
    list of Check, one per array
    """
    views = [parameters.views(np.asarray(vector, np.float64)) for vector in (analytic, complex_step, central)]
    return [_check_array(name, *(view[name] for view in views)) for name in parameters.shapes]


def _check_array(name, analytic, complex_step, central):
    skipped = np.isnan(central)
    scale = max(np.abs(analytic).max(), np.abs(complex_step).max(), np.finfo(float).tiny)
    complex_errors = np.abs(analytic - complex_step) / scale
    central_errors = np.where(skipped, 0, np.abs(analytic - central)) / scale
    # which element is worst is asked in units of what each method can resolve
    severity = np.maximum(complex_errors / COMPLEX_TOLERANCE, central_errors / CENTRAL_TOLERANCE)
    worst = np.unravel_index(severity.argmax(), severity.shape)
    return Check(
        name=name,
        shape=analytic.shape,
        worst=tuple(map(int, worst)),
        analytic=float(analytic[worst]),
        complex_step=float(complex_step[worst]),
        central=float(central[worst]),
        complex_error=float(complex_errors.max()),
        central_error=float(central_errors.max()),
        skipped=int(skipped.sum()),
        passed=bool(severity.max() <= 1 and not skipped.all()),
    )


def check_vae(vae, x, eps, y=None, beta=1.0, dtype=np.float64):
    """Check `vae.backward()` in every element of every array.

    The gradients of 'stl' and 'iwae-dreg' are not the derivative of their loss, but have its mean. They are derivatives
    of the loss with something held fixed, and that is what they are compared with; see `held_fixed`.

    Parameters
    ----------
    vae : VAE
    x : (B, D) array in [0, 1]
    eps : (L, B, J) array
    y : (B, C) array or None
    beta : float
    dtype : NumPy dtype
        float64, or float32 to see how little that proves.

    Returns
    -------
    list of Check, one per array
    """
    x, eps = x.astype(dtype), eps.astype(dtype)
    real, imaginary = vae.astype(dtype), vae.astype(np.result_type(dtype, np.complex64))
    real.loss(x, eps, y, beta)
    real.backward()
    parameters, analytic = real.parameters, real.parameters.gradient.copy()
    relus = [layer for layer in real.encoder.layers + real.decoder.layers if isinstance(layer, ReLU)]
    encoder = sum(math.prod(shape) for name, shape in parameters.shapes.items() if name.startswith("encoder"))
    complex_step, central = np.empty_like(analytic), np.empty_like(analytic)
    for part, loss in zip((slice(None, encoder), slice(encoder, None)), held_fixed(real), strict=True):
        real.objective = imaginary.objective = dataclasses.replace(vae.objective, loss=loss)
        complex_step[part] = complex_step_gradient(
            lambda: imaginary.loss(x, eps, y, beta), imaginary.parameters.values[part]
        )
        central[part] = central_difference_gradient(
            lambda: real.loss(x, eps, y, beta), parameters.values[part], kinks=lambda: [relu.mask for relu in relus]
        )
    return check_gradient(parameters, analytic, complex_step, central)


def held_fixed(vae):
    """Two losses: what the gradient of the last `vae.loss` is the derivative of in the encoder, and in the decoder.

    For 'stl' that is its loss with the parameters of q(z|x) held fixed in log q(z|x), where z keeps its dependence on
    them. For 'iwae-dreg' and the encoder it is −Σ c log w, with c = w̃ (1 − β + β w̃) fixed and log q(z|x) as in 'stl'.
    """
    _, _, z, mu, logvar, _, log_p_x, beta = vae.remembered
    mu, logvar, loss = mu.copy(), logvar.copy(), vae.objective.loss
    w = normalized_weights(log_weights(log_p_x, z, mu, logvar, beta))
    c = w * (1 - beta + beta * w)

    def stl(log_p_x, z, _mu, _logvar, beta):
        return loss(log_p_x, z, mu, logvar, beta)

    def dreg(log_p_x, z, _mu, _logvar, beta):
        return -(c * log_weights(log_p_x, z, mu, logvar, beta)).sum(axis=0)

    special = {OBJECTIVES["stl"]: (stl, stl), OBJECTIVES["iwae-dreg"]: (dreg, loss)}
    return special.get(vae.objective, (loss, loss))


def small_problem(
    activation="tanh", hidden=(7, 5), samples=3, seed=0, likelihood="bernoulli", objective="elbo", classes=0
):
    """A VAE small enough to check every element, with non-zero biases: (vae, x (4, 12), eps (samples, 4, 3)).

    With classes there is a fourth: y (4, classes).
    """
    rng = np.random.default_rng(seed)
    vae = VAE(12, hidden, 3, activation, likelihood, objective, classes, dtype=np.float64)
    vae.parameters.values[...] = rng.normal(0, 0.5, vae.parameters.values.size)
    problem = vae, rng.uniform(size=(4, 12)), rng.standard_normal((samples, 4, 3))
    return (*problem, np.eye(classes)[rng.integers(classes, size=4)]) if classes else problem


def report(checks):
    """The checks as a table, one line per array."""
    rows = [f"{'array':<12} {'shape':>8} {'worst':>9} {'analytic':>12} {'complex step':>12} {'central diff':>12}"]
    rows[0] += f" {'err complex':>11} {'err central':>11} {'skipped':>7}  verdict"
    for c in checks:
        shape, worst = "×".join(map(str, c.shape)), ",".join(map(str, c.worst))
        rows.append(
            f"{c.name:<12} {shape:>8} {f'[{worst}]':>9} {c.analytic:12.4e} {c.complex_step:12.4e} {c.central:12.4e}"
            f" {c.complex_error:11.1e} {c.central_error:11.1e} {c.skipped:7d}  {'ok' if c.passed else 'FAIL'}"
        )
    return "\n".join(rows)


def summary(checks):
    """One line: how many elements were compared, the worst errors, the verdict."""
    skipped = sum(check.skipped for check in checks)
    return (
        f"{sum(math.prod(check.shape) for check in checks)} elements"
        f"{f' ({skipped} of them not by central differences: a ReLU flips within the step)' if skipped else ''}"
        f"; worst error {max(check.complex_error for check in checks):.1e} by complex step"
        f", {max(check.central_error for check in checks):.1e} by central differences"
        f": {'ok' if all(check.passed for check in checks) else 'FAIL'}"
    )


@command("python -m npvae.gradcheck")
def main(arguments=None):
    """Print the table; return 0 if every array passes, else 1."""
    parser = OneLineParser(
        "python -m npvae.gradcheck", "Check every element of the gradient of a small VAE, 12 pixels, 3 latents."
    )
    add = parser.add_argument
    add("--activation", choices=ACTIVATIONS, default="tanh", help="of the hidden layers (default: tanh)")
    add("--hidden", type=positive, nargs="+", default=[7, 5], help="units of each hidden layer (default: 7 5)")
    add("--likelihood", choices=LIKELIHOODS, default="bernoulli", help="of a pixel (default: bernoulli)")
    add("--objective", choices=OBJECTIVES, default="elbo", help="whose gradient is checked (default: elbo)")
    add("--beta", type=float, default=1.0, help="weight of the KL term (default: 1)")
    add("--conditional", action="store_true", help="give one of three labels to encoder and decoder")
    add("--samples", type=positive, default=3, help="samples of z per example, L of eq. 7, K of iwae (default: 3)")
    add("--seed", type=functools.partial(positive, low=0), default=1, help="of parameters, data and noise (default: 1)")
    add("--dtype", choices=("float64", "float32"), default="float64", help="precision of the check (default: float64)")
    add("--all", action="store_true", help="instead, a line for each of many combinations of these")
    options = parser.parse_args(arguments)

    given = (options.activation, options.hidden, options.samples, options.likelihood, options.objective)
    setups = SETUPS if options.all else [(*given, LABELS * options.conditional)]
    passed = True
    for activation, hidden, samples, likelihood, objective, classes in setups:
        vae, *data = small_problem(activation, hidden, samples, options.seed, likelihood, objective, classes)
        checks = check_vae(vae, *data, beta=options.beta, dtype=np.dtype(options.dtype))
        passed &= all(check.passed for check in checks)
        if not options.all:
            print(report(checks), end="\n\n")
        print(f"{vae}, {samples} sample{'s' * (samples > 1)}: {summary(checks)}")
    if any(objective in ("stl", "iwae-dreg") for *_, objective, _ in setups):
        print(
            "stl and iwae-dreg are not derivatives of their losses: compared with what gradcheck.held_fixed describes"
        )
    print(f"relative to the largest entry of the array; allowed: {COMPLEX_TOLERANCE:g} and {CENTRAL_TOLERANCE:g}")
    if options.dtype == "float32":
        print(FLOAT32_LESSON)
    elif not passed:
        print(READING_A_FAILURE)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
