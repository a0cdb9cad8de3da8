"""Many processes, one result: training and evaluation under `mpiexec`, which are killed after a time, for a hang is a
failure."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from npvae import parallel, train
from npvae.parallel import HYDRA, OPEN_MPI, SLURM, Job, Team, job, limit_threads
from npvae.runs import Run
from tests.conftest import SMALL, run_train
from tests.jobs import LIMIT, MPIEXEC, end_of, job_of, processes_of, together, wait_for
from tests.parallel_variants import EPOCHS, VARIANTS

needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec: python -m pip install mpi4py mpich")


def trained(count, *arguments):
    """Train in so many processes; returns what it printed."""
    process = together(count, "-m", "npvae.train", *arguments)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


# the same numbers


@pytest.fixture(scope="module")
def found(few_digits, tmp_path_factory):
    """What jobs of 1, 2, 3 and 4 processes, and another of 2, have made of the variants."""
    results = []
    for count in (1, 2, 3, 4, 2):
        folder = tmp_path_factory.mktemp("job")
        process = together(count, "-m", "tests.parallel_variants", few_digits, folder)
        assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
        results.append(dict(np.load(folder / f"{count}.npz")))
    return results


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_is_the_same_in_any_number_of_processes(variant, found):
    one, *others = ({name: job[f"{variant}: {name}"] for name in ("losses", "parameters")} for job in found[:4])
    assert one["losses"].shape == (EPOCHS, 3)
    assert one["losses"][-1, 0] < one["losses"][0, 0] - 1
    for other in others:
        np.testing.assert_allclose(other["losses"][:, 0], one["losses"][:, 0], rtol=1e-6)
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(other["parameters"], one["parameters"], atol=1e-4)


@needs_mpi
@pytest.mark.slow
def test_all_of_the_optimizer_is_put_together(found):
    one, *others = found[:4]
    names = [name for name in one if ": optimizer." in name]
    assert len(names) == 11  # M, V and t of Adam, three times; velocity; squares
    for name in names:
        for other in others:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-3, atol=1e-3 * np.abs(one[name]).max())


@needs_mpi
@pytest.mark.slow
def test_evaluation_is_the_same_to_the_last_bit_in_any_number_of_processes(found):
    one, *others = found[:4]
    assert one["untrained: iwae"].shape == (2, 550)
    assert (one["untrained: reconstruction"] > 0).all()
    for name in ("iwae", "reconstruction", "kl", "mu"):
        for other in others:
            np.testing.assert_array_equal(other[f"untrained: {name}"], one[f"untrained: {name}"])


@needs_mpi
@pytest.mark.slow
def test_the_same_number_of_processes_makes_the_same_bits(found):
    _, two, *_, again = found
    for name, array in two.items():
        np.testing.assert_array_equal(again[name], array)


@needs_mpi
@pytest.mark.slow
def test_nobody_imports_mpi_for_a_single_process(found):
    assert [bool(job["mpi4py"]) for job in found[:4]] == [False, True, True, True]


STOPPED = """
import sys
import numpy as np
from npvae import VAE, evaluate
from npvae.parallel import this_team, together

class Stop:
    signal = None

def noise(block, seed, noise=evaluate.noise):
    stop.signal = 15 if block == 7 else None  # of the third round, in the second process
    return noise(block, seed)

@together
def main(arguments=None):
    images = np.random.default_rng(0).integers(0, 256, (1234, 4), np.uint8)
    vae = VAE(4, (3,), 2, rng=np.random.default_rng(0))
    terms = evaluate.estimates(vae, images, None, 5, (5,), stop=stop, team=this_team())
    assert (terms["iwae"].shape, stop.signal) == ((1, 600), 15)
    assert (terms["iwae"] > 0).all()
    this_team().leave()
    return 0

stop, evaluate.noise = Stop(), noise
sys.exit(main())
"""


@needs_mpi
def test_an_evaluation_that_one_process_is_told_to_stop_ends_in_all_with_what_is_done():
    process = together(3, "-c", STOPPED)
    assert (process.returncode, process.stderr) == (0, "")


# the commands


@needs_mpi
def test_a_checkpoint_of_any_number_of_processes_goes_on_in_any_other(finished, few_digits, tmp_path):
    options = ("--dataset", few_digits, *SMALL, "--epochs")
    out = trained(2, *options, 1, "--out", tmp_path / "run")
    assert "2 processes, each with OPENBLAS_NUM_THREADS=1" in out.splitlines()
    assert out.count("epoch 1/1") == out.count("next: ") == 1
    trained(3, "--resume", tmp_path / "run", "--epochs", 2)
    assert run_train("--resume", tmp_path / "run", "--epochs", 3).returncode == 0
    run, whole = Run.open(tmp_path / "run"), Run.open(finished[0])
    for row, expected in zip(run.metrics(), whole.metrics(), strict=True):
        for name in ("train_loss", "train_kl", "test_loss", "test_kl"):
            assert row[name] == pytest.approx(expected[name], rel=1e-5)
    state, expected = run.load_checkpoint(), whole.load_checkpoint()
    np.testing.assert_allclose(state["parameters"], expected["parameters"], atol=1e-4)
    np.testing.assert_array_equal(state["random_state"], expected["random_state"])
    assert set(os.listdir(run.folder)) == set(os.listdir(whole.folder))


@needs_mpi
def test_evaluate_prints_the_same_json_in_two_processes(finished):
    arguments = ("-m", "npvae.evaluate", finished[0], "--json")
    one = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT)
    two = together(2, *arguments)
    assert (two.returncode, two.stdout, two.stderr) == (0, one.stdout, "")
    assert json.loads(two.stdout)["examples"] == 200


@pytest.fixture(scope="module")
def undisturbed(few_digits, tmp_path_factory):
    """A run of two processes that nothing stops: (its options, its checkpoint)."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    options = ("--dataset", few_digits, *SMALL, "--epochs", 10, "--batch-size", 7, "--checkpoint-every", 0)
    trained(2, *options, "--out", folder)
    return options, (folder / "checkpoint.npz").read_bytes()


def begun(options, folder):
    """A job of two processes that trains, and has finished an epoch."""
    process = job_of(2, "-m", "npvae.train", *options, "--out", folder)
    line = ""
    while not line.startswith("epoch  1/10"):
        line = process.stdout.readline()
        assert line, end_of(process).stderr
    time.sleep(random.uniform(0, 0.2))
    return process


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_job_and_it_goes_on_bit_for_bit(victim, undisturbed, tmp_path):
    (options, checkpoint), folder = undisturbed, tmp_path / "run"
    process = begun(options, folder)
    os.kill(processes_of(process)[victim], signal.SIGKILL)
    assert end_of(process).returncode != 0
    assert 1 <= len(Run.open(folder).metrics()) < 10
    trained(2, "--resume", folder)
    assert (folder / "checkpoint.npz").read_bytes() == checkpoint


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("to", ["mpiexec", "one of the processes"])
def test_a_signal_to_whichever_process_stops_all_after_the_same_step_and_saves(to, undisturbed, tmp_path):
    (options, checkpoint), folder = undisturbed, tmp_path / "run"
    process = begun(options, folder)
    os.kill(process.pid if to == "mpiexec" else processes_of(process)[1], signal.SIGTERM)
    done = end_of(process)
    assert (done.returncode, done.stderr) == (143, "")
    assert done.stdout.count("stopped by SIGTERM before step ") == 1
    state = Run.open(folder).load_checkpoint()
    step = int(state["epoch"]) * 86 + -(-int(state["examples"]) // 7) + 1  # the last of 86 has 5 examples
    assert f"before step {step:,} (epoch {state['epoch'] + 1} of 10)" in done.stdout
    assert not list(folder.glob(".*"))
    trained(2, "--resume", folder)
    assert (folder / "checkpoint.npz").read_bytes() == checkpoint


@needs_mpi
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--colour", "blue"], 2, "unrecognized arguments: --colour blue"),
        (["--resume", "nowhere"], 2, "nowhere is not a run"),
        (["--dataset", "FEW", "--learning-rate", "1000", "--hidden", "5", "--out", "OUT"], 1, "learning rate 1000"),
    ],
)
def test_what_goes_wrong_is_told_once(arguments, code, says, few_digits, tmp_path):
    names = {"FEW": few_digits, "OUT": tmp_path / "run"}
    process = together(2, "-m", "npvae.train", *(names.get(word, word) for word in arguments))
    assert process.returncode == code
    assert process.stderr.count("\n") == 1
    assert says in process.stderr


FAILURE = """
import sys
from npvae.commands import UserError, command
from npvae.parallel import this_team, together

@together
@command("program")
def main(arguments=None):
    if this_team().rank in (WHO):
        raise WHAT
    this_team().most(1)

sys.exit(main())
"""


@needs_mpi
@pytest.mark.parametrize(
    ("who", "what", "code", "says"),
    [
        ("1,", "UserError('no room')", 2, "process 1 of 3: program: no room\n"),
        ("0,", "UserError('no room')", 2, "program: no room\n"),
        ("0, 1, 2", "MemoryError('no room')", 2, "program: no room\n"),
        ("2,", "ZeroDivisionError('a bug')", 1, "ZeroDivisionError: a bug\n"),
    ],
)
def test_a_process_that_fails_alone_says_why_and_ends_the_job(who, what, code, says, tmp_path):
    process = together(3, "-c", FAILURE.replace("WHO", who).replace("WHAT", what))
    assert process.returncode == code
    assert process.stderr == says or (code == 1 and process.stderr.endswith(says))
    assert process.stderr.count("Error") <= 3


# tasks that are handed out


HANDED_OUT = """
import os, sys, time
from npvae.commands import StopRequest, command
from npvae.parallel import this_team, together

def double(number, told):
    if FOLDER:
        open(f"{FOLDER}/{this_team().rank}", "w").close()
    while STAY and not told():
        time.sleep(0.01)
    if this_team().rank == 2 and number == 1:
        WORKER
    return 2 * number, this_team().rank, told()

@together
@command("program")
def main(arguments=None):
    team, found = this_team(), []
    with StopRequest() as stop:
        for (number,), result in team.hand_out(double, [(number,) for number in range(10)], stop):
            FIRST
            found.append((number, *result))
    team.leave()
    if team.leads:
        print(sorted(found), stop.signal)
    return 0

sys.exit(main())
"""


def hand_out(stay=False, worker="pass", first="pass", folder=""):
    """A job of ten tasks, which last until they are told to stop where `stay` is true."""
    code = HANDED_OUT.replace("STAY", str(stay)).replace("WORKER", worker).replace("FIRST", first)
    return job_of(3, "-c", f"FOLDER = {str(folder)!r}\n{code}")


@needs_mpi
def test_tasks_are_done_once_each_by_all_but_the_first():
    process = end_of(hand_out())
    assert (process.returncode, process.stderr) == (0, "")
    results, signals = eval(process.stdout.rpartition(" ")[0]), process.stdout.split()[-1]
    assert [(number, double, told) for number, double, _, told in results] == [(i, 2 * i, 0) for i in range(10)]
    assert {rank for _, _, rank, _ in results} == {1, 2}
    assert signals == "None"


@needs_mpi
@pytest.mark.parametrize("rank", [0, 2])
def test_a_signal_to_one_process_ends_the_tasks_of_all_and_begins_no_more(rank, tmp_path):
    """The first passes on what came to it; what came to another it is told of by that one's result."""
    process = hand_out(stay=True, first="stop.signal = stop.signal or result[2]", folder=tmp_path)
    for each in ("1", "2"):
        wait_for(tmp_path / each, process)
    os.kill(processes_of(process)[rank], signal.SIGTERM)
    done = end_of(process)
    assert (done.returncode, done.stderr) == (0, "")
    results = eval(done.stdout.rpartition(" ")[0])
    assert {told for *_, told in results} == {signal.SIGTERM}
    assert len(results) <= 3  # one that was told sooner than the first may have got another
    assert done.stdout.split()[-1] == str(int(signal.SIGTERM))


@needs_mpi
@pytest.mark.parametrize(
    ("where", "what", "code", "says"),
    [
        ("worker", "raise ZeroDivisionError('a bug')", 1, "ZeroDivisionError: a bug\n"),
        ("worker", "raise OSError('no room')", 2, "program: no room\n"),
        ("worker", "os._exit(9)", 9, ""),
        ("first", "raise ZeroDivisionError('a bug')", 1, "ZeroDivisionError: a bug\n"),
    ],
)
def test_whatever_fails_while_tasks_are_done_ends_the_job(where, what, code, says):
    process = end_of(hand_out(stay=where == "first" and "number", **{where: what}))
    assert process.returncode == code
    assert process.stderr.endswith(says)
    assert process.stderr.count("no room") <= 1


# what is known before there is an MPI


@pytest.fixture
def environment(monkeypatch):
    """Set these environment variables, and none of those that launchers set beside them."""

    def setting(**variables):
        for name in (*HYDRA, *OPEN_MPI, *SLURM, "PMIX_RANK", *parallel.THREADS):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    parallel.this_team.cache_clear()
    yield setting
    parallel.this_team.cache_clear()


HYDRAS = {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2"}
SLURMS = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_STEP_TASKS_PER_NODE": "2(x4)"}
LAUNCHED = [
    ({}, Job(1, 0, 1)),
    (HYDRAS, Job(4, 3, 2)),
    (dict(zip(OPEN_MPI, "412", strict=True)), Job(4, 1, 2)),
    (SLURMS | {"PMIX_RANK": "5"}, Job(8, 5, 2)),
    (SLURMS | {"PMI_SIZE": "8", "PMI_RANK": "5"}, Job(8, 5, 2)),
    (SLURMS, Job(1, 0, 1)),  # tasks that know nothing of each other
    ({"PMI_SIZE": "4"}, Job(1, 0, 1)),
]


@pytest.mark.parametrize(("variables", "expected"), LAUNCHED)
def test_a_process_knows_what_launcher_has_started_it(variables, expected, environment):
    environment(**variables)
    assert job() == expected


@pytest.mark.parametrize(
    ("cores", "variables", "expected"),
    [
        (8, HYDRAS, "4"),
        (1, HYDRAS, "1"),
        (8, {}, None),
        (8, HYDRAS | {"MPI_LOCALNRANKS": "1"}, None),
        (8, HYDRAS | {"OMP_NUM_THREADS": "3"}, None),
        (8, HYDRAS | {"OPENBLAS_NUM_THREADS": "3"}, "3"),
    ],
)
def test_processes_share_the_cores_of_their_machine(cores, variables, expected, environment, monkeypatch):
    environment(**variables)
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    limit_threads()
    assert os.environ.get("OPENBLAS_NUM_THREADS") == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (HYDRAS, "8"),  # of two on each of two machines; the first is on one of them
        (HYDRAS | {"PMI_SIZE": "5", "MPI_LOCALNRANKS": "5"}, "4"),
        (HYDRAS | {"PMI_SIZE": "2"}, "16"),
        (HYDRAS | {"OPENBLAS_NUM_THREADS": "3"}, "3"),
        (HYDRAS | {"OMP_NUM_THREADS": "3"}, None),
        (SLURMS | {"PMIX_RANK": "5", "PMIX_NAMESPACE": "x"}, "8"),
        (dict(zip(OPEN_MPI, "422", strict=True)) | {"OMPI_FILE_LOCATION": "x"}, "8"),
        ({}, None),
    ],
)
def test_a_program_that_a_process_starts_is_no_part_of_the_job_and_has_its_share_of_the_cores(
    variables, expected, environment, monkeypatch
):
    environment(**variables)
    monkeypatch.setattr(parallel, "limited", {})
    monkeypatch.setattr(parallel, "cores", lambda: 16)
    limit_threads()
    kept = parallel.own_environment()
    assert kept.get("OPENBLAS_NUM_THREADS") == expected
    for name in ("PATH", "OMP_NUM_THREADS"):
        assert kept.get(name) == os.environ.get(name)
    environment(**{name: text for name, text in kept.items() if name not in parallel.THREADS})
    assert job() == Job(1, 0, 1)
    assert not [name for name in kept if name.startswith(("PMI", "OMPI", "SLURM_P", "SLURM_S", "MPI_LOCAL"))]


BY_MODULE = ("-m", "npvae.train", "--version")
BY_NAME = (
    "-c",
    "import sys; sys.argv = ['bin/npvae', 'train', '--version']; import npvae.__main__ as npvae; npvae.main()",
)


@needs_mpi
@pytest.mark.parametrize("command", [BY_MODULE, BY_NAME])
def test_threads_are_limited_before_numpy_is_loaded(command):
    free = {name: value for name, value in os.environ.items() if name not in parallel.THREADS}
    process = together(2, "-X", "importtime", *command, env=free)
    order = [line.rpartition("|")[2].strip() for line in process.stderr.splitlines()]
    assert order.index("npvae.parallel") < order.index("numpy")
    assert process.stdout.startswith("npvae ")
    assert process.stdout.count("npvae ") == 1


@needs_mpi
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux, which tells where a stream goes")
@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_bar_is_shown_where_the_launcher_has_a_terminal(on_terminal, few_digits, tmp_path):
    ours, theirs = os.openpty() if on_terminal else os.pipe()
    words = [MPIEXEC, "-n", "2", sys.executable, "-m", "npvae.train", "--dataset", few_digits, *SMALL, "--epochs", "20"]
    process = subprocess.Popen([*words, "--out", tmp_path / "run"], stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said, alarm = b"", threading.Timer(LIMIT, process.kill)
    alarm.start()
    with contextlib.suppress(OSError):  # how a terminal says that nobody will write any more
        while part := os.read(ours, 10_000):
            said += part
    os.close(ours)
    assert process.wait(LIMIT) == 0
    alarm.cancel()
    assert (b"left, " in said) == on_terminal


def test_what_is_missing_is_told_in_a_line(environment, monkeypatch, refused):
    environment(PMI_SIZE="2", PMI_RANK="0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    line = refused(train.main, ["--epochs", "1"])
    assert line.startswith("python -m npvae.train: 2 processes were started, but mpi4py cannot be imported")
    assert "python -m pip install mpi4py" in line


def test_an_mpi_that_is_not_the_launchers_is_told_in_a_line(environment, monkeypatch, refused):
    """Else each of the processes would take itself for the only one, and train the same run."""
    environment(PMI_SIZE="2", PMI_RANK="0")
    package = ModuleType("mpi4py")
    package.MPI = SimpleNamespace(COMM_WORLD=SimpleNamespace(size=1, rank=0))
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    assert "the MPI of mpi4py knows of 1" in refused(train.main, ["--epochs", "1"])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 6, 100])
def test_parts_are_the_whole_and_as_equal_as_can_be(size, count):
    team = Team.__new__(Team)
    team.size, parts = size, []
    for team.rank in range(size):
        parts.append(range(count)[team.part(count)])
    assert [index for part in parts for index in part] == list(range(count))
    assert team.counts(count) == list(map(len, parts))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
