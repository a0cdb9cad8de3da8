"""The catalogue of data sets: from a name to arrays of raw bytes."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npvae.commands import UserError
from npvae.data.amat import read_amat
from npvae.data.download import DownloadError, download
from npvae.data.idx import MAGIC_IMAGES, MAGIC_LABELS, IDXError, read_idx, write_idx
from npvae.data.strokes import draw_digits
from npvae.files import remove_stale

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# base addresses, tried in order; of the four .gz in the order of FILES the bytes and the SHA-256
PUBLISHED = {
    "mnist": (
        ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        (9_912_422, 28_881, 1_648_877, 4_542),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion-mnist": (
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (26_421_880, 29_515, 4_422_102, 5_148),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "kmnist": (
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        (18_165_135, 29_497, 3_041_136, 5_120),
        (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
}
NAMES = ("auto", *PUBLISHED, "binarized-mnist", "strokes", "frey")

STROKES_SIZES, STROKES_SEED = (12_000, 2_000), 0
# of the MNIST of Larochelle & Murray (2011): the files that are made, and the text that each is made from
BINARIZED = {
    "train-images-idx3-ubyte": "binarized_mnist_train.amat",
    "valid-images-idx3-ubyte": "binarized_mnist_valid.amat",
    "t10k-images-idx3-ubyte": "binarized_mnist_test.amat",
}
FREY_FILE, FREY_TRAINING, FREY_SEED = "frey-images-idx3-ubyte", 1600, 0


@dataclass(frozen=True)
class Dataset:
    """Training and test images, uint8 (N, D) with D = rows · columns, and their labels, uint8 (N,).

    Labels are None where there are none. `origin` says in a few words which data these are and where they come from.
    """

    name: str
    origin: str
    image_shape: tuple
    train_images: np.ndarray
    train_labels: np.ndarray | None
    test_images: np.ndarray
    test_labels: np.ndarray | None

    @property
    def classes(self):
        """The number of labels; 0 where there are none."""
        return 0 if self.train_labels is None else int(self.train_labels.max()) + 1

    @property
    def ink(self):
        """Whether 255 is ink, to be shown dark on paper; of faces it is light."""
        return self.name != "frey"

    def __str__(self):
        rows, columns = self.image_shape
        sizes = f"{len(self.train_images):,} training and {len(self.test_images):,} test images"
        return f"{self.name}: {self.origin}; {sizes} of {rows} × {columns} pixels"


def data_folder(data_dir=""):
    """The folder that holds a folder per data set: the one given, else $NPVAE_DATA, else data/."""
    return Path(data_dir or os.environ.get("NPVAE_DATA") or "data")


def load(name, data_dir=""):
    """Load a data set.

    Parameters
    ----------
    name : str
        One of `NAMES`, or the path of a folder with the four IDX files of MNIST, plain or .gz. 'auto' is MNIST where
        it is present or can be downloaded, else the built-in digits; every other name means that data set or an error.
    data_dir : str
        See `data_folder`.

    Returns
    -------
    Dataset

    Raises
    ------
    UserError
        If the data are not there, cannot be fetched, or are not what they should be; the message says what to do.
    """
    root = data_folder(data_dir)
    try:
        if name == "auto":
            return _load_auto(root)
        if name in PUBLISHED:
            return _load_published(name, root / name)
        if name == "binarized-mnist":
            return _load_binarized(root / name)
        if name == "strokes":
            return _load_strokes(root / name, "the built-in digits, drawn as pen strokes")
        if name == "frey":
            return _load_frey(root / name)
        return _load_folder(name)
    except DownloadError as error:
        raise UserError(f"{name}: {error}; put the four files into {root / name}, or use --dataset strokes") from error
    except IDXError as error:
        again = "; delete the file to have it made again" if name in NAMES and name != "frey" else ""
        raise UserError(f"{name}: {error}{again}") from error
    except OSError as error:
        raise UserError(f"{name}: {error}") from error


def _load_auto(root):
    folder = root / "mnist"
    try:
        _fetch_missing("mnist", folder)
    except (DownloadError, OSError) as error:
        why = f"the built-in digits, because MNIST is not in {folder} and {error}"
        return _load_strokes(root / "strokes", why)
    return _load_published("mnist", folder)  # outside the try: files that are there but broken are an error


def _load_published(name, folder):
    _fetch_missing(name, folder)
    return _read_four(name, f"from {folder}", folder)


def _fetch_missing(name, folder):
    bases, sizes, hashes = PUBLISHED[name]
    for file, size, sha256 in zip(FILES, sizes, hashes, strict=True):
        if _find(folder, file) is None:
            download([f"{base}{file}.gz" for base in bases], folder / f"{file}.gz", size, sha256)


def _load_strokes(folder, origin):
    if any(_find(folder, file) is None for file in FILES):
        rng = np.random.default_rng(STROKES_SEED)
        arrays = [array for size in STROKES_SIZES for array in draw_digits(size, rng)]
        try:
            remove_stale(folder)
            for file, array in zip(FILES, arrays, strict=True):
                write_idx(folder / file, array)
        except OSError:  # a data folder that is read-only: the digits are drawn again next time
            return _assemble("strokes", origin, *arrays)
    return _read_four("strokes", origin, folder)


def _load_binarized(folder):
    if any(_find(folder, file) is None for file in BINARIZED):
        missing = [text for text in BINARIZED.values() if not (folder / text).is_file()]
        if missing:
            raise UserError(
                f"binarized-mnist: no {' or '.join(missing)} in {folder}; it is not downloaded: "
                "put the three text files of Larochelle and Murray there"
            )
        train, valid, test = (read_amat(folder / text) for text in BINARIZED.values())
        try:
            remove_stale(folder)
            for file, images in zip(BINARIZED, (train, valid, test), strict=True):
                write_idx(folder / file, images)
        except OSError:  # a data folder that is read-only: the text is read again next time
            pass
    else:
        train, test = (_read_binary(_find(folder, file)) for file in (FILES[0], FILES[2]))
    # not on the validation images, which Burda et al. (2016) do not train on either
    return _assemble("binarized-mnist", f"from {folder}", train, None, test, None)


def _read_binary(path):
    images = read_idx(path, MAGIC_IMAGES)
    grey = (images > 0) & (images < 255)
    if grey.any():
        raise IDXError(f"{path}: a byte is {images[grey][0]}, expected 0 or 255")
    return images


def _load_frey(folder):
    path = _find(folder, FREY_FILE)
    if path is None:
        raise UserError(
            f"frey: no {FREY_FILE} or {FREY_FILE}.gz in {folder}; it is not downloaded: "
            "write the 1965 Frey faces there as an IDX file of 28 rows × 20 columns"
        )
    images = read_idx(path, MAGIC_IMAGES)
    if len(images) <= FREY_TRAINING:
        raise UserError(f"frey: {path} has {len(images)} images, expected 1965")
    # the faces are frames of one film: shuffled, so that the test set is not its end
    images = images[np.random.default_rng(FREY_SEED).permutation(len(images))]
    origin = f"from {folder}, split at random (seed {FREY_SEED})"
    return _assemble("frey", origin, images[:FREY_TRAINING], None, images[FREY_TRAINING:], None)


def _load_folder(name):
    folder = Path(name)
    if not (name and folder.is_dir()):
        raise UserError(
            f"no data set {name!r}: expected {', '.join(NAMES)}, or a folder with the four IDX files of MNIST"
        )
    missing = [file for file in FILES if _find(folder, file) is None]
    if missing:
        raise UserError(f"{folder}: no {' or '.join(missing)} (plain or .gz) in this folder")
    return _read_four(os.path.realpath(folder), "the files of this folder", folder)


def _find(folder, file):
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _read_four(name, origin, folder):
    magics = [MAGIC_IMAGES if "images" in file else MAGIC_LABELS for file in FILES]
    arrays = [read_idx(_find(folder, file), magic) for file, magic in zip(FILES, magics, strict=True)]
    return _assemble(name, origin, *arrays)


def _assemble(name, origin, train_images, train_labels, test_images, test_labels):
    for split, images, labels in (("training", train_images, train_labels), ("test", test_images, test_labels)):
        if images.size == 0:
            raise UserError(f"{name}: the {split} set is empty")
        if labels is not None and len(labels) != len(images):
            raise UserError(
                f"{name}: {len(images)} {split} images but {len(labels)} labels: the files do not belong together"
            )
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UserError(
            f"{name}: training images of {train_images.shape[1:]} but test images of {test_images.shape[1:]} pixels"
        )
    flat = [images.reshape(len(images), -1) for images in (train_images, test_images)]
    return Dataset(name, origin, train_images.shape[1:], flat[0], train_labels, flat[1], test_labels)
