"""What happens when things go wrong: two processes on one run, kills, edited files, full disks, pipes, terminals."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from npvae import evaluate, explore, plot, train
from npvae.commands import UserError
from npvae.config import Config
from npvae.data.datasets import load
from npvae.exercises import __main__ as exercises
from npvae.files import lock, replacing
from npvae.runs import Run
from npvae.training import Training
from tests.conftest import SMALL, command, heeding, run_train


def a_run(folder, dataset, **settings):
    """A run that is trained for no step."""
    run = Run.create(folder, Config(dataset=str(dataset), hidden=(5,), latent=2, epochs=2, batch_size=50, **settings))
    Training(run.config, load(str(dataset))).save(run)
    return run


@contextlib.contextmanager
def started(*arguments, until="run: ", **options):
    """A training in another process that has printed a line that begins so; killed in the end."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with subprocess.Popen(command(*arguments), **options) as process:
        try:
            while until and not process.stdout.readline().startswith(until):
                assert process.poll() is None, process.stderr.read()
            yield process
        finally:
            process.kill()


def long_training(dataset, folder, *more):
    return ("--dataset", dataset, *SMALL, "--epochs", 100_000, "--out", folder, *more)


def same_apart_from_seconds(rows, others):
    return [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in others]


# one process at a time


def test_a_run_that_is_being_trained_is_refused_with_the_process_that_does(few_digits, tmp_path, refused):
    with started(*long_training(few_digits, tmp_path / "run")) as process:
        message = refused(train.main, ["--resume", tmp_path / "run"])
        assert f"is being trained by process {process.pid}" in message
        assert "is there already" in refused(train.main, ["--dataset", few_digits, "--out", tmp_path / "run"])
        process.kill()
        process.wait()
    assert (tmp_path / "run" / ".lock").exists()  # and in nobody's way:
    epochs = len(Run.open(tmp_path / "run").metrics())
    assert run_train("--resume", tmp_path / "run", "--epochs", epochs + 1).returncode == 0
    assert not list((tmp_path / "run").glob(".*"))


def test_a_lock_is_held_by_one_at_a_time_however_they_come_and_go(tmp_path):
    """Processes that take and leave a lock as fast as they can count without a mistake."""
    code = (
        "import sys; from pathlib import Path; from npvae.files import lock, Locked\n"
        "path, done = Path(sys.argv[1]), 0\n"
        "while done < 200:\n"
        "    try:\n"
        "        with lock(path.with_name('.lock')):\n"
        "            path.write_text(str(int(path.read_text()) + 1)); done += 1\n"
        "    except Locked: pass\n"
    )
    (tmp_path / "count").write_text("0")
    arguments = [sys.executable, "-c", code, str(tmp_path / "count")]
    processes = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert (tmp_path / "count").read_text() == "600"
    assert os.listdir(tmp_path) == ["count"]


def test_temporary_files_that_nobody_writes_are_removed_and_those_of_others_stay(few_digits, tmp_path):
    run = a_run(tmp_path / "run", few_digits)
    run.images.mkdir()
    stale = [run.folder / ".checkpoint.npz.0a1b2c3d.part", run.images / ".samples.png.0a1b2c3d.part"]
    others = [run.folder / ".mine.part", run.folder / ".part", run.folder / "notes.txt"]
    for path in (*stale, *others):
        path.write_bytes(b"half")
    with replacing(run.evaluation) as live:  # as another process would
        live.write(b"{}")
        assert train.main(["--resume", str(run.folder)]) == 0
    assert run.evaluation.read_bytes() == b"{}"
    assert [path for path in (*stale, *others) if path.exists()] == others


# folders that vanish, and kills


def test_a_folder_that_vanishes_ends_the_training_and_does_not_come_back(few_digits, tmp_path):
    with started(*long_training(few_digits, tmp_path / "run"), until="epoch ") as process:
        while (tmp_path / "run").exists():
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert err == f"python -m npvae.train: {tmp_path / 'run'} is gone, and with it what was trained\n"
    assert not (tmp_path / "run").exists()


def test_a_training_whose_folder_was_replaced_leaves_the_new_run_alone(few_digits, tmp_path):
    run = a_run(tmp_path / "run", few_digits, checkpoint_every=1e6)
    training, dataset = Training(run.config, load(str(few_digits))), load(str(few_digits))
    with run.lock():
        shutil.rmtree(run.folder)
        other = a_run(tmp_path / "run", few_digits, seed=1)
        before = {path: path.read_bytes() for path in other.folder.iterdir()}
        with train.StopRequest() as stop, pytest.raises(UserError, match="is gone, and with it what was trained"):
            train.fit(training, run, dataset, stop)
        run.remove()  # as after a failure
    assert {path: path.read_bytes() for path in other.folder.iterdir()} == before


def test_a_run_that_cannot_be_begun_behind_a_link_leaves_its_folder_free(few_digits, tmp_path, monkeypatch, refused):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "save_checkpoint", fail)
    refused(train.main, ["--dataset", few_digits, *SMALL, "--out", tmp_path / "link"])
    assert list((tmp_path / "folder").iterdir()) == []
    monkeypatch.undo()
    assert train.main(["--dataset", str(few_digits), *SMALL, "--epochs", "1", "--out", str(tmp_path / "link")]) == 0


def test_a_lock_that_is_a_link_or_a_pipe_is_refused_and_what_it_points_to_is_left(few_digits, tmp_path, refused):
    run = a_run(tmp_path / "run", few_digits)
    (tmp_path / "precious").write_text("precious")
    (run.folder / ".lock").symlink_to(tmp_path / "precious")
    assert ".lock" in refused(train.main, ["--resume", run.folder])
    assert (tmp_path / "precious").read_text() == "precious"
    (run.folder / ".lock").unlink()
    os.mkfifo(run.folder / ".lock")
    assert ".lock is not a regular file" in refused(train.main, ["--resume", run.folder])


def test_a_folder_that_a_kill_left_empty_can_be_used(few_digits, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".config.json.0a1b2c3d.part").touch()
    assert run_train("--dataset", few_digits, *SMALL, "--epochs", 1, "--out", tmp_path / "run").returncode == 0
    assert not list((tmp_path / "run").glob(".*"))


class Killed(BaseException):
    """Nothing in a program expects it."""


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_when_it_is_resumed(
    finished, tmp_path, monkeypatch, refused
):
    run = Run.create(tmp_path / "run", Run.open(finished[0]).config)

    def die(*_):
        raise Killed

    monkeypatch.setattr(Run, "save_checkpoint", die)
    with pytest.raises(Killed):
        train.main(["--resume", str(run.folder)])
    monkeypatch.undo()
    assert not run.metrics_file.exists()  # which would tell of a checkpoint
    assert run_train("--resume", tmp_path / "run").returncode == 0
    assert Run.open(tmp_path / "run").checkpoint.read_bytes() == (finished[0] / "checkpoint.npz").read_bytes()
    run.checkpoint.unlink()  # and where there was one, it is not begun again in silence
    assert "has no checkpoint.npz" in refused(train.main, ["--resume", tmp_path / "run"])


def test_a_kill_within_an_epoch_loses_no_more_than_what_came_after_the_last_checkpoint(finished, tmp_path, monkeypatch):
    config = replace(Run.open(finished[0]).config, checkpoint_every=0.0)
    run, dataset, save, saves = Run.create(tmp_path / "run", config), load(config.dataset), Training.save, []

    def save_and_die(training, run):
        save(training, run)
        saves.append(training.step)
        if len(saves) == 9:  # the first of them at the start
            raise Killed

    monkeypatch.setattr(train, "SHARE", np.inf)  # however slow the disk is
    monkeypatch.setattr(Training, "save", save_and_die)
    training = Training(config, dataset)
    training.save(run)
    with train.StopRequest() as stop, pytest.raises(Killed):
        train.fit(training, run, dataset, stop)
    assert saves == [0, 1, 2, 3, 4, 5, 6, 6, 7]  # six steps are an epoch, at whose end there is one in any case
    monkeypatch.undo()
    assert 0 < int(run.load_checkpoint()["examples"]) < 600
    assert train.main(["--resume", str(run.folder)]) == 0
    assert run.checkpoint.read_bytes() == (finished[0] / "checkpoint.npz").read_bytes()


def test_checkpoints_within_an_epoch_take_a_hundredth_of_the_time_at_most(few_digits, tmp_path, monkeypatch):
    clock, saves = [0.0], []
    monkeypatch.setattr(train.time, "monotonic", lambda: clock[0])
    run = a_run(tmp_path / "run", few_digits, checkpoint_every=1.0)
    training = Training(run.config, load(str(few_digits)))

    def save(run):
        saves.append(clock[0])
        clock[0] += 0.5  # a slow disk

    monkeypatch.setattr(training, "save", save)
    step = training.optimizer.step

    def slow_step():
        clock[0] += 10
        step()

    monkeypatch.setattr(training.optimizer, "step", slow_step)
    with train.StopRequest() as stop:
        train.fit(training, run, load(str(few_digits)), stop)
    # 12 steps of 10 s are an epoch, at whose end there is one in any case; within it not before 50 s have passed, of
    # which 0.5 s are a hundredth
    assert saves[:6] == [10, 60.5, 111, 121.5, 172, 222.5]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_terminal_that_goes_away_stops_and_saves_unless_that_is_ignored(few_digits, tmp_path):
    with started(*long_training(few_digits, tmp_path / "run"), until="epoch ", preexec_fn=heeding) as process:
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (129, "")
    assert "stopped by SIGHUP" in out
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}  # as nohup does
    with started(*long_training(few_digits, tmp_path / "other"), until="epoch ", **ignoring) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline().startswith("epoch ")
        assert process.stdout.readline().startswith("epoch ")


def test_a_second_ctrl_c_says_what_is_kept(few_digits, tmp_path, monkeypatch, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

    def interrupted_twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    try:
        monkeypatch.setattr(train, "fit", interrupted_twice)
        arguments = ["--dataset", few_digits, *SMALL, "--out", tmp_path / "run"]
        assert train.main(list(map(str, arguments))) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"is kept: go on with: python -m npvae.train --resume {tmp_path / 'run'}" in message


def test_an_evaluation_that_is_stopped_says_what_it_has(finished, few_digits, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "ENCODED_AT_ONCE", 50)
    asked = []

    class StopAfterThreeBlocks(evaluate.StopRequest):
        @property
        def signal(self):
            asked.append(0)
            return signal.SIGINT if len(asked) > 33 else None  # 11 chunks of samples are a block

        @signal.setter
        def signal(self, _):
            pass

    monkeypatch.setattr(evaluate, "StopRequest", StopAfterThreeBlocks)
    monkeypatch.setattr(evaluate, "DECODED_AT_ONCE", 50 * 100)
    evaluation = Run.open(finished[0]).evaluation
    assert evaluate.main([str(finished[0]), "--importance-samples", "1100", "--json"]) == 130
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["examples"] == 150
    assert err.endswith("stopped by SIGINT: this is of the first 150 of 200 test examples, and not kept\n")
    assert not evaluation.exists()
    of_them = evaluate.estimates(Run.open(finished[0]).vae(), load(str(few_digits)).test_images[:150], None, 1100)
    assert result["elbo_loss"]["mean"] == pytest.approx((of_them["reconstruction"] + of_them["kl"].sum(axis=1)).mean())


# files that are not what they should be


@pytest.mark.parametrize("main", [train.main, evaluate.main, plot.main, explore.main])
@pytest.mark.parametrize(("name", "value"), [("activation", "relu"), ("learning_rate", 0.5), ("binarize", "dynamic")])
def test_settings_that_were_edited_are_refused(main, name, value, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    message = refused(main, [*["--resume"] * (main is train.main), tmp_path / "run"])
    assert f"--{name.replace('_', '-')}" in message
    assert f"but {path} has {value}: was it edited?" in message


def test_more_epochs_and_moved_data_may_be_edited(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epochs": 4, "checkpoint_every": 5}))
    assert len(Run.open(tmp_path / "run").load_checkpoint()) > 5


@pytest.mark.parametrize("main", [train.main, evaluate.main, plot.main, explore.main])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": np.float32([np.nan])}, "expected float32"),
        ({"parameters": "with a NaN"}, "parameters that are not finite"),
        ({"parameters": None}, "no 'parameters'"),
        ({"epoch": None}, "no 'epoch'"),
        ({"epoch": np.int64(-1)}, "epoch -1"),
        ({"examples": np.float64(1)}, "examples as float64"),
        ({"unknown": np.zeros(3)}, "'unknown'"),
    ],
)
def test_a_checkpoint_with_other_contents_is_refused(main, changes, message, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    state = run.load_checkpoint()
    if isinstance(changes.get("parameters"), str):
        changes = {"parameters": np.where(np.arange(state["parameters"].size) == 7, np.nan, state["parameters"])}
    run.save_checkpoint({name: value for name, value in (state | changes).items() if value is not None})
    said = refused(main, [*["--resume"] * (main is train.main), run.folder])
    assert message in said
    assert str(run.checkpoint) in said


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("epoch", [3, 2**60])
def test_a_checkpoint_of_more_epochs_than_it_has_losses_of_is_refused(epoch, optimizer, few_digits, tmp_path, refused):
    run = a_run(tmp_path / "run", few_digits, optimizer=optimizer)
    run.save_checkpoint(run.load_checkpoint() | {"epoch": np.array(epoch)})
    assert str(run.checkpoint) in refused(train.main, ["--resume", run.folder])


@pytest.mark.parametrize("losses", [np.float64(7), np.zeros(12), np.zeros((2, 12)), np.ones((3, 12))])
def test_losses_of_other_epochs_are_refused(losses, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.save_checkpoint(run.load_checkpoint() | {"losses": losses})
    assert str(run.checkpoint) in refused(train.main, ["--resume", run.folder])


@pytest.mark.parametrize("t", [-1, 0, 31, 10**12])
def test_an_optimizer_that_counts_other_steps_than_were_made_is_refused(t, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    state = run.load_checkpoint()
    run.save_checkpoint(state | {"optimizer.t": np.full_like(state["optimizer.t"], t)})
    assert "it is broken" in refused(train.main, ["--resume", run.folder])


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("how", ["packed", "twice", "promises more", "pickled", "not an array", "no zip"])
def test_a_checkpoint_that_npvae_would_not_have_written_takes_no_memory(how, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            packing = zipfile.ZIP_STORED
            if name == "parameters.npy":
                if how == "packed":
                    content, packing = npy(np.zeros(100_000_000, np.float32)), zipfile.ZIP_DEFLATED
                elif how == "promises more":
                    content = re.sub(rb"\(\d+,\), \} *", lambda m: b"(10000000000000,), }".ljust(len(m[0])), content)
                elif how == "pickled":
                    content = pickled()
                elif how == "not an array":
                    content = b"text"
            archive.writestr(name, content, packing)
        if how == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("parameters.npy", members["parameters.npy"])
    if how == "no zip":
        path.write_bytes(b"PK\x03\x04")
    for main, arguments in ((train.main, ["--resume"]), (evaluate.main, [])):
        assert f"{path} is broken" in refused(main, [*arguments, tmp_path / "run"])


def test_no_single_bit_of_a_checkpoint_s_directory_takes_a_member_away(finished, tmp_path):
    """A longer comment, for example, would hide the members after it, and the settings are the last."""
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    whole, state = run.checkpoint.read_bytes(), run.load_checkpoint()
    start = whole.index(b"PK\x01\x02")
    rng = np.random.default_rng(0)
    for at in rng.choice(8 * (len(whole) - start), 600, replace=False):
        damaged = bytearray(whole)
        damaged[start + at // 8] ^= 1 << at % 8
        run.checkpoint.write_bytes(damaged)
        try:
            found = run.load_checkpoint()
        except UserError:
            continue
        assert found.keys() == state.keys()
        assert all(np.array_equal(found[name], state[name]) for name in state)


def pickled():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([{}], object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("main", [train.main, evaluate.main, plot.main, explore.main])
@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 10, '{"latent": 1e400}', "[]", "null", " " * 11_000_000])
def test_settings_that_are_no_settings_are_refused(main, text, tmp_path, refused):
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in refused(main, [*["--resume"] * (main is train.main), tmp_path])


@pytest.mark.parametrize(
    "change",
    [
        lambda result: "[" * 100_000,
        lambda result: json.dumps(result | {"epochs": "three"}),
        lambda result: json.dumps(result | {"iwae_loss": {"1": {"mean": "text"}}}),
        lambda result: json.dumps(result | {"elbo_loss": {"mean": float("nan")}}),
        lambda result: json.dumps(result | {"elbo_loss": None}),
        lambda result: json.dumps(result | {"iwae_loss": {"9" * 20: {"mean": 1.0}}}),
        lambda result: json.dumps(result | {"iwae_loss": {"9" * 400: {"mean": 1.0}}}),
    ],
)
def test_an_evaluation_without_numbers_is_refused(change, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    mean = {"mean": 1.0, "standard_error": 0.1}
    result = {"epochs": 3, "protocol": "p", "elbo_loss": mean, "iwae_loss": {"1": mean}}
    run.evaluation.write_text(change(result))
    assert f"{run.evaluation} is broken" in refused(plot.main, [run.folder])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("name", ["config.json", "checkpoint.npz", "metrics.csv", "evaluation.json"])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_waited_for(name, finished, tmp_path, refused):
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        run = tmp_path / "run"
        shutil.copytree(finished[0], run)
        (run / name).unlink(missing_ok=True)
        make(run / name)
        assert "not a regular file" in refused(plot.main, [run])
        shutil.rmtree(run)


# disks, terminals, and the moments before and after


def test_a_disk_without_room_is_told_with_the_file_and_how_to_go_on(few_digits, tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    run = a_run(tmp_path / "run", few_digits)
    before = run.checkpoint.read_bytes()

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))

    process = subprocess.run(
        command("--resume", run.folder), preexec_fn=small_files, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert str(run.checkpoint) in process.stderr
    assert f"go on with: python -m npvae.train --resume {run.folder}" in process.stderr
    assert run.checkpoint.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_has_no_room_is_one_line(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    for module in ("evaluate", "plot"):
        with open("/dev/full", "w") as full:
            arguments = [sys.executable, "-m", f"npvae.{module}", tmp_path / "run"]
            process = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert process.returncode == 2
        assert re.fullmatch(rf"python -m npvae.{module}: .*No space left on device\n", process.stderr)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_output_does_no_harm(closed, few_digits, tmp_path):
    arguments = [*command("--dataset", few_digits, *SMALL, "--epochs", 1, "--out", tmp_path / "run")]
    process = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *arguments], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert len(Run.open(tmp_path / "run").metrics()) == 1


@pytest.mark.parametrize("module", ["numpy", "npvae.vae", "tqdm", "npvae.config"])
def test_ctrl_c_while_a_command_is_imported_is_no_traceback(module, tmp_path):
    """The first import of a module, of whichever there are, is interrupted."""
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, signal\n"
        "first = builtins.__import__\n"
        "def interrupting(name, *rest, **more):\n"
        f"    if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "    return first(name, *rest, **more)\n"
        "builtins.__import__ = interrupting\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.run(command("--help"), capture_output=True, text=True, env=environment, preexec_fn=heeding)
    assert (process.returncode, process.stderr) == (130, "")


def test_a_package_that_uses_npvae_keeps_its_ctrl_c_and_its_backend(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from npvae import VAE\n")
    (tmp_path / "mine" / "go.py").write_text(
        "import os, signal; print(signal.getsignal(signal.SIGINT).__name__, os.environ['MPLBACKEND'])\n"
    )
    options = {"cwd": tmp_path, "env": os.environ | {"MPLBACKEND": "svg"}, "preexec_fn": heeding}
    process = subprocess.run([sys.executable, "-m", "mine.go"], capture_output=True, text=True, **options)
    assert process.stdout.split()[1:] == ["svg"]
    assert "lambda" not in process.stdout


def test_a_backend_that_matplotlib_does_not_know_is_in_nobody_s_way(few_digits, tmp_path):
    arguments = command("--dataset", few_digits, *SMALL, "--epochs", 1, "--out", tmp_path / "run")
    environment = os.environ | {"MPLBACKEND": "nonsense"}
    process = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stderr) == (0, "")
    assert (tmp_path / "run" / "images" / "samples.png").exists()


def test_pictures_of_high_and_narrow_images_are_of_a_size_that_can_be_drawn():
    images = np.zeros((20, 2000), np.float32)
    width, height = plot.picture("title", images, 10, (2000, 1)).get_size_inches()
    assert width * height * 120**2 < 20e6  # pixels


@pytest.mark.parametrize("name", [b"$\\frac$", b"n\xff"])
def test_runs_of_any_name_are_compared(name, few_digits, tmp_path):
    folders = [tmp_path / "other", tmp_path / os.fsdecode(name)]
    for seed, folder in enumerate(folders):
        arguments = ["--dataset", few_digits, *SMALL, "--epochs", 1, "--seed", seed, "--out", folder]
        assert train.main(list(map(str, arguments))) == 0
    assert plot.main([*map(str, folders), "--out", str(tmp_path / "both.png")]) == 0
    assert (tmp_path / "both.png").stat().st_size > 5000


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[2J"])
def test_a_name_that_is_none_is_refused_in_one_line_that_cannot_steer_a_terminal(name, few_digits, refused):
    for option in ("--out", "--resume", "--dataset"):
        assert refused(train.main, ["--dataset", few_digits, option, name])[:-1].isprintable()


def test_no_name_of_a_folder_steers_the_terminal_that_it_is_printed_on(few_digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plot, "PICTURES", ("learning-curves",))  # the others are told in the same way
    folder = tmp_path / "a\x1b[31mb\rc"
    shutil.copytree(few_digits, folder)
    run = folder / "run"
    assert train.main(list(map(str, ["--dataset", folder, *SMALL, "--epochs", 1, "--out", tmp_path / "run"]))) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    (tmp_path / "run").rename(run)  # no run is begun with such a name
    for main, *arguments in [
        (train.main, "--resume", run),
        (evaluate.main, run, "--importance-samples", 2),
        (plot.main, run),
        (plot.main, run, tmp_path / "other", "--out", folder / "both.png"),
        (explore.main, run),
        (exercises.main, "start", folder / "exercises"),
    ]:
        assert main(list(map(str, arguments))) in (0, None)
        out = capsys.readouterr().out
        assert "\\x1b[31mb\\rc" in out
        assert out.replace("\n", "").isprintable()


def test_what_is_written_is_whole_or_not_there_and_names_its_file_when_the_disk_is_full(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def write(path, *errors):
        with replacing(path) as file:
            file.write(b"new")
            for error in errors:
                raise error

    with pytest.raises(OSError, match=str(tmp_path / "file")):
        write(tmp_path / "file", OSError(28, "No space left on device"))
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "folder" / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_whose_folder_is_gone_ends_without_a_word(tmp_path):
    (tmp_path / "run").mkdir()
    with lock(tmp_path / "run" / ".lock"):
        shutil.rmtree(tmp_path / "run")
    assert not (tmp_path / "run").exists()
