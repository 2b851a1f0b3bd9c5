"""The documentation is true: commands parse, Python runs, pages answer the same questions, the site is whole."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import dreamdojo
from dreamdojo import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
HEADINGS = ["In", "Out", "Command", "What good looks like", "What it costs", "What goes wrong"]
SHELL = ("sh", "bash")
STARTS = ("dreamdojo", "python", "torchrun", "make", "pip")
"""How an indented block begins that is taken for commands."""
MARK = re.compile(r"<!-- not run: (.+) -->\s*")


@dataclass(frozen=True)
class Block:
    """A code block of a page, and why it is not run, where it says so."""

    page: str
    line: int
    language: str
    text: str
    excuse: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    tokens = MarkdownIt().parse(path.read_text())
    found = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type not in ("fence", "code_block"):
            continue
        language = token.info.strip()
        if token.type == "code_block":
            language = "sh" if token.content.lstrip().startswith(STARTS) else "text"
        mark = MARK.fullmatch(before.content) if before is not None and before.type == "html_block" else None
        place = str(path.relative_to(ROOT)), token.map[0] + 1
        found.append(Block(*place, language, token.content, mark[1] if mark else None))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command of a shell block; what stands in brackets may be left out, and is taken."""
    text = re.sub(r"\s*\.\.\.(?=\])", "", block.text.replace("\\\n", " "))
    text = re.sub(r"\[(--[^\]]*)\]", r"\1", text)
    lines = [shlex.split(part, comments=True) for line in text.splitlines() for part in line.split(" && ")]
    return [words for words in lines if words]


SHELL_BLOCKS = [block for block in BLOCKS if block.language in SHELL]
COMMANDS = sorted({" ".join(words) for block in SHELL_BLOCKS if not block.excuse for words in commands_of(block)})


def test_every_block_is_of_a_kind_that_is_checked():
    wrong = [str(block) for block in BLOCKS if block.language not in (*SHELL, "python", "text")]
    assert not wrong, f"fence these as sh, python or text: {wrong}"
    indented = [str(b) for b in BLOCKS if b.language == "text" and re.match(r"(from|import) ", b.text)]
    assert not indented, f"fence these as python: {indented}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_its_program_takes(command, capsys):
    words = shlex.split(command)
    if "-m" in words and words[0] == "torchrun":
        words = words[words.index("dreamdojo") :]
    program, *arguments = words
    if program == "dreamdojo":
        arguments = ["nano" if word == "PRESET" else word for word in arguments]
        try:
            cli.parse(arguments)
        except SystemExit as stop:
            assert stop.code == 0, capsys.readouterr().err
    elif program == "python" and arguments[0] == "-m":
        assert (ROOT / (arguments[1].replace(".", "/") + ".py")).is_file()
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif program == "make":
        target = next(word for word in arguments if "=" not in word)
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif program == "pip":
        assert arguments[0] == "install"
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [
            extra
            for word in arguments
            for found in re.findall(r"dreamdojo\[(.+)\]", word)
            for extra in found.split(",")
        ]
        assert set(named) <= set(extras)
    else:
        assert program in ("git", "cd", "."), f"{program}: say why it is not run, <!-- not run: ... -->"


def test_commands_named_in_the_text_exist_and_every_command_has_a_page():
    named = set()
    for page in PAGES:
        if page.name in ("log.md", "results.md"):  # records of their day
            continue
        for words in re.findall(r"`dreamdojo ([a-z][^`]*)`", page.read_text()):
            first, second = [*words.split(), ""][:2]
            name = f"{first} {second}" if f"{first} {second}" in cli.COMMANDS else first
            assert name in cli.COMMANDS, f"{page}: dreamdojo {words}"
            named.add(name)
    assert named == set(cli.COMMANDS)


python_pages = [page for page in PAGES if any(b.language == "python" for b in blocks_of(page))]


@pytest.mark.skipif(dreamdojo.foundation("nano") is None, reason="no weights of nano in this checkout")
@pytest.mark.parametrize("page", python_pages, ids=lambda page: page.name)
def test_python_runs_or_says_why_not(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks_of(page):
        if block.language != "python":
            continue
        tree = ast.parse(block.text, filename=str(block))
        if block.excuse:  # what it imports must be there all the same
            tree.body = [line for line in tree.body if isinstance(line, ast.Import | ast.ImportFrom)]
        exec(compile(tree, str(block), "exec"), names)


def test_every_stage_page_answers_the_same_questions_in_the_same_order():
    for page in sorted((DOCS / "stages").glob("*.md")):
        headings = re.findall(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
        assert headings[: len(HEADINGS)] == HEADINGS, page.name
        assert f"(stages/{page.name})" in (DOCS / "index.md").read_text()


def test_figures_and_the_hardware_table_are_those_of_the_files_and_the_code(tmp_path):
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    for page in pages:
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, copy)
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    weights = Path("dreamdojo/weights/nano/foundation.json")
    (tmp_path / weights).parent.mkdir(parents=True)
    shutil.copy(ROOT / weights, tmp_path / weights)
    code = f"import pathlib, benchmarks.readme as readme; readme.ROOT = pathlib.Path({str(tmp_path)!r}); readme.main()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)  # without the checks of types, which cost more
    for page in pages:
        made = (tmp_path / page.relative_to(ROOT)).read_text()
        assert page.read_text() == made, f"{page.name}: run `python -m benchmarks.readme`"


def test_the_reading_list_is_that_of_the_readme():
    files = re.findall(r"^\d\. .*", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    there = re.findall(r"^\d\. .*", (DOCS / "reading.md").read_text(), flags=re.MULTILINE)
    links = [re.findall(r"\]\((?:\.\./)?([^)]+)\)", "\n".join(each)) for each in (files, there)]
    assert links[0] == links[1]
    assert all((ROOT / link).exists() for link in links[0])


def messages() -> list[str]:
    """Every text in the package's source, with … for what is filled in."""
    found = []
    for path in sorted((ROOT / "dreamdojo").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_troubleshooting_quotes_errors_that_exist():
    quoted = re.findall(r"\*\*`(.+?)`\*\*", (DOCS / "troubleshooting.md").read_text())
    assert len(quoted) > 20
    said = messages()
    strange = [words for words in quoted if not any(words in text for text in said)]
    assert not strange


def test_links_of_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_site_builds_without_a_warning_and_asks_for_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={"PATH": "", "NO_MKDOCS_2_WARNING": "1"})
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link[^>]* rel=\"?(?:stylesheet|icon|preconnect|preload)[^>]*>", text)
        assert loaded
        assert not [where for where in loaded if "//" in where], page.name
    assert not (site / "hooks.py").exists()
