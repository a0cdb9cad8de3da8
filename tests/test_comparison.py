import numpy as np
import pytest
from matplotlib.image import imread

from npvae import comparison, plot
from npvae.comparison import compare, curves
from npvae.config import Config
from npvae.runs import COLUMNS, TEXT_COLUMNS, Run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Make a run of so many finished epochs and of these settings, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(folder, finished=2, **settings):
        config = Config(**{"dataset": "mnist", "hidden": (30,), "epochs": 2} | settings)
        made = Run.create(folder, config)
        rows = [{name: 100.0 * epoch + i for i, name in enumerate(COLUMNS)} for epoch in range(1, finished + 1)]
        words = {name: getattr(config, name) for name in TEXT_COLUMNS}
        made.write_metrics([row | words | {"epoch": float(i + 1)} for i, row in enumerate(rows)])
        return made

    return make


def test_the_table_names_exactly_what_differs_and_the_last_epoch(run, capsys):
    run("runs/a", seed=3, data_dir="/here", checkpoint_every=5.0)
    run("runs/b", latent=5, learning_rate_schedule=("1:5e-4",), data_dir="/there", epochs=9, finished=1)
    assert plot.main(["runs/a", "runs/b", "--out", "pictures/both.png"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [
        ["run", "latent", "learning-rate-schedule", "seed"],
        ["a", "20", "none", "3"],
        ["b", "5", "1:5e-4", "0"],
    ]
    values = {finished: 100 * finished + np.arange(len(COLUMNS)) for finished in (1, 2)}
    columns = [COLUMNS.index(f"test_{name}") for name in ("loss", "reconstruction", "kl")]
    for line, finished, epochs in ((lines[5], 2, "2"), (lines[6], 1, "1/9")):
        last = values[finished]
        assert line[1:] == [epochs, *(f"{last[i]:.2f}" for i in columns), str(last[COLUMNS.index("seconds")])]
    assert imread("pictures/both.png")[..., :3].std() > 0.01


def test_tables_of_runs_with_evaluations_fit_a_terminal(run):
    for name in ("runs/threshold", "runs/none"):
        made = run(name, seed=len(name))
        value = {"epochs": 2.0, "importance_samples": 5000, "active_units": 17}
        made.save_evaluation(value | {"negative_log_likelihood": {"mean": 95.561}})
    lines = compare(["runs/threshold", "runs/none"], "comparison.png")
    assert max(map(len, lines)) <= 80
    assert all(line.split()[-2:] == ["95.56", "17"] for line in lines[5:7])


def test_an_evaluation_counts_only_for_the_epochs_that_it_was_made_after(run):
    value = {"importance_samples": 500, "active_units": 17, "negative_log_likelihood": {"mean": 95.561}}
    made = run("a")
    made.save_evaluation(value | {"epochs": 1.0})
    assert comparison.evaluation(made, 2) == ("", "")
    made.save_evaluation(value | {"epochs": 2.0})
    assert comparison.evaluation(made, 2) == ("95.56", "17")
    made.save_evaluation(value | {"epochs": 2.0, "importance_samples": 5, "negative_log_likelihood": None})
    assert comparison.evaluation(made, 2) == ("", "17")


@pytest.mark.parametrize(
    ("settings", "differ"),
    [
        ({"seed": 1, "latent": 3}, ""),
        ({"objective": "stl"}, ""),  # its metrics are −ELBO, too
        ({"binarize": "threshold"}, "binarize"),
        ({"likelihood": "gaussian", "dataset": "frey"}, "dataset, likelihood"),
        ({"conditional": True}, "conditional"),
        ({"objective": "iwae", "samples": 5}, "bound"),
    ],
)
def test_losses_about_different_things_are_said_to_be_so(settings, differ, run):
    run("a")
    run("b", **settings)
    lines = compare(["a", "b"], "comparison.png")
    assert [line for line in lines if "compared" in line] == (
        [f"These losses cannot be compared: the runs differ in {differ}."] if differ else []
    )


def test_fixed_and_dynamic_pixels_share_a_test_set():
    assert comparison.incomparable([Config(binarize="fixed"), Config(binarize="dynamic")]) is None


def test_curves_are_the_metrics_and_each_run_looks_different(run):
    metrics = {f"run-{i}": run(f"run-{i}", finished=i % 3, seed=i).metrics() for i in range(12)}
    figure = curves(metrics, {name: name for name in metrics}, "−ELBO", "warned")
    assert figure.get_suptitle() == "warned"
    finished = [name for name in metrics if metrics[name]]
    for axes, term in zip(figure.axes, ("loss", "reconstruction", "kl"), strict=True):
        assert [line.get_label() for line in axes.lines] == finished
        for line in axes.lines:
            rows = metrics[line.get_label()]
            np.testing.assert_array_equal(line.get_xdata(), [row["epoch"] for row in rows])
            np.testing.assert_array_equal(line.get_ydata(), [row[f"test_{term}"] for row in rows])
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == len(finished)


def test_a_run_without_an_epoch_is_in_the_table_alone(run):
    run("a")
    run("b", finished=0, seed=1)
    assert ["b", "0/2"] in [line.split() for line in compare(["a", "b"], "comparison.png")]


def test_names_are_the_shortest_parts_that_differ(tmp_path):
    assert comparison.short_names([tmp_path / "x" / "a", tmp_path / "x" / "b"]) == ["a", "b"]
    assert comparison.short_names([tmp_path / "x" / "a", tmp_path / "y" / "a"]) == ["x/a", "y/a"]


def test_the_legend_says_what_differs_where_that_is_short_and_tells_apart():
    assert comparison.legend({"a": {"latent": "2"}, "b": {"latent": "5"}}) == {"a": "latent 2", "b": "latent 5"}
    assert comparison.legend({"a": {}, "b": {}}) == {"a": "a", "b": "b"}
    assert comparison.legend({"a": {"dataset": "x" * 50}, "b": {"dataset": "y"}}) == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "./a"], "./a is given twice"),
        (["a", "nothing"], "nothing is not a run"),
        (["empty", "empty-too"], "none of the runs has finished an epoch"),
        (["a", "--out", "x.png"], "two runs or more"),
        (["a", "empty", "--out", "x.pdf"], "x.pdf: expected a name that ends in .png"),
        (["a", "empty", "--data-dir", "x"], "--data-dir"),
        (["a", "broken"], "evaluate again"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_written(arguments, says, run, refused, tmp_path):
    run("a")
    run("empty", finished=0)
    run("empty-too", finished=0)
    run("broken").evaluation.write_text("{}")
    assert says in refused(plot.main, arguments)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
