"""Train your own VAE, when all exercises pass: `python train.py`, with --help for its options.

On MNIST where it is present or can be downloaded, else on the built-in digits. At the end it
compares your test loss with that of npvae and of PyTorch for the same set-up.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from ex01_idx import scale
from ex07_vae import forward
from ex09_train import initialize, train_epoch
from ex10_generate import sample
from npvae.commands import UserError
from npvae.data.datasets import load
from npvae.plot import picture

HIDDEN, LATENT, BATCH_SIZE, EPOCHS = 200, 20, 100, 10
# nats per test image, mean and spread of three seeds, from `python benchmarks/exercises.py`
PUBLISHED = {
    "mnist": {"npvae": (109.88, 0.20), "PyTorch": (109.91, 0.03)},
    "strokes": {"npvae": (126.70, 0.57), "PyTorch": (126.82, 0.35)},
}


def mean_loss(p, images, rng):
    """The mean loss over images, with one draw of z for each."""
    total = 0.0
    for start in range(0, len(images), 1000):
        x = scale(images[start : start + 1000])
        loss, _ = forward(p, x, rng.standard_normal((1, len(x), LATENT), np.float32))
        total += loss * len(x)
    return total / len(images)


def main():
    parser = argparse.ArgumentParser(description="Train the VAE that you have written.")
    parser.add_argument(
        "--dataset",
        default="auto",
        help="auto (the default), mnist or strokes, the built-in digits",
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    digits = load(given.dataset)
    rng = np.random.default_rng(given.seed)
    p = initialize(digits.train_images.shape[1], HIDDEN, LATENT, rng)
    moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in p.items()}
    print(f"{digits.name}: your VAE, {HIDDEN} hidden units, {LATENT} latents")
    t, test = 0, float("nan")
    for epoch in range(1, given.epochs + 1):
        began = time.perf_counter()
        loss, t = train_epoch(p, moments, t, digits.train_images, BATCH_SIZE, rng)
        test = mean_loss(p, digits.test_images, np.random.default_rng(0))
        seconds = f"{time.perf_counter() - began:.1f} s"
        print(
            f"epoch {epoch:2}: training {loss:.2f}, test {test:.2f} nats, {seconds}", flush=True
        )

    print(f"\nyours    {test:.2f} nats per test image")
    if given.epochs == EPOCHS and digits.name in PUBLISHED:
        for name, (mean, spread) in PUBLISHED[digits.name].items():
            print(f"{name:8} {mean:.2f} ± {spread:.2f}")
        print("Within half a nat it is the same model; another seed changes it by some tenths.")

    folder = Path(__file__).parent
    np.savez(folder / "my-vae.npz", **p)
    figure = picture("A hundred new images", sample(p, 100, rng), 10, digits.image_shape)
    figure.savefig(folder / "my-samples.png")
    print(f"In {folder}: my-vae.npz, and my-samples.png with a hundred new images,")
    print("some of them digits, some in between: z is drawn from the whole prior.")


if __name__ == "__main__":
    try:
        main()
    except NotImplementedError:
        sys.exit(
            "train.py: not everything is written; `python -m npvae.exercises check` says what"
        )
    except UserError as error:
        sys.exit(f"train.py: {error}")
