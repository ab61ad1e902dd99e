"""export/adapt.py lists the classes that it confuses, if the query folders have class names."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from export_client import report

NAMES = ("ant", "bee", "<cat>")
# (class, answer). A class without queries has no row.
PAIRS = [("ant", "ant"), ("ant", "bee"), ("ant", "<cat>"), ("ant", "bee"), ("bee", "bee")]


@pytest.fixture
def answered(monkeypatch):
    monkeypatch.setattr(report, "_thumbnail", lambda path: "")

    def make(pairs):
        answers = [
            report.Answer(f"{i}.png", Path(f"{i}.png"), said, np.eye(3)[NAMES.index(said)], known)
            for i, (known, said) in enumerate(pairs)
        ]
        return report.Report(Path("model"), NAMES, [], [], answers, [])

    return make


def test_on_the_terminal(answered, capsys):
    report.print_table(answered(PAIRS), 0)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "class  images  accuracy  taken for",
        "ant         4    25.00%  bee 2, <cat> 1",
        "bee         1   100.00%",
        "accuracy: 40.00% (2 of 5 images)",
    ]


def test_in_json(answered):
    found = json.loads(report.json_text(answered(PAIRS)))
    assert found["accuracy"] == 0.4
    assert found["by_class"] == {
        "ant": {"images": 4, "accuracy": 0.25, "answers": {"bee": 2, "ant": 1, "<cat>": 1}},
        "bee": {"images": 1, "accuracy": 1.0, "answers": {"bee": 1}},
    }


def test_on_the_page(answered):
    page = report.html_text(answered(PAIRS))
    [matrix] = re.findall("<h2>Confusion matrix</h2>.*?</table>", page, re.DOTALL)
    assert "<th>ant</th><th>bee</th><th>&lt;cat&gt;</th><th>accuracy</th>" in matrix
    [ant, bee] = re.findall(r"<tr><th>\w+</th>(.*?)</tr>", matrix.partition("accuracy")[2])
    assert re.findall(r"<td[^>]*>([^<]*)<", ant) == ["1", "2", "1", "25.0%"]
    assert re.findall(r"<td[^>]*>([^<]*)<", bee) == ["", "1", "", "100.0%"]
    assert "/ 50%)" in ant


def test_of_images_of_unknown_class_nothing_is_said(answered, capsys):
    unknown = answered([(None, "ant"), (None, "bee")])
    report.print_table(unknown, 2)
    assert "class " not in capsys.readouterr().out
    assert json.loads(report.json_text(unknown))["by_class"] == {}
    assert "confuses" not in report.html_text(unknown)


def test_those_of_known_class_alone_count(answered):
    some = answered([("ant", "bee"), (None, "ant")])
    assert some.confusion == {"ant": Counter({"bee": 1})}
