"""Algorithm 1 of the paper: minibatches, fresh noise for each, the loss, its gradient, a step of the optimizer."""

import json
import math
import time
import zlib

import numpy as np

from npvae.commands import UserError
from npvae.data.pixels import batch, draw_binary, one_hot
from npvae.optimizers import OPTIMIZERS
from npvae.parallel import ALONE
from npvae.runs import LOSSES, TEXT_COLUMNS, make_vae, restore

INITIAL_PARAMETERS, ORDER, NOISE = range(3)  # what a run draws, each from a stream of its own


class Diverged(Exception):
    """The loss is no longer a finite number."""


class Part:
    """A part of a flat vector of parameters and of its gradient; to an optimizer it is what `Parameters` are."""

    def __init__(self, parameters, part):
        self.values = parameters.values[part]  # a view
        self.gradient = np.zeros_like(self.values)  # of the loss of the whole batch


class Training:
    """All that changes while a model trains: two of them with the same state go on alike, bit for bit.

    Initial parameters, noise and the order of the examples in each epoch are independent streams of one seed. The order
    is a function of the epoch; the noise, dynamic binarization included, goes on from the state of its generator, which
    is part of the checkpoint, as are the sums over the part of an epoch that is done.

    Several processes can train together, see `join`; each then has all of this but for the optimizer's state.
    """

    def __init__(self, config, dataset):
        self.config, self.images, self.labels = config, dataset.train_images, dataset.train_labels
        self.rng = self.stream(NOISE)
        self.vae = make_vae(config, dataset.image_shape, dataset.classes, self.stream(INITIAL_PARAMETERS))
        if config.output_bias == "mean":
            self.vae.start_at(self.images.mean(axis=0) / 255)
        self.team, self.optimizer = ALONE, self.make_optimizer(self.vae.parameters)
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

    def make_optimizer(self, parameters):
        config = self.config
        adam = {"beta1": config.adam_beta1, "beta2": config.adam_beta2, "epsilon": config.adam_epsilon}
        constants = adam if config.optimizer == "adam" else {}
        return OPTIMIZERS[config.optimizer](parameters, config.learning_rate, **constants)

    def join(self, team):
        """Go on in all processes of a team, each of which has this same training, and keeps a part of the optimizer."""
        if team.size > 1:
            part, whole = team.part(self.vae.parameters.values.size), self.optimizer.state
            self.team, self.optimizer = team, self.make_optimizer(Part(self.vae.parameters, part))
            for name, array in self.optimizer.state.items():
                array[...] = whole[name][part] if array.ndim else whole[name]

    def steps(self):
        """Finish the epoch that is under way; yields after each step the number of its examples."""
        order = self.stream(ORDER, int(self.epoch)).permutation(len(self.images))
        self.optimizer.learning_rate = self.config.learning_rate_after(self.epoch)
        while self.examples < len(self.images):
            began = time.perf_counter()
            rows = order[self.examples : self.examples + self.config.batch_size]
            x, eps, y = self.inputs(rows)
            weight = len(x) / len(rows)  # of this process in the batch: 1 where it is alone
            loss, *terms = self.team.all_reduce(self.forward(x, eps, y, weight))
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss}")
            self.backward(weight)
            self.team.reduce_scatter(self.vae.parameters.gradient, self.optimizer.parameters.gradient)
            self.optimizer.step()
            self.team.all_gather(self.vae.parameters.values)
            self.sums += *terms, time.perf_counter() - began
            self.examples += len(rows)
            yield len(rows)

    def inputs(self, rows):
        """(x, eps, y) of this process's part of a batch, whose examples are these: pixels, noise and labels.

        The pixels are binarized anew if that is the protocol. All that is random is drawn for the whole batch, so that
        what an example gets does not depend on how many processes there are.
        """
        part = self.team.part(len(rows))
        if self.config.binarize == "dynamic":
            images = draw_binary(self.images[rows], self.rng)[part]
        else:
            images = self.images[rows[part]]
        eps = self.rng.standard_normal((self.config.samples, len(rows), self.config.latent), np.float32)
        return batch(images), eps[:, part], one_hot(self.labels, rows[part], self.vae.classes)

    def forward(self, x, eps, y, weight):
        """What these examples add to the loss of the batch, and to the sums of the three terms over it: (4,)."""
        vae, beta = self.vae, self.beta()
        if not weight:
            return np.zeros(4)
        loss = weight * vae.loss(x, eps, y, beta)
        return np.array([loss, *(terms.sum().item() for terms in (vae.losses, vae.reconstruction, vae.kl))])

    def backward(self, weight):
        """Write what these examples add to the gradient of the batch's loss into `parameters.gradient`."""
        if not weight:
            self.vae.parameters.gradient[...] = 0
            return
        self.vae.backward()  # of the mean over them
        if weight < 1:
            self.vae.parameters.gradient *= weight

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
        """What changes from step to step, name → array, but the generator's state; of a team, whole in each process."""
        arrays = {
            "parameters": self.vae.parameters.values,
            "epoch": self.epoch,
            "examples": self.examples,
            "sums": self.sums,
        }
        return arrays | {f"optimizer.{name}": self.whole(array) for name, array in self.optimizer.state.items()}

    def whole(self, array):
        """An array of the optimizer's state, put together where processes have parts of it."""
        if self.team.size == 1 or not array.ndim:
            return array
        vector = np.zeros_like(self.vae.parameters.values)
        vector[self.team.part(vector.size)] = array
        self.team.all_gather(vector)
        return vector

    def require_finite(self):
        """Return `arrays()`, or raise `Diverged`; where squares of gradients overflow, all else is finite."""
        arrays = self.arrays()
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise Diverged("a parameter is not finite" if name == "parameters" else f"{name} is not finite")
        return arrays

    def save(self, run):
        """Write a checkpoint; of several processes the first does."""
        arrays = self.require_finite()
        if not self.team.leads:
            return
        random_state = np.array(json.dumps(self.rng.bit_generator.state))
        losses = np.array([[row[name] for name in LOSSES] for row in self.rows], float).reshape(-1, len(LOSSES))
        # from which a model is made without the data
        kind = {name: np.array(getattr(self.vae, name), np.int64) for name in ("image_shape", "classes")}
        run.save_checkpoint(arrays | {"losses": losses, "data": self.data, "random_state": random_state} | kind)

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
