"""A run folder: config.json, checkpoint.npz, metrics.csv, images/ and, if made, evaluation.json, film/, film.gif and
explorer.html.

Each file is written whole or not at all. The checkpoint is the truth about a training: the losses of its epochs are in
it, and metrics.csv is made from it, for people. One process at a time trains a run: it holds the lock, a file .lock.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np

from npvae.commands import OneLineParser, UserError
from npvae.config import Config, option_name
from npvae.data import datasets
from npvae.data.pixels import binarize
from npvae.files import Locked, is_stale, lock, open_regular, read_text, remove_stale, replacing
from npvae.vae import VAE

# Losses are nats per example under the protocol that `binarize` names: train_loss is what was minimized, test_loss the
# same bound at beta = 1. `beta` and `learning_rate` are those of the epoch's last step; `examples` and `seconds` count
# from the start of the run, evaluation included in the seconds.
TEXT_COLUMNS = ("objective", "likelihood", "binarize")
COLUMNS = (
    *("epoch", "examples", *TEXT_COLUMNS, "samples", "beta", "learning_rate"),
    *("train_loss", "train_reconstruction", "train_kl", "test_loss", "test_reconstruction", "test_kl", "seconds"),
)
LOSSES = tuple(name for name in COLUMNS if name not in (*TEXT_COLUMNS, "seconds"))  # of an epoch, in the checkpoint
FORMATS = dict.fromkeys(("epoch", "examples", "samples", "beta", "learning_rate"), "{:.10g}")

# what may be in a checkpoint
MEMBERS = re.compile(
    r"parameters|epoch|examples|sums|losses|data|random_state|image_shape|classes|settings|optimizer\.\w+"
)


class Run:
    """A run folder that exists, with the settings it was made with; see `Run.create` and `Run.open`."""

    def __init__(self, folder, config):
        self.folder, self.config = Path(folder), config
        self.is_held = None  # a function, while this run is locked
        self.settings = self.folder / "config.json"
        self.checkpoint = self.folder / "checkpoint.npz"
        self.metrics_file = self.folder / "metrics.csv"
        self.evaluation = self.folder / "evaluation.json"
        self.images = self.folder / "images"
        self.frames = self.folder / "film"
        self.film = self.folder / "film.gif"

    def __getstate__(self):  # what other processes are given: the lock stays with the one that has it
        return {**self.__dict__, "is_held": None}

    @classmethod
    def create(cls, folder, config, stack=None):
        """Make the folder; a name that is taken is a UserError, so that no run overwrites another.

        An empty folder is not taken: a process that is killed as it begins leaves no more than that. With an ExitStack,
        the run stays locked until that is left.
        """
        run = cls(folder, config)
        make_folder(folder)
        with contextlib.ExitStack() as own:
            (stack or own).enter_context(run.lock())
            if not is_free(run.folder, but=".lock"):
                raise UserError(taken(folder))
            with run.removed_on_failure():
                run.save_config(config)
        return run

    @contextlib.contextmanager
    def lock(self):
        """Be the only process that trains this run, and remove the temporary files of those that were killed."""
        try:
            with lock(self.folder / ".lock") as self.is_held:
                remove_stale(self.folder, self.frames, self.images)
                try:
                    yield
                finally:
                    self.is_held = None
        except Locked as error:
            raise UserError(f"{self.folder} is being trained by {error}: wait for it, or stop it") from error

    @contextlib.contextmanager
    def removed_on_failure(self):
        """Remove the folder of a run that could not be begun, so that its name is free again."""
        try:
            yield
        except BaseException:
            self.remove()
            raise

    def remove(self):
        """Remove the folder with all that is in it; where its name is a link, the folder behind stays, and is empty."""
        if self.is_held and not self.is_held():
            return  # what is there now is another's
        shutil.rmtree(os.path.realpath(self.folder), ignore_errors=True)
        if self.folder.is_symlink():
            os.makedirs(os.path.realpath(self.folder), exist_ok=True)

    @contextlib.contextmanager
    def replacing(self, path):
        """As `files.replacing`, in this run only: not in another that was made where this one was removed."""
        self.require_held()
        with replacing(path) as file:
            yield file

    def require_held(self):
        """A UserError where the folder that was locked is not there any more."""
        if self.is_held and not self.is_held():
            raise UserError(f"{self.folder} is gone, and with it what was trained")

    @classmethod
    def open(cls, folder, data_dir=""):
        """Read the folder of a run; what is not one is a UserError. Its data may have moved to `data_dir` meanwhile."""
        path = cls(folder, None).settings
        try:
            config = Config.from_json(read_text(path))
            return cls(folder, dataclasses.replace(config, data_dir=data_dir or config.data_dir))
        except FileNotFoundError as error:
            raise UserError(f"{folder} is not a run: it has no config.json") from error
        except (UserError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is not the settings of a run: {error}") from error

    def save_config(self, config):
        self.config = config
        with self.replacing(self.settings) as file:
            file.write(config.to_json().encode())

    def metrics(self):
        """The rows of metrics.csv, one per epoch: a list of dicts of COLUMNS to float, or to text; none without it."""
        path = self.metrics_file
        try:
            header, *rows = csv.reader(io.StringIO(read_text(path, 10**9), newline=""))
            if tuple(header) != COLUMNS:
                raise ValueError("its columns are those of another version of npvae")
            return [
                {
                    name: text if name in TEXT_COLUMNS else finite_number(float(text))
                    for name, text in zip(COLUMNS, row, strict=True)
                }
                for row in rows
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise UserError(f"{path} is not the metrics of a run: {error}") from error

    def write_metrics(self, rows):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(
                [
                    row[name] if name in TEXT_COLUMNS else FORMATS.get(name, "{:.6f}").format(row[name])
                    for name in COLUMNS
                ]
            )
        with self.replacing(self.metrics_file) as file:
            file.write(text.getvalue().encode())

    def evaluated(self, pick):
        """What `pick` takes out of the last evaluation, a dict; None where there is none."""
        try:
            return pick(json.loads(read_text(self.evaluation)))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{self.evaluation} is broken ({error!r}): evaluate again") from error

    def save_evaluation(self, result):
        with replacing(self.evaluation) as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())

    def save_checkpoint(self, state):
        """Write a dict of name to array, and the settings; no time and no path: the same state makes the same bytes."""
        with self.replacing(self.checkpoint) as file:
            write_arrays(file, state | {"settings": np.array(json.dumps(self.config.fixed()))})

    def load_checkpoint(self):
        """Read what `save_checkpoint` wrote, under the same settings."""
        try:
            with whole(self.checkpoint):
                state = read_arrays(self.checkpoint, MEMBERS)
        except FileNotFoundError as error:
            raise UserError(f"{self.folder} has no checkpoint.npz: the run stopped before it saved one") from error
        if "losses" in state and "settings" not in state:
            raise UserError(f"{self.checkpoint} is broken: it has no 'settings'")
        self.require_same_settings(str(state.pop("settings", "{}")))  # an older version has none
        for name in ("epoch", "examples"):
            restore(np.zeros((), np.int64), state, name, self.checkpoint)
            if not 0 <= state[name] <= 10**9:
                raise UserError(f"{self.checkpoint} stands at {name} {state[name]}: it is broken")
        return state

    def require_same_settings(self, text):
        """A UserError where the settings that a checkpoint was trained with, as JSON, are not those of the run."""
        try:
            now, told = self.config.fixed(), dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{self.checkpoint} is broken: its settings are no JSON object") from error
        for name, value in told.items():
            if now.get(name) != value:
                raise UserError(
                    f"{self.checkpoint} was trained with {option_name(name)} {value}, "
                    f"but {self.settings} has {now.get(name)}: was it edited?"
                )

    def dataset(self):
        """The data of the run."""
        return load_data(self.config)

    def vae(self, state=None):
        """The trained model; `state` is what `load_checkpoint` returned, if it was read."""
        state = state or self.load_checkpoint()
        model = make_vae(self.config, *self.kind(state))
        restore(model.parameters.values, state, "parameters", self.checkpoint)
        return model

    def kind(self, state):
        """(image_shape, classes) of what the model was trained on."""
        if "image_shape" not in state:  # by an older version: the data have to tell
            dataset = self.dataset()
            return dataset.image_shape, dataset.classes
        image_shape, classes = np.zeros(2, np.int64), np.zeros((), np.int64)
        restore(image_shape, state, "image_shape", self.checkpoint)
        restore(classes, state, "classes", self.checkpoint)
        if image_shape.min() < 1 or classes < 0:
            raise UserError(f"{self.checkpoint} is of images of {image_shape} pixels, {classes} labels: it is broken")
        return tuple(image_shape.tolist()), int(classes)


def make_folder(folder):
    """Make a folder, if there is none; a UserError where that cannot be."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(taken(folder)) from error
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error


def is_free(folder, but=None):
    """Whether there is nothing in a folder, `but` a file of that name and what killed processes have left."""
    return all(path.name == but or is_stale(path) or is_dead_lock(path) for path in folder.iterdir())


def is_dead_lock(path):
    """Whether this is the lock of a process that is no more."""
    if path.name != ".lock":
        return False
    try:
        with lock(path):
            return True
    except (Locked, OSError):
        return False


def write_arrays(file, arrays):
    """Write a dict of name to array or number as `np.savez` does, which in older NumPy leaves a broken file open."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


@contextlib.contextmanager
def whole(path, advice=""):
    """While entered, what goes wrong is a UserError that the file at `path` is broken, unless it cannot be opened."""
    try:
        yield
    except Exception as error:  # a damaged zip file raises whatever its damaged bytes lead to
        if isinstance(error, OSError) and error.filename:
            raise
        raise UserError(f"{path} is broken ({type(error).__name__}: {error}){advice}") from error


def read_arrays(path, members=re.compile(r"\w+")):
    """The arrays, name → array, that `write_arrays` wrote; what it would not have written is an error of some kind.

    Names and headers are looked at before contents: neither a packed nor a repeated member, nor one that promises more
    than is there, takes any memory. Nothing is unpickled.
    """
    with open_regular(path) as file:
        with zipfile.ZipFile(file) as archive:
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            for name in names:
                if not members.fullmatch(name) or names.count(name) > 1:
                    raise ValueError(f"a member {name!r} that does not belong there")
            end = 0  # one follows upon the other: no byte is left out
            for member in archive.infolist():
                if member.header_offset != end or member.comment:
                    raise ValueError(f"{member.filename} is not where it should be")
                file.seek(end + 26)
                end += 30 + sum(struct.unpack("<HH", file.read(4))) + member.compress_size
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{member.filename} is packed")
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    if version != (1, 0):
                        raise ValueError(f"{member.filename} is in version {version} of the format, expected (1, 0)")
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                    promised = stream.tell() + math.prod(shape) * dtype.itemsize
                    if dtype.hasobject or min(shape, default=0) < 0 or promised != member.file_size:
                        raise ValueError(f"{member.filename} holds {member.file_size} bytes for {dtype} {shape}")
            if end != archive.start_dir or archive.comment:
                raise ValueError("more than its members")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)


def epochs_done(state, dataset):
    """Epochs of training, with the part of one that is under way, behind a checkpoint's state."""
    return float(state["epoch"] + state["examples"] / len(dataset.train_images))


def load(folder):
    """The trained model in the folder of a run; its training images are not needed.

    Parameters
    ----------
    folder : str or Path
        What `python -m npvae.train` left; a checkpoint of an older version needs the data of the run too.

    Returns
    -------
    VAE
        With the `image_shape` of its images: `vae.sample(16, rng).reshape(16, *vae.image_shape)`.

    Raises
    ------
    UserError
        If the folder is not that of a run, or its checkpoint is missing or broken; the message is one line.
    """
    return Run.open(folder).vae()


def load_data(config):
    """The data set of the settings, under the protocol that they name."""
    dataset = binarize(datasets.load(config.dataset, config.data_dir), config.binarize)
    if config.conditional and not dataset.classes:
        raise UserError(f"--conditional needs labels, and {dataset.name} has none")
    if config.conditional and dataset.test_labels.max() >= dataset.classes:
        raise UserError(f"{dataset.name}: test label {dataset.test_labels.max()} is above all training labels")
    return dataset


def make_vae(config, image_shape, classes, rng=None):
    """The model of the settings for such images and so many labels; `rng` draws its parameters, which else are zero."""
    names = ("hidden", "latent", "activation", "likelihood", "objective")
    settings = {name: getattr(config, name) for name in names}
    classes = classes if config.conditional else 0
    vae = VAE(math.prod(image_shape), classes=classes, rng=rng, zeros=rng is None, **settings)
    vae.image_shape = image_shape
    return vae


def require_fit(dataset, vae):
    """A UserError where the images or labels of a data set are not of the kind that the model was made for."""
    if dataset.image_shape != vae.image_shape:
        found, expected = (" × ".join(map(str, shape)) for shape in (dataset.image_shape, vae.image_shape))
        raise UserError(f"{dataset.name} has images of {found} pixels, expected {expected}, as in training")
    if vae.classes not in (0, dataset.classes):
        raise UserError(f"{dataset.name} has {dataset.classes} labels, expected {vae.classes}, as in training")


def finite_number(value):
    """A finite number that JSON has given; a TypeError if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return value


def taken(folder):
    return f"{folder} is there already: choose another --out, or go on with --resume {folder}"


def run_parser(program, description):
    """The command line of a command about a run."""
    parser = OneLineParser(program, description)
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--data-dir", help="as in training; by default the one that the run was trained with")
    return parser


def restore(array, state, name, path):
    """Write `state[name]` of the checkpoint at `path` into `array`; a UserError if it is not there or does not fit."""
    if name not in state:
        raise UserError(f"{path} has no {name!r}: it is not a checkpoint of this run")
    found = state[name]
    if (found.shape, found.dtype) != (array.shape, array.dtype):
        expected = f"{array.dtype} {array.shape}"
        raise UserError(
            f"{path} holds {name} as {found.dtype} {found.shape}, expected {expected}: "
            "it is of other settings, other data or another version of npvae"
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise UserError(f"{path} holds {name} that are not finite numbers: the run has diverged, or the file is broken")
    array[...] = found
