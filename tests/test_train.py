"""The training command: what it says and leaves behind, and what it refuses."""

import csv
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from npvae import train
from npvae.config import Config
from npvae.data.datasets import FILES, load
from npvae.data.idx import read_idx, write_idx
from npvae.evaluate import estimates
from npvae.runs import COLUMNS, Run
from npvae.training import Training
from tests.conftest import SMALL, command, run_train


def test_run_leaves_settings_metrics_checkpoint_and_images(finished):
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.csv", "checkpoint.npz", "images"}
    assert {path.name for path in (folder / "images").iterdir()} == {
        "learning-curves.png",
        "reconstructions.png",
        "samples.png",
    }
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["epoch"], row["examples"]) for row in rows] == [("1", "600"), ("2", "1200"), ("3", "1800")]
    for row in rows:
        assert (row["objective"], row["likelihood"], row["binarize"]) == ("elbo", "bernoulli", "none")
        assert (row["samples"], row["beta"], row["learning_rate"]) == ("1", "1", "0.001")
        for split in ("train", "test"):
            terms = float(row[f"{split}_reconstruction"]) + float(row[f"{split}_kl"])
            assert float(row[f"{split}_loss"]) == pytest.approx(terms, rel=1e-6)
    assert json.loads((folder / "config.json").read_text())["hidden"] == [30]


def test_training_lowers_the_test_loss(finished):
    rows = Run.open(finished[0]).metrics()
    assert rows[0]["test_loss"] > rows[1]["test_loss"] > rows[2]["test_loss"]


def test_output_has_a_line_per_epoch_and_says_what_to_do_next(finished):
    folder, out = finished
    lines = out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert f"{Run.open(folder).metrics()[-1]['test_loss']:.2f}" in lines[-3]
    assert str(folder) in lines[-3]
    assert f"python -m npvae.plot {folder}" in lines[-2]
    assert f"python -m npvae.evaluate {folder}" in lines[-1]


def test_checkpoint_needs_no_pickle(finished):
    with np.load(finished[0] / "checkpoint.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "iufU" for name in archive.files)


def test_same_settings_same_checkpoint_and_another_seed_another(finished, few_digits, tmp_path):
    checkpoint = (finished[0] / "checkpoint.npz").read_bytes()
    arguments = ("--dataset", few_digits, *SMALL, "--epochs", 3, "--out")
    assert run_train(*arguments, tmp_path / "same").returncode == 0
    assert (tmp_path / "same" / "checkpoint.npz").read_bytes() == checkpoint
    assert run_train(*arguments, tmp_path / "other", "--seed", 1).returncode == 0
    assert (tmp_path / "other" / "checkpoint.npz").read_bytes() != checkpoint


@pytest.fixture(scope="module")
def on_a_terminal(data_dir, tmp_path_factory):
    """All that training for an epoch writes to the standard error of a terminal of 80 columns."""
    if not hasattr(os, "openpty"):
        pytest.skip("needs a pseudo-terminal")
    import fcntl
    import termios

    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))  # 40 lines of 80 characters
    run = tmp_path_factory.mktemp("terminal") / "run"
    arguments = ("--dataset", "strokes", "--data-dir", data_dir, "--epochs", 1, "--out", run)
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=end) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(terminal)
    assert process.returncode == 0
    return shown.decode()


def test_bar_on_a_terminal_shows_loss_reconstruction_kl_and_images_per_second(on_a_terminal):
    for part in ("epoch 1/1", "loss ", " + KL ", "images/s"):
        assert part in on_a_terminal


def test_bar_fits_into_80_columns_and_shows_the_time_that_is_left(on_a_terminal):
    drawn = [line for line in re.split(r"[\r\n]+", on_a_terminal) if line.strip()]
    assert max(map(len, drawn)) <= 80
    assert all(re.match(r"epoch 1/1 \|.+\| (\?|\d\d:\d\d) left", line) for line in drawn)
    assert re.search(r"\d\d:\d\d left, \d+\.?\d*k? images/s, loss \d+\.\d = \d+\.\d \+ KL \d+\.\d$", drawn[-1])


def row_of(epoch, train_loss, test_loss, test_reconstruction, test_kl, beta=1.0):
    return {
        "epoch": epoch,
        "train_loss": train_loss,
        "test_loss": test_loss,
        "test_reconstruction": test_reconstruction,
        "test_kl": test_kl,
        "beta": beta,
    }


LINES = {
    "epoch  4/20  train 112.86  test 110.82 = 85.47 + KL 25.34  20,247 images/s": (
        row_of(4, 112.861, 110.817, 85.474, 25.343),
        20,
    ),
    "epoch 3/9  train 99.00  test 98.50 (95.25, KL 8.00)  20,247 images/s": (row_of(3, 99.0, 98.5, 95.25, 8.0), 9),
    "epoch 1/9  train 99.00  test 98.50 = 95.25 + KL 3.25  β 0.5  20,247 images/s": (
        row_of(1, 99.0, 98.5, 95.25, 3.25, 0.5),
        9,
    ),
    "epoch 1000/1000  train -1335.52  test -1335.52 = -1392.80 + KL 57.28": (
        row_of(1000, -1335.52, -1335.52, -1392.80, 57.28),
        1000,
    ),
    "epoch 1000/1000  train -1335.52  test -1335.52 = -1392.80 + KL 57.28  β 0.00167": (
        row_of(1000, -1335.52, -1335.52, -1392.80, 57.28, 1 / 600),
        1000,
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_line_of_an_epoch_fits_into_80_columns_with_the_speed_where_there_is_room(line):
    row, epochs = LINES[line]
    assert train.describe(row, epochs, 20_246.7) == line
    assert len(line) <= 80


def test_bar_is_of_the_whole_run_and_goes_on_where_training_stands(few_digits, monkeypatch):
    config = Config(dataset=str(few_digits), hidden=[5], latent=2, epochs=4)
    training = Training(config, load(str(few_digits)))
    training.epoch[...], training.examples[...] = 1, 120
    monkeypatch.setattr(train, "tqdm", dict)  # its options
    bar = train.progress(training)
    assert (bar["initial"], bar["total"]) == (720, 2400)


@pytest.fixture
def machine(monkeypatch):
    """Make the machine one of so many cores, so busy, with this BLAS and this environment."""

    def make(cores, load, blas="scipy-openblas", **environment):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
        monkeypatch.setattr(np, "show_config", lambda mode: {"Build Dependencies": {"blas": {"name": blas}}})
        for name in train.THREADS:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return make


def test_on_a_busy_machine_a_run_says_once_what_would_be_quicker(machine, few_digits, tmp_path, capsys):
    machine(2, 1.94)
    assert train.main(["--dataset", str(few_digits), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    line = "busy machine (load 1.9 on 2 cores): OPENBLAS_NUM_THREADS=1 would be quicker"
    assert out.splitlines().index(line) == 2  # the data, the run, and then this
    assert out.count("OPENBLAS") == 1


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"cores": 2, "load": 1.1}, True),
        ({"cores": 2, "load": 1.0}, False),
        ({"cores": 8, "load": 3.9}, False),
        ({"cores": 1, "load": 5.0}, False),  # no second thread
        ({"cores": 2, "load": 5.0, "blas": "accelerate"}, False),
        ({"cores": 2, "load": 5.0, "OPENBLAS_NUM_THREADS": "1"}, False),
        ({"cores": 2, "load": 5.0, "OMP_NUM_THREADS": "2"}, False),
    ],
)
def test_only_a_busy_machine_where_threads_are_not_limited_is_told(where, said, machine):
    machine(**where)
    assert bool(train.threads_advice()) == said


def test_a_machine_that_does_not_tell_its_load_is_not_told(machine, monkeypatch):
    machine(2, 5.0)
    monkeypatch.delattr(os, "getloadavg")
    assert train.threads_advice() is None


def test_streams_that_cannot_be_reconfigured_are_written_to(few_digits, tmp_path, monkeypatch):
    class Stream:
        """As a notebook's."""

        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    assert train.main(["--dataset", str(few_digits), *SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert "epoch 1/1  train" in stream.text


def test_training_runs_in_a_notebook(few_digits, tmp_path):
    arguments = ["--dataset", str(few_digits), *SMALL, "--epochs", "2", "--out", str(tmp_path / "run")]
    cell = new_code_cell(f"from npvae import train\ntrain.main({arguments!r})")
    NotebookClient(new_notebook(cells=[cell]), timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    shown = "".join(output.get("text", "") for output in cell.outputs)
    assert "epoch 2/2  train" in shown
    assert len(Run.open(tmp_path / "run").metrics()) == 2


def test_training_runs_in_a_thread_and_leaves_the_handlers_of_signals_alone(few_digits, tmp_path):
    arguments = ["--dataset", str(few_digits), *SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ThreadPoolExecutor() as threads:
        assert threads.submit(train.main, arguments).result() == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


BAD_OPTIONS = {
    "--epochs 0": "from 1 to",
    "--epochs ten": "from 1 to",
    "--latent -3": "from 1 to",
    "--latent 2.5": "whole number",
    "--hidden 0": "from 1 to",
    "--hidden 100 0": "from 1 to",
    "--batch-size 0": "from 1 to",
    "--samples 0": "from 1 to",
    "--learning-rate 0": "above 0",
    "--learning-rate -1": "above 0",
    "--learning-rate nan": "above 0",
    "--learning-rate 1001": "at most 1,000",
    f"--seed {2**63}": "from 0 to",
    "--learning-rate fast": "above 0",
    "--seed -1": "from 0 to",
    "--activation gelu": "tanh, relu, softplus",
    "--optimizer adamw": "sgd, adagrad, adam",
    "--dataset nonesuch": "auto, mnist",
    "--epoch 3": "--epoch",
    "--objective vimco": "elbo, sampled-elbo, stl, iwae, iwae-dreg",
    "--beta -1": "from 0 to",
    "--beta inf": "from 0 to",
    "--kl-warmup -1": "from 0 to",
    "--likelihood poisson": "bernoulli, gaussian",
    "--binarize sometimes": "none, threshold, fixed, dynamic",
    "--output-bias zero": "mean, random",
    "--adam-beta1 1": "from 0 to",
    "--adam-beta2 1": "from 0 to",
    "--checkpoint-every -1": "from 0 to",
    "--adam-epsilon 0": "from 1e-30",
    "--learning-rate-schedule 10": "EPOCHS:RATE",
    f"--learning-rate-schedule {'9' * 5000}:1e-3": "EPOCHS:RATE",
    "--objective iwae": "--samples 2 or more",
    "--objective iwae-dreg --samples 1": "--samples 2 or more",
    "--learning-rate-schedule 1.5:1e-3": "EPOCHS:RATE",
    "--learning-rate-schedule 10:fast": "EPOCHS:RATE",
    "--learning-rate-schedule 10:0": "rates from above 0",
    "--learning-rate-schedule 10:1e-4 5:1e-3": "rising epochs",
    "--learning-rate-schedule 10:1e-4 10:1e-5": "rising epochs",
    "--likelihood gaussian --binarize dynamic": "--binarize dynamic",
    "--likelihood gaussian --binarize threshold": "--binarize threshold",
    "--adam-beta2 0.99 --optimizer sgd": "--optimizer sgd",
    "--resume nowhere": "nowhere",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_wrong_value_is_refused_by_name_with_what_is_allowed(options, refused, tmp_path, monkeypatch):
    def begin(config):
        if config.dataset != "nonesuch":
            raise AssertionError(f"{options} is not refused: a training would begin")
        return prepare(config)

    prepare = train.prepare
    monkeypatch.setattr(train, "prepare", begin)
    monkeypatch.chdir(tmp_path)
    message = refused(train.main, options.split())
    assert (
        options.split()[1] in message
        if options.split()[0] in ("--dataset", "--resume")
        else options.split()[0] in message
    )
    assert BAD_OPTIONS[options] in message
    assert not list(tmp_path.iterdir())  # nothing half-made is left


def test_help_states_every_default(capsys):
    with pytest.raises(SystemExit) as exit:
        train.main(["--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = "auto none bernoulli 500 20 tanh mean elbo 1 1.0 0.0 adam 0.001 0.9 0.999 1e-08 100 10 0".split()
    for value in defaults:
        assert f"(default: {value})" in text


def test_taken_name_is_refused_and_the_run_there_is_untouched(finished, few_digits, refused):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    message = refused(train.main, ["--dataset", few_digits, "--out", folder])
    assert f"--resume {folder}" in message
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.mnist
@pytest.mark.slow
def test_two_epochs_on_mnist_reach_the_loss_that_pytorch_reaches(tmp_path):
    process = run_train("--dataset", "mnist", "--epochs", 2, "--output-bias", "random", "--out", tmp_path / "run")
    assert process.returncode == 0
    assert Run.open(tmp_path / "run").metrics()[-1]["test_loss"] == pytest.approx(119.5, abs=1.5)


def test_conditional_needs_labels(frey, refused, tmp_path):
    message = refused(train.main, ["--dataset", "frey", "--data-dir", frey, "--conditional", "--out", tmp_path / "run"])
    assert "--conditional needs labels, and frey has none" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--conditional"], "--conditional needs labels, and binarized-mnist has none"),
        (["--binarize", "fixed"], "--binarize fixed: the pixels of binarized-mnist are binary already; leave it out"),
        (["--likelihood", "gaussian"], "--likelihood gaussian needs grey pixels, not --dataset binarized-mnist"),
    ],
)
def test_what_makes_no_sense_of_binary_images_is_refused(binarized, options, says, refused, tmp_path):
    options = ["--dataset", "binarized-mnist", "--data-dir", binarized, *options, "--out", tmp_path / "run"]
    assert says in refused(train.main, options)
    assert not (tmp_path / "run").exists()


def test_conditional_refuses_test_labels_that_training_does_not_have(few_digits, refused, tmp_path):
    for file in FILES:
        array = read_idx(few_digits / file)
        write_idx(
            tmp_path / file, np.where(array == 9, 200, array).astype(np.uint8) if "t10k-labels" in file else array
        )
    message = refused(train.main, ["--dataset", tmp_path, "--conditional", "--out", tmp_path / "run"])
    assert "label 200" in message
    assert not (tmp_path / "run").exists()


def test_metrics_name_the_protocol_the_objective_and_the_beta_and_test_at_beta_1(few_digits, tmp_path, capsys):
    options = ["--dataset", few_digits, *SMALL, "--epochs", 2, "--out", tmp_path / "run", "--binarize", "dynamic"]
    options += "--objective iwae --samples 4 --beta 3 --kl-warmup 2 --learning-rate-schedule 1:1e-4".split()
    assert train.main([str(option) for option in options]) == 0
    out = capsys.readouterr().out
    assert "β 1.25" in out
    assert "β 2.75" in out
    assert "−IWAE bound, K = 4" in out
    run = Run.open(tmp_path / "run")
    rows = run.metrics()
    for row, beta, rate in zip(rows, (1.5 * 5 / 6, 1.5 + 1.5 * 5 / 6), (1e-3, 1e-4), strict=True):
        assert (row["objective"], row["likelihood"], row["binarize"]) == ("iwae", "bernoulli", "dynamic")
        assert (row["samples"], row["learning_rate"]) == (4, rate)
        assert row["beta"] == pytest.approx(beta)
    assert [(row["epoch"], row["examples"]) for row in rows] == [(1, 600), (2, 1200)]
    assert 0 < rows[0]["seconds"] < rows[1]["seconds"]
    dataset = run.dataset()
    assert set(np.unique(dataset.test_images)) == {0, 255}
    terms = estimates(run.vae(), dataset.test_images, None, 4, [4])
    assert rows[-1]["test_loss"] == pytest.approx(terms["iwae"].mean(), abs=1e-5)
    assert rows[-1]["test_reconstruction"] == pytest.approx(terms["reconstruction"].mean(), abs=1e-5)


def test_run_finds_its_data_from_another_folder_and_more_epochs_are_written_down(data_dir, tmp_path):
    relative = os.path.relpath(data_dir, tmp_path)
    options = ("--dataset", "strokes", "--data-dir", relative, *SMALL, "--epochs", 1, "--out", "run")
    subprocess.run(command(*options), cwd=tmp_path, check=True, capture_output=True)
    assert run_train("--resume", tmp_path / "run", "--epochs", 2).returncode == 0
    config = Run.open(tmp_path / "run").config
    assert (config.epochs, config.data_dir) == (2, str(data_dir.resolve()))
    seconds = [row["seconds"] for row in Run.open(tmp_path / "run").metrics()]
    assert 0 < seconds[0] < seconds[1]


def test_mistake_in_a_process_is_one_line_that_names_the_command(tmp_path):
    process = run_train("--dataset", tmp_path / "nothing")
    assert process.returncode == 2
    assert process.stderr.startswith("python -m npvae.train: ")
    assert process.stderr.count("\n") == 1


def test_reader_that_goes_away_is_no_traceback(data_dir, tmp_path):
    options = ("--dataset", "strokes", "--data-dir", data_dir, *SMALL, "--epochs", 3, "--out", tmp_path / "run")
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_two_runs_without_a_name_in_the_same_second_have_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("mnist-1", "mnist-1-2", "mnist-1-3"):
        Run.create(train.free_name("mnist-1"), Config())
        assert (tmp_path / "runs" / expected).is_dir()


@pytest.mark.parametrize("option", ["--resume", "--out", "--dataset"])
def test_empty_text_is_not_taken_for_the_default(option, few_digits, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = [] if option == "--dataset" else ["--dataset", few_digits]
    refused(train.main, [*dataset, option, "", "--epochs", 1])
    assert not list(tmp_path.iterdir())


def test_run_that_cannot_be_begun_leaves_its_name_free(few_digits, tmp_path, refused, monkeypatch):
    def fail(descriptor):
        raise OSError(f"No space left on device: {tmp_path}")

    monkeypatch.setattr(os, "fsync", fail)
    assert "No space" in refused(train.main, ["--dataset", few_digits, "--out", tmp_path / "run"])
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_name_is_in_runs_and_its_data_in_the_data_folder(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NPVAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_dir / "strokes", tmp_path / "data" / "strokes")
    assert train.main(["--dataset", "strokes", "--hidden", "2", "--latent", "2", "--epochs", "1"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"strokes-\d{8}-\d{6}", folder.name)
    assert Run.open(folder).config.data_dir == str(tmp_path / "data")
    assert f"run: runs/{folder.name}" in capsys.readouterr().out


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("resumed", [False, True])
def test_only_a_new_run_whose_first_step_never_fits_is_removed(resumed, steps, few_digits, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    arguments = ["--dataset", str(few_digits), *SMALL, "--epochs", "2", "--out", str(folder)]
    if resumed:
        Run.create(folder, Config(dataset=str(few_digits), hidden=(30,), latent=3, epochs=2))
        arguments = ["--resume", str(folder)]
    inputs, calls = Training.inputs, []

    def out_of_memory(training, rows):
        calls.append(rows)
        if len(calls) > steps:
            raise MemoryError
        return inputs(training, rows)

    monkeypatch.setattr(Training, "inputs", out_of_memory)
    assert train.main(arguments) == 2
    assert folder.exists() == (resumed or steps > 0)


def test_run_whose_first_step_needs_too_much_memory_leaves_its_name_free(few_digits, tmp_path, capsys):
    sizes = ("--hidden", "2", "--latent", "100000", "--samples", "100000")  # noise of 4 TB
    assert train.main(["--dataset", str(few_digits), *sizes, "--out", str(tmp_path / "run")]) == 2
    assert "allocate" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_output_that_the_terminal_cannot_encode_is_not_an_error():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = subprocess.run(command("--help"), capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stderr) == (0, "")
