"""What npvae does beside what it could do instead: `python benchmarks/alternatives.py --dataset mnist`.

Both run in turn in one process, on the same arrays; the last column is the alternative's time over that of what npvae
does, turn by turn, with its quartiles. Below 1 the alternative is quicker. Steps are of 784-500-20, batch 100, unless
the line says otherwise, and come in bursts of ten. Two threads can gain only where OpenBLAS's own threads do not spin
while they wait: OPENBLAS_THREAD_TIMEOUT=18 sends them to sleep after 2^18 ticks, 0.1 ms, instead of 2^26.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
from compare import SETUPS
from contenders import LATENT, PIXELS, Npvae, data_parser, load_data

from npvae import Adam
from npvae.commands import command, positive
from npvae.data.pixels import batch
from npvae.distributions import gaussian_kl
from npvae.layers import ReLU, Tanh, softplus

BURST = 10


def compare(label, now, other, turns):
    seconds = np.empty((turns, 2))
    for _ in range(3):  # not timed: threads wake, caches fill
        now()
        other()
    for i in range(turns):
        for j, function in enumerate((now, other)):
            began = time.perf_counter()
            function()
            seconds[i, j] = time.perf_counter() - began
    ms = 1e3 * np.median(seconds, axis=0)
    ratio = np.quantile(seconds[:, 1] / seconds[:, 0], (0.5, 0.25, 0.75))
    print(f"{label:<66}{ms[0]:9.3f}{ms[1]:9.3f}{ratio[0]:8.2f}{ratio[1]:8.2f} –{ratio[2]:5.2f}", flush=True)


def bursts(setup, images, change):
    """Two functions of `BURST` steps each: npvae's, and the same of a contender that `change` was applied to."""
    contenders = [Npvae(setup, images) for _ in range(2)]
    change(contenders[1])
    rng = np.random.default_rng(2)

    def burst(contender):
        contender.run(rng.integers(0, len(images), (BURST, setup.batch_size)))

    return [lambda contender=contender: burst(contender) for contender in contenders]


def parts_of(adam, size):
    """Adams of consecutive parts of the vector: together they do what `adam` does."""
    values, gradient = adam.parameters.values, adam.parameters.gradient
    slices = [slice(i, i + size) for i in range(0, len(values), size)]
    return [Adam(SimpleNamespace(values=values[part], gradient=gradient[part])) for part in slices]


def adam_in_blocks(size):
    def change(contender):
        parts = parts_of(contender.adam, size)
        contender.adam = SimpleNamespace(step=lambda: [part.step() for part in parts])

    return change


def adam_on_two_threads(contender):
    first, second = parts_of(contender.adam, -(-len(contender.adam.scratch) // 2))
    pool = ThreadPoolExecutor(1)

    def step():
        other = pool.submit(second.step)
        first.step()
        other.result()

    contender.adam = SimpleNamespace(step=step)


def no_adam(contender):
    contender.adam = SimpleNamespace(step=lambda: None)


def subnormals_flushed(contender):
    step, adam = contender.adam.step, contender.adam

    def step_and_flush():
        step()
        if adam.state["t"] % 100 == 0:
            M = adam.state["M"]
            M[np.abs(M) < np.finfo(M.dtype).tiny] = 0  # weights of pixels that are never on: 0.9 M rounds to M

    adam.step = step_and_flush


def activations_in_place(contender):
    class TanhInPlace(Tanh):
        def forward(self, x):
            self.y = np.tanh(x, out=x)
            return x

    class ReLUInPlace(ReLU):
        def forward(self, x):
            self.mask = x > 0
            x *= self.mask
            return x

        def backward(self, d_y):
            d_y *= self.mask
            return d_y

    for mlp in (contender.vae.encoder, contender.vae.decoder):
        mlp.layers[1] = TanhInPlace() if isinstance(mlp.layers[1], Tanh) else ReLUInPlace()


def next_batch_in_a_thread(contender):
    pool, gather = ThreadPoolExecutor(1), contender.batch

    def run(rows):
        ahead = pool.submit(gather, contender.images, rows[0])
        for i in range(len(rows)):
            x = ahead.result()
            if i + 1 < len(rows):
                ahead = pool.submit(gather, contender.images, rows[i + 1])
            contender.batch = lambda images, row, x=x: x
            contender.step(rows[i], None)

    contender.run = run


def noise_of_many_steps(contender):
    def run(rows):
        eps = contender.rng.standard_normal((*rows.shape, LATENT), np.float32)
        for i in range(len(rows)):
            contender.step(rows[i], eps[None, i])

    contender.run = run


def softplus_by_maximum(a):
    y = np.minimum(a, -a)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    y += np.maximum(a, 0)
    return y


def steps(images, turns):
    tanh, _, small = SETUPS
    print("a burst of ten steps")
    compare("no Adam at all: what it costs", *bursts(tanh, images, no_adam), turns)
    for size in (2**15, 2**17):
        compare(f"Adam in blocks of {size:,}", *bursts(tanh, images, adam_in_blocks(size)), turns)
        compare(f"Adam in blocks of {size:,}; {small}", *bursts(small, images, adam_in_blocks(size)), turns)
    compare("Adam on two threads, half of the vector each", *bursts(tanh, images, adam_on_two_threads), turns)
    compare(f"Adam on two threads; {small}", *bursts(small, images, adam_on_two_threads), turns)
    compare("activations in place", *bursts(tanh, images, activations_in_place), turns)
    compare(f"activations in place; {SETUPS[1]}", *bursts(SETUPS[1], images, activations_in_place), turns)
    compare("the next batch gathered in a thread", *bursts(tanh, images, next_batch_in_a_thread), turns)
    compare("the noise of ten steps drawn at once", *bursts(tanh, images, noise_of_many_steps), turns)
    label = f"after {5 * turns * BURST:,} steps, subnormals flushed from Adam; {small}"
    pair = bursts(small, images, subnormals_flushed)
    for _ in range(5 * turns):
        for burst in pair:
            burst()
    compare(label, *pair, turns)


def pieces(images, turns):
    setup = SETUPS[0]
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    size, hidden = setup.batch_size, setup.hidden
    x, W, d_y, out = array(size, PIXELS), array(PIXELS, hidden), array(size, hidden), array(PIXELS, hidden)
    out_T, ones = array(hidden, PIXELS), np.ones(size, np.float32)
    logits, heads, vector = array(size, PIXELS), array(size, 2 * LATENT), array(10**6)
    mu, logvar = heads[:, :LATENT], heads[:, LATENT:]
    floats = batch(images[:20_000])
    rows = rng.integers(0, len(floats), size)
    print("\none piece")
    compare(
        "d_W: (d_y.T @ x).T for x.T @ d_y",
        lambda: np.matmul(x.T, d_y, out=out),
        lambda: np.matmul(d_y.T, x, out=out_T),
        turns,
    )
    compare(
        "d_W: x.T copied first",
        lambda: np.matmul(x.T, d_y, out=out),
        lambda: np.matmul(np.ascontiguousarray(x.T), d_y, out=out),
        turns,
    )
    compare("d_x: (W @ d_y.T).T for d_y @ W.T", lambda: d_y @ W.T, lambda: W @ d_y.T, turns)
    compare("d_b: ones @ d_y for the sum over the batch", lambda: np.sum(logits, axis=0), lambda: ones @ logits, turns)
    compare("softplus: np.logaddexp(0, a)", lambda: softplus(logits), lambda: np.logaddexp(0, logits), turns)
    compare("softplus: max(a, 0) by np.maximum", lambda: softplus(logits), lambda: softplus_by_maximum(logits), turns)
    compare(
        "mu and logvar copied out of the 2J columns before the KL",
        lambda: gaussian_kl(mu, logvar),
        lambda: gaussian_kl(mu.copy(), logvar.copy()),
        turns,
    )
    compare(
        "a float32 scalar for a Python float",
        lambda: np.multiply(vector, 0.9, out=vector),
        lambda: np.multiply(vector, np.float32(0.9), out=vector),
        turns,
    )
    compare("gather from float32 images, not from bytes", lambda: batch(images, rows), lambda: floats[rows], turns)


@command("python benchmarks/alternatives.py")
def main(arguments=None):
    parser = data_parser("python benchmarks/alternatives.py", __doc__)
    parser.add_argument("--turns", type=positive, default=60, help="of each pair (default: 60)")
    options = parser.parse_args(arguments)
    images = load_data(options).train_images
    timeout = os.environ.get("OPENBLAS_THREAD_TIMEOUT", "not set")
    print(f"OPENBLAS_THREAD_TIMEOUT {timeout}\n{'':<66}{'npvae ms':>9}{'other ms':>9}{'other / npvae':>16}")
    steps(images, options.turns)
    pieces(images, 5 * options.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
