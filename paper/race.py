"""What the racers of Figures 2 to 5 share: the paper's set-up, one state that can be stopped, and a table of results.

A racer is a method, an optimizer and a model on one data set. Of each, `paper/runs/` keeps a checkpoint with all that
changes, so that an interrupted race goes on where it was, bit for bit; the table has a row for each measurement.
"""

import dataclasses
import json
import math
import re
import time
from dataclasses import dataclass

import numpy as np
from mcem import EVALUATIONS, UPDATES, chains, learn, move
from processes import in_processes
from tables import RUNS, read_table, update_table
from wake_sleep import dream, sleep, wake

from npvae import VAE
from npvae.commands import OneLineParser, positive, say
from npvae.data.datasets import load
from npvae.data.pixels import batch
from npvae.evaluate import loss_terms
from npvae.files import replacing
from npvae.optimizers import OPTIMIZERS
from npvae.runs import read_arrays, restore, whole

BATCH = 100  # M, and L = 1: section 5
ADAGRAD_RATES = (0.01, 0.02, 0.1)  # the best on the training set after the first steps: section 5
ADAM_RATES = (0.001,)  # its default
TRIAL = 1000  # steps after which a learning rate is chosen
TRIAL_LATENTS = {("mnist", 500): 20, ("frey", 200): 20}  # latents of the model that chooses it for all of Figure 2
TRIED = 1000  # training examples of the trials of Monte Carlo EM, whose every step goes through all of them
STARTS = {"paper": 0.1, "code": 0.01}  # standard deviations: N(0, 0.01) of section 5, and N(0, 0.01²) of its code
# first steps from the start of the code, in which Adagrad only gathers squares, lest it divide a gradient by itself: as
# many as there, and of Monte Carlo EM one iteration
STANDING = {"aevb": 100, "wake-sleep": 100, "mcem": UPDATES}
MEASURED = 10_000  # training examples on which the bound is measured, and as many test examples
CHECKPOINT_EVERY = 60  # seconds
MEMBERS = re.compile(r"[\w.]+")  # names in a checkpoint


@dataclass(frozen=True)
class Racer:
    """Who races, on what: all that decides a result."""

    dataset: str
    training_examples: int
    hidden: int
    latent: int
    method: str  # of METHODS
    optimizer: str = "adagrad"
    start: str = "paper"  # of STARTS
    seed: int = 0
    fixed_rate: float = 0  # the learning rate; 0: the one that the paper's rule chooses

    @property
    def name(self):
        return "-".join(map(str, vars(self).values()))

    @property
    def checkpoint(self):
        return RUNS / f"{self.name}.npz"


class Race:
    """A racer under way: model, optimizer, random numbers, and what was measured so far.

    `arrays` holds all that a step changes but the state of the generator, name → array.
    """

    def __init__(self, racer, learning_rate, images):
        self.racer, self.images = racer, images
        self.rng = np.random.default_rng(racer.seed)
        likelihood = "gaussian" if racer.dataset == "frey" else "bernoulli"
        self.vae = VAE(images.shape[1], [racer.hidden], racer.latent, likelihood=likelihood, zeros=True)
        start(self.vae, racer.start, self.rng)
        self.learning_rate = learning_rate
        self.optimizer = OPTIMIZERS[racer.optimizer](self.vae.parameters, learning_rate)
        self.step = METHODS[racer.method]
        self.arrays = {name: np.zeros(()) for name in ("examples", "steps", "seconds")}
        self.arrays |= {"parameters": self.vae.parameters.values}
        self.arrays |= {f"optimizer.{name}": array for name, array in self.optimizer.state.items()}
        if racer.method == "mcem":
            self.arrays |= chains(len(images), racer.latent, self.rng)
        self.rows = []

    def descend(self):
        """Step along the gradient that a method has left, of its loss and −log p(θ)."""
        add_prior(self.vae, len(self.images))
        gathers = self.racer.optimizer == "adagrad" and self.racer.start == "code"
        standing = gathers and self.arrays["steps"] < STANDING[self.racer.method]
        self.optimizer.learning_rate = 0 if standing else self.learning_rate
        self.optimizer.step()
        self.arrays["steps"] += 1

    def draw_batch(self):
        return batch(self.images, self.rng.integers(0, len(self.images), BATCH))  # with replacement, as the authors

    def run(self, examples, path=None):
        """Go on until so many examples are done, keeping checkpoints at `path`."""
        saved = time.perf_counter()
        while self.arrays["examples"] < examples:
            began = time.process_time()  # of the processor, so that it does not count what else is computed
            self.arrays["examples"] += self.step(self)
            self.arrays["seconds"] += time.process_time() - began
            if path and time.perf_counter() - saved > CHECKPOINT_EVERY:
                self.save(path)
                saved = time.perf_counter()

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {"rng": json.dumps(self.rng.bit_generator.state), "rows": json.dumps(self.rows)}
        with replacing(path) as file:
            np.savez(file, learning_rate=self.learning_rate, **texts, **self.arrays)

    def load(self, path):
        saved = read_checkpoint(path)
        for name, array in self.arrays.items():
            restore(array, saved, name, path)
        self.rng, self.rows, self.learning_rate = (saved[name] for name in ("rng", "rows", "learning_rate"))


def read_checkpoint(path):
    """What `Race.save` wrote, a dict; a UserError where that is not what is there."""
    with whole(path, ": remove it, and that racer begins anew"):
        saved, rng = read_arrays(path, MEMBERS), np.random.default_rng()
        rng.bit_generator.state = json.loads(saved["rng"].item())
        rows, learning_rate = json.loads(saved["rows"].item()), saved["learning_rate"].item()
        return saved | {"rng": rng, "rows": rows, "learning_rate": learning_rate}


def start(vae, name, rng):
    """The first parameters: all of them N(0, 0.01), as the paper says; or nearly as in its authors' code.

    There weights are N(0, 0.01²), and biases, and all that a log-variance is computed from, zero.
    """
    for path, array in vae.parameters.views.items():
        if name == "paper" or path.endswith(".W"):
            array[...] = rng.normal(0, STARTS[name], array.shape)
    if name == "code":
        vae.encoder.layers[-1].W[:, vae.latent :] = 0
        vae.decoder.layers[-1].W[:, vae.pixels :] = 0  # none where pixels are Bernoulli


def add_prior(vae, training_examples):
    """Add the derivative of −log p(θ) / N, p(θ) = N(0, I): section 5, a small weight decay.

    θ are the decoder's weights; the authors' code has the encoder's under it, too.
    """
    for dense in vae.decoder.layers[::2]:
        d_W = dense.d_W
        d_W += dense.W / training_examples


def step_aevb(race):
    """A step of Algorithm 1: −ELBO with the KL in closed form (eq. 10)."""
    x = race.draw_batch()
    race.vae.loss(x, race.rng.standard_normal((1, len(x), race.vae.latent), np.float32))
    race.vae.backward()
    race.descend()
    return len(x)


def step_wake_sleep(race):
    """A step on a batch of data and a batch of dreams; each writes its half of the gradient."""
    x = race.draw_batch()
    wake(race.vae, x, race.rng.standard_normal((1, len(x), race.vae.latent), np.float32))
    sleep(race.vae, *dream(race.vae, len(x), race.rng))
    race.descend()
    return len(x)


def step_mcem(race):
    """An iteration of Monte Carlo EM: all chains, then the decoder; returns how often an example was evaluated."""
    move(race.vae, race.images, race.arrays["z"], race.arrays["step_size"], race.rng)
    for _ in range(UPDATES):
        learn(race.vae, race.images, race.arrays["z"])
        race.descend()
    return EVALUATIONS * len(race.images)


METHODS = {"aevb": step_aevb, "wake-sleep": step_wake_sleep, "mcem": step_mcem}


def elbo(race, images):
    """The bound on the first of these images, nats per example, under the ending "": what Figure 2 shows."""
    # Frey pixels have a density, which is of x = byte / 255 here, and, as it seems, of byte / 256 in the paper
    shift = race.vae.pixels * math.log(256 / 255) if race.racer.dataset == "frey" else 0
    return {"": shift - loss_terms(race.vae, images[:MEASURED])["loss"].mean().item()}


def images_of(racer):
    """(training, test) images: of MNIST at most the first 50,000 are trained on, as by the authors."""
    dataset = load(racer.dataset)
    return dataset.train_images[: racer.training_examples], dataset.test_images


def best_rate(racer, images, measure):
    """The paper's choice: the learning rate that is best on the training set after the first steps, by `measure`.

    Nothing is tried where there is one only, as of Adam, or of a racer with a fixed rate.
    """
    rates = ADAGRAD_RATES if racer.optimizer == "adagrad" else ADAM_RATES
    if racer.fixed_rate:
        rates = (racer.fixed_rate,)
    if len(rates) == 1:
        return rates[0]
    images, results = images[:TRIED] if racer.method == "mcem" else images, []
    racer = dataclasses.replace(racer, latent=TRIAL_LATENTS.get((racer.dataset, racer.hidden), racer.latent))
    for rate in rates:
        race = Race(racer, rate, images)
        with np.errstate(all="ignore"):  # a rate that is too large: its result is NaN
            while race.arrays["steps"] < TRIAL:
                race.step(race)
            results.append(measure(race, images)[""])
    return rates[int(np.argmax(np.nan_to_num(results, nan=-np.inf)))]


def compete(racer, marks, measure):
    """Run a racer through these numbers of examples, or on from its checkpoint; returns its rows of the table.

    At each, `measure(race, images)` says what to keep of training and test images: endings of a column's name → number.
    """
    train, test = images_of(racer)
    path = racer.checkpoint
    race = load_race(racer, train) if path.exists() else Race(racer, best_rate(racer, train, measure), train)
    for mark in marks:
        if race.rows and mark <= race.rows[-1]["examples"]:
            continue
        race.run(mark, path)
        row = vars(racer) | {"learning_rate": race.learning_rate, "examples": int(race.arrays["examples"])}
        row |= {"minutes": round(race.arrays["seconds"].item() / 60, 2)}
        for split, images in {"train": train, "test": test}.items():
            row |= {split + ending: round(value, 2) for ending, value in measure(race, images).items()}
        race.rows.append(row)
        race.save(path)
    return race.rows


def rows_of(racer):
    """What a racer's checkpoint has measured so far; none where there is no checkpoint."""
    return read_checkpoint(racer.checkpoint)["rows"] if racer.checkpoint.exists() else []


def load_race(racer, images):
    """The race of a racer on these training images, as its checkpoint has it."""
    race = Race(racer, 0.0, images)
    race.load(racer.checkpoint)
    return race


def is_called(racer, parts):
    """Whether one of these is its name or a part of it, cut at the dashes."""
    return any(f"-{part}-" in f"-{racer.name}-" for part in parts)


def race_for(program, description, racers, marks, examples, measure, table, arguments=None):
    """The command of a figure: let racers compete, and write its table; returns that, a list of dicts."""
    parser = OneLineParser(program, description)
    parser.add_argument("racers", nargs="*", help="parts of their names, as mnist-1000 or wake-sleep (default: all)")
    parser.add_argument("--examples", type=float, default=examples, help=f"to so many (default: {examples:g})")
    parser.add_argument("--jobs", type=positive, default=2, help="processes, one thread each (default: 2)")
    options = parser.parse_args(arguments)
    for part in options.racers:
        if not any(is_called(racer, [part]) for racer in racers):
            parser.error(f"no racer is called {part}, as {racers[0].name} is")
    if not marks[0] <= options.examples <= marks[-1]:
        between = f"{marks[0]:,} to {marks[-1]:,}, where the first and the last is measured"
        parser.error(f"--examples {options.examples:g}: expected {between}")
    marks = [mark for mark in marks if mark <= options.examples]
    chosen = [racer for racer in racers if not options.racers or is_called(racer, options.racers)]
    key = [*(field.name for field in dataclasses.fields(Racer)), "examples"]
    # where data are missing, or a checkpoint or the table is broken, that is said now and not after hours
    for dataset in {racer.dataset for racer in chosen}:
        load(dataset)
    update_table(table, [row for racer in racers for row in rows_of(racer)], key)
    for (racer, *_), rows in in_processes(compete, [(racer, marks, measure) for racer in chosen], options.jobs):
        last = rows[-1]
        say(f"{racer.name}: {last['train']} train, {last['test']} test after {last['minutes']} minutes")
        update_table(table, rows, key)
    return read_table(table)
