import functools
import hashlib
import os
import shutil
import socket
import struct
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from npvae.commands import UserError
from npvae.data import datasets
from npvae.data.datasets import BINARIZED, FILES, NAMES, load
from npvae.data.idx import read_idx, write_idx

REAL_DATA = os.environ.get("NPVAE_DATA", "")  # the tests unset it
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


def four_arrays(training=7, test=4, shape=(4, 3)):
    """Training images, their labels, test images, their labels: no two images alike."""
    numbers = np.arange((training + test) * shape[0] * shape[1], dtype=np.uint8)
    images = numbers.reshape(training + test, *shape)
    labels = np.arange(training + test, dtype=np.uint8) % 10
    return [images[:training], labels[:training], images[training:], labels[training:]]


def write_four(folder, arrays=None, suffixes=("",) * 4):
    for file, array, suffix in zip(FILES, arrays or four_arrays(), suffixes, strict=True):
        write_idx(folder / f"{file}{suffix}", array)
    return folder


def holds_four_arrays(dataset):
    found = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    expected = [array.reshape(len(array), -1) if array.ndim == 3 else array for array in four_arrays()]
    return dataset.image_shape == (4, 3) and all(map(np.array_equal, found, expected))


def user_error(name, data_dir=""):
    """The message of the UserError that `load` must raise, in one line."""
    with pytest.raises(UserError) as error:
        load(str(name), str(data_dir))
    assert "\n" not in str(error.value)
    return str(error.value)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Every data set is published where nobody answers, and no data folder is set; returns the host."""
    monkeypatch.delenv("NPVAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # by us, who do not listen
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        for name, (_, *published) in datasets.PUBLISHED.items():
            monkeypatch.setitem(datasets.PUBLISHED, name, ((f"http://{host}/",), *published))
        yield host


@pytest.fixture
def mirror(monkeypatch, tmp_path, nowhere):
    """The folder of a mirror of `four_arrays()` as MNIST, named after one that does not answer."""
    folder = write_four(tmp_path / "mirror", suffixes=[".gz"] * 4)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        bases = (f"http://{nowhere}/", f"http://127.0.0.1:{server.server_port}/")
        hashes = tuple(hashlib.sha256((folder / f"{file}.gz").read_bytes()).hexdigest() for file in FILES)
        sizes = tuple((folder / f"{file}.gz").stat().st_size for file in FILES)
        monkeypatch.setitem(datasets.PUBLISHED, "mnist", (bases, sizes, hashes))
        yield folder
        server.shutdown()
        thread.join()


@pytest.fixture
def few_strokes(monkeypatch):
    monkeypatch.setattr(datasets, "STROKES_SIZES", (40, 20))


@pytest.mark.parametrize("suffixes", [("",) * 4, (".gz",) * 4, ("", ".gz", ".gz", "")], ids=["plain", "gz", "mixed"])
def test_a_folder_of_four_files_is_a_data_set(tmp_path, suffixes):
    dataset = load(str(write_four(tmp_path / "mine", suffixes=suffixes)))
    assert holds_four_arrays(dataset)
    assert str(dataset) == (
        f"{tmp_path / 'mine'}: the files of this folder; 7 training and 4 test images of 4 × 3 pixels"
    )


def test_a_folder_may_be_named_from_here(tmp_path):
    write_four(tmp_path / "mine")
    assert load("mine").name == str(tmp_path / "mine")


def test_the_data_folder_is_the_one_given_else_the_environment_else_data(tmp_path, monkeypatch):
    origins = {}
    for root in ("data", "environment", "given"):
        origins[root] = f"from {write_four(tmp_path / root / 'mnist').relative_to(tmp_path)}"
    assert load("mnist").origin == origins["data"]
    monkeypatch.setenv("NPVAE_DATA", "environment")
    assert load("mnist").origin == origins["environment"]
    assert load("mnist", "given").origin == origins["given"]
    monkeypatch.setenv("NPVAE_DATA", "")
    assert load("mnist").origin == origins["data"]


@pytest.mark.parametrize("name", datasets.PUBLISHED)
def test_a_named_data_set_that_cannot_be_fetched_is_an_error_that_says_what_to_do(tmp_path, nowhere, name):
    message = user_error(name, tmp_path)
    assert message.startswith(f"{name}: ")
    assert f"{TRAIN_IMAGES}.gz could not be downloaded ({nowhere}: no connection" in message
    assert f"put the four files into {tmp_path / name}" in message
    assert not (tmp_path / "strokes").exists()


def test_a_named_data_set_is_downloaded_once(tmp_path, mirror):
    assert holds_four_arrays(load("mnist", str(tmp_path)))
    for file in FILES:
        assert (tmp_path / "mnist" / f"{file}.gz").read_bytes() == (mirror / f"{file}.gz").read_bytes()
    shutil.rmtree(mirror)
    assert holds_four_arrays(load("mnist", str(tmp_path)))


def test_only_the_files_that_are_missing_are_downloaded(tmp_path, mirror):
    write_idx(tmp_path / "mnist" / TRAIN_IMAGES, four_arrays()[0])
    (mirror / f"{TRAIN_IMAGES}.gz").unlink()
    assert holds_four_arrays(load("mnist", str(tmp_path)))


def test_what_was_not_published_is_not_taken(tmp_path, mirror):
    write_idx(mirror / f"{TEST_LABELS}.gz", np.zeros(4, np.uint8))
    assert f"{TEST_LABELS}.gz could not be downloaded" in user_error("mnist", tmp_path)
    assert not (tmp_path / "mnist" / f"{TEST_LABELS}.gz").exists()


def test_auto_is_mnist_where_it_is_present(tmp_path):
    write_four(tmp_path / "mnist")
    dataset = load("auto", str(tmp_path))
    assert (dataset.name, dataset.origin) == ("mnist", f"from {tmp_path / 'mnist'}")
    assert holds_four_arrays(dataset)


def test_auto_downloads_mnist_where_a_mirror_has_it(tmp_path, mirror):
    dataset = load("auto", str(tmp_path))
    assert dataset.name == "mnist"
    assert holds_four_arrays(dataset)


def test_auto_without_mnist_is_the_strokes_and_says_why_in_one_line(tmp_path, nowhere, few_strokes):
    dataset = load("auto", str(tmp_path))
    assert str(dataset) == (
        f"strokes: the built-in digits, because MNIST is not in {tmp_path / 'mnist'} and {TRAIN_IMAGES}.gz could not "
        f"be downloaded ({nowhere}: no connection); 40 training and 20 test images of 28 × 28 pixels"
    )


def test_auto_is_the_strokes_where_mnist_cannot_be_kept(tmp_path, mirror, few_strokes):
    (tmp_path / "mnist").touch()  # in the place of the folder
    dataset = load("auto", str(tmp_path))
    assert dataset.name == "strokes"
    assert "because MNIST is not in" in dataset.origin
    assert "\n" not in dataset.origin


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_a_broken_local_mnist_is_an_error(tmp_path, mirror, name):
    path = write_four(tmp_path / "mnist") / TEST_IMAGES
    path.write_bytes(path.read_bytes()[:-1])
    assert str(path) in user_error(name, tmp_path)
    assert not (tmp_path / "strokes").exists()


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_a_local_mnist_that_cannot_be_read_is_an_error(tmp_path, monkeypatch, few_strokes, name):
    def read_idx(path, magic):
        raise PermissionError(13, "Permission denied", str(path))

    write_four(tmp_path / "mnist")
    monkeypatch.setattr(datasets, "read_idx", read_idx)  # file modes do not stop root
    assert "Permission denied" in user_error(name, tmp_path)
    assert not (tmp_path / "strokes").exists()


def test_the_strokes_are_kept_as_raw_idx_files(data_dir):
    for split, count in (("train", 12_000), ("t10k", 2_000)):
        images = (data_dir / "strokes" / f"{split}-images-idx3-ubyte").read_bytes()
        labels = (data_dir / "strokes" / f"{split}-labels-idx1-ubyte").read_bytes()
        assert images[:16] == struct.pack(">IIII", 0x803, count, 28, 28)
        assert labels[:8] == struct.pack(">II", 0x801, count)
        assert (len(images), len(labels)) == (16 + count * 28 * 28, 8 + count)
    dataset = load("strokes", str(data_dir))
    assert (dataset.train_images.shape, dataset.test_images.shape) == ((12_000, 784), (2_000, 784))
    assert dataset.train_images.tobytes() == (data_dir / "strokes" / TRAIN_IMAGES).read_bytes()[16:]


def test_strokes_that_were_half_written_are_drawn_again(tmp_path, few_strokes):
    whole = load("strokes", str(tmp_path))
    (tmp_path / "strokes" / TEST_LABELS).unlink()
    (tmp_path / "strokes" / f".{TEST_LABELS}.0a1b2c3d.part").touch()
    again = load("strokes", str(tmp_path))
    np.testing.assert_array_equal(again.test_labels, whole.test_labels)
    assert len(list((tmp_path / "strokes").iterdir())) == 4


def test_the_strokes_are_read_from_their_files_once_drawn(tmp_path, few_strokes, monkeypatch):
    first = load("strokes", str(tmp_path))
    path = tmp_path / "strokes" / TEST_IMAGES
    content = bytearray(path.read_bytes())
    content[16 + 784 + 5] ^= 0xFF
    path.write_bytes(content)
    monkeypatch.setattr(datasets, "draw_digits", None)
    second = load("strokes", str(tmp_path))
    assert np.argwhere(first.test_images != second.test_images).tolist() == [[1, 5]]
    np.testing.assert_array_equal(first.train_images, second.train_images)


def test_training_and_test_strokes_are_different_digits(tmp_path, few_strokes):
    dataset = load("strokes", str(tmp_path))
    images = np.concatenate([dataset.train_images, dataset.test_images])
    assert len(np.unique(images, axis=0)) == 60


@pytest.mark.parametrize("reason", ["the folder is a file", "read-only", "disk full midway"])
def test_the_strokes_are_drawn_in_memory_where_they_cannot_be_kept(tmp_path, few_strokes, monkeypatch, reason):
    kept = load("strokes", str(tmp_path / "kept"))
    if reason == "the folder is a file":
        (tmp_path / "root").touch()
    else:

        def write(path, array):
            if reason == "read-only" or path.name == TEST_IMAGES:
                raise OSError(f"[Errno 28] {reason}: {path}")
            write_idx(path, array)

        monkeypatch.setattr(datasets, "write_idx", write)
    drawn = load("strokes", str(tmp_path / "root"))
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(drawn, field), getattr(kept, field))
    assert str(drawn) == str(kept)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({TRAIN_LABELS: np.zeros(6, np.uint8)}, "7 training images but 6 labels"),
        ({TEST_LABELS: np.zeros(5, np.uint8)}, "4 test images but 5 labels"),
        ({TEST_IMAGES: np.zeros((4, 3, 4), np.uint8)}, "training images of (4, 3) but test images of (3, 4) pixels"),
        ({TRAIN_IMAGES: np.zeros((0, 4, 3), np.uint8)}, "the training set is empty"),
        ({TEST_IMAGES: np.zeros((0, 4, 3), np.uint8), TEST_LABELS: np.zeros(0, np.uint8)}, "the test set is empty"),
        ({TEST_IMAGES: np.zeros((4, 0, 3), np.uint8)}, "the test set is empty"),
        ({TRAIN_IMAGES: np.zeros(7, np.uint8)}, "expected 0x00000803 (images); is this the labels file?"),
        ({TEST_LABELS: np.zeros((4, 4, 3), np.uint8)}, "expected 0x00000801 (labels); is this the images file?"),
        ({TRAIN_IMAGES: np.zeros((7, 12), np.uint8)}, "magic 0x00000802, expected 0x00000803 (images)"),
        ({TRAIN_IMAGES: np.zeros((7, 4, 3, 1), np.uint8)}, "magic 0x00000804, expected 0x00000803 (images)"),
        ({TRAIN_IMAGES: np.zeros((7, 4, 3), np.float32)}, "magic 0x00000d03, expected 0x00000803 (images)"),
    ],
)
def test_files_that_do_not_make_a_data_set_are_refused(tmp_path, change, says):
    folder = write_four(tmp_path / "mine")
    for file, array in change.items():
        write_idx(folder / file, array)
    message = user_error(folder)
    assert message.startswith(str(folder))
    assert says in message
    if "magic" in says:
        assert str(folder / next(iter(change))) in message


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path):
    message = user_error("minst", tmp_path)
    assert "'minst'" in message
    assert all(name in message for name in NAMES)


def test_a_folder_that_lacks_files_is_told_which(tmp_path):
    folder = write_four(tmp_path / "mine")
    (folder / TRAIN_LABELS).unlink()
    (folder / TEST_IMAGES).unlink()
    message = user_error(folder)
    assert all((file in message) == (file in (TRAIN_LABELS, TEST_IMAGES)) for file in FILES)


def numbers(images):
    return images[:, 0].astype(int) * 256 + images[:, -1]


def test_the_frey_faces_are_split_at_random_without_loss(frey):
    dataset = load("frey", str(frey))
    train, test = numbers(dataset.train_images), numbers(dataset.test_images)
    assert dataset.image_shape == (28, 20)
    assert dataset.train_labels is dataset.test_labels is None
    assert (len(train), len(test)) == (1600, 50)
    assert sorted([*train, *test]) == list(range(1650))
    assert test.min() < 400  # not the end of the film
    assert test.max() > 1250


def test_the_frey_split_is_always_the_same(frey):
    one, other = load("frey", str(frey)), load("frey", str(frey))
    np.testing.assert_array_equal(one.train_images, other.train_images)
    np.testing.assert_array_equal(one.test_images, other.test_images)


def test_frey_faces_that_are_missing_are_told_where_to_go(tmp_path):
    message = user_error("frey", tmp_path)
    assert f"no frey-images-idx3-ubyte or frey-images-idx3-ubyte.gz in {tmp_path / 'frey'}" in message
    assert "not downloaded" in message
    assert "28 rows × 20 columns" in message


def test_frey_faces_without_a_test_set_are_refused(tmp_path):
    write_idx(tmp_path / "frey" / "frey-images-idx3-ubyte", np.zeros((1600, 28, 20), np.uint8))
    assert "1600 images, expected 1965" in user_error("frey", tmp_path)


def text_of(folder, split):
    return folder / "binarized-mnist" / f"binarized_mnist_{split}.amat"


def test_the_binary_mnist_is_its_training_and_test_text(binarized):
    dataset = load("binarized-mnist", str(binarized))
    for split, images in (("train", dataset.train_images), ("test", dataset.test_images)):
        np.testing.assert_array_equal(images, np.loadtxt(text_of(binarized, split)) * 255)
        assert images.dtype == np.uint8
    assert dataset.train_labels is dataset.test_labels is None
    assert str(dataset) == (
        f"binarized-mnist: from {binarized / 'binarized-mnist'}; 60 training and 30 test images of 28 × 28 pixels"
    )


def test_the_binary_mnist_is_kept_as_raw_idx_files_which_are_read_from_then_on(binarized):
    first = load("binarized-mnist", str(binarized))
    for file, text in BINARIZED.items():
        path = binarized / "binarized-mnist" / text
        images = read_idx(path.with_name(file))
        np.testing.assert_array_equal(images.reshape(-1, 784), np.loadtxt(path) * 255)
        assert images.shape[1:] == (28, 28)
        path.unlink()
    second = load("binarized-mnist", str(binarized))
    np.testing.assert_array_equal(second.train_images, first.train_images)
    np.testing.assert_array_equal(second.test_images, first.test_images)


def test_a_binary_mnist_that_was_half_written_is_made_again(binarized):
    whole = load("binarized-mnist", str(binarized))
    (binarized / "binarized-mnist" / TEST_IMAGES).unlink()
    (binarized / "binarized-mnist" / f".{TEST_IMAGES}.0a1b2c3d.part").touch()
    again = load("binarized-mnist", str(binarized))
    np.testing.assert_array_equal(again.test_images, whole.test_images)
    assert len(list((binarized / "binarized-mnist").iterdir())) == 6


def test_the_binary_mnist_is_read_from_its_text_where_it_cannot_be_kept(binarized, monkeypatch):
    def write(path, array):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(datasets, "write_idx", write)
    read = load("binarized-mnist", str(binarized))
    monkeypatch.undo()
    kept = load("binarized-mnist", str(binarized))
    np.testing.assert_array_equal(read.train_images, kept.train_images)
    np.testing.assert_array_equal(read.test_images, kept.test_images)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b" \n"),
        lambda text: text.replace(b" ", b"\t"),
        lambda text: text.removesuffix(b"\n"),
        lambda text: text + b"\n\r\n",
    ],
    ids=["CRLF", "a space at the end", "tabs", "no end of the last line", "empty lines at the end"],
)
def test_ends_of_lines_and_white_space_make_no_other_images(binarized, change):
    expected = np.loadtxt(text_of(binarized, "test")) * 255
    text_of(binarized, "test").write_bytes(change(text_of(binarized, "test").read_bytes()))
    np.testing.assert_array_equal(load("binarized-mnist", str(binarized)).test_images, expected)


def in_line_20(change):
    """A change of a text in its line 20 alone."""

    def changed(text):
        lines = text.splitlines(keepends=True)
        return b"".join([*lines[:19], change(lines[19]), *lines[20:]])

    return changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (in_line_20(lambda line: b"2" + line[1:]), "line 20 has '2', expected digits 0 and 1"),
        (in_line_20(lambda line: b"-" + line), "line 20 has '-"),
        (in_line_20(lambda line: line.replace(b"1", b"1.0")), "line 20 has '1.0'"),
        (in_line_20(lambda line: line.replace(b" ", b",")), "line 20 has '"),
        (in_line_20(lambda line: line.replace(b" ", b"")), "line 20 has '"),
        (in_line_20(lambda line: b"\x00\x1b\n"), r"line 20 has '\x00\x1b'"),
        (in_line_20(lambda line: line[2:]), "line 20 has 783 digits, expected 784"),
        (in_line_20(lambda line: b"0 " + line), "line 20 has 785 digits, expected 784"),
        (in_line_20(lambda line: line.replace(b"\n", b" ")), "line 20 has 1568 digits, expected 784"),
        (lambda text: text[: 1568 * 19 + 101], "line 20 has 51 digits, expected 784: fetch the file again"),
        (lambda text: text.replace(b"\n", b" ") * 3, "line 1 has "),
        (lambda text: b"\0" * 200_000, "line 1 has "),
        (lambda text: b"\x1f\x8b" + text, r"line 1 has '\x1f\x8b"),
        (lambda text: b"", "no images, expected a line of 784 digits for each"),
        (lambda text: b"\n\n", "no images"),
    ],
)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_text_that_is_not_binary_images_is_refused_and_leaves_nothing(binarized, split, change, says):
    path = text_of(binarized, split)
    path.write_bytes(change(path.read_bytes()))
    message = user_error("binarized-mnist", binarized)
    assert message.startswith(f"{path}: {says}")
    assert len(message) < len(str(path)) + 160
    assert {file.name for file in path.parent.iterdir()} == set(BINARIZED.values())


def test_text_that_is_missing_is_told_where_to_go(binarized):
    text_of(binarized, "valid").unlink()
    message = user_error("binarized-mnist", binarized)
    assert f"no binarized_mnist_valid.amat in {binarized / 'binarized-mnist'}; it is not downloaded" in message
    assert "the three text files" in message
    assert not (binarized / "binarized-mnist" / TRAIN_IMAGES).exists()


@pytest.mark.parametrize("byte", [1, 128, 254])
def test_grey_pixels_in_the_place_of_the_binary_mnist_are_refused(binarized, byte):
    load("binarized-mnist", str(binarized))
    path = binarized / "binarized-mnist" / TEST_IMAGES
    images = read_idx(path)
    images[29, 27, 27] = byte
    write_idx(path, images)
    message = user_error("binarized-mnist", binarized)
    assert f"{path}: a byte is {byte}, expected 0 or 255; delete the file to have it made again" in message


@pytest.mark.mnist
def test_the_real_mnist_is_loaded():
    dataset = load("mnist", REAL_DATA)
    assert (dataset.train_images.shape, dataset.test_images.shape) == ((60_000, 784), (10_000, 784))
    assert dataset.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    seen = {image.tobytes() for image in dataset.train_images}
    assert not any(image.tobytes() in seen for image in dataset.test_images), "a test digit in the training set"
