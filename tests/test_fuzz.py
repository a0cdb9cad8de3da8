"""Random damage: whatever a file or an option list holds, it is read, or refused in one line.

`NPVAE_FUZZ=100000 python -m pytest tests/test_fuzz.py` tries so many of each instead of a few.
"""

import contextlib
import gzip
import io
import os
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from npvae import train
from npvae.commands import UserError
from npvae.config import Config
from npvae.data.datasets import load
from npvae.data.idx import CODES, IDXError, read_idx, write_idx
from npvae.film import Camera, frames
from npvae.plot import bounds
from npvae.runs import Run
from npvae.training import Training

EXAMPLES = int(os.environ.get("NPVAE_FUZZ", 80))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES < 1000,  # the same in each run of the suite; others in a longer one
    suppress_health_check=list(HealthCheck),
)

NASTY_BYTES = [b"\0" * 4, b"\xff" * 4, b"1e999", b"[" * 5000]
NASTY_WORDS = ["", "0", "-1", "1e400", "nan", "٣", "1_0", "--", "a\nb", "\x1b[2J", "\ud800", "9" * 5000, "adam", "iwae"]

# what happens to the bytes of a file, as (how, place from 0 to 1, bytes)
changes = some.lists(
    some.tuples(
        some.sampled_from(["write", "insert", "cut", "end", "repeat"]),
        some.one_of(some.floats(0, 1), some.floats(0, 0.01), some.floats(0.99, 1)),
        some.one_of(some.binary(min_size=1, max_size=8), some.sampled_from(NASTY_BYTES)),
    ),
    max_size=4,
)


def damaged(content, how):
    for kind, place, data in how:
        at = round(place * len(content))
        if kind == "write":
            content = content[:at] + data + content[at + len(data) :]
        elif kind == "insert":
            content = content[:at] + data + content[at:]
        elif kind == "cut":
            content = content[:at] + content[at + len(data) :]
        elif kind == "end":
            content = content[:at]
        else:
            content = content[:at] + content[at // 2 :]
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@fuzz
@given(
    dtype=some.sampled_from(sorted(CODES, key=str)),
    shape=some.lists(some.integers(0, 5), max_size=4),
    packed=some.sampled_from(["no", "before", "after"]),
    how=changes,
)
def test_idx_files_are_read_as_they_were_written_or_refused(dtype, shape, packed, how, folder):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype.newbyteorder("="))
    path = folder / "file"
    write_idx(path, array)
    content = path.read_bytes()
    if packed == "before":
        content = gzip.compress(content, mtime=0)
    content = damaged(content, how)
    if packed == "after":
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
    tracemalloc.start()
    said = None
    try:
        found = read_idx(path)
    except IDXError as error:
        said = str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if said is None and not how:
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    assert said is None or (how and said.startswith(str(path)) and "\n" not in said)
    assert most < 20_000_000 + 2000 * len(content)  # a byte of gzip can hold a thousand


@pytest.fixture(scope="module")
def run(few_digits, folder):
    """A small run with all that a run can have."""
    dataset = load(str(few_digits))
    config = Config(dataset=str(few_digits), hidden=(2,), latent=2, epochs=2, batch_size=300, film=True)
    run = Run.create(folder / "run", config)
    training = Training(config, dataset)
    camera = Camera(run, training, dataset)
    for _ in training.steps():
        camera.after_step()
    training.rows.append(train.measure(training, dataset))
    run.write_metrics(training.rows)
    training.end_epoch()
    training.save(run)
    mean = {"mean": 200.0, "standard_error": 1.0}
    run.save_evaluation({"epochs": 1, "protocol": "p", "elbo_loss": mean, "iwae_loss": {"1": mean, "5": mean}})
    shutil.copytree(run.folder, folder / "whole")
    return run, dataset


@fuzz
@given(which=some.integers(0), how=changes)
def test_run_folders_are_used_or_refused(which, how, run, folder):
    run, dataset = run
    names = sorted(path.relative_to(run.folder) for path in run.folder.rglob("*") if path.is_file())
    name = names[which % len(names)]
    whole = (folder / "whole" / name).read_bytes()
    (run.folder / name).write_bytes(damaged(whole, how))
    try:
        for use in (
            lambda opened: opened.vae(),
            lambda opened: Training(opened.config, dataset).load(opened),
            lambda opened: opened.metrics(),
            bounds,
            frames,
        ):
            said = None
            try:
                use(Run.open(run.folder))
            except (UserError, OSError) as error:
                said = str(error)
            assert said is None or (how and "\n" not in said)
    finally:
        (run.folder / name).write_bytes(whole)


class Begun(Exception):
    """A training would have started."""


words = some.one_of(
    some.sampled_from(NASTY_WORDS),
    some.integers(-(2**70), 2**70).map(str),
    some.floats().map(str),
    some.text(max_size=6),
)


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(
    options=some.lists(
        some.tuples(some.sampled_from([f"--{name.replace('_', '-')}" for name in Config.__dataclass_fields__]), words),
        max_size=4,
    )
)
def test_options_are_taken_or_refused_in_one_line(options, few_digits, folder):
    arguments = [part for pair in options for part in pair]

    def prepare(config):
        assert Config.from_json(config.to_json()) == config
        raise Begun

    before, train.prepare = train.prepare, prepare
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = train.main([*arguments, "--out", str(folder / "new")])
    except Begun:
        code = 0
    except SystemExit as error:
        code = error.code
    finally:
        train.prepare = before
    assert code in (0, 2)
    assert err.getvalue().count("\n") == (code == 2)
    assert not (folder / "new").exists()
