"""Results as text for a terminal, as HTML for a notebook, as JSON and as JUnit XML for a teacher."""

import html
import json
import os
import re
import sys
import textwrap
import xml.etree.ElementTree as ET

import npvae

WIDTH = 80
COLOURS = {"✓": 32, "✗": 31, "·": 90}
ASCII = str.maketrans("✓✗·■□“”½−→", '+x.#-""?-?')


def say(text):
    """Print, with other marks where the terminal does not know ours."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(ASCII)
    print(text, flush=True)


def coloured(text, code):
    """The text in a colour of the terminal, if it is one."""
    return f"\033[{code}m{text}\033[0m" if sys.stdout and sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def as_text(result):
    """A line for the exercise, and what is to be said about it, if it has been worked on."""
    task = result.exercise
    mark = "✓" if result.passed else "·" if result.untouched else "✗"
    lines = [f"{coloured(mark, COLOURS[mark])} {task.number:2}  {coloured(task.title, 1)}  ({task.file})"]
    if not result.untouched:
        lines += [paragraph(verdict) for verdict in result.verdicts if verdict.notes or not result.passed]
    return "\n".join(lines)


def paragraph(verdict):
    """The verdict, indented, in lines of at most 80 characters."""
    first, *rest = map(plain, verdict.lines())
    wrapped = [textwrap.fill(first, WIDTH, initial_indent=" " * 7, subsequent_indent=" " * 9)]
    wrapped += [textwrap.fill(line, WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 11) for line in rest]
    mark = coloured(verdict.mark, COLOURS[verdict.mark])
    return "\n".join([f"     {mark} {wrapped[0][7:]}", *wrapped[1:]])


def progress(results):
    """How far one has come, in a line."""
    done = sum(result.passed for result in results)
    return f"{'■' * done}{'□' * (len(results) - done)}  {done} of {len(results)} exercises"


def as_html(verdict):
    """The verdict as a notebook shows it."""
    first, *rest = map(html.escape, verdict.lines())
    name, _, headline = first.partition(": ")
    symbol, tone = verdict.mark, {"✓": "#2e7d32", "✗": "#c62828", "·": "gray"}[verdict.mark]
    lines = re.sub("`([^`]+)`", r"<code>\1</code>", "".join(f"<div>{line}</div>" for line in rest))
    first = f'<div><span style="color: {tone}">{symbol}</span> <code>{name}</code>: <strong>{headline}</strong></div>'
    style = f"border-left: 4px solid {tone}; padding: 0.2em 0 0.2em 0.8em; line-height: 1.5"
    return f'<div style="{style}">{first}{lines}</div>'


def as_json(results, folder):
    """All results, as text."""
    exercises = [
        {
            "number": result.exercise.number,
            "file": result.exercise.file,
            "title": result.exercise.title,
            "passed": result.passed,
            "problem": result.problem.as_dict() if result.problem else None,
            "functions": [verdict.as_dict() for verdict in result.graded],
        }
        for result in results
    ]
    passed = all(result.passed for result in results)
    whole = {"npvae": npvae.__version__, "folder": str(folder), "passed": passed, "exercises": exercises}
    return json.dumps(whole, indent=2, ensure_ascii=False)


def as_junit(results):
    """All results as JUnit XML, bytes: a suite for each exercise, a case for each function."""
    root = ET.Element("testsuites", name="npvae.exercises")
    for result in results:
        graded = result.graded
        failures = str(sum(not verdict.passed for verdict in graded))
        suite = ET.SubElement(root, "testsuite", name=result.exercise.module, tests=str(len(graded)), failures=failures)
        for verdict in graded:
            name = result.exercise.module
            case = ET.SubElement(
                suite, "testcase", classname=name, name=verdict.function, time=f"{verdict.seconds:.3f}"
            )
            if not verdict.passed:
                failure = ET.SubElement(case, "failure", message=plain(verdict.headline))
                failure.text = plain("\n".join(verdict.lines()))
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def plain(text):
    """Without control characters, which XML does not allow, and which a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
