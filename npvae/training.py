"""Algorithm 1 of the paper: minibatches, fresh noise for each, the loss, its gradient, a step of the optimizer."""

import json
import math
import time
import zlib

import numpy as np

from npvae.commands import UserError
from npvae.data.pixels import batch, draw_binary, one_hot
from npvae.optimizers import OPTIMIZERS
from npvae.runs import LOSSES, TEXT_COLUMNS, make_vae, restore

INITIAL_PARAMETERS, ORDER, NOISE = range(3)  # what a run draws, each from a stream of its own


class Diverged(Exception):
    """The loss is no longer a finite number."""


class Training:
    """All that changes while a model trains: two of them with the same state go on alike, bit for bit.

    Initial parameters, noise and the order of the examples in each epoch are independent streams of one seed. The order
    is a function of the epoch; the noise, dynamic binarization included, goes on from the state of its generator, which
    is part of the checkpoint, as are the sums over the part of an epoch that is done.
    """

    def __init__(self, config, dataset):
        self.config, self.images, self.labels = config, dataset.train_images, dataset.train_labels
        self.rng = self.stream(NOISE)
        self.vae = make_vae(config, dataset.image_shape, dataset.classes, self.stream(INITIAL_PARAMETERS))
        if config.output_bias == "mean":
            self.vae.start_at(self.images.mean(axis=0) / 255)
        adam = {"beta1": config.adam_beta1, "beta2": config.adam_beta2, "epsilon": config.adam_epsilon}
        constants = adam if config.optimizer == "adam" else {}
        self.optimizer = OPTIMIZERS[config.optimizer](self.vae.parameters, config.learning_rate, **constants)
        self.epoch = np.zeros((), np.int64)  # finished epochs
        self.examples = np.zeros((), np.int64)  # done in the epoch that is under way
        self.sums = np.zeros(4)  # over these: loss, reconstruction and KL, nats, and seconds
        self.rows = []  # of metrics.csv, for the finished epochs
        # so that no run goes on with other data
        checksum = zlib.crc32(self.labels if config.conditional else b"", zlib.crc32(self.images))
        self.data = np.array([len(self.images), checksum])

    def stream(self, *purpose):
        """A generator for one purpose; a seed's streams are independent of each other and of every other seed's."""
        return np.random.default_rng(np.random.SeedSequence(self.config.seed, spawn_key=purpose))

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

    @property
    def step(self):
        """How many steps are done, from the start of the run."""
        per_epoch = math.ceil(len(self.images) / self.config.batch_size)
        return int(self.epoch) * per_epoch + math.ceil(self.examples / self.config.batch_size)

    def position(self):
        """Where the training is, in words: the step that comes next, counted from 1 at the start of the run."""
        return f"step {self.step + 1:,} (epoch {self.epoch + 1} of {self.config.epochs})"

    def arrays(self):
        """What changes from step to step, name → array, but the generator's state."""
        arrays = {
            "parameters": self.vae.parameters.values,
            "epoch": self.epoch,
            "examples": self.examples,
            "sums": self.sums,
        }
        return arrays | {f"optimizer.{name}": array for name, array in self.optimizer.state.items()}

    def require_finite(self):
        """Raise `Diverged` where something is not a finite number; where squares of gradients overflow, all else is."""
        for name, array in self.arrays().items():
            if not np.isfinite(array).all():
                raise Diverged("a parameter is not finite" if name == "parameters" else f"{name} is not finite")

    def save(self, run):
        self.require_finite()
        random_state = np.array(json.dumps(self.rng.bit_generator.state))
        losses = np.array([[row[name] for name in LOSSES] for row in self.rows], float).reshape(-1, len(LOSSES))
        # from which a model is made without the data
        kind = {name: np.array(getattr(self.vae, name), np.int64) for name in ("image_shape", "classes")}
        run.save_checkpoint(self.arrays() | {"losses": losses, "data": self.data, "random_state": random_state} | kind)

    def load(self, run, state=None):
        """Go on from the checkpoint of a run; `state` is what `load_checkpoint` returned, if it was read."""
        state = state or run.load_checkpoint()
        if not np.array_equal(state.get("data"), self.data):
            raise UserError(f"{run.folder} was trained on other images or labels than these {len(self.images):,}")
        if "image_shape" in state and run.kind(state) != (self.vae.image_shape, self.vae.classes):
            raise UserError(f"{run.checkpoint} is of other images or labels than the data: it is broken")
        for name, array in self.arrays().items():
            restore(array, state, name, run.checkpoint)
        sound = self.examples <= len(self.images) and (self.examples > 0) == (self.sums[3] > 0)
        if not sound or self.arrays().get("optimizer.t", self.step) != self.step:
            raise UserError(f"{run.checkpoint} stands at epoch {self.epoch}, example {self.examples}: it is broken")
        self.rows = self.load_rows(run, state)
        try:
            self.rng.bit_generator.state = json.loads(str(state["random_state"]))
        except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(f"{run.checkpoint} has no random state that NumPy can go on from: {error}") from error

    def load_rows(self, run, state):
        """The rows of metrics.csv for the finished epochs: losses from the checkpoint, seconds from that file."""
        epochs = int(self.epoch)
        if "losses" not in state:  # by an older version: only the file has them
            rows = run.metrics()[:epochs]  # a kill left a row too many
            if len(rows) < epochs:
                raise UserError(f"{run.metrics_file} has {len(rows)} of {epochs} finished epochs")
            return rows
        if np.shape(state["losses"]) != (epochs, len(LOSSES)):  # before as much is allocated
            raise UserError(f"{run.checkpoint} holds losses {np.shape(state['losses'])}, expected {epochs} epochs")
        losses = np.zeros((epochs, len(LOSSES)))
        restore(losses, state, "losses", run.checkpoint)
        if not np.array_equal(losses[:, LOSSES.index("epoch")], np.arange(1, epochs + 1)):
            raise UserError(f"{run.checkpoint} holds losses of other epochs than 1 to {epochs}: it is broken")
        try:
            seconds = [row["seconds"] for row in run.metrics()][:epochs]
        except UserError:
            seconds = []
        seconds += [max(seconds, default=0.0)] * (epochs - len(seconds))  # what is lost is not counted
        told = {name: getattr(self.config, name) for name in TEXT_COLUMNS}
        rows = [dict(zip(LOSSES, row, strict=True)) | told for row in losses.tolist()]
        return [row | {"seconds": count} for row, count in zip(rows, seconds, strict=True)]
