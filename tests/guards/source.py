"""What the guards read: the repository's files, its documents' tables, and its syntax trees."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sb", "sb_agent", "sb_worker")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@cache
def modules() -> dict[str, str]:
    """The text of every module of the product, by its path in the repository."""
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def tree(path: str) -> ast.Module:
    return ast.parse(modules()[path])


def nodes(*prefixes: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node of the modules whose path begins with a prefix; of all of them without one."""
    for path in modules():
        if not prefixes or path.startswith(prefixes):
            for node in ast.walk(tree(path)):
                yield path, node


@cache
def tracked_files() -> tuple[str, ...]:
    """Every file that is part of the repository and present."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return tuple(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def section(text: str, title: str) -> str:
    """The part of a document below this heading, with the headings below it."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"there is no heading {title!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> dict[str, list[str]]:
    """The rows of every table in the text: cells by the code in the first one."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = re.match(r"\| `([^`]+)`", line)
        if match:
            assert match[1] not in found, f"{match[1]} is listed twice"
            found[match[1]] = [cell.strip() for cell in line.strip("|").split(" | ")]
    return found


def code(cell: str) -> list[str]:
    """What stands in code marks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def commands(text: str) -> Iterator[str]:
    """Every command line of the shell blocks in the text, continued lines joined."""
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "sh" or line.startswith("$ "):
                yield line.removeprefix("$ ").split(" #")[0].strip()
