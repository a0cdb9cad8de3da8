"""Train a VAE: `python -m npvae.train`."""

import dataclasses
import itertools
import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
import zlib
from datetime import datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from npvae.commands import OneLineParser, UserError, command
from npvae.config import Config, add_settings, given_settings, option_name
from npvae.data.datasets import batch, data_folder, draw_binary, one_hot
from npvae.evaluate import bound_terms
from npvae.optimizers import OPTIMIZERS
from npvae.runs import TEXT_COLUMNS, Run, load_data, make_vae, restore, taken

WEIGHTS, ORDER, NOISE = range(3)  # what a run draws, each from a stream of its own
EXTENDABLE = ("epochs", "dataset", "data_dir")  # may change when a run is resumed; the images must be the same


class Diverged(Exception):
    """The loss is no longer a finite number."""


class Training:
    """All that changes while a model trains: two of them with the same state go on alike, bit for bit.

    Initial weights, noise and the order of the examples in each epoch are independent streams of one seed. The order is
    a function of the epoch; the noise, dynamic binarization included, goes on from the state of its generator, which is
    part of the checkpoint, as are the sums over the part of an epoch that is done.
    """

    def __init__(self, config, dataset):
        self.config, self.images, self.labels = config, dataset.train_images, dataset.train_labels
        self.rng = self.stream(NOISE)
        self.vae = make_vae(config, dataset, self.stream(WEIGHTS))
        if config.output_bias == "mean":
            mean = np.clip(self.images.mean(axis=0) / 255, 0.001, 0.999)  # (D,); of 0 the bias would be −∞
            self.vae.decoder.layers[-1].b[: len(mean)] = np.log(mean / (1 - mean))  # sigmoid⁻¹
        adam = {"beta1": config.adam_beta1, "beta2": config.adam_beta2, "epsilon": config.adam_epsilon}
        constants = adam if config.optimizer == "adam" else {}
        self.optimizer = OPTIMIZERS[config.optimizer](self.vae.parameters, config.learning_rate, **constants)
        self.epoch = np.zeros((), np.int64)  # finished epochs
        self.examples = np.zeros((), np.int64)  # done in the epoch that is under way
        self.sums = np.zeros(4)  # over these: loss, reconstruction and KL, nats, and seconds
        # so that no run goes on with other data
        checksum = zlib.crc32(self.labels if config.conditional else b"", zlib.crc32(self.images))
        self.data = np.array([len(self.images), checksum])

    def stream(self, *purpose):
        """A generator for one purpose; a seed's streams are independent of each other and of every other seed's."""
        return np.random.default_rng(np.random.SeedSequence(self.config.seed, spawn_key=purpose))

    def arrays(self):
        """All that a checkpoint holds, name → array, but the generator's state."""
        arrays = {
            "parameters": self.vae.parameters.values,
            "epoch": self.epoch,
            "examples": self.examples,
            "sums": self.sums,
        }
        return arrays | {f"optimizer.{name}": array for name, array in self.optimizer.state.items()}

    def save(self, run):
        random_state = np.array(json.dumps(self.rng.bit_generator.state))
        run.save_checkpoint(self.arrays() | {"data": self.data, "random_state": random_state})

    def load(self, run):
        state = run.load_checkpoint()
        if not np.array_equal(state.get("data"), self.data):
            raise UserError(f"{run.folder} was trained on other images or labels than these {len(self.images):,}")
        for name, array in self.arrays().items():
            restore(array, state, name, run.checkpoint)
        if not (self.epoch >= 0 and 0 <= self.examples <= len(self.images)):
            raise UserError(f"{run.checkpoint} stands at epoch {self.epoch}, example {self.examples}: it is broken")
        try:
            self.rng.bit_generator.state = json.loads(str(state["random_state"]))
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{run.checkpoint} has no random state that NumPy can go on from: {error}") from error

    def steps(self):
        """Finish the epoch that is under way; yields after each step the number of its examples."""
        order = self.stream(ORDER, int(self.epoch)).permutation(len(self.images))
        self.optimizer.learning_rate = self.config.learning_rate_after(self.epoch)
        while self.examples < len(self.images):
            began = time.perf_counter()
            x, y = self.inputs(order[self.examples : self.examples + self.config.batch_size])
            eps = self.rng.standard_normal((self.config.samples, len(x), self.config.latent), np.float32)
            loss = self.vae.loss(x, eps, y, self.beta())
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss}")
            self.vae.backward()
            self.optimizer.step()
            seconds = time.perf_counter() - began
            vae = self.vae
            self.sums += *(terms.sum().item() for terms in (vae.losses, vae.reconstruction, vae.kl)), seconds
            self.examples += len(x)
            yield len(x)

    def inputs(self, rows):
        """(x, y): the pixels of these examples, binarized anew if that is the protocol, and their labels."""
        images = self.images[rows]
        if self.config.binarize == "dynamic":
            images = draw_binary(images, self.rng)
        return batch(images), one_hot(self.labels, rows, self.vae.classes)

    def beta(self):
        """The weight of the KL term in the step that comes next."""
        return self.config.beta_after(float(self.epoch + self.examples / len(self.images)))

    def end_epoch(self):
        self.epoch += 1
        self.examples[...] = 0
        self.sums[...] = 0

    def position(self):
        """Where the training is, in words: the step that comes next, counted from 1 at the start of the run."""
        per_epoch = math.ceil(len(self.images) / self.config.batch_size)
        step = int(self.epoch) * per_epoch + math.ceil(self.examples / self.config.batch_size)
        return f"step {step + 1:,} (epoch {self.epoch + 1} of {self.config.epochs})"


class StopRequest:
    """While entered, Ctrl-C and SIGTERM are noted in `signal` instead of acted upon; a second one acts at once."""

    def __enter__(self):
        self.signal = None
        self.handlers = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def note(self, number, frame):
        self.signal = number
        self.__exit__()

    def __exit__(self, *exception):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def fit(training, run, dataset, stop):
    """Train to the last epoch, or to the step in which `stop.signal` is set; both ends, and each epoch, are saved."""
    rows = run.metrics()[: int(training.epoch)]  # a kill between metrics and checkpoint leaves a row too many
    while training.epoch < training.config.epochs and not stop.signal:
        train_epoch(training, stop)
        if not np.isfinite(training.vae.parameters.values).all():
            raise Diverged("a parameter is not finite")
        if stop.signal:
            training.save(run)
            return
        rows.append(measure(training, dataset, rows[-1]["seconds"] if rows else 0))
        line = describe(rows[-1], training)
        run.write_metrics(rows)
        training.end_epoch()
        training.save(run)
        tqdm.write(line)  # last, because whoever reads the output may have gone
        sys.stdout.flush()


def train_epoch(training, stop):
    """Finish the epoch that is under way, or the step in which `stop.signal` is set, behind a bar on a terminal."""
    title = f"epoch {training.epoch + 1}/{training.config.epochs}"
    done, count = int(training.examples), len(training.images)
    with tqdm(desc=title, initial=done, total=count, unit=" images", disable=None, leave=False) as bar:
        for examples in training.steps():
            if not bar.disable:
                bar.set_postfix_str("loss " + in_words(*training.sums[:3] / training.examples), refresh=False)
                bar.update(examples)
            if stop.signal:
                return


def measure(training, dataset, seconds_before):
    """Evaluate at the end of an epoch: the row for metrics.csv."""
    began = time.perf_counter()
    config = training.config
    terms = bound_terms(training.vae, dataset.test_images, dataset.test_labels, config.samples)
    if not np.isfinite(terms["loss"]).all():
        raise Diverged("the loss of a test image is not finite")
    epoch, count = int(training.epoch) + 1, len(training.images)
    row = {"epoch": epoch, "examples": epoch * count}
    row |= {name: getattr(config, name) for name in TEXT_COLUMNS}
    last_step = (count - 1) // config.batch_size * config.batch_size / count
    row |= {"samples": config.samples, "beta": config.beta_after(epoch - 1 + last_step)}
    row["learning_rate"] = config.learning_rate_after(epoch - 1)
    *means, seconds = (training.sums / (count, count, count, 1)).tolist()
    row |= dict(zip(("train_loss", "train_reconstruction", "train_kl"), means, strict=True))
    row |= {f"test_{name}": values.mean() for name, values in terms.items()}
    row["seconds"] = seconds_before + seconds + time.perf_counter() - began
    return row


def in_words(loss, reconstruction, kl):
    """A loss, and reconstruction and KL of the same samples, with = and + where they add up to it."""
    if abs(loss - reconstruction - kl) < 0.005:
        return f"{loss:6.2f} = {reconstruction:6.2f} + KL {kl:5.2f}"
    return f"{loss:6.2f} ({reconstruction:6.2f}, KL {kl:5.2f})"


def describe(row, training):
    """The row of an epoch in a line, with the speed of its training steps."""
    train, test = (
        f"{split} {in_words(row[f'{split}_loss'], row[f'{split}_reconstruction'], row[f'{split}_kl'])}"
        for split in ("train", "test")
    )
    beta = f"   β {row['beta']:.3g}" * (row["beta"] != 1)
    epochs, speed = training.config.epochs, len(training.images) / training.sums[3]
    return f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}   {train}   {test}{beta}   {speed:,.0f} images/s"


def prepare(config):
    """Load the data that the settings name: (settings with what they were resolved to, dataset, training)."""
    dataset = load_data(config, config.data_dir)
    # a run finds its data again from any folder, and never falls back to others
    config = dataclasses.replace(config, dataset=dataset.name, data_dir=str(data_folder(config.data_dir).resolve()))
    return config, dataset, Training(config, dataset)


def start(options):
    """Make a new run of the given settings: (run, dataset, training)."""
    config = Config(**given_settings(options))
    if options.out is not None and os.path.lexists(options.out):
        raise UserError(taken(options.out))
    config, dataset, training = prepare(config)
    out = options.out
    if out is None:
        out = free_name(f"{Path(dataset.name).name}-{datetime.now():%Y%m%d-%H%M%S}")
    run = Run.create(out, config)
    with run.removed_on_failure():
        training.save(run)
    return run, dataset, training


def free_name(name):
    """The first of runs/name, runs/name-2, runs/name-3, … that is not taken."""
    folders = (Path("runs", name if i == 1 else f"{name}-{i}") for i in itertools.count(1))
    return next(folder for folder in folders if not folder.exists())


def resume(options):
    """Go on with a run where its checkpoint was saved: (run, dataset, training)."""
    run = Run.open(options.resume)
    changes = given_settings(options)
    if options.out is not None:
        raise UserError("--out cannot be given with --resume: a resumed run stays where it is")
    for name, value in changes.items():
        before = getattr(run.config, name)
        text = " ".join(map(str, before)) if isinstance(before, tuple) else before
        if name not in EXTENDABLE and value != before:
            raise UserError(f"{option_name(name)} cannot change on --resume: {run.folder} has {text or 'none'}")
    config, dataset, training = prepare(dataclasses.replace(run.config, **changes))
    training.load(run)
    epochs = len(run.metrics())
    if epochs < training.epoch:
        raise UserError(f"{run.folder / 'metrics.csv'} has {epochs} of {training.epoch} finished epochs")
    if config.epochs < training.epoch:
        raise UserError(f"--epochs {config.epochs}: {run.folder} has finished {training.epoch} already")
    run.save_config(config)
    return run, dataset, training


@command("python -m npvae.train")
def main(arguments=None):
    """Train, evaluate after every epoch, leave a run folder; returns the exit code."""
    parser = OneLineParser(
        "python -m npvae.train",
        "Train a variational autoencoder. Losses are nats per example: −ELBO, or the objective that is named.",
    )
    add_settings(parser)
    parser.add_argument("--out", metavar="RUN", help="folder of the new run (default: runs/DATASET-DATE-TIME)")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with this run and its settings; --epochs, the total, can grow, and the data can have moved",
    )
    options = parser.parse_args(arguments)

    run, dataset, training = (start if options.resume is None else resume)(options)
    print(dataset)
    print(f"run: {run.folder}; {training.vae}, {training.vae.parameters.values.size:,} parameters", flush=True)
    with StopRequest() as stop:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is told in words of our own
                fit(training, run, dataset, stop)
        except MemoryError:
            if options.resume is None and training.epoch == training.examples == 0:
                shutil.rmtree(run.folder)  # no step of this run will ever fit
            raise
        except Diverged as error:
            where = f"{training.position()}, learning rate {training.optimizer.learning_rate:g}"
            advice = f"the last good checkpoint is {run.checkpoint}: train again with a smaller learning rate"
            print(f"python -m npvae.train: {error} at {where}; {advice}", file=sys.stderr)
            return 1
    if stop.signal and training.epoch < run.config.epochs:
        print(
            f"stopped by {signal.Signals(stop.signal).name} before {training.position()} and saved; "
            f"go on with: python -m npvae.train --resume {shlex.quote(str(run.folder))}"
        )
        return 128 + stop.signal
    return finish(training, run, dataset)


def finish(training, run, dataset):
    """Draw the basic pictures and say what came out."""
    from npvae import plot  # matplotlib takes a second to import: not before it is needed

    last = run.metrics()[-1]
    after = f"{last['epoch']:.0f} epoch{'s' * (last['epoch'] > 1)}, {last['seconds']:.0f} s"
    loss = f"test loss ({run.config.bound}) {last['test_loss']:.2f} nats per example"
    print(f"{loss} after {after}; the run and its images are in {run.folder}")
    plot.draw(run, training.vae, dataset, plot.BASIC)
    print(f"next: python -m npvae.plot {shlex.quote(str(run.folder))}")
    print(f"      python -m npvae.evaluate {shlex.quote(str(run.folder))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
