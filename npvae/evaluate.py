"""How well a model does on examples that it has not seen: `python -m npvae.evaluate RUN`."""

import json
import math
import sys

import numpy as np
from tqdm import tqdm

from npvae.commands import command, positive
from npvae.data.datasets import BINARIZATIONS, batch, one_hot
from npvae.distributions import gaussian_kl
from npvae.objectives import iwae, log_mean_exp, log_weights
from npvae.runs import Run, run_parser
from npvae.vae import reparameterize

NOISE_SEED = 1  # the same noise at each evaluation, so that the same parameters give the same numbers
BLOCK = 500  # images encoded at once
ROWS = 500  # images times samples decoded at once
BOUNDS = (1, 5, 50, 500, 5000)  # samples of the importance-weighted bounds
ACTIVE = 0.01  # variance of a latent's posterior mean over the examples above which it is active (Burda et al. 2016)


def estimates(vae, images, labels, samples, bounds=(), progress=False):
    """Importance sampling from q(z|x): the terms of the ELBO and the importance-weighted bounds of each example.

    Parameters
    ----------
    vae : VAE
    images : (N, D) uint8 array
    labels : (N,) uint8 array or None
    samples : int
        K, drawn for each example with a fixed seed.
    bounds : sequence of int
        The k, at most K, of the bounds; each is averaged over the K // k groups of k samples.
    progress : bool
        Show a bar, on a terminal.

    Returns
    -------
    dict of str to float64 array
        Nats: 'reconstruction' −E log p(x|z) (N,), 'kl' (N, J) of each latent, and 'iwae' (len(bounds), N), the losses
        −log 1/k Σ w (Burda et al. 2016), which fall towards −log p(x) as k grows; 'mu' (N, J).
    """
    rng = np.random.default_rng(NOISE_SEED)
    shape = (len(images), vae.latent)
    result = {"reconstruction": np.empty(len(images)), "kl": np.empty(shape), "mu": np.empty(shape)}
    result["iwae"] = np.empty((len(bounds), len(images)))
    block = max(1, min(BLOCK, 5_000_000 // samples))  # a few arrays (K, block) are held at once
    with tqdm(total=len(images), unit=" images", disable=None if progress else True, leave=False) as bar:
        for start in range(0, len(images), block):
            rows = slice(start, start + block)
            x, y = batch(images, rows), one_hot(labels, rows, vae.classes)
            mu, logvar = vae.encode(x, y)
            log_p_x, log_w = np.empty((2, samples, len(x)))
            size = max(1, ROWS // len(x))
            for first in range(0, samples, size):
                chunk = slice(first, min(first + size, samples))
                eps = rng.standard_normal((chunk.stop - first, *mu.shape), np.float32)
                z = reparameterize(mu, logvar, eps)
                log_p_x[chunk] = vae.likelihood.log_density(x, vae.decoder_outputs(z, y))
                log_w[chunk] = log_weights(log_p_x[chunk], z, mu, logvar)
                bar.update(len(x) * len(eps) / samples)
            result["reconstruction"][rows] = -log_p_x.mean(axis=0)
            result["kl"][rows] = gaussian_kl(mu[..., None], logvar[..., None])
            result["mu"][rows] = mu
            for i, k in enumerate(bounds):
                groups = log_w[: samples // k * k].reshape(-1, k, len(x))
                result["iwae"][i, rows] = -log_mean_exp(groups.swapaxes(0, 1)).mean(axis=0)
    return result


def bound_terms(vae, images, labels=None, samples=1):
    """The bound that `vae` was trained on, at β = 1, and the two terms of −ELBO (eq. 10).

    Parameters are those of `estimates`. Returns a dict of str to (N,) float64 array, nats: 'loss', 'reconstruction' and
    'kl', of which the first is the sum of the others, or −log 1/K Σ w where that was the objective.
    """
    weighted = vae.objective.loss is iwae
    terms = estimates(vae, images, labels, samples, (samples,) if weighted else ())
    reconstruction, kl = terms["reconstruction"], terms["kl"].sum(axis=1)
    loss = terms["iwae"][0] if weighted else reconstruction + kl
    return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


def protocol(config):
    """What the losses of a run are about: values under two protocols cannot be compared."""
    if config.likelihood == "gaussian":
        return "grey pixels, byte / 255, with a Gaussian density"
    return BINARIZATIONS[config.binarize]


def evaluate(run, dataset, samples, progress=False):
    """What the command says about a run, as a dict that can be written as JSON; the losses are nats per example."""
    vae = run.vae(dataset)
    bounds = sorted({k for k in BOUNDS if k < samples} | {samples})
    terms = estimates(vae, dataset.test_images, dataset.test_labels, samples, bounds, progress)
    kl_of_latents, iwae_losses = terms["kl"].mean(axis=0), list(map(_mean, terms["iwae"]))
    variance = terms["mu"].var(axis=0)
    return {
        "run": str(run.folder),
        "epochs": len(run.metrics()),
        "dataset": dataset.name,
        "examples": len(dataset.test_images),
        "protocol": protocol(run.config),
        "objective": run.config.objective,
        "importance_samples": samples,
        "noise_seed": NOISE_SEED,
        "unit": "nats per example",
        "loss": _mean(terms["reconstruction"] + terms["kl"].sum(axis=1)),  # −ELBO
        "reconstruction": _mean(terms["reconstruction"]),
        "kl": _mean(terms["kl"].sum(axis=1)),
        "iwae_loss": dict(zip(map(str, bounds), iwae_losses, strict=True)),
        "negative_log_likelihood": iwae_losses[-1],
        "kl_of_latents": kl_of_latents.tolist(),
        "variance_of_latents": variance.tolist(),
        "active_units": int((variance > ACTIVE).sum()),
    }


def _mean(values):
    count = len(values)
    return {"mean": values.mean(), "standard_error": values.std(ddof=1) / math.sqrt(count) if count > 1 else None}


def describe(result):
    """The result of `evaluate` as lines for a reader."""

    def line(name, value):
        error = value["standard_error"]
        return f"  {name:<28} {value['mean']:9.3f} ± {math.nan if error is None else error:.3f}"

    samples = result["importance_samples"]
    yield (
        f"{result['examples']:,} test examples, {result['protocol']}; {samples:,} sample"
        f"{'s' * (samples > 1)} of z per example (seed {result['noise_seed']}); nats per example ± standard error"
    )
    yield line("loss (−ELBO)", result["loss"])
    yield line("  reconstruction", result["reconstruction"])
    yield line("  KL", result["kl"])
    for k, value in result["iwae_loss"].items():
        yield line(f"−IWAE bound, K = {int(k):,}", value)
    if samples > 1:
        yield line("−log p(x), estimate", result["negative_log_likelihood"])
    order = np.argsort(result["kl_of_latents"])[::-1]
    kls = " ".join(f"z{i + 1} {result['kl_of_latents'][i]:.2f}" for i in order)
    yield f"  active units: {result['active_units']} of {len(order)} (variance of mu over the examples above {ACTIVE})"
    yield f"  KL of each latent: {kls}"


@command("npvae.evaluate")
def main(arguments=None):
    """Print the bounds of a run on its test set; with importance samples leave them in its folder, with a plot."""
    parser = run_parser("npvae.evaluate", "Evaluate a run on its test set.")
    parser.add_argument(
        "--importance-samples",
        type=positive,
        metavar="K",
        help="samples of z per example (default: as in training); 500 estimate log p(x) roughly, 5000 well",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)

    run = Run.open(options.run)
    dataset = run.dataset(options.data_dir)
    samples = options.importance_samples or run.config.samples
    result = evaluate(run, dataset, samples, progress=True)
    print(json.dumps(result) if options.json else "\n".join([str(dataset), *describe(result)]))
    if samples > 1:
        from npvae import plot  # matplotlib takes a second to import

        run.save_evaluation(result)
        plot.draw(run, None, dataset, ["bounds"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
