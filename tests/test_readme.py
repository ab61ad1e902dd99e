"""Tests that the commands and links of the README work."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "notebooks"),
    *sorted(ROOT.glob("models/*.md")),
]


def indented_blocks():
    return [
        "\n".join(line.removeprefix("    ") for line in block.strip("\n").splitlines())
        for block in re.findall(r"(?:^(?: {4}.*)?\n)+", TEXT, flags=re.MULTILINE)
        if block.strip()
    ]


def test_the_lines_of_python_do_what_they_say(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (snippet,) = (block for block in indented_blocks() if "FewShotClassifier" in block)
    exec(compile(snippet, "README.md", "exec"), {})
    answers = [line.split() for line in capsys.readouterr().out.splitlines()]
    queries = sorted((ROOT / "tests/golden/episode/query").glob("*/*.png"))
    right = [label == file.parent.name for file, (_, label) in zip(queries, answers, strict=True)]
    assert sum(right) > 0.7 * len(right)


def test_it_is_read_in_a_minute():
    assert len(TEXT.splitlines()) <= 120


def anchors(page):
    """Returns the anchors of the headings of a page, as the site and GitHub make them."""
    for heading in re.findall(r"^#+ +(.+)$", page.read_text(), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", heading)
        yield re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text.lower()).strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_anchor_of_a_link_is_a_heading(page):
    links = re.findall(r"\]\(((?!http)[^)#\s]*)#([^)\s]+)\)", page.read_text())
    for path, anchor in links:
        target = page.parent / path if path else page
        if target.name != "api.md":  # its anchors are names of Python, which the site makes
            assert anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page):
    """Links start at the folder of the page, names in code type and in commands at the top."""
    text = page.read_text()
    for path in re.findall(r"\]\(((?!http)[^)#\s]+)[^)\s]*\)", text):
        made = ROOT / "notebooks" / f"{pathlib.Path(path).stem}.ipynb"  # a page that `make` creates
        assert (page.parent / path).exists() or ("notebooks/" in path and made.exists()), path
        if ROOT / "docs" in page.parents:  # the site has only this folder
            assert (page.parent / path).resolve().is_relative_to(ROOT / "docs"), path
    for path in re.findall(
        r"(?:`|--flagfile=)((?:docs|export|flags|models|tf_metalstm)/[\w./]+)", text
    ):
        if not re.search(r"\b[A-Z]+\.", path):  # ROW.flags stands for any file
            assert (ROOT / path.rstrip(".")).exists(), path
