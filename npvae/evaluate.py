"""How well a model does on examples that it has not seen: `python -m npvae.evaluate RUN`."""

import json
import math
import signal
import sys

import numpy as np
from tqdm import tqdm

from npvae.commands import StopRequest, UserError, command, complain, positive, say
from npvae.data.pixels import BINARIZATIONS, batch, one_hot
from npvae.distributions import gaussian_kl
from npvae.objectives import log_mean_exp, log_weights
from npvae.parallel import ALONE, hides_bars, this_team, together
from npvae.runs import Run, epochs_done, require_fit, run_parser
from npvae.vae import reparameterize

PROGRAM = "python -m npvae.evaluate"
NOISE_SEED = 1  # the same noise at each evaluation, unless asked for: the same parameters give the same numbers
ENCODED_AT_ONCE = 100  # images, a block, or fewer, so that
LOG_WEIGHTS_AT_ONCE = 5_000_000  # at most so many, images times samples, are held
DECODED_AT_ONCE = 500  # images times samples
BOUNDS = (1, 5, 50, 500, 5000)  # samples of the importance-weighted bounds
APART = 1.3  # bounds whose numbers of samples differ by a smaller factor are hardly two: their labels would overlap
ENOUGH = 500  # samples from which on the bound may be called an estimate of −log p(x)
ACTIVE = 0.01  # variance of a latent's posterior mean over the examples above which it is active (Burda et al. 2016)


def noise(block, seed=NOISE_SEED):
    """The generator of the noise of a block of examples: the same at each evaluation, whichever process does it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,)))


def estimates(vae, images, labels, samples, bounds=(), progress=False, stop=None, team=ALONE, seed=NOISE_SEED):
    """Importance sampling from q(z|x): the terms of the ELBO and the importance-weighted bounds of each example.

    The examples are cut into blocks, each with noise of its own, which the processes of a team take in rounds.

    Parameters
    ----------
    vae : VAE
    images : (N, D) uint8 array
    labels : (N,) uint8 array or None
    samples : int
        K, drawn for each example.
    bounds : sequence of int
        The k, at most K, of the bounds; each is averaged over the K // k groups of k samples.
    progress : bool
        Show a bar, on a terminal.
    stop : StopRequest, optional
        Where its `signal` is set, the rest of the examples is left out: N is then the number of those that were done.
        Of a team each process is told of a signal that came to one.
    team : Alone or Team
        All of its processes call this, and get the same.
    seed : int
        Of the noise.

    Returns
    -------
    dict of str to float64 array
        Nats: 'reconstruction' −E log p(x|z) (N,), 'kl' (N, J) of each latent, and 'iwae' (len(bounds), N), the losses
        −log 1/k Σ w (Burda et al. 2016), which fall towards −log p(x) as k grows; 'mu' (N, J).

    Raises
    ------
    ValueError
        If there are no samples, or not enough for a bound.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected 1 or more")
    if any(not 1 <= k <= samples for k in bounds):
        raise ValueError(f"bounds are {', '.join(map(str, bounds))}: expected each from 1 to samples, {samples}")
    count, done = len(images), 0
    # of the blocks of other processes this one has zeros
    result = {"reconstruction": np.zeros(count), "iwae": np.zeros((count, len(bounds)))}
    result |= {"kl": np.zeros((count, vae.latent)), "mu": np.zeros((count, vae.latent))}
    size = max(1, min(ENCODED_AT_ONCE, LOG_WEIGHTS_AT_ONCE // samples))
    blocks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    off = hides_bars() if progress else True
    with tqdm(total=count * samples, unit=" samples", unit_scale=True, disable=off, leave=False) as bar:
        for first in range(0, len(blocks), team.size):
            taken = blocks[first : first + team.size]  # a round: a block for each process, as far as they go
            stopped = 0
            if team.rank < len(taken):
                block, rows = first + team.rank, taken[team.rank]
                x, y = batch(images, rows), one_hot(labels, rows, vae.classes)
                sampled = sample(vae, x, y, samples, noise(block, seed), stop, bar, len(taken))
                if sampled is None:
                    stopped = stop.signal
                else:
                    mu, logvar, log_p_x, log_w = sampled
                    result["reconstruction"][rows] = -log_p_x.mean(axis=0)
                    result["kl"][rows] = gaussian_kl(mu[..., None], logvar[..., None])
                    result["mu"][rows] = mu
                    for i, k in enumerate(bounds):
                        groups = log_w[: samples // k * k].reshape(-1, k, len(x))
                        result["iwae"][rows, i] = -log_mean_exp(groups.swapaxes(0, 1)).mean(axis=0)
            (stopped,) = team.most(stopped)
            if stopped:
                stop.signal = stopped
                break
            done = taken[-1].stop
    result = {name: team.all_reduce(array)[:done] for name, array in result.items()}
    return result | {"iwae": result["iwae"].T}


def sample(vae, x, y, samples, rng, stop, bar, workers):
    """(mu (B, J), logvar (B, J), log_p_x (K, B), log_w (K, B)) of K samples for each x (B, D).

    None where `stop.signal` is set before all are drawn. The bar moves as if all workers were as far as this one.
    """
    # in float64, because (z − mu) / sigma loses its digits where sigma is small
    mu, logvar = (array.astype(np.float64) for array in vae.encode(x, y))
    log_p_x, log_w = np.empty((2, samples, len(x)))
    size = max(1, DECODED_AT_ONCE // len(x))
    for first in range(0, samples, size):
        if stop and stop.signal:
            return None
        chunk = slice(first, min(first + size, samples))
        eps = rng.standard_normal((chunk.stop - first, *mu.shape), np.float32)
        z = reparameterize(mu, logvar, eps)
        log_p_x[chunk] = vae.likelihood.log_density(x, vae.decoder_outputs(z.astype(vae.precision), y))
        log_w[chunk] = log_weights(log_p_x[chunk], z, mu, logvar)
        bar.update(eps.shape[0] * eps.shape[1] * workers)
    return mu, logvar, log_p_x, log_w


def loss_terms(vae, images, labels=None, samples=1, team=ALONE):
    """What the metrics say of each example: the bound that `vae` is trained on, at β = 1, and the terms of −ELBO.

    Parameters are those of `estimates`. Returns a dict of str to (N,) float64 array, nats: 'loss', 'reconstruction' and
    'kl'. The loss is −log 1/K Σ w where the objective is that, else the sum of the others: −ELBO with the KL in closed
    form (eq. 10), also where training samples it (eq. 6).
    """
    weighted = vae.objective.importance_weighted
    terms = estimates(vae, images, labels, samples, (samples,) if weighted else (), team=team)
    reconstruction, kl = terms["reconstruction"], terms["kl"].sum(axis=1)
    loss = terms["iwae"][0] if weighted else reconstruction + kl
    return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


def protocol(config):
    """What the losses of a run are about, in words; values about different things cannot be compared."""
    if config.likelihood == "gaussian":
        pixels = "grey pixels, byte / 255, with a Gaussian density"
    elif config.dataset == "binarized-mnist":
        pixels = "pixels binarized by Larochelle and Murray"
    else:
        pixels = BINARIZATIONS[config.binarize]
    return pixels + ", given their labels" * config.conditional


def evaluate(run, dataset, samples, progress=False, stop=None, team=ALONE, seed=NOISE_SEED):
    """What the command says about a run, as a dict that can be written as JSON; the losses are nats per example.

    Where `stop`, a `StopRequest`, ends it, it is about the test examples that were done; None if there was none.
    """

    def load():
        state = run.load_checkpoint()  # once: a run that still trains replaces it
        vae = run.vae(state)
        require_fit(dataset, vae)
        return epochs_done(state, dataset), vae

    epochs, vae = team.broadcast(load)
    bounds = [k for k in BOUNDS if APART * k < samples] + [samples]
    terms = estimates(vae, dataset.test_images, dataset.test_labels, samples, bounds, progress, stop, team, seed)
    if not len(terms["mu"]):
        return None
    iwae_losses = list(map(mean_and_error, terms["iwae"]))
    variance = terms["mu"].var(axis=0)
    return {
        "run": str(run.folder),
        "epochs": round(epochs, 3),
        "dataset": dataset.name,
        "examples": len(terms["mu"]),
        "protocol": protocol(run.config),
        "objective": run.config.objective,
        "importance_samples": samples,
        "noise_seed": seed,
        "unit": "nats per example",
        "elbo_loss": mean_and_error(terms["reconstruction"] + terms["kl"].sum(axis=1)),
        "reconstruction": mean_and_error(terms["reconstruction"]),
        "kl": mean_and_error(terms["kl"].sum(axis=1)),
        "iwae_loss": dict(zip(map(str, bounds), iwae_losses, strict=True)),
        "negative_log_likelihood": iwae_losses[-1] if samples >= ENOUGH else None,
        "kl_of_latents": terms["kl"].mean(axis=0).tolist(),
        "variance_of_mu": variance.tolist(),
        "active_units": int((variance > ACTIVE).sum()),
    }


def mean_and_error(values):
    count = len(values)
    return {"mean": values.mean(), "standard_error": values.std(ddof=1) / math.sqrt(count) if count > 1 else None}


def describe(result, config):
    """The result of `evaluate` in lines for a reader."""

    def line(name, value):
        error = value["standard_error"]
        return f"  {name:<28} {value['mean']:9.3f} ± {math.nan if error is None else error:.3f}"

    samples = result["importance_samples"]
    epochs = f"{result['epochs']:g} epoch{'s' * (result['epochs'] != 1)}"
    yield f"{result['examples']:,} test examples after {epochs} of {config.objective}"
    yield f"protocol: {result['protocol']}"
    yield (
        f"nats per example ± standard error; {samples:,} sample{'s' * (samples > 1)} of z per example, "
        f"seed {result['noise_seed']}"
    )
    yield line("−ELBO", result["elbo_loss"])
    yield line("  reconstruction", result["reconstruction"])
    yield line("  KL", result["kl"])
    for k, value in result["iwae_loss"].items():
        yield line(f"−IWAE bound, K = {int(k):,}", value)
    if samples >= ENOUGH:
        yield line(f"−log {config.evidence}, estimate", result["negative_log_likelihood"])
    order = np.argsort(result["kl_of_latents"])[::-1]
    kls = ", ".join(f"z{i + 1} {result['kl_of_latents'][i]:.2f}" for i in order)
    yield f"  active units: {result['active_units']} of {len(order)} (variance of mu over the examples above {ACTIVE})"
    yield f"  KL of each latent: {kls}"


@together
@command(PROGRAM)
def main(arguments=None):
    """Print the bounds of a run on its test set; if importance samples are asked for, keep them in its folder."""
    parser = run_parser(PROGRAM, "Evaluate a run on its test set.")
    parser.add_argument(
        "--importance-samples",
        type=positive,
        metavar="K",
        help="samples of z per example (default: as in training); on MNIST 500 estimate log p(x) roughly in a minute,"
        " 5000 well in ten; kept in RUN/evaluation.json and drawn as RUN/images/bounds.png",
    )
    parser.add_argument(
        "--noise-seed",
        type=lambda text: positive(text, 0),
        default=NOISE_SEED,
        metavar="SEED",
        help=f"of the samples, to see how much a number depends on them (default: {NOISE_SEED})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")

    def begin():  # in the first process
        options = parser.parse_args(arguments)
        run = Run.open(options.run, options.data_dir)
        return options, run, run.dataset()

    team = this_team()
    options, run, dataset = team.broadcast(begin)
    with StopRequest() as stop:
        result = evaluate(
            run, dataset, options.importance_samples or run.config.samples, True, stop, team, options.noise_seed
        )
    team.leave()
    if not team.leads:
        return 0
    if stop.signal:
        name, total = signal.Signals(stop.signal).name, len(dataset.test_images)
        kept = (
            f"this is of the first {result['examples']:,} of" if result else "it was too early to say anything of the"
        )
        complain(PROGRAM, f"stopped by {name}: {kept} {total:,} test examples" + ", and not kept" * bool(result))
    if result is None:
        return 128 + stop.signal
    about = [dataset, *[team] * (team.size > 1)]
    for line in [json.dumps(result)] if options.json else [*about, *describe(result, run.config)]:
        say(line)
    if stop.signal:
        return 128 + stop.signal
    if options.importance_samples:
        from npvae import plot  # matplotlib takes a second to import

        try:
            run.save_evaluation(result)
            drawn = plot.draw(run, ["bounds"])
        except OSError as error:
            raise UserError(f"{run.folder} cannot be written ({error.strerror}): keep what was printed") from error
        if not options.json:
            say(f"  kept in {run.evaluation} and {drawn['bounds']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
