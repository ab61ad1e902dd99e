"""The pages are in the navigation, short enough, and have the right numbers.

`make docs-check` builds the site; tests/test_page_commands.py checks the commands.
"""

import configparser
import json
import pathlib
import re
from xml.etree import ElementTree

import pytest
import yaml

from tf_metalstm.tables.catalogue import TABLES
from tf_metalstm.tables.results import read_records

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("**/*.md") if page.parent.name != "notebooks")
LAB_BOOK = [page for page in PAGES if page.parent.name == "lab_book" and page.stem != "index"]
TWO_SCREENS = 60  # lines of up to 120 characters
# The headers of recipes that were not run have the number of the paper.
PUBLISHED = {
    "48.70 +- 1.84",
    "50.47 +- 1.87",
    "63.11 +- 0.92",
    "64.03 +- 0.94",
    "95.8 +- 0.3",
    "98.9 +- 0.2",
}
MEASURED = re.compile(r"\d+\.\d+ \+- \d+\.\d+")


def name_of(path):
    return str(path.relative_to(ROOT))


def pages_of(navigation):
    for entry in navigation:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from pages_of(value) if isinstance(value, list) else [value]


def test_the_navigation_has_every_page_once():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    written = [page.relative_to(DOCS).as_posix() for page in PAGES]
    # `make` creates these pages.
    made = [f"notebooks/{path.stem}.md" for path in ROOT.glob("notebooks/*.ipynb")]
    assert sorted(pages_of(settings["nav"])) == sorted([*written, *made])


def test_nothing_is_fetched_when_the_site_is_built_or_shown():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False
    extra = [*settings.get("extra_css", ()), *settings.get("extra_javascript", ())]
    assert not [path for path in extra if "://" in path or not (DOCS / path).is_file()]


def test_the_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    version = setup["metadata"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = f"\n## [{version}] - {citation['date-released']}\n"
    assert citation["version"] == version
    assert released in (ROOT / "CHANGELOG.md").read_text()


def test_every_figure_is_shown_and_says_in_words_what_it_shows():
    pages = [ROOT / "README.md", *PAGES]
    shown = [
        one for page in pages for one in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text())
    ]
    names = {path.name for path in (DOCS / "images").iterdir()}
    assert names == {pathlib.Path(path).name for _, path in shown}
    assert all(len(words) > 30 for words, _ in shown)


@pytest.mark.parametrize("path", sorted(DOCS.glob("images/*.svg")), ids=name_of)
def test_a_drawing_has_a_title_and_colors_for_the_dark(path):
    drawing = ElementTree.parse(path).getroot()
    namespace = "{http://www.w3.org/2000/svg}"
    assert drawing.find(f"{namespace}title").text
    assert len(drawing.find(f"{namespace}desc").text) > 60
    assert "prefers-color-scheme: dark" in drawing.find(f"{namespace}style").text


@pytest.mark.parametrize("page", LAB_BOOK, ids=name_of)
def test_a_page_of_the_lab_book_says_question_command_result_and_conclusion(page):
    text = page.read_text()
    places = [text.find(f"\n**{word}") for word in ("Question", "Command", "Result", "Conclusion")]
    assert -1 not in places
    assert places == sorted(places)
    assert len(text.splitlines()) <= TWO_SCREENS
    assert f"({page.name})" in (page.parent / "index.md").read_text()


@pytest.mark.parametrize("example", sorted(DOCS.glob("examples/*.py")), ids=name_of)
def test_an_example_is_shown_whole_on_a_page(example):
    """The site only replaces the line by the file in this spelling. A formatter once changed it."""
    page = DOCS / "write" / f"{example.stem.removeprefix('my_')}.md"
    assert f'\n```python\n--8<-- "examples/{example.name}"\n```\n' in page.read_text()


NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_kept_as_it_was_run_and_small(path):
    notebook = json.loads(path.read_text())
    outputs = [one for cell in notebook["cells"] for one in cell.get("outputs", ())]
    kinds = {one["output_type"] for one in outputs}
    assert "error" not in kinds
    assert {"stream", "display_data"} <= kinds
    assert "stderr" not in {one.get("name") for one in outputs}
    assert not re.search(r"[\s\"'=](/tmp|/home|/root)/", path.read_text())
    assert path.stat().st_size < 150_000


def measured(paths):
    return {number for path in paths for number in MEASURED.findall(path.read_text())}


def test_numbers_elsewhere_are_those_of_the_records_and_of_the_lab_book():
    known = measured([*LAB_BOOK, DOCS / "results.md"])
    assert len(known) > 200
    pages = [*ROOT.glob("*.md"), *ROOT.glob("models/*.md"), *PAGES, *ROOT.glob("flags/**/*.flags")]
    for page in pages:
        assert measured([page]) <= known | PUBLISHED, name_of(page)


@pytest.mark.parametrize("table", sorted(TABLES.keys() - {"ablations"}))
def test_the_lab_book_has_the_recorded_numbers(table, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = measured(LAB_BOOK)
    for name, record in read_records(table).items():
        assert f"{100 * record.mean:.2f} +- {100 * record.interval:.2f}" in known, name
