"""The notebooks run, and what is committed of them looks as a run from top to bottom leaves it."""

import ast
import json
import re
import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from tests.conftest import missing_links

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = ("01", "03", "05")  # on data, on noise, on the whole model
STRICT = """\
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("default", module="(ipykernel|IPython|traitlets|zmq|tornado|jupyter)")"""
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'`(\[=:])(?:/(?:[\w.-]+/)+[\w.-]+|/tmp|/home|[A-Z]:\\)""", re.MULTILINE)
LEFTOVER = re.compile(r"In \[[\d ]*\]|^>>> |TODO|FIXME|> at 0x| at 0x[0-9a-f]+>|^\[Text\(|^\[<", re.MULTILINE)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def solutions(notebook):
    """The Python in each folded solution."""
    folded = re.findall(r"<details><summary>Solution</summary>\n\n(.*?)\n\n</details>", prose(notebook), re.DOTALL)
    return ["\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)) for text in folded]


def checks(source):
    """The number of assert statements."""
    source = re.sub(r"^%.*$", "", source, flags=re.MULTILINE)  # IPython's own commands are not Python
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))


def printed(notebook):
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_notebooks_are_numbered():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{i:02d}-" for i in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) == 11


@pytest.mark.filterwarnings("default")  # Jupyter's own; the notebook's are errors in the kernel
@pytest.mark.parametrize(
    "notebook",
    [pytest.param(path, marks=[pytest.mark.slow] * (not path.name.startswith(QUICK))) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
    indirect=True,
)
def test_notebook_and_its_solutions_run_without_a_warning(notebook, data_dir, monkeypatch):
    monkeypatch.setenv("NPVAE_QUICK", "1")
    monkeypatch.setenv("NPVAE_DATA", str(data_dir))
    notebook.cells.insert(0, new_code_cell(STRICT))
    notebook.cells += [new_code_cell(solution) for solution in solutions(notebook)]
    NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": ROOT / "notebooks"}}
    ).execute()
    errors = [output.text for cell in code(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    assert not errors


def test_committed_outputs_are_those_of_one_run_from_top_to_bottom(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        data = output.get("data", {})
        assert "image/png" in data or not data.get("text/plain", "").startswith("<Figure"), "a figure that is not shown"


def test_committed_outputs_are_of_mnist(notebook):
    if "load(" in "".join(cell.source for cell in code(notebook)):
        assert re.search(r"(?<![-\w])mnist\b", printed(notebook))
        assert "strokes" not in printed(notebook)


def test_nothing_of_the_workplace_is_left(notebook):
    metadata = json.dumps([notebook.metadata, *(cell.metadata for cell in notebook.cells)])
    text = "\n".join([metadata, prose(notebook), *(cell.source for cell in code(notebook)), printed(notebook)])
    assert not ABSOLUTE_PATH.findall(text)
    assert not LEFTOVER.findall(text)
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "widgets"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small_enough_to_be_shown(path):
    assert path.stat().st_size < 1.5e6


def test_notebook_says_what_it_needs_and_ends_with_exercises(notebook):
    first, *_, last = notebook.cells
    assert all(f"**{what}**" in first.source for what in ("What you will do.", "What you need.", "How long."))
    assert "**Question" in prose(notebook)
    assert "../docs/symbols.md" in first.source
    assert "## Further reading" in last.source
    assert "<details>" not in last.source
    assert all(checks(solution) for solution in solutions(notebook))


def test_each_exercise_has_a_cell_to_write_in_a_folded_check_and_a_folded_solution(notebook):
    (start,) = (i for i, cell in enumerate(notebook.cells) if re.search("^## Exercises$", cell.source, re.MULTILINE))
    cells = notebook.cells[start:]
    questions = re.findall(r"^\*\*\d\.\*\*", prose(notebook), re.MULTILINE)
    assert len(questions) == len(solutions(notebook)) in (2, 3)
    assert prose(notebook).count("<summary>Solution</summary>") == len(solutions(notebook))
    hidden = [cell for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert sum("expect(" in cell.source for cell in hidden) >= len(questions)
    answers = [output for cell in hidden for output in cell.outputs]
    assert answers
    assert all("not answered yet" in output.get("data", {}).get("text/plain", "") for output in answers)


def test_every_section_ends_in_a_check(notebook):
    sections = []  # (title, its code cells)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            sections += [(title, []) for title in re.findall(r"^## (.*)", cell.source, re.MULTILINE)]
        elif sections:
            sections[-1][1].append(cell.source)
    assert len(sections) >= 5
    for title, cells in sections:
        assert title == "Exercises" or not cells or checks(cells[-1]), title


def test_code_cells_fit_on_a_screen(notebook):
    assert max(len(list(filter(str.strip, cell.source.splitlines()))) for cell in code(notebook)) <= 16


def test_links_in_the_notebooks_lead_somewhere(notebook):
    assert not missing_links(prose(notebook), ROOT / "notebooks")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_in_the_readme_are_those_of_the_notebooks(path):
    script = runpy.run_path(str(ROOT / "notebooks" / "pictures.py"))
    picture = script["FOLDER"] / f"{path.stem}.png"
    assert picture.read_bytes() == script["picture"](path)
    assert str(picture.relative_to(ROOT).as_posix()) in (ROOT / "README.md").read_text(encoding="utf-8")
