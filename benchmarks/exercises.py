"""The numbers that a learner's own VAE is compared with, from npvae and PyTorch: `python benchmarks/exercises.py`.

The set-up is that of the exercises' `train.py`: its sizes, its epochs, one draw of z for each test image. The table
`PUBLISHED` in npvae/exercises/solutions/train.py holds what this prints for MNIST and for the built-in digits.
"""

import ast
import sys

import numpy as np
from contenders import LATENT, Npvae, Setup, Torch, data_parser, load_data

from npvae.commands import command, positive
from npvae.exercises.course import SOLUTIONS


def published_setup():
    """HIDDEN, LATENT, BATCH_SIZE and EPOCHS of the exercises' train.py."""
    tree = ast.parse((SOLUTIONS / "train.py").read_text(encoding="utf-8"))
    assignment = next(node for node in tree.body if isinstance(node, ast.Assign))
    return ast.literal_eval(assignment.value)


def test_loss(contender, data, batch_size, epochs, seed):
    """The mean loss of the test images after so many epochs, nats."""
    rng, count = np.random.default_rng(seed), len(data.train_images)
    for _ in range(epochs):
        contender.run(rng.permutation(count)[: count // batch_size * batch_size].reshape(-1, batch_size))
    rng, losses = np.random.default_rng(0), []
    for images in np.split(data.test_images, range(1000, len(data.test_images), 1000)):
        eps = rng.standard_normal((len(images), LATENT), np.float32)
        losses.append(contender.test_loss(images, eps) * len(images))
    return sum(losses) / len(data.test_images)


@command("python benchmarks/exercises.py")
def main(arguments=None):
    """Train both, with several seeds, and print a table."""
    parser = data_parser("python benchmarks/exercises.py", __doc__.splitlines()[0])
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--epochs", type=positive)
    parser.add_argument("--contenders", nargs="+", choices=("npvae", "torch"), default=["npvae", "torch"])
    options = parser.parse_args(arguments)
    data = load_data(options)
    hidden, latent, batch_size, epochs = published_setup()
    assert latent == LATENT
    epochs = options.epochs or epochs
    print(f"{data.name}: {Setup(hidden, 'tanh', batch_size)}, {epochs} epochs, {options.seeds} seeds", flush=True)
    for name in options.contenders:
        losses = []
        for seed in range(options.seeds):
            setup = Setup(hidden, "tanh", batch_size, seed)
            contender = Npvae(setup, data.train_images) if name == "npvae" else Torch(setup, data.train_images)
            losses.append(test_loss(contender, data, batch_size, epochs, seed))
        spread = np.std(losses, ddof=1) if len(losses) > 1 else np.nan
        each = " ".join(f"{loss:.2f}" for loss in losses)
        print(f"{name:6} {np.mean(losses):.2f} ± {spread:.2f}   ({each})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
