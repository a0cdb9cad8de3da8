"""The benchmarks run on npvae alone; that all contenders find the same losses, they check themselves."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import MPIEXEC

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def contenders(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("contenders")


def test_operations_of_a_step_are_those_of_its_products(contenders):
    setup = contenders.Setup(hidden=30, activation="relu", batch_size=7)
    products = list(contenders.Products(setup, None).products())
    operations = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in (product.args for product in products))
    assert setup.operations == operations


@pytest.mark.slow
def test_compare_writes_the_figures_that_it_prints(few_digits, tmp_path):
    names = ["--contenders", "npvae", "products", "--rounds", 1, "--steps", 1, "--starts", 1]
    parts = ["--parts", "steps", "start", "evaluation"]
    process = run("compare", *parts, *names, "--dataset", few_digits, "--out", tmp_path)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(results["steps"]) == 3
    for setup, part in results["steps"].items():
        assert f"{setup}: milliseconds" in process.stdout
        assert f"npvae{part['contenders']['npvae']['ms']['median']:35.2f}" in process.stdout
    assert f"{results['start']['epoch']['python -m npvae.train']['MB']:.0f}" in process.stdout
    assert f"{results['evaluation']['npvae']['log p(x)']:.2f}" in process.stdout
    assert (tmp_path / "steps.png").stat().st_size > 10_000


def test_the_numbers_for_the_exercises_are_printed(few_digits):
    process = run("exercises", "--contenders", "npvae", "--seeds", 2, "--epochs", 1, "--dataset", few_digits)
    assert process.returncode == 0, process.stderr
    assert "784-200-20 tanh, batch 100, 1 epochs, 2 seeds" in process.stdout
    assert re.search(r"^npvae +\d+\.\d\d ± \d+\.\d\d ", process.stdout, re.MULTILINE)


def test_published_charts_are_drawn_from_the_results(contenders, tmp_path):
    charts = importlib.import_module("charts")
    charts.draw(json.loads((FOLDER / "results.json").read_text(encoding="utf-8")), tmp_path)
    for name in ("steps.png", "growth.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_published_speed_up_is_of_the_results(contenders, tmp_path):
    parallel = importlib.import_module("parallel")
    results = json.loads((FOLDER / "parallel.json").read_text(encoding="utf-8"))
    parallel.draw(results).savefig(tmp_path / "parallel.png")
    assert (tmp_path / "parallel.png").stat().st_size > 10_000
    told = (FOLDER.parent / "docs" / "parallel.md").read_text(encoding="utf-8")
    for lines in (parallel.table(results), parallel.speed_ups(results)):
        assert "\n".join(lines) in told


@pytest.mark.slow
@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec: python -m pip install mpi4py mpich")
def test_processes_are_timed_and_do_the_same(few_digits, tmp_path):
    few = ["--rounds", 1, "--steps", 20, "--seconds", 0.05]
    process = run("parallel", *few, "--dataset", few_digits, "--out", tmp_path)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "parallel.json").read_text(encoding="utf-8"))
    assert all(found["losses"] < 1e-5 for found in results["same"].values())
    assert f"| {1e3 * results['times']['1 process, 1 thread']['batch 100'][0]:.2f} |" in process.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parallel.json", "parallel.png"]


def test_processes_move_as_many_bytes_as_the_derivation_says(contenders):
    communication = importlib.import_module("parallel").communication
    bandwidth, latency = 1e9, 0.0
    # of 8 processes each sends 7 of the 8 parts of its gradient, 4 bytes a number, and its part to 7 others
    assert communication(8, 8000, bandwidth, latency) == pytest.approx((7 * 1000 + 7 * 1000) * 4 / bandwidth)
    assert communication(1, 8000, bandwidth, 1.0) == 0
    assert communication(8, 0, bandwidth, 1.0) == 4 * 3


@pytest.mark.slow
def test_alternatives_run(few_digits):
    process = run("alternatives", "--turns", 1, "--dataset", few_digits)
    assert process.returncode == 0, process.stderr
    assert "Adam on two threads" in process.stdout


def test_profile_sees_every_matrix_product_and_every_pass_of_adam(few_digits):
    process = run("profile_step", "--rounds", 1, "--steps", 1, "--dataset", few_digits)
    assert process.returncode == 0, process.stderr
    rows = [line.split() for line in process.stdout.splitlines()]
    assert [row[-1] for row in rows if row[:2] == ["matrix", "products"]] == ["11"] * 3  # 4 forward, 4 d_W, 3 d_x
    assert [row[-1] for row in rows if row[:1] == ["Adam"]] == ["10"] * 3


@pytest.mark.parametrize("script", ["compare", "profile_step", "alternatives", "parallel"])
def test_mistake_is_told_in_one_line(script, tmp_path):
    process = run(script, "--dataset", tmp_path / "nowhere")
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "no data set" in process.stderr
    assert process.stdout == ""


@pytest.mark.parametrize("script", ["compare", "profile_step", "alternatives", "parallel"])
def test_unknown_option_is_told_in_one_line(script):
    process = run(script, "--rouns", 3)
    assert process.returncode == 2
    assert process.stderr == f"python benchmarks/{script}.py: unrecognized arguments: --rouns 3\n"


def test_folder_that_cannot_be_written_is_told_before_anything_is_measured(few_digits, tmp_path):
    (tmp_path / "file").touch()
    process = run("compare", "--dataset", few_digits, "--out", tmp_path / "file" / "folder")
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "milliseconds" not in process.stdout
