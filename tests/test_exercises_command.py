"""`python -m npvae.exercises`, as a learner and a teacher use it, and the calls from a notebook."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from npvae.exercises import check, expect
from npvae.exercises.__main__ import main, split
from npvae.exercises.bugs import BUGS
from npvae.exercises.course import MODULES, SOLUTIONS, exercise, solved
from npvae.exercises.folder import check as check_folder
from tests.conftest import heeding

NUMBERS = range(1, len(MODULES) + 1)


@pytest.fixture
def folder(tmp_path):
    """A folder as `start` leaves it."""
    assert main(["start", str(tmp_path / "my vae")]) == 0
    return tmp_path / "my vae"


@pytest.fixture
def solved_folder(folder):
    for number in NUMBERS:
        task = exercise(number)
        (folder / task.file).write_text(task.solution, encoding="utf-8")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only(folder, number, time_limit=5.0):
    """What is said about one exercise: the problem of the file, or its verdicts by function."""
    (result,) = check_folder(folder, [number], time_limit)
    return result.problem or {verdict.function: verdict for verdict in result.verdicts}


def write(folder, number, old, new):
    """Replace a text in the solution of an exercise, and make that the learner's file."""
    source = exercise(number).solution
    assert source.count(old) == 1
    (folder / exercise(number).file).write_text(source.replace(old, new), encoding="utf-8")


# starting


def test_start_writes_every_exercise_with_empty_functions_and_a_training_script(folder):
    assert set(contents(folder)) == {f"{module}.py" for module in MODULES} | {"train.py"}
    for number in range(1, 12):
        text = (folder / exercise(number).file).read_text(encoding="utf-8")
        assert text.count("raise NotImplementedError") == text.count("def ") == len(exercise(number).functions)
        assert "return " not in text.replace("`return", "")


def test_start_never_overwrites(folder, capsys):
    (folder / "ex05_kl.py").write_text("mine")
    (folder / "ex06_reparameterize.py").unlink()
    before = contents(folder)
    assert main(["start", str(folder)]) == 0
    after = contents(folder)
    assert after["ex05_kl.py"] == b"mine"
    assert after == before | {"ex06_reparameterize.py": after["ex06_reparameterize.py"]}
    assert "there, and stay as they are: 13" in capsys.readouterr().out


def test_seeds_plant_different_bugs(tmp_path):
    for number in (12, 13):
        texts = [exercise(number).start(seed) for seed in range(len(BUGS[number]))]
        assert len(set(texts)) == len(texts) >= 8
        assert exercise(number).solution not in texts


@pytest.mark.parametrize("number", [12, 13])
def test_a_model_with_a_planted_bug_runs_and_its_loss_falls(number, few_images):
    for bug in BUGS[number]:
        module = {"__name__": "model"}
        exec(compile(exercise(number).with_bug(bug), "model", "exec"), module)
        rng, t = np.random.default_rng(0), 0
        p = module["initialize"](few_images.shape[1], 50, 5, rng)
        moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in p.items()}
        losses = []
        for _ in range(10):
            loss, t = module["train_epoch"](p, moments, t, few_images, 20, rng)
            losses.append(loss)
        assert np.isfinite(losses).all(), bug
        assert losses[-1] < 0.9 * losses[0], bug


@pytest.fixture(scope="module")
def few_images():
    from npvae.data.strokes import draw_digits

    return draw_digits(200, np.random.default_rng(0))[0].reshape(200, -1)


# checking a folder


def test_nothing_passes_at_the_start_and_all_passes_in_the_end(folder, capsys):
    assert main(["check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "0 of 13 exercises" in out
    for number in NUMBERS:
        (folder / exercise(number).file).write_text(exercise(number).solution, encoding="utf-8")
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "13 of 13 exercises" in out
    assert "train.py" in out


def test_check_of_one_exercise_names_the_mistake(folder, capsys):
    write(folder, 5, "-0.5 * (1", "-(1")
    assert main(["check", str(folder), "5"]) == 1
    out = capsys.readouterr().out
    assert "gaussian_kl: wrong in a typical case" in out
    assert "Exactly what comes out when the ½ is missing." in out
    assert "0 of 1 exercises" in out
    assert max(map(len, out.splitlines())) <= 80


def test_line_ends_and_marks_of_windows_do_no_harm(solved_folder):
    for number in NUMBERS:
        path = solved_folder / exercise(number).file
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert main(["check", str(solved_folder)]) == 0


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["5"], [5]),
        (["ex05"], [5]),
        (["ex05_kl.py", "3"], [3, 5]),
        (["my-vae", "12"], [12]),
        ([r"my-vae\ex05_kl.py"], [5]),
        (["my-vae/ex05_kl.py"], [5]),
    ],
)
def test_an_exercise_is_called_by_its_number_or_its_file(arguments, numbers):
    folder, found = split(arguments)
    assert found == numbers
    assert (folder is None) == ("my-vae" not in "".join(arguments))
    assert folder is None or folder.name == "my-vae"


def test_a_function_is_not_blamed_for_another_ones_mistake(folder):
    write(folder, 4, "np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))", "np.log(1 + np.exp(a))")
    said = only(folder, 4)
    assert not said["softplus"].passed
    assert said["bernoulli_log_density"].passed
    assert all(verdict.passed for verdict in only_solved(folder, 7).values())


def only_solved(folder, number):
    (folder / exercise(number).file).write_text(exercise(number).solution, encoding="utf-8")
    return only(folder, number)


def test_a_helper_of_an_earlier_file_can_be_used(folder):
    write(
        folder, 2, "def dense(x, W, b):", "def product(x, W):\n    '''x W'''\n    return x @ W\n\n\ndef dense(x, W, b):"
    )
    text = exercise(7).solution.replace("import dense,", "import product, dense,")
    text = text.replace('dense(x, p["W1"], p["b1"])', 'product(x, p["W1"]) + p["b1"]')
    (folder / exercise(7).file).write_text(text, encoding="utf-8")
    assert all(verdict.passed for verdict in only(folder, 7).values())


# code that does what it should not


KL = "    return -0.5"
HOSTILE = {
    "a syntax error": (KL, "    return ) -0.5", "is not valid Python"),
    "an indentation error": (KL, "        return -0.5", "is not valid Python"),
    "a package that is not there": (
        "import numpy as np",
        "import numpy as np\nimport no_such_package",
        "no_such_package",
    ),
    "an import of npvae": ("import numpy as np", "import numpy as np\nimport npvae.distributions", "imports npvae"),
    "sys.exit when imported": ("import numpy as np", "import numpy as np\nimport sys\nsys.exit(0)", "ends Python"),
    "an endless loop when imported": ("import numpy as np", "import numpy as np\nwhile True:\n    pass", "to an end"),
    "another NumPy when imported": ("import numpy as np", "import numpy as np\nnp.exp = np.sin", "replaces numpy.exp"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_broken_file_is_one_verdict_and_stays_as_it_is(folder, what):
    old, new, said = HOSTILE[what]
    write(folder, 5, old, new)
    before = contents(folder)
    problem = only(folder, 5, time_limit=1)
    assert said in "\n".join(problem.lines())
    assert contents(folder) == before


BODIES = {
    "an endless loop": ("while True:\n        pass", "does not come to an end within 1 seconds"),
    "an endless loop that catches everything": (
        "while True:\n        try:\n            pass\n        except BaseException:\n            pass",
        "to an end",
    ),
    "sys.exit": ("import sys\n    sys.exit(0)", "sys.exit(0)"),
    "an end without Python's knowledge": ("import os\n    os._exit(0)", "ends Python"),
    "a crash of the process": ("import os, signal\n    os.kill(os.getpid(), signal.SIGSEGV)", "ends Python"),
    "more memory than there is": ("np.ones(1 << 50)", "MemoryError"),
    "no end of calls": ("return gaussian_kl(mu, logvar)", "calls itself without an end"),
    "nothing returned": ("pass", "returns None"),
    "a question": ("input('?')", "stops"),
    "NumPy's settings": ("np.seterr(all='raise')", "np.seterr"),
    "NumPy's global random numbers": ("np.random.seed(0)", "global random numbers"),
    "a changed argument": ("mu *= 2\n    return mu", "changes its argument mu"),
    "other numbers at each call": (
        "return np.random.default_rng().normal(size=len(mu))",
        "gives other numbers at each call",
    ),
    "a name that is not there": ("return sigma", "name 'sigma' is not defined"),
    "text": ("return 'KL'", "expected"),
    "a file in the way": ("open('ex05_kl.py', 'w').write('')", "returns None"),
}


@pytest.mark.parametrize("what", BODIES)
def test_what_a_function_does_is_its_own_verdict_and_the_others_are_judged(folder, what):
    body, said = BODIES[what]
    if what == "a crash of the process" and os.name != "posix":
        pytest.skip("signals of POSIX")
    write(folder, 5, "    return -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(axis=-1)", f"    {body}")
    before = contents(folder)
    verdicts = only(folder, 5, time_limit=1)
    assert not verdicts["gaussian_kl"].passed
    assert said in "\n".join(verdicts["gaussian_kl"].lines())
    assert verdicts["gaussian_kl_gradient"].passed
    assert contents(folder) == before


LEFT_BEHIND = {
    "a thread that does not end": "import threading, time\nthreading.Thread(target=time.sleep, args=(3000,)).start()",
    "a loop at exit": "import atexit\n\n\n@atexit.register\ndef f():\n    while True:\n        pass",
    "a warning without a word": "import warnings\n\nwarnings.warn('')",
    "what is no message in every pipe": (
        "import contextlib, os\n\nfor i in range(3, 50):\n    with contextlib.suppress(OSError):\n"
        "        os.write(i, b'junk\\n{}\\n[1]\\n\\xff')"
    ),
}


@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_what_a_right_file_leaves_behind_does_not_hold_up_its_verdicts(folder, what):
    source = f"{exercise(5).solution}\n\n{LEFT_BEHIND[what]}\n"
    (folder / "ex05_kl.py").write_text(source, encoding="utf-8")
    assert all(verdict.passed for verdict in only(folder, 5, time_limit=20).values())


def test_a_judge_is_not_deceived_by_other_builtins(folder):
    source = exercise(5).solution.replace("-0.5 * (1", "-(1")
    (folder / "ex05_kl.py").write_text(
        f"{source}\nimport builtins\n\nbuiltins.all = lambda *_: True\n", encoding="utf-8"
    )
    assert "replaces builtins.all" in only(folder, 5).headline


def test_ones_own_modules_in_the_folder_can_be_imported(folder):
    (folder / "helpers.py").write_text("def half(x):\n    return x / 2\n", encoding="utf-8")
    source = exercise(5).solution.replace("import numpy as np", "import numpy as np\nfrom helpers import half")
    (folder / "ex05_kl.py").write_text(
        source.replace("(np.exp(logvar) - 1) / 2", "half(np.exp(logvar) - 1)"), encoding="utf-8"
    )
    assert all(verdict.passed for verdict in only(folder, 5).values())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_what_is_no_file_is_not_read(folder):
    (folder / "ex05_kl.py").unlink()
    os.mkfifo(folder / "ex05_kl.py")
    assert "cannot be read" in only(folder, 5).headline
    assert only_solved(folder, 6)["reparameterize"].passed


@pytest.mark.parametrize("name", ["ex05_kl.py", "report", ".", ""])
def test_junit_goes_nowhere_but_into_xml(folder, name, capsys):
    before = contents(folder)
    with pytest.raises(SystemExit) as stop:
        main(["check", str(folder), "--junit", str(folder / name) if name else ""])
    assert stop.value.code == 2
    assert "expected the name of a file that ends in .xml" in capsys.readouterr().err
    assert contents(folder) == before


def test_megabytes_of_print_are_a_note(folder):
    write(folder, 5, "    return -0.5", "    print('x' * 5_000_000)\n    return -0.5")
    verdict = only(folder, 5)["gaussian_kl"]
    assert verdict.passed
    assert len(str(verdict)) < 800
    assert "It prints 40,000,008 characters" in str(verdict)
    assert "\n  xxx" in str(verdict)


def test_a_deleted_function_is_missed(folder):
    source = exercise(5).solution
    (folder / "ex05_kl.py").write_text(source[: source.index("def gaussian_kl_gradient")], encoding="utf-8")
    verdicts = only(folder, 5)
    assert verdicts["gaussian_kl"].passed
    assert "is not there any more" in verdicts["gaussian_kl_gradient"].headline


def test_a_deleted_file_is_missed(folder):
    (folder / "ex05_kl.py").unlink()
    assert "is not there" in only(folder, 5).headline


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_check_ends_at_once_and_leaves_no_process(folder, tmp_path, number):
    pid = tmp_path / "pid"
    loop = f"    import os\n    open({str(pid)!r}, 'w').write(f'{{os.getpid()}} ')\n    while True:\n        pass\n"
    write(folder, 5, "    return -0.5", loop + "    return -0.5")
    arguments = [sys.executable, "-m", "npvae.exercises", "check", str(folder), "5", "--time-limit", "3000"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heeding)
    while not (pid.exists() and pid.read_text().endswith(" ")):
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_an_endless_loop_costs_its_time_limit_and_not_more(folder):
    write(folder, 5, "    return -0.5", "    while True:\n        pass\n    return -0.5")
    began = time.perf_counter()
    only(folder, 5, time_limit=1)
    assert time.perf_counter() - began < 60  # not the machine's speed: that it comes to an end at all


# for a teacher


def test_json_and_junit_hold_every_function(solved_folder, tmp_path, capsys):
    write(solved_folder, 5, "-0.5 * (1", "0.5 * (1")
    for name in ("ex08_adam.py", "ex12_find_the_bug.py"):
        (solved_folder / name).write_text("def adam_step(:\n    '\x07'", encoding="utf-8")
    junit = tmp_path / "report.xml"
    capsys.readouterr()
    assert main(["check", str(solved_folder), "--json", "--junit", str(junit)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    functions = {one["function"]: one for task in found["exercises"] for one in task["functions"]}
    expected = {name for number in range(1, 12) for name in exercise(number).functions} | {"the model"}
    assert set(functions) == expected
    assert {name for name, one in functions.items() if not one["passed"]} == {"gaussian_kl", "adam_step"}
    assert [task["passed"] for task in found["exercises"]] == [number not in (5, 8, 12) for number in NUMBERS]
    assert [len(task["functions"]) for task in found["exercises"]][11:] == [1, 1]
    assert functions["gaussian_kl"]["mistake"] == "the sign is turned round"
    cases = ET.parse(junit).getroot().findall("testsuite/testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed == {"gaussian_kl", "adam_step", "the model"}
    assert len(cases) == len(expected) + 1  # the model of exercises 12 and 13


def test_find_the_bug_counts_once_whatever_is_wrong_with_it(folder):
    write(folder, 12, "x @ W + b", "x @ W - b")
    (result,) = check_folder(folder, [12])
    assert [verdict.function for verdict in result.verdicts] == ["the model", "dense"]
    assert [(verdict.function, verdict.passed) for verdict in result.graded] == [("the model", False)]


# hints and solutions


def test_hints_go_from_a_nudge_to_the_formula(folder, capsys):
    capsys.readouterr()
    given = []
    for _ in range(4):
        assert main(["hint", "5", str(folder)]) == 0
        given.append(" ".join(capsys.readouterr().out.split("That was the last")[0].split()))
    hints = exercise(5).functions["gaussian_kl"].hints
    assert given == [f"gaussian_kl, hint {min(i, 3)} of 3: {hints[min(i, 3) - 1]}" for i in (1, 2, 3, 4)]


def test_a_hint_is_on_the_function_that_is_not_right(folder, capsys):
    write(folder, 5, "(np.exp(logvar) - 1) / 2", "np.exp(logvar)")
    capsys.readouterr()
    assert main(["hint", str(folder), "5"]) == 0
    assert capsys.readouterr().out.startswith("gaussian_kl_gradient, hint 1 of 3: ")


def test_hints_on_a_planted_bug_lead_to_it(folder, capsys):
    for _ in range(4):
        main(["hint", "12", str(folder)])
    last = capsys.readouterr().out.splitlines()
    task = exercise(12)
    bug = next(bug for bug in BUGS[12] if task.with_bug(bug) == (folder / task.file).read_text(encoding="utf-8"))
    text = " ".join(" ".join(last).split())
    assert all(name in text and what in text for name, what in bug.mistakes.items())


@pytest.mark.parametrize(("answer", "shown"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_solution_is_shown_to_who_is_sure(answer, shown):
    process = subprocess.run(
        [sys.executable, "-m", "npvae.exercises", "solution", "5"], input=answer, capture_output=True, encoding="utf-8"
    )
    assert process.returncode == (0 if shown else 1)
    assert ("return -0.5 * (1 + logvar" in process.stdout) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "no-such-folder"],
        ["check", "."],
        ["check", "a", "b"],
        ["hint"],
        ["hint", "14"],
        ["hint", "1", "2"],
        ["solution"],
        ["start"],
        ["start", "somewhere", "--seed", "-1"],
        ["check", ".", "--time-limit", "nan"],
        ["watch", "no-such-folder"],
        ["teach"],
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "npvae.exercises", *arguments], capture_output=True, encoding="utf-8", cwd=tmp_path
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# watching


def test_watch_checks_what_is_saved_and_goes_on_to_the_next(folder):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "npvae.exercises", "watch", str(folder), "5", "6"],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )

    def until(text):
        for line in process.stdout:
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text!r}")

    until("0 of 2 exercises")
    write(folder, 5, "-0.5 * (1", "-(1")
    until("the ½ is missing")
    until("0 of 2 exercises")
    write(folder, 5, "-0.5 * (1", "-0.50 * (1")
    until("ex06_reparameterize.py and write its functions")
    until("1 of 2 exercises")
    write(folder, 6, "logvar / 2) / 2", "logvar / 2) * 0.5")
    until("All pass")
    process.communicate(timeout=60)  # what it says after that, too: it would end otherwise because nobody reads
    assert process.returncode == 0


def test_ctrl_c_ends_watching_without_a_traceback(folder):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "npvae.exercises", "watch", str(folder), "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=heeding,
    )
    for line in process.stdout:
        if "0 of 1" in line:
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "python -m npvae.exercises: interrupted\n"


# a model of one's own


def test_the_learners_own_code_trains(solved_folder, data_dir, monkeypatch):
    monkeypatch.setenv("NPVAE_DATA", str(data_dir))
    process = subprocess.run(
        [sys.executable, "train.py", "--epochs", "1", "--dataset", "strokes"],
        capture_output=True,
        encoding="utf-8",
        cwd=solved_folder,
    )
    assert process.returncode == 0, process.stderr
    assert "nats per test image" in process.stdout
    assert (solved_folder / "my-samples.png").stat().st_size > 10_000
    with np.load(solved_folder / "my-vae.npz") as saved:
        assert set(saved) == {f"{kind}{layer}" for kind in "Wb" for layer in "1234"}


# from a notebook


def test_a_function_in_a_notebook_gets_the_same_verdict_in_colour():
    def gaussian_kl(mu, logvar):
        return -(1 + logvar - mu**2 - np.exp(logvar)).sum(axis=1)

    verdict = check(gaussian_kl)
    assert not verdict.passed
    assert verdict.mistake == "the ½ is missing"
    shown = verdict._repr_html_()
    assert "<code>gaussian_kl</code>" in shown
    assert "the ½ is missing" in shown
    assert check(lambda mu, logvar: 0.5 * gaussian_kl(mu, logvar), "gaussian_kl").passed


def test_a_function_in_a_notebook_may_call_ones_own():
    names = dict(vars(solved()["ex07_vae"]))
    source = (SOLUTIONS / "ex09_train.py").read_text(encoding="utf-8").replace("from ex", "# from ex")
    names |= {"scale": solved()["ex01_idx"].scale, "adam_step": solved()["ex08_adam"].adam_step}
    exec(source, names)
    before = dict(names)
    assert check(names["train_epoch"]).passed
    assert names == before  # what was wrapped is unwrapped
    names["adam_step"] = lambda theta, gradient, m, v, t, learning_rate: (theta + 0, m, v)
    assert check(names["train_epoch"]).passed  # that one is judged by itself


def test_html_of_a_verdict_is_escaped():
    def tanh(a):
        raise ValueError("<script>")

    assert "<script>" not in check(tanh)._repr_html_()


def test_check_says_which_functions_it_knows():
    with pytest.raises(ValueError, match=r"no exercise has a function .softmax.*gaussian_kl"):
        check(np.exp, "softmax")


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there is no alarm")
def test_an_endless_loop_in_a_notebook_ends(monkeypatch):
    monkeypatch.setattr("npvae.exercises.TIME_LIMIT", 0.5)

    def tanh(a):
        while True:
            pass

    assert "does not come to an end" in check(tanh).headline
    assert "does not come to an end" in expect(lambda: tanh(0), 1).headline


def not_written():
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "not answered yet"),
        (..., "not answered yet"),
        (not_written, "not answered yet"),
        (2.0, "right"),
        (lambda: 2.0 + 1e-9, "right"),
        (4.0, "not right"),
        (5.0, "expected something else"),
        (np.nan, "expected something else"),
        (np.ones(3), "has the shape"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        ("two", "expected something else"),
    ],
)
def test_an_answer_in_a_notebook_gets_a_verdict(answer, said):
    verdict = expect(answer, 2.0, {"The ½ is missing.": 4.0})
    assert said in verdict.headline
    assert verdict.passed == (said == "right")
    assert ("The ½ is missing." in verdict.details) == (said == "not right")
