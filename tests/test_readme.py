"""The documents are tests: marked README blocks run, and every `wbvla` command line shown anywhere is a valid one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from wbvla.cli import VERBS, main
from wbvla.sim.tasks import TASKS, get_task

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/commands.md", "docs/demo.md", "docs/world.md", "docs/xvla.md")
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
FENCE = re.compile(r"^```bash([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[tuple[str, str]]:
    """Return (words after ```bash, text) of every bash block."""
    return [(m[1].strip(), m[2]) for m in FENCE.finditer((ROOT / document).read_text())]


def commands(document: str) -> list[str]:
    """Return every command line that starts with `wbvla`, continuation lines joined, comments dropped."""
    lines = [line for _, text in blocks(document) for line in text.replace("\\\n", " ").splitlines()]
    return [" ".join(line.split(" #")[0].split()).rstrip(" &") for line in lines if line.startswith("wbvla ")]


TESTED = [text for words, text in blocks("README.md") if "test" in words.split()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """One empty folder in which the blocks run in order, as a reader would."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.slow
@pytest.mark.parametrize("text", TESTED, ids=lambda text: text.splitlines()[0][:50])
def test_readme_block_runs(workplace, text):
    assert not re.search(r"^make ", text, re.MULTILINE), "the make commands run the suite itself; leave them unmarked"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=workplace,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("command", [line for document in DOCUMENTS for line in commands(document)])
def test_every_command_line_in_the_documents_is_accepted(command, capsys, monkeypatch, tmp_path):
    """Flags in documents cannot drift from the code: each line is parsed and its configuration printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("")
    words = shlex.split(re.split(r"[|>]", command)[0])[1:]
    try:
        code = main([*words, "--print-config"])
    except SystemExit as stop:  # --help
        code = stop.code or 0
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_documented(name):
    assert f"## wbvla {name}\n" in COMMANDS


@pytest.mark.parametrize("name", VERBS)
def test_flags_named_in_a_verbs_section_are_its_own(name):
    prose = FENCE.sub("", COMMANDS)
    text = prose.partition(f"## wbvla {name}\n")[2].partition("\n## ")[0]
    config_class = getattr(import_module(f"wbvla.{VERBS[name].module}"), VERBS[name].config)
    assert set(re.findall(r"`--([a-z-]+)", text)) <= {field.name.replace("_", "-") for field in fields(config_class)}


@pytest.mark.parametrize("task", TASKS)
def test_the_world_says_what_each_task_tells_the_policy(task):
    assert f"## {task}\n\n*{get_task(task).text}*\n" in (ROOT / "docs" / "world.md").read_text()


def test_pictures_and_links_exist():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / document).read_text()):
            assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}, which does not exist"
