"""Check a hand-written gradient: anyone's by `gradcheck`, that of a VAE by `check_vae` and `python -m npvae.gradcheck`.

    gradcheck(loss, gradient, {"W": W, "b": b})      # loss(p) → a number, gradient(p) → the same names

How it is done, and how small a mistake it sees, is told in `npvae.checker`; by which numerical derivatives, in
`npvae.derivatives`.
"""

import contextlib
import dataclasses
import functools
import itertools
import sys
import time

import numpy as np

from npvae.checker import CENTRAL_TOLERANCE, COMPLEX_TOLERANCE, examine, gradcheck
from npvae.commands import OneLineParser, UserError, command, positive
from npvae.config import Config
from npvae.derivatives import GradientError, Refused, central_difference_gradient, complex_step_gradient
from npvae.distributions import LIKELIHOODS
from npvae.layers import ACTIVATIONS
from npvae.objectives import (
    OBJECTIVES,
    doubly_reparameterized,
    iwae_loss,
    log_weights,
    normalized_weights,
    sampled_elbo_loss,
    without_score,
)
from npvae.options import converter
from npvae.problem import nudged
from npvae.report import Check, Report
from npvae.vae import VAE

__all__ = ["Check", "GradientError", "Refused", "Report", "central_difference_gradient", "check_vae"]
__all__ += ["complex_step_gradient", "gradcheck", "small_problem"]

SMALL = 5000  # parameters of a model of which every element is checked
LABELLED = 3  # classes of the small conditional VAE
BETA = next(field for field in dataclasses.fields(Config) if field.name == "beta")
SETUPS = [  # of --all
    *itertools.product(ACTIVATIONS, [(7,), (7, 5)], (1, 3), ["bernoulli"], ["elbo"], [0]),
    *itertools.product(["tanh"], [(7,)], [4], LIKELIHOODS, OBJECTIVES, [0, LABELLED]),
]

HELD_FIXED = """\
stl and iwae-dreg are not the derivatives of their losses: they are compared
with what gradcheck.held_fixed describes"""
READING_A_FAILURE = """\
In the encoder's last layer the first half of the columns belongs to mu, the
other half to logvar."""
FLOAT32_LESSON = """\
float32 carries 7 digits, and a difference of two losses loses most of them: a
check in float32 must allow an error at which a forgotten term can hide. The
same code in float64 and complex128 shows what is right."""


def check_vae(vae, x, eps, y=None, beta=1.0, dtype=np.float64, elements=None):
    """Check `vae.backward()`, of this very object: its class, its layers and its objective as they are now.

    The gradients of 'stl' and 'iwae-dreg' are not the derivative of their loss, but have its mean. They are derivatives
    of the loss with something held fixed, and that is what they are compared with; see `held_fixed`.

    Parameters
    ----------
    vae : VAE
        Computes in `dtype` while this runs; its parameters and their gradient are then as before.
    x : (B, D) array in [0, 1]
    eps : (L, B, J) array
    y : (B, C) array or None
    beta : float
    dtype : NumPy dtype
        float64, or float32 to see how little that proves.
    elements : {'all', 'auto'}, optional
        As of `gradcheck`; by default all of a model of up to `SMALL` parameters.

    Returns
    -------
    Report
        One `Check` for each array.

    Raises
    ------
    GradientError
        If the gradient is not even one: not finite, or another one at a second call.
    Refused
        If there is no answer; see `gradcheck`.
    """
    x, eps = np.asarray(x, dtype), np.asarray(eps, dtype)
    elements = elements or ("all" if vae.parameters.values.size <= SMALL else "auto")
    given = {name: vae.parameters[name].astype(dtype) for name in vae.parameters.shapes}
    kept = vae.objective

    def put(arrays):
        values = np.concatenate([array.ravel() for array in arrays.values()])
        if vae.parameters.values.dtype != values.dtype:
            vae.parameters.bind(values, np.zeros_like(values))
        vae.parameters.values[...] = values

    def loss_of(objective, others):
        def loss(arrays):
            put(others | arrays)
            vae.objective = objective
            return vae.loss(x, eps, y, beta)

        return loss

    def gradient_beside(others):
        def gradient(arrays):
            loss_of(kept, others)(arrays)
            vae.backward()
            return {name: vae.parameters.d(name).copy() for name in arrays}

        return gradient

    def path_report(point):
        """The arrays of each network beside the loss that holds fixed what the gradient leaves out at this point."""
        loss_of(kept, point)({})
        checks = {}
        for in_encoder, surrogate in held_fixed(vae).items():
            arrays = {name: array for name, array in point.items() if name.startswith("encoder") is in_encoder}
            loss = loss_of(dataclasses.replace(kept, loss=surrogate), point)
            report = examine(loss, gradient_beside(point), arrays, elements=elements, dtype=dtype, nearby=False)
            checks |= {check.name: check for check in report}
        return [checks[name] for name in point]

    with as_before(vae):
        if not path_only(kept):
            return examine(loss_of(kept, given), gradient_beside(given), given, elements=elements, dtype=dtype)
        rng, reports = np.random.default_rng(0), []
        with contextlib.suppress(Refused):  # with zeros q(z|x) is the prior, and nothing depends on the encoder
            reports.append(path_report(given))
        reports.append(path_report({name: nudged(array, rng) for name, array in given.items()}))
        return Report([min(checks, key=lambda check: check.passed) for checks in zip(*reports, strict=True)])


def path_only(objective):
    """Whether an objective is 'stl' or 'iwae-dreg', by what it does: a loss, and the road without its score."""
    roads = {sampled_elbo_loss: without_score, iwae_loss: doubly_reparameterized}
    return roads.get(objective.loss) is objective.road


@contextlib.contextmanager
def as_before(vae):
    """What is done to a VAE ends with the block, however it ends, except that its layers forget the last loss."""
    values, gradient, attributes = vae.parameters.values, vae.parameters.gradient, dict(vars(vae))
    try:
        vae.parameters.bind(values.copy(), gradient.copy())
        yield
    finally:
        vae.parameters.bind(values, gradient)
        vars(vae).clear()
        vars(vae).update(attributes | {"forward_pass": None})


def held_fixed(vae):
    """The losses of which the gradient of the last `vae.loss` is the derivative: {in the encoder: …, elsewhere: …}.

    For 'stl' that is its loss with the parameters of q(z|x) held fixed in log q(z|x), where z keeps its dependence on
    them. For 'iwae-dreg' and the encoder it is −Σ c log w, with c = w̃ (1 − β + β w̃) fixed and log q(z|x) as in 'stl'.
    Elsewhere it is the loss itself.
    """
    passed, loss = vae.forward_pass, vae.objective.loss
    mu, logvar, beta = passed.mu.copy(), passed.logvar.copy(), passed.beta
    w = normalized_weights(log_weights(passed.log_p_x, passed.z, mu, logvar, beta))
    c = w * (1 - beta + beta * w)

    def fixed_posterior(log_p_x, z, _mu, _logvar, beta):
        return loss(log_p_x, z, mu, logvar, beta)

    def fixed_weights(log_p_x, z, _mu, _logvar, beta):
        return -(c * log_weights(log_p_x, z, mu, logvar, beta)).sum(axis=0)

    encoder = fixed_weights if vae.objective.importance_weighted else fixed_posterior
    return {True: encoder, False: loss}


def small_problem(
    activation="tanh", hidden=(7, 5), samples=3, seed=0, likelihood="bernoulli", objective="elbo", classes=0
):
    """A VAE small enough to check every element, with non-zero biases: (vae, x (4, 12), eps (samples, 4, 3)).

    With classes there is a fourth: y (4, classes).
    """
    rng = np.random.default_rng(seed)
    vae = VAE(12, hidden, 3, activation, likelihood, objective, classes, zeros=True, dtype=np.float64)
    vae.parameters.values[...] = rng.normal(0, 0.5, vae.parameters.values.size)
    problem = vae, rng.uniform(size=(4, 12)), rng.standard_normal((samples, 4, 3))
    return (*problem, np.eye(classes)[rng.integers(classes, size=4)]) if classes else problem


def trained_problem(folder, data_dir, seed):
    """The model of a run, and a batch of its test images: (vae, x, eps, y)."""
    from npvae.data.pixels import batch, one_hot  # only here, because data sets need more than NumPy
    from npvae.runs import Run, require_fit

    run = Run.open(folder, data_dir)
    dataset, vae, rng = run.dataset(), run.vae(), np.random.default_rng(seed)
    require_fit(dataset, vae)
    rows = rng.permutation(len(dataset.test_images))[: run.config.batch_size]
    x, y = batch(dataset.test_images, rows), one_hot(dataset.test_labels, rows, vae.classes)
    return vae, x, rng.standard_normal((run.config.samples, len(rows), vae.latent)), y


def add_options(parser):
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="a run's folder: check its model on a batch of its test set"
    )
    parser.add_argument("--data-dir", default="", help="of RUN; by default the one that it was trained with")
    small = parser.add_argument_group("of the small VAE")
    of_small = [
        small.add_argument("--activation", choices=ACTIVATIONS, help="of the hidden layers (default: tanh)"),
        small.add_argument("--hidden", type=positive, nargs="+", help="units of each hidden layer (default: 7 5)"),
        small.add_argument("--likelihood", choices=LIKELIHOODS, help="of a pixel (default: bernoulli)"),
        small.add_argument("--objective", choices=OBJECTIVES, help="whose gradient is checked (default: elbo)"),
        small.add_argument(
            "--conditional", action="store_true", help="give one of three labels to encoder and decoder"
        ),
        small.add_argument("--samples", type=positive, help="of z per example, L of eq. 7, K of iwae (default: 3)"),
        small.add_argument("--all", action="store_true", help="instead, a line for each of many combinations of these"),
    ]
    parser.add_argument("--beta", type=converter(BETA), default=1.0, help="weight of the KL term (default: 1)")
    parser.add_argument(
        "--seed", type=functools.partial(positive, low=0), default=1, help="of parameters, data and noise (default: 1)"
    )
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="precision of the check (default: float64)"
    )
    return [action.dest for action in of_small]


def problems(options, of_small):
    """What is to be checked, one by one: (vae, x, eps, y or nothing)."""
    given = [name for name in of_small if getattr(options, name)]
    if options.data_dir and options.run is None:
        raise UserError("--data-dir is about a RUN: name one")
    if options.run is not None:
        if given:
            raise UserError(f"--{given[0]} is about the small VAE: a run has a model of its own")
        yield trained_problem(options.run, options.data_dir, options.seed)
        return
    if not options.all:
        settings = {name: getattr(options, name) for name in given if name != "conditional"}
        yield small_problem(seed=options.seed, classes=LABELLED * options.conditional, **settings)
        return
    for activation, hidden, samples, likelihood, objective, classes in SETUPS:
        yield small_problem(activation, hidden, samples, options.seed, likelihood, objective, classes)


@command("python -m npvae.gradcheck")
def main(arguments=None):
    """Print the table; return 0 if every array passes, else 1."""
    parser = OneLineParser(
        "python -m npvae.gradcheck",
        "Check every element of the gradient of a small VAE, 12 pixels, 3 latents; or the gradient of a trained model.",
    )
    of_small = add_options(parser)
    options = parser.parse_args(arguments)
    reports, held = {}, False
    for vae, x, eps, *y in problems(options, of_small):
        began = time.perf_counter()
        try:
            report = check_vae(vae, x, eps, *y, beta=options.beta, dtype=np.dtype(options.dtype))
        except Refused as reason:
            raise UserError(f"{vae}: {reason}") from reason
        except GradientError as error:
            print(f"{vae}: {error}: FAIL")
            return 1
        setup = f"{vae}, L = {len(eps)}"
        reports[setup] = report
        held |= path_only(vae.objective)
        if options.all:
            errors = f"{report.worst('complex_error'):.0e} {report.worst('central_error'):.0e}"
            print(f"{setup}: {errors} {'ok' if report.passed else 'FAIL'}")
        else:
            print(f"{report.table()}\n\n{setup}, {len(x)} examples, in {time.perf_counter() - began:.1f} s")
            print(report.in_words())
    if options.all:
        print("worst of all, by complex step and by central differences:", *worst_of(reports), sep="\n  ")
    if options.run is None:
        print(f"relative to the largest entry; allowed: {COMPLEX_TOLERANCE:g} and {CENTRAL_TOLERANCE:g}")
    passed = all(report.passed for report in reports.values())
    notes = [HELD_FIXED] * held + [FLOAT32_LESSON] * (options.dtype == "float32")
    notes += [READING_A_FAILURE] * (not passed and options.dtype == "float64")
    for note in notes:
        print(note)
    return 0 if passed else 1


def worst_of(reports):
    """The largest error of each kind, and of which set-up it is."""
    for error in ("complex_error", "central_error"):
        setup = max(reports, key=lambda setup: reports[setup].worst(error))
        yield f"{reports[setup].worst(error):.1e} ({setup})"


if __name__ == "__main__":
    sys.exit(main())
