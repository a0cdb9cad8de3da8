"""Train a VAE: `python -m npvae.train`."""

import argparse
import contextlib
import dataclasses
import errno
import itertools
import os
import shlex
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from npvae import film
from npvae.commands import OneLineParser, StopRequest, UserError, command, complain, say, say_last
from npvae.config import EXTENDABLE, Config, option_name
from npvae.data.datasets import data_folder
from npvae.evaluate import loss_terms
from npvae.options import add_settings, given_settings
from npvae.parallel import THREADS, cores, hides_bars, this_team, together
from npvae.runs import TEXT_COLUMNS, Run, is_free, load_data, taken
from npvae.training import Diverged, Training

PROGRAM = "python -m npvae.train"
WIDTH = 80  # columns of a terminal, as narrow as they usually are
SHARE = 0.01  # of the time, at most, is for checkpoints within an epoch


class Saver:
    """Saves a training, within an epoch so seldom that it takes a hundredth of the time at most."""

    def __init__(self, training, run):
        self.training, self.run = training, run
        self.due = time.monotonic() + training.config.checkpoint_every

    def save(self):
        began = time.monotonic()
        self.training.save(self.run)
        saved = time.monotonic()
        self.due = saved + max(self.training.config.checkpoint_every, (saved - began) / SHARE)

    def is_due(self):
        return self.training.team.leads and time.monotonic() >= self.due  # by one clock, where there are several


def fit(training, run, dataset, stop):
    """Train to the last epoch, or to the step in which `stop.signal` is set; both ends, and each epoch, are saved.

    Of several processes the first writes and speaks. Returns the signal that stopped them, whichever it came to, or 0.
    """
    team = training.team
    camera = film.Camera(run, training, dataset) if training.config.film and team.leads else None
    saver = Saver(training, run)
    with progress(training) as bar:
        (stopped,) = team.most(stop.signal or 0)
        while training.epoch < training.config.epochs and not stopped:
            stopped = train_epoch(training, saver, bar, stop, camera)
            if stopped:
                saver.save()
                break
            training.require_finite()
            training.rows.append(measure(training, dataset))
            line = describe(training.rows[-1], training.config.epochs, speed(training))
            if team.leads:
                run.write_metrics(training.rows)
            training.end_epoch()
            saver.save()
            tqdm.write(line)  # last, because whoever reads the output may have gone
            sys.stdout.flush()
            (stopped,) = team.most(stop.signal or 0)
    if camera and training.epoch == training.config.epochs:
        camera.record()
    return stopped


def progress(training):
    """A bar over the whole run, which stands where the training stands; on a terminal only."""
    count = len(training.images)
    return tqdm(
        initial=int(training.epoch) * count + int(training.examples),
        total=training.config.epochs * count,
        smoothing=0,  # the time left is by the mean speed, which the evaluations slow down
        delay=0.1,  # not before there is something to show
        bar_format="{desc} |{bar}| {remaining} left{postfix}",
        disable=hides_bars(),
        leave=False,
    )


def train_epoch(training, saver, bar, stop, camera):
    """Finish the epoch that is under way, or the step in which `stop.signal` is set; save it now and then.

    Returns the signal, or 0.
    """
    bar.set_description_str(f"epoch {training.epoch + 1}/{training.config.epochs}", refresh=False)
    for examples in training.steps():
        if not bar.disable:
            loss = in_words(*training.sums[:3] / training.examples, decimals=1)
            bar.set_postfix_str(f"{tqdm.format_sizeof(speed(training))} images/s, loss {loss}", refresh=False)
            bar.update(examples)
        if camera:
            camera.after_step()
        stopped, save = training.team.most(stop.signal or 0, saver.is_due())
        if stopped:
            return stopped
        if save:
            saver.save()
    return 0


def speed(training):
    """Images per second of the training steps in the epoch that is under way."""
    return training.examples / training.sums[3]


def measure(training, dataset):
    """Evaluate at the end of an epoch: the row for metrics.csv."""
    began = time.perf_counter()
    config = training.config
    terms = loss_terms(training.vae, dataset.test_images, dataset.test_labels, config.samples, training.team)
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
    before = training.rows[-1]["seconds"] if training.rows else 0
    row["seconds"] = before + seconds + time.perf_counter() - began
    return row


def in_words(loss, reconstruction, kl, decimals=2):
    """A loss, and reconstruction and KL of the same samples, with = and + where they add up to it."""
    half_a_digit = 0.5 * 10**-decimals  # rounding hides as much
    adds_up = abs(loss - reconstruction - kl) < half_a_digit
    total, first, second = (f"{nats:.{decimals}f}" for nats in (loss, reconstruction, kl))
    return f"{total} = {first} + KL {second}" if adds_up else f"{total} ({first}, KL {second})"


def describe(row, epochs, speed):
    """The row of an epoch in a line; the speed, the least of it, only where 80 columns have room for it."""
    epoch = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
    test = in_words(*(row[f"test_{name}"] for name in ("loss", "reconstruction", "kl")))
    parts = [epoch, f"train {row['train_loss']:.2f}", f"test {test}"]
    if row["beta"] != 1:
        parts.append(f"β {row['beta']:.3g}")
    line, with_speed = ("  ".join(shown) for shown in (parts, [*parts, f"{speed:,.0f} images/s"]))
    return with_speed if len(with_speed) <= WIDTH else line


def find_data(config):
    """Load the data that the settings name: (settings with what they were resolved to, dataset)."""
    if config.dataset == "binarized-mnist" and config.binarize != "none":  # of a new run: explore makes such settings
        raise UserError(f"--binarize {config.binarize}: the pixels of binarized-mnist are binary already; leave it out")
    dataset = load_data(config)
    # a run finds its data again from any folder, and never falls back to others
    data_dir = os.path.realpath(data_folder(config.data_dir))
    return dataclasses.replace(config, dataset=dataset.name, data_dir=data_dir), dataset


def prepare(config):
    """Be ready to train: (settings with what they were resolved to, dataset, training)."""
    config, dataset = find_data(config)
    return config, dataset, Training(config, dataset)


def start(options, stack):
    """Make a new run of the given settings, locked until `stack` is left: (run, dataset, training)."""
    config = Config(**given_settings(options))
    out = options.out
    if out is not None and os.path.lexists(out) and not (os.path.isdir(out) and is_free(Path(out))):
        raise UserError(taken(out))
    config, dataset, training = prepare(config)
    if out is None:
        out = free_name(f"{Path(dataset.name).name}-{datetime.now():%Y%m%d-%H%M%S}")
    run = Run.create(out, config, stack)
    with run.removed_on_failure():
        training.save(run)
    return run, dataset, training


def threads_advice():
    """A line for a machine that other programs keep busy, where OpenBLAS is free to start threads; else None.

    Its threads wait for each other by spinning, on cores that another program could use.
    """
    count = cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0  # mean of the last minute
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    one_thread = count == 1 or "openblas" not in blas or any(name in os.environ for name in THREADS)
    if one_thread or load <= count / 2:
        return None
    return f"busy machine (load {load:.1f} on {count} cores): OPENBLAS_NUM_THREADS=1 would be quicker"


def folder_name(text):
    """A name for a folder, for argparse."""
    if not text.strip() or any(c < " " or "\x7f" <= c < "\xa0" for c in text):  # control characters
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a folder")
    return text


def free_name(name):
    """The first of runs/name, runs/name-2, runs/name-3, … that is not taken."""
    folders = (Path("runs", name if i == 1 else f"{name}-{i}") for i in itertools.count(1))
    return next(folder for folder in folders if not folder.exists())


def resume(options, stack):
    """Go on with a run where its checkpoint was saved, locked until `stack` is left: (run, dataset, training)."""
    if options.out is not None:
        raise UserError("--out cannot be given with --resume: a resumed run stays where it is")
    run = Run.open(options.resume)
    stack.enter_context(run.lock())
    run.config = Run.open(options.resume).config  # as it is now that nobody else writes it
    config = dataclasses.replace(run.config, **given_settings(options))
    for field in dataclasses.fields(Config):
        before, now = getattr(run.config, field.name), getattr(config, field.name)
        if field.name not in EXTENDABLE and now != before:
            text = " ".join(map(str, before)) if isinstance(before, tuple) else before
            raise UserError(f"{option_name(field.name)} cannot change on --resume: {run.folder} has {text or 'none'}")
    # without checkpoint and metrics it was killed before its first step
    state = run.load_checkpoint() if run.checkpoint.exists() or run.metrics() else None
    config, dataset, training = prepare(config)
    if state is not None:
        training.load(run, state)
    if config.epochs < training.epoch:
        raise UserError(f"--epochs {config.epochs}: {run.folder} has finished {training.epoch} already")
    run.save_config(config)
    if state is None:
        training.save(run)
    run.write_metrics(training.rows)  # last: a run that has metrics has a checkpoint
    return run, dataset, training


@together
@command(PROGRAM)
def main(arguments=None):
    """Train, evaluate after every epoch, leave a run folder; returns the exit code."""
    parser = OneLineParser(
        PROGRAM,
        "Train a variational autoencoder. Losses are nats per example: −ELBO, or the objective that is named.",
    )
    add_settings(parser)
    parser.add_argument(
        "--out", metavar="RUN", type=folder_name, help="folder of the new run (default: runs/DATASET-DATE-TIME)"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with this run and its settings; --epochs, the total, can grow, and the data can have moved",
    )

    def begin():  # in the first process
        options = parser.parse_args(arguments)
        return options.resume is None, *(start if options.resume is None else resume)(options, stack)

    with contextlib.ExitStack() as stack:
        return work(begin)


def work(begin):
    """Train what `begin` returns: is it new, run, dataset, training; say how it ended, and return the exit code."""
    busy = threads_advice()  # before the load is our own
    team = this_team()
    is_new, run, dataset, training = team.broadcast(begin)
    training.join(team)
    go_on = f"go on with: python -m npvae.train --resume {shlex.quote(str(run.folder))}"
    say(dataset)
    say(f"run: {run.folder}; {training.vae}, {training.vae.parameters.values.size:,} parameters")
    if team.size > 1:
        say(team)
    if busy:
        say(busy)
    with StopRequest() as stop:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is told in words of our own
                stopped = fit(training, run, dataset, stop)
        except MemoryError:
            if is_new and training.step == 0 and team.leads:
                run.remove()  # no step of it will ever fit
            raise
        except BrokenPipeError:  # of the output: told by nobody, as by every command
            raise
        except OSError as error:
            run.require_held()
            # of the terminal, which has gone and cannot show a bar; there is none where several processes would save
            if stop.signal and error.errno == errno.EIO and team.size == 1:
                training.save(run)
                return 128 + stop.signal
            raise UserError(f"{error}; what was saved before is kept: {go_on}") from error
        except (KeyboardInterrupt, SystemExit) as error:
            complain(PROGRAM, f"stopped a second time, at once; what was saved before is kept: {go_on}")
            return getattr(error, "code", 128 + signal.SIGINT)
        except Diverged as error:
            where = f"{training.position()}, learning rate {training.optimizer.learning_rate:g}"
            advice = f"the last good checkpoint is {run.checkpoint}: train again with a smaller learning rate"
            complain(PROGRAM, f"{error} at {where}; {advice}")
            team.leave()  # for all have found the same
            return 1
    team.leave()
    if not team.leads:
        return 0
    if stopped and training.epoch < run.config.epochs:
        say_last(f"stopped by {signal.Signals(stopped).name} before {training.position()} and saved; {go_on}")
        return 128 + stopped
    return finish(training, run, dataset)


def finish(training, run, dataset):
    """Draw the basic pictures and say what came out."""
    from npvae import plot  # matplotlib takes a second to import: not before it is needed

    run.require_held()
    last = training.rows[-1]
    after = f"{last['epoch']:.0f} epoch{'s' * (last['epoch'] > 1)}, {last['seconds']:.0f} s"
    loss = f"test loss ({run.config.bound}) {last['test_loss']:.2f} nats per example"
    say(f"{loss} after {after}; the run and its images are in {run.folder}")
    plot.draw(run, plot.BASIC, training.vae, dataset)
    if run.config.film:
        film.draw(run, dataset)
        say(f"film: {run.film}")
    say(f"next: python -m npvae.plot {shlex.quote(str(run.folder))}")
    say(f"      python -m npvae.evaluate {shlex.quote(str(run.folder))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
