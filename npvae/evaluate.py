"""How well a model does on examples that it has not seen: `python -m npvae.evaluate RUN`."""

import json
import math
import sys

import numpy as np

from npvae.commands import command
from npvae.data.datasets import batch
from npvae.runs import Run, run_parser

NOISE_SEED = 1  # the same noise at each evaluation, so that the same parameters give the same numbers
BATCH_SIZE = 500  # decoded at once: images times samples
PROTOCOL = "grey pixels as Bernoulli means"


def bound_terms(vae, images, samples=1):
    """The two terms of the −ELBO (eq. 10) of each example.

    Parameters
    ----------
    vae : VAE
    images : (N, D) uint8 array
    samples : int
        L of eq. 7; the noise is drawn from a fixed seed.

    Returns
    -------
    dict of str to (N,) float64 array, nats: 'loss' = 'reconstruction' + 'kl'
    """
    rng = np.random.default_rng(NOISE_SEED)
    reconstruction, kl = np.empty(len(images)), np.empty(len(images))
    size = max(1, BATCH_SIZE // samples)
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        x = batch(images, rows)
        vae.loss(x, rng.standard_normal((samples, len(x), vae.latent), np.float32))
        reconstruction[rows], kl[rows] = vae.reconstruction, vae.kl
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


@command("npvae.evaluate")
def main(arguments=None):
    """Print the test loss of a run and its two terms, each with its standard error over the examples."""
    parser = run_parser("npvae.evaluate", "Evaluate a run on its test set.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)

    run = Run.open(options.run)
    dataset = run.dataset(options.data_dir)
    terms = bound_terms(run.vae(dataset), dataset.test_images, run.config.samples)
    count = len(dataset.test_images)
    result = {
        name: {"mean": values.mean(), "standard_error": values.std(ddof=1) / math.sqrt(count) if count > 1 else None}
        for name, values in terms.items()
    }
    if options.json:
        facts = {"run": str(run.folder), "dataset": dataset.name, "protocol": PROTOCOL, "examples": count}
        facts |= {"samples": run.config.samples, "noise_seed": NOISE_SEED, "unit": "nats per example"}
        print(json.dumps(facts | result))
        return 0
    print(dataset)
    print(f"{count:,} test examples, {PROTOCOL}, L = {run.config.samples}; nats per example, ± standard error")
    for name, label in (("loss", "loss (−ELBO)"), ("reconstruction", "reconstruction"), ("kl", "KL")):
        error = result[name]["standard_error"]
        print(f"  {label:<15} {result[name]['mean']:9.3f} ± {math.nan if error is None else error:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
