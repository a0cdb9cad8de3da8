"""Where the time of a training step goes: `python benchmarks/profile_step.py --dataset mnist`.

Each universal function of a step (all arithmetic, sums and products) is timed by itself, called through a subclass of
`numpy.ndarray`, and counted for the piece of npvae that called it. Rounds with and without that subclass alternate; the
total is of those without, and its difference from the pieces, Python and copies, is small and can come out negative.
Below stands the floor: the step's matrix products and nothing else, all in the order of a step, each one repeated on
the same operands (warm), and each one after a sweep through the caches (cold).
"""

import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from compare import SETUPS
from contenders import Npvae, Products, data_parser, load_data

import npvae
from npvae.commands import command, positive
from npvae.layers import Dense

PACKAGE = str(Path(npvae.__file__).parent)
PIECES = {
    "inputs": "checks of what is given",
    "vae": "reparameterization, rest of vae.py",
    "distributions": "densities, KL",
    "objectives": "densities, KL",
    "optimizers": "Adam",
}
ORDER = (
    "checks of what is given",
    "matrix products",
    "biases",
    "activations",
    "densities, KL",
    "reparameterization, rest of vae.py",
    "Adam",
    "batch and noise",
)


class Traced(np.ndarray):
    """An array whose NumPy functions are timed and counted, also those of the arrays that come out of them."""

    seconds, calls = defaultdict(float), Counter()

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        inputs = [plain(array) for array in inputs]
        if out is not None:
            options["out"] = tuple(plain(array) for array in out)
        piece = "matrix products" if ufunc is np.matmul else calling_piece(sys._getframe(1))
        function = getattr(ufunc, method)
        began = time.perf_counter()
        result = function(*inputs, **options)
        Traced.seconds[piece] += time.perf_counter() - began
        Traced.calls[piece] += 1
        return out[0] if out is not None else traced(result)


def traced(array):
    return array.view(Traced) if isinstance(array, np.ndarray) else array


def plain(array):
    return array.view(np.ndarray) if isinstance(array, Traced) else array


def calling_piece(frame):
    """The piece of npvae to which a call belongs; softplus and sigmoid belong to who calls them."""
    while not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_name in ("softplus", "sigmoid"):
        frame = frame.f_back
    module = Path(frame.f_code.co_filename).stem
    if module == "layers":
        return "biases" if isinstance(frame.f_locals["self"], Dense) else "activations"
    return PIECES[module]


def trace(contender):
    """Make the parameters, gradients and the optimizer's arrays of a contender traced ones, in place."""
    vae, adam = contender.vae, contender.adam
    vae.parameters.bind(traced(vae.parameters.values), traced(vae.parameters.gradient))
    adam.scratch = traced(adam.scratch)
    adam.state |= {name: traced(adam.state[name]) for name in ("M", "V")}
    return contender


def step(contender, rows, as_input):
    """One step; returns its seconds, and those of them that batch and noise took."""
    began = time.perf_counter()
    x, eps = map(as_input, contender.inputs(rows))
    data = time.perf_counter() - began
    contender.descend(x, eps)
    return time.perf_counter() - began, data


class Floor:
    """Milliseconds of a step's matrix products and nothing else."""

    def __init__(self, setup):
        self.products, self.sweep = list(Products(setup, None).products()), np.zeros(2**24, np.float32)

    def in_order(self, repeats):
        return sum(self.milliseconds(product) for _ in range(repeats) for product in self.products) / repeats

    def warm(self, repeats):
        return sum(self.milliseconds(product) for product in self.products for _ in range(repeats)) / repeats

    def cold(self):
        total = 0
        for product in self.products:
            self.sweep += 1
            total += self.milliseconds(product)
        return total

    @staticmethod
    def milliseconds(product):
        began = time.perf_counter()
        product()
        return 1e3 * (time.perf_counter() - began)


def profile(setup, images, rounds, steps):
    usual, watched = Npvae(setup, images), trace(Npvae(setup, images))
    rng = np.random.default_rng(2)
    totals, watched_totals, pieces, calls, floor, floors = [], [], [], Counter(), Floor(setup), []
    for i in range(rounds + 1):
        rows = rng.integers(0, len(images), (steps, setup.batch_size))
        seconds = [step(usual, row, lambda array: array) for row in rows]
        Traced.seconds.clear()
        Traced.calls.clear()
        watched_seconds = [step(watched, row, traced)[0] for row in rows]
        floor_now = floor.warm(steps), floor.in_order(steps), floor.cold()
        if i == 0:
            continue  # not counted: threads wake, caches fill
        floors.append(floor_now)
        total, data = np.sum(seconds, axis=0) * 1e3 / steps
        totals.append(total)
        watched_totals.append(1e3 * sum(watched_seconds) / steps)
        pieces.append([1e3 * Traced.seconds[piece] / steps for piece in ORDER[:-1]] + [data])
        calls = {piece: Traced.calls[piece] / steps for piece in ORDER}
    total, pieces = np.median(totals), np.median(pieces, axis=0)
    print(f"\n{setup}: {total:.2f} ms per step, median of {rounds} rounds of {steps} steps")
    print(f"{'':<36}{'ms':>7}{'share':>8}{'functions':>13}")
    for piece, ms in zip(ORDER, pieces, strict=True):
        count = f"{calls[piece]:.0f}" if calls[piece] else ""
        print(f"{piece:<36}{ms:7.2f}{ms / total:8.0%}{count:>13}")
    print(f"{'Python, copies':<36}{total - pieces.sum():7.2f}{1 - pieces.sum() / total:8.0%}")
    print(f"{'':<36}{total:7.2f}{'':8}{sum(calls.values()):13.0f}")
    warm, in_order, cold = np.median(floors, axis=0)
    print(f"the products alone: {warm:.2f} ms warm, {in_order:.2f} in the order of a step, {cold:.2f} cold")
    print(f"while they were timed one by one, steps took {np.median(watched_totals):.2f} ms", flush=True)


@command("python benchmarks/profile_step.py")
def main(arguments=None):
    parser = data_parser("python benchmarks/profile_step.py", __doc__)
    parser.add_argument("--rounds", type=positive, default=20, help="(default: 20)")
    parser.add_argument("--steps", type=positive, default=50, help="per round (default: 50)")
    options = parser.parse_args(arguments)
    images = load_data(options).train_images
    for setup in SETUPS:
        profile(setup, images, options.rounds, options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
