"""Sweeps: the numbers of their tables, and what becomes of runs that fail, stop or are killed."""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.image import imread

from npvae import evaluate, plot, summary, sweep
from npvae.runs import Run
from npvae.sweep import Plan
from tests.conftest import SMALL, heeding, run_train
from tests.jobs import LIMIT, MPIEXEC, end_of, job_of, processes_of, together, wait_for

needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec: python -m pip install mpi4py mpich")
TERMS = ("loss", "reconstruction", "kl")
NAMES = [f"learning-rate-{rate}-seed-{seed}" for rate in ("0.001", "0.01", "1000") for seed in (0, 1, 2)]


def blank(run, names, *model):
    """Instead of the pictures of a run, which take longer than its training here."""
    run.images.mkdir(exist_ok=True)
    for name in names:
        (run.images / f"{name}.png").touch()
    return {name: str(run.images / f"{name}.png") for name in names}


def here(words, told):
    """Instead of a process for each run: what `sweep.call` would return."""
    module, *arguments = words
    if module == "npvae.train":
        process = run_train(*arguments)
        return process.returncode, process.stderr, 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        return evaluate.main(list(map(str, arguments))), err.getvalue(), 0


def run_sweep(*arguments, call=here):
    """Run the command, here: what a process would leave and say."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sweep, "call", call)
        patch.setattr(plot, "draw", blank)
        code = sweep.main(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def command(*arguments):
    return [sys.executable, "-m", "npvae.sweep", *map(str, arguments)]


@pytest.fixture(scope="module")
def swept(few_digits, tmp_path_factory):
    """A sweep of three learning rates, with the last of which all diverge, and three seeds: (folder, what it said)."""
    folder = tmp_path_factory.mktemp("sweeps") / "rates"
    grid = ("--vary", "learning-rate", "1e-3", "1e-2", "1000", "--seeds", 0, 1, 2)
    process = run_sweep(*grid, "--dataset", few_digits, *SMALL, "--epochs", 2, "--out", folder)
    assert process.returncode == 1
    return folder, process


def table_of(folder):
    """table.csv: a dict for each row."""
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_minutes(rows):
    return [{name: text for name, text in row.items() if "minutes" not in name} for row in rows]


def last_row(run):
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))[-1]


# the table


def test_table_is_mean_and_deviation_of_what_the_runs_have_found(swept):
    folder, process = swept
    rows = table_of(folder)
    assert [row["learning_rate"] for row in rows] == ["0.001", "0.01", "1000"]
    assert [(row["finished"], row["failed"]) for row in rows] == [("3", "0"), ("3", "0"), ("0", "3")]
    text = (folder / "table.txt").read_text(encoding="utf-8").splitlines()
    for row, line in zip(rows[:2], text[1:], strict=False):
        runs = [last_row(folder / f"learning-rate-{row['learning_rate']}-seed-{seed}") for seed in (0, 1, 2)]
        assert all(run["epoch"] == "2" for run in runs)
        expected = [[float(run[name]) for run in runs] for name in [f"test_{term}" for term in TERMS] + ["seconds"]]
        expected[-1] = [seconds / 60 for seconds in expected[-1]]
        shown = []
        for name, values in zip([f"test_{term}" for term in TERMS] + ["minutes"], expected, strict=True):
            mean, deviation = np.mean(values), np.std(values, ddof=1)
            assert float(row[f"{name}_mean"]) == pytest.approx(mean, abs=1e-6)
            assert float(row[f"{name}_sd"]) == pytest.approx(deviation, abs=1e-6)
            shown += [f"{mean:.2f}"] + ["±", f"{deviation:.2f}"] * (name != "minutes")
        assert line.split() == [row["learning_rate"], "3", *shown]
    assert text[3].split() == ["1000", "0/3"]
    assert {text for name, text in rows[2].items() if "_mean" in name or "_sd" in name} == {""}
    assert text[-2:] == [
        "Nats per example of the test set after the last epoch; the loss is −ELBO.",
        "Mean ± standard deviation over the seeds 0, 1, 2.",
    ]
    assert max(map(len, text)) <= 80
    assert "\n".join(text) in process.stdout


def test_what_failed_is_named_with_its_reason_and_the_rest_is_finished(swept):
    folder, process = swept
    lines = process.stderr.splitlines()
    assert len(lines) == 4
    for seed, line in enumerate(lines[:3]):
        assert line.startswith(f"python -m npvae.sweep: learning-rate 1000, seed {seed}: failed: the loss is ")
        assert "learning rate 1000" in line
    assert lines[3].endswith(f"3 runs failed; try again with: python -m npvae.sweep --resume {folder}")
    told = [line.partition(":")[0] for line in process.stdout.splitlines() if ": test loss " in line]
    assert told == [f"learning-rate {rate}, seed {seed}" for rate in ("0.001", "0.01") for seed in (0, 1, 2)]
    assert imread(folder / "table.png")[..., :3].std() > 0.01
    assert sorted(os.listdir(folder)) == sorted([*NAMES, "sweep.json", "table.csv", "table.png", "table.txt"])


def test_runs_are_those_of_npvae_train_byte_for_byte(swept, few_digits, tmp_path):
    arguments = ("--dataset", few_digits, *SMALL, "--epochs", 2, "--learning-rate", 1e-2, "--seed", 1)
    assert run_train(*arguments, "--out", tmp_path / "run").returncode == 0
    run, alone = swept[0] / "learning-rate-0.01-seed-1", tmp_path / "run"
    assert (run / "checkpoint.npz").read_bytes() == (alone / "checkpoint.npz").read_bytes()
    assert (run / "config.json").read_bytes() == (alone / "config.json").read_bytes()
    assert sorted(os.listdir(run)) == sorted(os.listdir(alone))


def test_resume_trains_what_is_missing_or_failed_and_nothing_else(swept, few_digits, tmp_path):
    folder, trained = tmp_path / "rates", []
    shutil.copytree(swept[0], folder)
    assert run_train("--dataset", few_digits, *SMALL, "--epochs", 1, "--out", tmp_path / "shorter").returncode == 0
    before = {name: (folder / name / "checkpoint.npz").read_bytes() for name in NAMES[:6]}
    shutil.rmtree(folder / NAMES[1])
    shutil.rmtree(folder / NAMES[4])
    (folder / NAMES[4]).write_text("in the way")
    # as where they were killed before their pictures, and before their last checkpoint
    (folder / NAMES[5] / "images" / "samples.png").unlink()
    shutil.copy(tmp_path / "shorter" / "checkpoint.npz", folder / NAMES[0])

    def call(words, told):
        trained.append(words[2].name)
        return here(words, told)

    process = run_sweep("--resume", folder, call=call)
    assert process.returncode == 1
    assert trained == [NAMES[0], NAMES[1], NAMES[5], *NAMES[6:]]
    assert f"0.01, seed 1: failed: {folder / NAMES[4] / 'config.json'} is not the settings" in process.stderr
    for name in (*NAMES[:4], NAMES[5]):
        assert (folder / name / "checkpoint.npz").read_bytes() == before[name]
    whole, rows = without_minutes(table_of(swept[0])), without_minutes(table_of(folder))
    assert rows[0] == whole[0]
    assert (rows[1]["finished"], rows[1]["failed"]) == ("2", "1")
    losses = [float(last_row(folder / NAMES[i])["test_loss"]) for i in (3, 5)]
    assert float(rows[1]["test_loss_mean"]) == pytest.approx(np.mean(losses), abs=1e-6)
    assert float(rows[1]["test_loss_sd"]) == pytest.approx(abs(losses[0] - losses[1]) / np.sqrt(2), abs=1e-6)


def test_where_all_runs_fail_the_table_says_so_and_there_is_no_picture(few_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(few_digits.parent)
    given = ("--dataset", few_digits.name, *SMALL, "--learning-rate", 1000, "--seeds", 4, "--out", tmp_path / "sweep")
    for arguments in (given, ("--resume", tmp_path / "sweep")):
        process = run_sweep(*arguments)
        assert process.returncode == 1
        assert process.stderr.startswith("python -m npvae.sweep: seed 4: failed: the loss is ")
        assert process.stderr.count("\n") == 2
        assert "0/1" in process.stdout
        assert sorted(os.listdir(tmp_path / "sweep")) == ["seed-4", "sweep.json", "table.csv", "table.txt"]
        monkeypatch.chdir(tmp_path)  # from which the data are found again


def test_evaluations_are_in_the_table_and_can_be_had_later(few_digits, tmp_path):
    folder, ran = tmp_path / "sweep", []

    def call(words, told):
        ran.append(words[0])
        return here(words, told)

    grid = ("--vary", "objective", "elbo", "iwae", "--samples", 2, "--seeds", 0)
    process = run_sweep(*grid, "--dataset", few_digits, *SMALL, "--epochs", 1, "--out", folder, call=call)
    assert (process.returncode, process.stderr) == (0, "")
    assert "These losses cannot be compared: the runs differ in bound." in process.stdout
    assert [row["bound"] for row in table_of(folder)] == ["−ELBO", "−IWAE bound, K = 2"]
    assert [row["test_loss_sd"] for row in table_of(folder)] == ["", ""]
    assert run_sweep("--resume", folder, "--importance-samples", 500, call=call).returncode == 0
    assert ran == ["npvae.train"] * 2 + ["npvae.evaluate"] * 2
    rows, table = table_of(folder), (folder / "table.txt").read_text(encoding="utf-8")
    assert "−log p(x)" in table
    for row, line in zip(rows, table.splitlines()[1:], strict=False):
        found = json.loads((folder / f"objective-{row['objective']}-seed-0" / "evaluation.json").read_text())
        mean = found["negative_log_likelihood"]["mean"]
        assert float(row["negative_log_likelihood_mean"]) == pytest.approx(mean, abs=1e-6)
        assert float(row["active_units_mean"]) == found["active_units"]
        assert f"  {mean:.2f}  " in line
    assert run_sweep("--resume", folder, call=call).returncode == 0  # it is kept in mind
    assert len(ran) == 4
    assert run_sweep("--resume", folder, "--importance-samples", 3, call=call).returncode == 0
    assert "−IWAE, K = 3" in (folder / "table.txt").read_text(encoding="utf-8")


# processes


SUICIDE = """
import os, signal, sys
if any("seed-1" in word for word in sys.orig_argv):
    os.kill(os.getpid(), signal.SIGKILL)
"""
ASKED = "import sys; from npvae import sweep; code = sweep.main(); print('mpi4py' in sys.modules); sys.exit(code)"


def test_a_run_that_is_killed_fails_alone_and_nobody_imports_mpi(few_digits, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SUICIDE)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    arguments = ["--dataset", str(few_digits), *SMALL, "--epochs", "1", "--seeds", "0", "1", "--out", "sweep"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.getcwd()])}
    process = subprocess.run(
        [sys.executable, "-c", ASKED, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "python -m npvae.sweep: seed 1: failed: killed by SIGKILL",
        "python -m npvae.sweep: 1 run failed; try again with: python -m npvae.sweep --resume sweep",
    ]
    assert process.stdout.splitlines()[-1] == "False"
    assert table_of(tmp_path / "sweep")[0]["finished"] == "1"
    assert run_sweep("--resume", tmp_path / "sweep").returncode == 0
    assert table_of(tmp_path / "sweep")[0]["finished"] == "2"


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (-9, "", "killed by SIGKILL"),
        (-42, "", "killed by signal 42"),
        (143, "", "stopped by SIGTERM"),
        (1, "", "exit code 1"),
        (2, "python -m npvae.train: no room\n", "no room"),
        (1, 'Traceback:\n  File "a.py"\nZeroDivisionError: a bug\n', "ZeroDivisionError: a bug"),
    ],
)
def test_why_a_process_failed_is_its_last_line_or_its_signal(code, said, reason):
    assert sweep.why(code, said) == reason


STUBBORN = """
import os, signal, sys, time
signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
open("ready", "w").close()
while not signals:
    time.sleep(0.01)
time.sleep(1)
sys.exit(f"{len(signals)} signal, in a session of its own: {os.getsid(0) == os.getpid()}")
"""


def test_a_signal_is_passed_on_once_to_a_process_that_the_terminal_does_not_reach(tmp_path, monkeypatch):
    """A second one would keep it from saving."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.chdir(tmp_path)
    code, said, passed_on = sweep.call(["stubborn"], lambda: signal.SIGTERM if os.path.exists("ready") else 0)
    assert (code, said, passed_on) == (1, "1 signal, in a session of its own: True\n", signal.SIGTERM)


def test_a_run_that_another_process_trains_is_waited_for_until_a_stop(swept):
    run, stop = Run.open(swept[0] / NAMES[0]), threading.Event()
    task = ("label", run.folder, run.config, None, lambda: signal.SIGTERM if stop.is_set() else 0)
    with ThreadPoolExecutor() as pool:
        with run.lock():
            waiting = pool.submit(sweep.carry_out, *task)
            time.sleep(0.5)
            assert not waiting.done()
        assert waiting.result(timeout=LIMIT) == ("", 0)
        with run.lock():
            waiting = pool.submit(sweep.carry_out, *task)
            time.sleep(0.5)
            assert not waiting.done()
            stop.set()
            waiting.result(timeout=LIMIT)


@pytest.fixture(scope="module")
def undisturbed(few_digits, tmp_path_factory):
    """Two runs that nothing stops: (their options, their checkpoints by seed)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    options = ("--dataset", few_digits, *SMALL, "--epochs", 15, "--batch-size", 7)
    assert run_sweep(*options, "--seeds", 0, 1, "--out", folder / "sweep").returncode == 0
    return options, [(folder / "sweep" / f"seed-{seed}" / "checkpoint.npz").read_bytes() for seed in (0, 1)]


def require_same(folder, checkpoints):
    for seed, checkpoint in enumerate(checkpoints):
        assert (folder / f"seed-{seed}" / "checkpoint.npz").read_bytes() == checkpoint


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGKILL, -9)],
)
def test_a_sweep_goes_on_bit_for_bit_after_a_signal(number, code, undisturbed, tmp_path):
    """After SIGKILL the training of the run is still there, and ends with its epoch; the resumed sweep waits for it."""
    (options, checkpoints), folder = undisturbed, tmp_path / "sweep"
    arguments = command(*options, "--seeds", 0, 1, "--out", folder)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, **pipes, preexec_fn=heeding) as process:
        wait_for(folder / "seed-0" / "metrics.csv", process)
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (code, "")
    if number != signal.SIGKILL:
        name = signal.Signals(number).name
        line = f"stopped by {name}; 0 of 2 runs are finished; go on with: python -m npvae.sweep --resume {folder}"
        assert out.splitlines()[-1] == line
        assert not list(folder.glob("**/.*"))
        Run.open(folder / "seed-0").load_checkpoint()  # is there, and whole
    assert not (folder / "seed-1").exists()
    assert run_sweep("--resume", folder).returncode == 0
    require_same(folder, checkpoints)
    assert not list(folder.glob("**/.*"))


@needs_mpi
def test_processes_share_the_runs_and_make_the_same_table(swept, tmp_path):
    folder = tmp_path / "rates"
    shutil.copytree(swept[0], folder)
    for name in NAMES[1:3]:
        shutil.rmtree(folder / name)
    process = together(3, "-m", "npvae.sweep", "--resume", folder)
    assert process.returncode == 1
    failed = [line for line in process.stderr.splitlines() if ": failed: the loss is " in line]
    assert {line.partition(":")[2].split(":")[0] for line in failed} == {
        f" learning-rate 1000, seed {seed}" for seed in (0, 1, 2)
    }
    assert process.stderr.count("\n") == 4
    assert "3 processes: the first hands out the runs, the others train" in process.stdout.splitlines()
    assert process.stdout.count(f"{folder / 'table.txt'}") == 1
    assert without_minutes(table_of(folder)) == without_minutes(table_of(swept[0]))
    for name in NAMES[:6]:
        assert (folder / name / "checkpoint.npz").read_bytes() == (swept[0] / name / "checkpoint.npz").read_bytes()


def begun(options, folder):
    """A job of three processes whose sweep is training both of its runs."""
    process = job_of(3, "-m", "npvae.sweep", *options, "--seeds", 0, 1, "--out", folder)
    for seed in (0, 1):
        wait_for(folder / f"seed-{seed}" / "metrics.csv", process)
    return process


@needs_mpi
@pytest.mark.parametrize(
    "to",
    [
        "mpiexec",
        pytest.param("the first", marks=pytest.mark.slow),
        pytest.param("one that trains", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_whichever_process_stops_and_saves_all_runs(to, undisturbed, tmp_path):
    (options, checkpoints), folder = undisturbed, tmp_path / "sweep"
    process = begun(options, folder)
    target = process.pid if to == "mpiexec" else processes_of(process)[0 if to == "the first" else 2]
    os.kill(target, signal.SIGTERM)
    done = end_of(process)
    assert (done.returncode, done.stderr) == (143, "")
    assert done.stdout.count("stopped by SIGTERM; ") == 1
    assert f"go on with: python -m npvae.sweep --resume {folder}" in done.stdout
    assert not list(folder.glob("**/.*"))
    assert run_sweep("--resume", folder).returncode == 0
    require_same(folder, checkpoints)


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process_ends_the_job_and_the_sweep_goes_on_bit_for_bit(victim, undisturbed, tmp_path):
    (options, checkpoints), folder = undisturbed, tmp_path / "sweep"
    process = begun(options, folder)
    os.kill(processes_of(process)[victim], signal.SIGKILL)
    assert end_of(process).returncode != 0
    assert together(3, "-m", "npvae.sweep", "--resume", folder).returncode == 0  # at once
    require_same(folder, checkpoints)


@needs_mpi
def test_what_is_wrong_is_told_once_by_several_processes(tmp_path):
    process = together(3, "-m", "npvae.sweep", "--vary", "colour", "blue", "--out", tmp_path / "sweep")
    assert process.returncode == 2
    assert process.stderr == "python -m npvae.sweep: --vary colour: no setting of npvae.train is called colour\n"


# what is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--vary colour blue", "--vary colour: no setting of npvae.train is called colour"),
        ("--vary latent", "--vary latent: expected a value, or several"),
        ("--vary latent 2 3 2", "--vary latent: 2 is given twice"),
        ("--vary learning-rate 1e-3 0.001", "--vary learning-rate: 0.001 is given twice"),
        ("--vary latent 2 0", "--vary latent 0: expected a whole number from 1"),
        ("--vary latent 2 --vary latent 3", "--vary latent is given twice"),
        ("--vary latent 2 3 --latent 4", "--vary latent and --latent are both given"),
        ("--vary seed 0 1", "--vary seed: the seeds are told by --seeds"),
        ("--vary data-dir a b", "--vary data-dir: the data of all runs are in one folder, told by --data-dir"),
        ("--vary conditional maybe", "--vary conditional maybe: expected yes or no"),
        ("--seed 1", "--seed: a sweep has several, told by --seeds"),
        ("--seeds 0 1 0", "--seeds: 0 is given twice"),
        ("--seeds -1", "--seeds"),
        ("--vary objective elbo iwae", "--objective iwae needs --samples 2 or more"),
        ("--vary dataset FEW nothing", "no data set 'nothing'"),
        ("--vary dataset FEW FEW/../few0", "is given twice"),
        ("--vary binarize none fixed --likelihood gaussian", "--likelihood gaussian needs grey pixels"),
        ("--out taken", "taken is there already: choose another --out, or go on with --resume taken"),
        ("--resume nowhere", "nowhere is not a sweep: it has no sweep.json"),
        ("--resume taken --out other", "--out cannot be given with --resume"),
        ("--resume taken --latent 3", "--latent cannot be given with --resume"),
        ("--resume taken --seeds 0", "--seeds cannot be given with --resume"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    arguments, says, few_digits, refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    given = [
        word.replace("FEW/../few0", f"{few_digits}/../few0").replace("FEW", str(few_digits))
        for word in arguments.split()
    ]
    out = [] if {"--out", "--resume"} & set(given) else ["--out", "sweep"]
    dataset = [] if {"dataset", "--resume"} & set(given) else ["--dataset", few_digits]
    assert says in refused(sweep.main, [*given, *dataset, *out])
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert os.listdir("taken") == ["file"]


def test_labels_that_a_combination_needs_are_missed_before_any_run(frey, refused, tmp_path):
    arguments = ["--vary", "conditional", "no", "yes", "--dataset", "frey", "--data-dir", frey, "--out", tmp_path / "s"]
    assert "--conditional needs labels, and frey has none" in refused(sweep.main, arguments)
    assert not (tmp_path / "s").exists()


def test_a_sweep_that_cannot_be_begun_leaves_its_name_free(few_digits, tmp_path, refused, monkeypatch):
    def fail(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert "No space" in refused(sweep.main, ["--dataset", few_digits, "--out", tmp_path / "sweep"])
    assert not (tmp_path / "sweep").exists()


def changed(**changes):
    plan = {"vary": {"latent": [2]}, "seeds": [0], "settings": {"dataset": "strokes"}, "importance_samples": None}
    return json.dumps(plan | changes)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "[" * 100_000, '{"latent": 3}', " " * 11_000_000),
        *(changed(colour=3), changed(vary=3), changed(vary={"latent": 2}), changed(vary={"colour": ["blue"]})),
        *(changed(vary={"seed": [1]}), changed(vary={"latent": [2, 2]}), changed(vary={"latent": [{}]})),
        *(changed(seeds=3), changed(seeds=["0"]), changed(seeds=[0, 0]), changed(settings={"latent": 3})),
        *(changed(settings=[1]), changed(importance_samples=0), changed(importance_samples=True)),
    ],
)
def test_a_plan_that_is_none_is_refused(text, refused, tmp_path):
    (tmp_path / "sweep.json").write_text(text)
    assert "sweep.json is not the plan of a sweep: " in refused(sweep.main, ["--resume", tmp_path])
    assert os.listdir(tmp_path) == ["sweep.json"]


def test_a_plan_of_nothing_is_refused(refused, tmp_path):
    for nothing in ({"vary": {"latent": []}}, {"seeds": []}):
        (tmp_path / "sweep.json").write_text(changed(**nothing))
        assert "there is nothing to be done" in refused(sweep.main, ["--resume", tmp_path])


def test_one_process_at_a_time_does_a_sweep(swept, refused):
    before = {path: path.read_bytes() for path in swept[0].iterdir() if path.is_file()}
    with Run(swept[0], None).lock():
        line = refused(sweep.main, ["--resume", swept[0]])
    assert f"{swept[0]} is being trained by process {os.getpid()}: wait for it, or stop it" in line
    assert before == {path: path.read_bytes() for path in swept[0].iterdir() if path.is_file()}


def test_a_run_that_was_trained_further_is_not_the_planned_one_and_is_left_alone(swept, tmp_path):
    folder = tmp_path / "rates"
    shutil.copytree(swept[0], folder)
    assert run_train("--resume", folder / NAMES[0], "--epochs", 3).returncode == 0
    assert run_train("--resume", folder / NAMES[1], "--checkpoint-every", 7).returncode == 0  # which changes no number
    before = {path: path.read_bytes() for path in (folder / NAMES[0]).iterdir() if path.is_file()}
    process = run_sweep("--resume", folder)
    assert f"{folder / NAMES[0]} is a run with --epochs 3, expected 2: was it changed?" in process.stderr
    assert before == {path: path.read_bytes() for path in (folder / NAMES[0]).iterdir() if path.is_file()}
    assert [row["finished"] for row in table_of(folder)] == ["2", "3", "0"]


# folders, values and pictures


def test_folders_are_named_for_what_is_varied_each_once_and_inside(tmp_path):
    def folders(**vary):
        return [task.folder.name for row in Plan(vary, [7], {}).runs(tmp_path) for task in row]

    assert folders() == ["seed-7"]
    assert folders(latent=[2, 10], conditional=[True]) == [
        "latent-2-conditional-yes-seed-7",
        "latent-10-conditional-yes-seed-7",
    ]
    assert folders(hidden=[(500,), (200, 200)]) == ["hidden-500-seed-7", "hidden-200-200-seed-7"]
    assert folders(learning_rate_schedule=[(), ("5:1e-4",)]) == [
        "learning-rate-schedule-none-seed-7",
        "learning-rate-schedule-5-1e-4-seed-7",
    ]
    assert folders(learning_rate=[0.1234567, 0.1234568]) == [
        "learning-rate-0.1234567-seed-7",
        "learning-rate-0.1234568-seed-7",
    ]
    assert folders(dataset=["../a/b", "../a b", "x" * 300]) == [
        "1-dataset-..-a-b-seed-7",
        "2-dataset-..-a-b-seed-7",
        f"3-dataset-{'x' * 192}-seed-7",
    ]


def test_plans_come_back_as_they_were_written():
    vary = {"hidden": [(200, 200), (500,)], "learning_rate": [1e-3, 0.1 + 0.2], "conditional": [True, False]}
    plan = Plan(vary, [0, 2**63 - 1], {"learning_rate_schedule": ("5:1e-4",), "beta": 2.0}, 500)
    again = Plan.from_json(plan.to_json())
    assert again.vary == vary
    assert again.runs("x") == plan.runs("x")


def test_the_picture_that_a_finished_run_is_known_by_is_the_last_that_is_drawn():
    assert f"{plot.BASIC[-1]}.png" == sweep.LAST_PICTURE


def results_of(plan, missing=()):
    """Made-up losses: 100 and the number of the run."""
    count = len(plan.seeds)
    numbers = [[100.0 + count * i + j for j in range(count)] for i in range(len(plan.points()))]
    names = ("test_loss", "test_reconstruction", "test_kl", "minutes", "iwae_loss", "active_units")
    return [
        [None if (i, j) in missing else dict.fromkeys(names, number) for j, number in enumerate(row)]
        for i, row in enumerate(numbers)
    ]


def drawn(plan, results):
    configs = [plan.config(point, 0) for point in plan.points()]
    return summary.picture(plan, configs, results, summary.measures(plan, configs))


def test_picture_of_a_number_has_it_along_x_with_a_dot_for_each_seed():
    plan = Plan({"latent": [20, 2, 5]}, [0, 1, 2], {})
    (axes,) = drawn(plan, results_of(plan, missing={(0, 2), (1, 1)})).axes
    means, dots = ([*zip(*line.get_data(), strict=True)] for line in axes.lines)
    assert means == [(2, 104), (5, 107), (20, 100.5)]
    assert dots == [(2, 103), (2, 105), (5, 106), (5, 107), (5, 108), (20, 100), (20, 101)]
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_title()) == ("latent", "test loss (−ELBO)")
    assert sorted(label.get_text() for label in axes.get_xticklabels()) == ["2", "20", "5"]
    assert drawn(Plan({"latent": [2, 5]}, [0], {}), results_of(plan)[:2]).axes[0].get_xscale() == "linear"


def test_picture_of_a_number_names_what_has_failed_and_gives_it_no_room():
    plan = Plan({"learning_rate": [0.001, 0.003, 1000.0]}, [0, 1], {})
    (axes,) = drawn(plan, results_of(plan, missing={(2, 0), (2, 1)})).axes
    assert axes.get_xlabel() == "learning-rate (failed: 1000)"
    assert axes.get_xlim()[1] < 0.01
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.003"]


def test_picture_of_anything_else_has_a_row_for_each_setting_the_first_on_top():
    plan = Plan({"latent": [2, 10], "objective": ["elbo", "iwae"]}, [0, 1], {"samples": 5}, 500)
    figure = drawn(plan, results_of(plan, missing={(3, 0), (3, 1)}))
    loss, evidence = figure.axes
    assert loss.get_ylim()[0] > loss.get_ylim()[1]
    labels = [label.get_text() for label in loss.get_yticklabels()]
    assert labels == ["2, elbo", "2, iwae", "10, elbo", "10, iwae: failed"]
    assert (loss.get_ylabel(), evidence.get_title()) == ("latent, objective", "−log p(x)")
    assert [*zip(*loss.lines[0].get_data(), strict=True)] == [(100.5, 0), (102.5, 1), (104.5, 2)]
    assert "cannot be compared" in figure.get_suptitle()


def test_labels_of_many_numbers_keep_apart():
    plan = Plan({"latent": list(range(1, 31))}, [0], {})
    labels = [label.get_text() for label in drawn(plan, results_of(plan)).axes[0].get_xticklabels()]
    assert labels[:3] == ["1", "2", "3"]
    assert len(labels) < 20


@pytest.mark.parametrize("count", [1, 200])
def test_few_rows_and_many_are_a_picture(count):
    plan = Plan({"dataset": [f"{'a' * 50}{i}" for i in range(count)]}, [0], {})
    figure = drawn(plan, results_of(plan))
    figure.draw_without_rendering()
    assert figure.get_size_inches()[1] <= plot.HIGHEST
    assert all(len(label.get_text()) <= summary.SHORT for label in figure.axes[0].get_yticklabels())


def test_the_same_results_make_the_same_bytes(tmp_path):
    plan = Plan({"latent": [2, 10]}, [0, 1, 2], {})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        summary.write(tmp_path / name, plan, results_of(plan))
    for name in ("table.txt", "table.csv", "table.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
