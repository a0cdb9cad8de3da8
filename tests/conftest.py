import contextlib
import dataclasses
import gzip
import io
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

# before NumPy is loaded, and for the commands that are started: on a busy machine waiting threads stall each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from npvae import train
from npvae.data.datasets import FILES, Dataset, load
from npvae.data.idx import read_idx, write_idx
from npvae.distributions import standard_normal_log_density
from npvae.runs import Run

SMALL = ("--hidden", "30", "--latent", "3")


def pytest_collection_modifyitems(items):
    if not (os.environ.get("NPVAE_DATA") and Path(os.environ["NPVAE_DATA"], "mnist").is_dir()):
        for item in items:
            if item.get_closest_marker("mnist"):
                item.add_marker(pytest.mark.skip(reason="no MNIST files in $NPVAE_DATA/mnist"))


def heeding():
    """As `preexec_fn`: the command heeds signals that tests in the background, or under nohup, are told to ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def rng():
    return np.random.default_rng(20131220)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data folder that holds the built-in digits."""
    folder = tmp_path_factory.mktemp("data")
    load("strokes", str(folder))
    return folder


@pytest.fixture(scope="session")
def few_digits(data_dir, tmp_path_factory):
    """A folder with four IDX files of 600 training and 200 test digits, for training in a moment."""
    folder = tmp_path_factory.mktemp("few")
    digits = load("strokes", str(data_dir))
    arrays = [digits.train_images[:600].reshape(-1, 28, 28), digits.train_labels[:600]]
    arrays += [digits.test_images[:200].reshape(-1, 28, 28), digits.test_labels[:200]]
    for file, array in zip(FILES, arrays, strict=True):
        write_idx(folder / file, array)
    return folder


def dataset_of(images, labels=None):
    """A data set whose training and test images (N, D) are these."""
    return Dataset("some", "of a test", (1, images.shape[1]), images, labels, images, labels)


@pytest.fixture
def frey(tmp_path):
    """1650 images of 28 × 20 that tell their number, as the Frey faces."""
    images = np.zeros((1650, 28, 20), np.uint8)
    images[:, 0, 0], images[:, 27, 19] = np.divmod(np.arange(1650), 256)
    (tmp_path / "frey").mkdir()
    header = struct.pack(">IIII", 0x803, 1650, 28, 20)
    (tmp_path / "frey" / "frey-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    return tmp_path


@pytest.fixture
def binarized(tmp_path, rng):
    """A data folder with the text of 60 training, 25 validation and 30 test images, as the MNIST that is binary."""
    (tmp_path / "binarized-mnist").mkdir()
    for split, count in (("train", 60), ("valid", 25), ("test", 30)):
        images = rng.integers(0, 2, (count, 784))
        np.savetxt(tmp_path / "binarized-mnist" / f"binarized_mnist_{split}.amat", images, fmt="%d")
    return tmp_path


def joint_on_a_line(vae, x):
    """log p(x, z) of a VAE with one latent at equally spaced z: (z (G, 1), their distance, (N, G)) for x (N, D)."""
    z = np.linspace(-12, 12, 4001)[:, None]
    log_p_x = vae.likelihood.log_density(x[:, None], vae.decoder_outputs(z))  # (N, G)
    return z, z[1, 0] - z[0, 0], standard_normal_log_density(z) + log_p_x


def nearest_neighbour(train, train_labels, test):
    """Labels of the nearest of the training images, by Euclidean distance."""
    train, test = train.astype(np.float32) / 255, test.astype(np.float32) / 255
    distance = (train**2).sum(axis=1) - 2 * test @ train.T
    return train_labels[distance.argmin(axis=1)]


def missing_links(text, folder):
    """The files that a Markdown text links to or shows, relative to its folder, and that are not there."""
    links = re.findall(r"""(?:\]\(|<img src=")([^)"#\s]+)""", text)
    assert links
    return [link for link in links if "://" not in link and not (folder / link).exists()]


def command(*arguments):
    """The training command, as a list of words."""
    return [sys.executable, "-m", "npvae.train", *map(str, arguments)]


def run_train(*arguments):
    """Run the training command to its end, here, where all is imported already: what a process would leave and say."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = train.main(list(map(str, arguments)))
        except SystemExit as exit:
            code = exit.code
    return subprocess.CompletedProcess(command(*arguments), code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def finished(few_digits, tmp_path_factory):
    """A run of three epochs, as a process: (folder, what it printed)."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    arguments = command("--dataset", few_digits, *SMALL, "--epochs", 3, "--out", folder)
    process = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return folder, process.stdout


@pytest.fixture
def moved(finished, few_digits, tmp_path):
    """A run whose data have moved: (run, the data folder where 600 training and 60 test digits are now)."""
    run = Run(tmp_path / "moved", Run.open(finished[0]).config)
    shutil.copytree(finished[0], run.folder)
    run.save_config(dataclasses.replace(run.config, dataset="strokes", data_dir=str(tmp_path / "gone")))
    (tmp_path / "data" / "strokes").mkdir(parents=True)
    for file in FILES:
        array = read_idx(few_digits / file)
        write_idx(tmp_path / "data" / "strokes" / file, array[:60] if "t10k" in file else array)
    return run, tmp_path / "data"


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; closed after each module, because while it runs an event loop does, in the way of others."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no browser is installed: looked for {', '.join(names)}")
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright()
    with playwright as driver, driver.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """Open a page in a browser without a network; in the end there was no error, and no request but for the page."""
    context = browser.new_context(offline=True)
    trouble, requests, opened = [], [], []
    context.on("console", lambda message: message.type == "error" and trouble.append(message.text))
    context.on("weberror", lambda error: trouble.append(str(error.error)))
    context.on("request", lambda request: requests.append(unquote(request.url)))

    def dismiss(dialog):
        trouble.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    context.on("dialog", dismiss)

    def open_page(path):
        page = context.new_page()
        opened.append(unquote(path.as_uri()))
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert trouble == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == opened


@pytest.fixture
def refused(capsys):
    """Run a command that must exit with 2 and print one line and nothing else; returns the line."""

    def run(main, arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        assert code == 2
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    return run
