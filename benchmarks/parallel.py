"""How training and evaluation scale over processes: `python benchmarks/parallel.py --dataset mnist`.

Times a training step of 784-500-20 and the importance-sampled log p(x) in one process with one thread, in one with a
thread for each core, and in as many as there are cores, with one thread each. All take their turns, forwards and
backwards, so that a slow moment of the machine hits all alike; before, 1 to 4 processes show that they do the same. A
plain model says what a step of N processes takes, from the time of its parts in one process and of the collective
calls; it is compared with what was measured, and drawn for 2 to 64 processes. Writes parallel.json and parallel.png.
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from contenders import data_parser, load_data

from npvae.commands import UserError, command, positive
from npvae.config import Config
from npvae.data.pixels import batch
from npvae.evaluate import estimates
from npvae.parallel import cores, this_team, together
from npvae.training import Part, Training

PROGRAM = "python benchmarks/parallel.py"
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
HIDDEN, LATENT = 500, 20
BATCHES = (100, 1000, 10_000)
TIMED = BATCHES[:2]  # as whole steps; of the largest, the model alone
EVALUATED, SAMPLES = 400, 500
PROCESSES = [2**i for i in range(7)]
FLOAT = 4  # bytes of a parameter
NETWORKS = {  # assumptions: bytes per second of each process in each direction, seconds until a message is there
    "100 Gbit/s: 12.5 GB/s, 2 µs": (12.5e9, 2e-6),
    "10 Gbit/s: 1.2 GB/s, 20 µs": (1.25e9, 20e-6),
}


# what is measured, in a process of its own


def median_seconds(function, seconds=0.5, least=3):
    """Median time of a call, of as many as go into these seconds."""
    function()
    times, began = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def training_of(dataset, size):
    """A training with batches of this size, and a function that does its next step."""
    config = Config(dataset=dataset.name, hidden=(HIDDEN,), latent=LATENT, batch_size=size)
    training = Training(config, dataset)
    training.join(this_team())

    def endless():
        while True:
            yield from training.steps()
            training.end_epoch()

    steps = endless()

    def step():
        next(steps)
        training.team.most(0, 0)  # as in `npvae.train`: to stop, to save?

    return training, step


def same(dataset, count, folder):
    """The losses of so many steps; leaves the parameters in a file."""
    training, step = training_of(dataset, TIMED[0])
    losses = []
    for _ in range(count):
        before = training.sums[0] if training.examples < len(training.images) else 0
        step()
        losses.append((training.sums[0] - before) / TIMED[0])
    if training.team.leads:
        np.save(folder / f"{training.team.size}.npy", training.vae.parameters.values)
    return losses


def measure(dataset, seconds):
    """Seconds of a step for each batch size, and of the evaluation."""
    times, team = {}, this_team()
    for size in TIMED:
        training, step = training_of(dataset, size)
        count = round(seconds / median_seconds(step, 0, 10))
        (count,) = team.most(max(count, 10))  # the same in all processes
        times[f"batch {size}"] = median_seconds(step, 0, count)
    images = dataset.test_images[:EVALUATED]
    vae = training.vae
    estimates(vae, images[:100], None, SAMPLES, (SAMPLES,), team=team)  # not timed: threads wake, caches fill
    began = time.perf_counter()
    estimates(vae, images, None, SAMPLES, (SAMPLES,), team=team)
    times["evaluation"] = time.perf_counter() - began
    return times


def parts(dataset, seconds):
    """Seconds of what a process does in a step: name → pairs of how much of it and how long it takes."""
    training, _ = training_of(dataset, TIMED[0])
    vae, rng, images = training.vae, np.random.default_rng(0), dataset.train_images
    result = {"noise of the batch": [], "part of the batch": [], "part of the vector": []}
    for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000):
        rows = rng.integers(0, len(images), size)

        def draw(size=size):
            return rng.standard_normal((1, size, LATENT), np.float32)

        eps = draw()

        def loss_backward(rows=rows, eps=eps):
            vae.loss(batch(images, rows), eps)
            vae.backward()

        result["noise of the batch"].append((size, median_seconds(draw, seconds)))
        result["part of the batch"].append((size, median_seconds(loss_backward, seconds)))
    for count in PROCESSES:
        size = vae.parameters.values.size // count
        optimizer = training.make_optimizer(Part(vae.parameters, slice(0, size)))
        result["part of the vector"].append((size, median_seconds(optimizer.step, seconds)))
    return result


def calls(dataset, seconds):
    """Seconds of the collective calls among these processes: of a whole vector, and of the sums of a step."""
    team, vector, sums = this_team(), training_of(dataset, TIMED[0])[0].vae.parameters.values, np.zeros(4)
    vector[...] = 0  # so that its sums stay finite
    part = np.zeros_like(vector[team.part(vector.size)])

    def share():
        team.reduce_scatter(vector, part)
        team.all_gather(vector)

    def agree():
        team.all_reduce(sums)
        team.most(0, 0)

    (count,) = team.most(max(10, round(seconds / median_seconds(share, 0, 10))))
    return {
        "parameters": vector.size,
        "whole vector": median_seconds(share, 0, count),
        "sums": median_seconds(agree, 0, 10 * count),
    }


def work(options, dataset):
    """Measure what is asked for, and print it as JSON."""
    measured = {
        "same": lambda: same(dataset, options.steps, options.out),
        "measure": lambda: measure(dataset, options.seconds),
        "parts": lambda: parts(dataset, options.seconds / 10),
        "calls": lambda: calls(dataset, options.seconds),
    }
    result = measured[options.worker]()
    this_team().leave()
    if this_team().leads:
        print(json.dumps(result))
    return 0


# in turn


def ask(what, processes, threads, options):
    """What a job of so many processes has measured."""
    launcher = [MPIEXEC, "-n", str(processes)] if processes > 1 else []
    words = [*launcher, sys.executable, __file__, "--worker", what, "--seconds", str(options.seconds)]
    words += ["--steps", str(options.steps), "--out", str(options.out)]
    words += ["--dataset", options.dataset, "--data-dir", options.data_dir]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why
    return json.loads(done.stdout)


def title(processes, threads):
    if processes > 1:
        return f"{processes} processes, {threads} thread{'s' * (threads > 1)} each"
    return f"1 process, {threads} thread{'s' * (threads > 1)}"


def differences(options):
    """How far 2, 3 and 4 processes are from one after the same steps: N → relative, of losses, of parameters."""
    losses, parameters = {}, {}
    for count in (1, 2, 3, 4):
        losses[count] = np.array(ask("same", count, 1, options))
        parameters[count] = np.load(options.out / f"{count}.npy")
        (options.out / f"{count}.npy").unlink()
    return {
        count: {
            "losses": float(np.abs(losses[count] / losses[1] - 1).max()),
            "parameters": float(np.abs(parameters[count] - parameters[1]).max() / np.abs(parameters[1]).max()),
        }
        for count in (2, 3, 4)
    }


def race(options, count):
    """Of each way to use the cores, the times of all rounds: title → what → list of seconds."""
    ways = [(1, 1), (1, count), (count, 1)]
    times = {title(*way): {} for way in ways}
    for i in range(options.rounds):
        for way in ways[:: -1 if i % 2 else 1]:
            for what, seconds in ask("measure", *way, options).items():
                times[title(*way)].setdefault(what, []).append(seconds)
    return times


# the model


def communication(count, parameters, bandwidth, latency):
    """Seconds of the collective calls of a step in `count` processes.

    Reduce-scatter and all-gather: each process sends and receives all of the vector but its own part, twice, in log₂ N
    messages each, with as many for each of the two small sums.
    """
    sent = 2 * (count - 1) / count * parameters * FLOAT
    return sent / bandwidth + 4 * math.log2(count) * latency


def lines_of(parts):
    """Of each part of a step, the line through its times: name → a function of how much there is of it."""
    lines = {}
    for name, pairs in parts.items():
        sizes, seconds = np.array(pairs).T
        lines[name] = np.poly1d(np.polyfit(sizes, seconds, 1, w=1 / seconds))  # by relative errors
    return lines


def step_time(count, size, results, network):
    """Seconds of a step with batches of `size` in `count` processes, on a network of (bandwidth, latency)."""
    lines, parameters = lines_of(results["parts"]), results["calls"]["parameters"]
    compute = lines["noise of the batch"](size) + lines["part of the batch"](size / count)
    return compute + lines["part of the vector"](parameters / count) + communication(count, parameters, *network)


def gains_of(size, results, network):
    alone = step_time(1, size, results, network)
    return [alone / step_time(count, size, results, network) for count in PROCESSES]


def of_this_machine(calls, count):
    """(bandwidth, latency) of the processes of this machine, from the time of the calls of `count` of them."""
    latency = calls["sums"] / (2 * math.log2(count))
    sent = 2 * (count - 1) / count * calls["parameters"] * FLOAT
    return sent / (calls["whole vector"] - 2 * math.log2(count) * latency), latency


def table(results):
    """Lines of a table in Markdown: what was measured."""
    times, count = results["times"], results["about"]["cores"]
    one = title(1, 1)
    yield "| | | ms | examples a second | speed-up | of the cores |"
    yield "|---|---|---:|---:|---:|---:|"
    for what in times[one]:
        examples = EVALUATED if what == "evaluation" else int(what.split()[1])
        for name, measured in times.items():
            seconds = float(np.median(measured[what]))
            gain = gain_of(results, name, what)
            share = gain / (1 if name == one else count)
            yield (
                f"| {what} | {name} | {1e3 * seconds:,.2f} | {examples / seconds:,.0f} | {gain:.2f} "
                f"| {100 * share:.0f} % |"
            )


def gain_of(results, name, what):
    """How many times as fast as one process with one thread, the median of the rounds."""
    times = results["times"]
    return float(np.median([a / b for a, b in zip(times[title(1, 1)][what], times[name][what], strict=True)]))


def tell(results):
    """What was measured, and what the model says of it, line by line."""
    for count, found in results["same"].items():
        yield (
            f"{count} processes, {results['about']['steps']:,} steps: losses within {found['losses']:.0e} of one's, "
            f"relative; parameters within {found['parameters']:.0e} of the largest"
        )
    yield from table(results)
    calls, count = results["calls"], results["about"]["cores"]
    bandwidth, latency = of_this_machine(calls, count)
    yield (
        f"collective calls of {count} processes: {1e3 * calls['whole vector']:.2f} ms for {calls['parameters']:,} "
        f"parameters ({bandwidth / 1e9:.1f} GB/s), {1e6 * calls['sums']:.0f} µs for the sums"
    )
    for name, line in lines_of(results["parts"]).items():
        yield f"{name}: {1e6 * line.coeffs[1]:.0f} µs and {1e9 * line.coeffs[0]:,.1f} ns for each"
    for size in TIMED:
        for processes in (1, count):
            model = step_time(processes, size, results, (bandwidth, latency))
            measured = float(np.median(results["times"][title(processes, 1)][f"batch {size}"]))
            yield (
                f"model, batch {size}, {title(processes, 1)}: {1e3 * model:.2f} ms, measured {1e3 * measured:.2f} "
                f"({model / measured - 1:+.0%})"
            )
    yield from speed_ups(results)


def speed_ups(results):
    """Lines of a table in Markdown: what the model says of more processes."""
    yield f"| speed-up of a step | | {' | '.join(map(str, PROCESSES[1:]))} |"
    yield f"|---|---|{'---:|' * len(PROCESSES[1:])}"
    for name, network in networks_of(results).items():
        for size in BATCHES:
            gains = " | ".join(f"{gain:.1f}" for gain in gains_of(size, results, network)[1:])
            yield f"| {name} | batch {size:,} | {gains} |"


def networks_of(results):
    """Name → (bandwidth, latency): of the processes of this machine, as measured, and what is assumed."""
    bandwidth, latency = of_this_machine(results["calls"], results["about"]["cores"])
    return {f"as in this machine: {bandwidth / 1e9:.1f} GB/s, {1e6 * latency:.0f} µs": (bandwidth, latency)} | NETWORKS


def draw(results):
    """Speed-up over the number of processes: a panel for each batch size, a line for each network."""
    from matplotlib.figure import Figure  # not at the top, where each of the processes would load it

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    count = results["about"]["cores"]
    for axis, size in zip(figure.subplots(1, len(BATCHES), sharey=True), BATCHES, strict=True):
        axis.plot(PROCESSES, PROCESSES, color="#c8c8c8", label="as many times as fast")
        for (name, network), colour in zip(networks_of(results).items(), ("C0", "C2", "C1"), strict=True):
            axis.plot(PROCESSES, gains_of(size, results, network), "o-", markersize=3, color=colour, label=name)
        if size in TIMED:
            gain = gain_of(results, title(count, 1), f"batch {size}")
            axis.plot([count], [gain], "k*", markersize=10, zorder=3, label="measured")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xticks(PROCESSES, PROCESSES)
        axis.set_yticks(PROCESSES, PROCESSES)
        axis.set_ylim(0.5, 80)
        axis.set_title(f"batch {size:,}", fontsize=10)
        axis.set_xlabel("processes", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if size == TIMED[0]:
            axis.set_ylabel("speed-up of a step", fontsize=9)
            axis.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


@command(PROGRAM)
def main(arguments=None):
    parser = data_parser(PROGRAM, __doc__)
    parser.add_argument("--rounds", type=positive, default=7, help="of each way to use the cores (default: 7)")
    parser.add_argument("--steps", type=positive, default=1000, help="that are compared at first (default: 1000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of steps, in each round (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("runs/parallel"), help="folder (default: runs/parallel)")
    parser.add_argument("--worker", choices=("same", "measure", "parts", "calls"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    dataset = load_data(options)
    if options.worker:
        return together(lambda _: work(options, dataset))()
    if MPIEXEC is None:
        raise UserError("there is no mpiexec: python -m pip install mpi4py mpich")
    count = max(2, cores())
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"numpy": np.__version__, "python": platform.python_version(), "cores": count, "data": dataset.name}
    about["steps"] = options.steps
    print(f"{dataset}; {count} cores; 784-{HIDDEN}-{LATENT}; {options.rounds} rounds", flush=True)
    results = {"about": about, "same": differences(options), "times": race(options, count)}
    results |= {"parts": ask("parts", 1, 1, options), "calls": ask("calls", count, 1, options)}
    (options.out / "parallel.json").write_text(json.dumps(results, indent=1) + "\n")
    print(*tell(results), sep="\n")
    draw(results).savefig(options.out / "parallel.png", dpi=150)
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
