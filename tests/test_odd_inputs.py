"""Tests a table of odd inputs in every client: right answers, or the same clear sentence."""

import collections
import functools
import glob
import json
import os
import pathlib
import shutil
import warnings
from typing import NamedTuple

import odd_inputs
import pytest
import toy
from c_programs import built_cases, call_each
from export_client import client, grpc_client, rest, to_lite
from odd_inputs import ADAPT, API, GRPC, REST, TABLE, C
from servers import Served, grpc_server, rest_server

from tf_metalstm.classifier import FewShotClassifier, ImagesWarning
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.serving.served import ServedMethod

_SAID = ("warning: ", "left out: ", "skipped: ", "note: ")


class Outcome(NamedTuple):
    """The result of a case: the answers by file, the warnings, and the error."""

    answers: list[tuple[str, str]]
    said: list[str]
    refused: str | None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Returns an export of nearest neighbour in pixels."""
    folder = tmp_path_factory.mktemp("run") / "saved_model"
    method, normalization = PixelNearestNeighbor(), Normalization((0.0,), (255.0,))
    toy.save(ServedMethod(method, normalization, odd_inputs.SHAPE, None), folder)
    return folder


class Case(NamedTuple):
    """A case on the disk: its name, its entry in the table, its folder."""

    name: str
    entry: odd_inputs.OddInput
    root: pathlib.Path

    def fill(self, text):
        places = {"{s}": self.root / "support", "{q}": self.root / "query", "{r}": self.root}
        for place, path in places.items():
            text = text.replace(place, str(path))
        return text

    def given(self):
        """Returns the support set and the queries as a user types them."""
        return self.fill(self.entry.support), [self.fill(one) for one in self.entry.query]

    def answered(self):
        """Returns the names of the files that must have answers; a file given twice has two.

        It walks through the queries without the clients' code, and leaves out what the case names.
        """
        said = [self.fill(one) for one in self.entry.said]
        found = collections.Counter()
        for query in map(pathlib.Path, self.given()[1]):
            below = query.rglob("*") if query.is_dir() else map(pathlib.Path, glob.glob(str(query)))
            for path in below:
                places = [path, *path.parents]
                named = [f"{word}: {p} " for word in ("left out", "skipped") for p in places]
                if path.is_file() and not any(one.startswith(tuple(named)) for one in said):
                    found[path.name] += 1
        return found

    def flags(self):
        switches = [f"--{name}" for name, value in self.entry.flags.items() if value is True]
        others = [
            text
            for name, value in self.entry.flags.items()
            if value is not True
            for text in (f"--{name}", str(value))
        ]
        return [*switches, *others]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    found = []
    for number, (name, entry) in enumerate(TABLE.items()):
        root = tmp_path_factory.mktemp(f"case{number}")
        odd_inputs.ordinary(root)
        entry.change(root)
        found.append(Case(name, entry, root))
    return found


def outcome(rows, text, refused=None):
    """Makes an outcome from the output of a program."""
    lines = text.splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    assert len(errors) <= 1
    said = [line for line in lines if line.startswith(_SAID) or "beside its class folders" in line]
    return Outcome(rows, said, errors[0] if errors else refused)


def by_api(model, case, capsys):
    """Runs `FewShotClassifier` with lists of files, because it does not take folders."""
    support, queries = ([pathlib.Path(one)] for one in (case.given()[0], case.given()[1][0]))
    files, queries = sorted(support[0].glob("*/*")), sorted(queries[0].glob("*"))
    classifier = FewShotClassifier(model, **case.entry.flags)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ImagesWarning)
        try:
            classifier.fit(files, [file.parent.name for file in files])
            labels = classifier.predict(queries)
        except (OSError, ValueError) as error:
            return Outcome([], [], str(error))
    said = [str(one.message) for one in caught if one.category is ImagesWarning]
    said = [one if one.startswith("skipped: ") else f"warning: {one}" for one in said]
    rows = [(str(f), name) for f, name in zip(queries, labels, strict=True) if name is not None]
    return Outcome(rows, said, None)


def by_adapt(model, case, capsys):
    support, _ = case.given()
    # adapt.py has no such flag: it always leaves out unreadable files.
    flags = [flag for flag in case.flags() if flag != "--skip_corrupt"]
    arguments = ["--model", model, f"--support={support}", "--no_estimate", *flags]
    return by_command(arguments, case, capsys)


def by_command(arguments, case, capsys):
    """Runs a command of `adapt.py` with the queries of a case."""
    report = case.root / f"answers{len(list(case.root.glob('answers*')))}.json"
    given = (*arguments, "--json", report, "--query", *case.given()[1])
    code = client.main([str(a) for a in given])
    found = outcome([], capsys.readouterr().err)
    assert (code != 0) == (found.refused is not None)
    if code:
        return found
    answers = json.loads(report.read_text())["images"]
    return found._replace(answers=[(one["file"], one["predicted"]) for one in answers])


def by_server(program, place, case, capsys):
    support, queries = case.given()
    refused = None
    try:
        program.main([*place, f"--support={support}", *case.flags(), "--query", *queries])
    except SystemExit as error:
        refused = str(error.code).removeprefix("error: ").removeprefix("the server says: ")
    output, errors = capsys.readouterr()
    return outcome([tuple(line.split("\t")[:2]) for line in output.splitlines()], errors, refused)


def by_c(program, folder, model, cases):
    """Runs all cases in one process."""
    listed = []
    for case in cases:
        support, queries = case.given()
        listed.append([*case.flags(), model, support, *queries])
    return [c_outcome(result) for result in call_each(program, folder, listed)]


def c_outcome(result):
    rows = [tuple(line.split("\t")[:2]) for line in result.stdout.splitlines()]
    found = outcome(rows[1:], result.stderr)
    assert result.returncode == int(found.refused is not None)
    return found if found.refused is None else found._replace(answers=[])


@pytest.fixture
def lite(model, cases, tmp_path, capsys):
    """Returns a LiteRT classifier of the classes that every case begins with."""
    saved, written = tmp_path / "saved", tmp_path / "lite"
    ordinary = next(case.root for case in cases if case.name == "nothing")
    arguments = ["--model", model, "--support", ordinary / "support", "--save", saved]
    assert client.main([str(a) for a in (*arguments, "--no_estimate")]) == 0
    assert to_lite.main(["--model", str(saved), "--out", str(written)]) == 0
    capsys.readouterr()
    return written


@pytest.fixture
def ran(request, model, cases, tmp_path, tmp_path_factory, capsys, monkeypatch):
    """Returns the outcomes of the cases for a client."""
    name = request.param
    mine = [case for case in cases if name in case.entry.clients]
    monkeypatch.setattr(client, "load_model", functools.cache(client.load_model))
    if name == C:
        if not shutil.which("cc"):
            pytest.skip("needs a C compiler")
        program = built_cases(tmp_path_factory)
        return zip(mine, by_c(program, tmp_path, model, mine), strict=True)
    if name in (API, ADAPT):
        run = by_api if name == API else by_adapt
        return [(case, run(model, case, capsys)) for case in mine]
    start, program, flag = {
        REST: (rest_server, rest, "--url"),
        GRPC: (grpc_server, grpc_client, "--address"),
    }[name]
    with start(Served(model)) as place:
        return [(c, by_server(program, [flag, place], c, capsys)) for c in mine]


def wrong(case, found):
    """Returns the difference between a client's outcome and the table; None if there is none."""
    refused = case.entry.refused and case.fill(case.entry.refused)
    said = [case.fill(one) for one in case.entry.said]
    if "Graph execution error" in "".join([found.refused or "", *found.said]):
        return "words of TensorFlow"
    if (refused is None) != (found.refused is None) or (refused or "") not in (found.refused or ""):
        return f"refused: {found.refused}, not {refused}"
    if len(said) != len(found.said) or any(
        a not in b for a, b in zip(said, found.said, strict=True)
    ):
        return f"said: {found.said}, not {said}"
    if refused is not None:
        return None
    answered = collections.Counter(os.path.basename(file) for file, _ in found.answers)
    if answered != case.answered():
        return f"answered: {dict(answered)}, not {dict(case.answered())}"
    for file, label in found.answers:
        if not os.path.basename(file).startswith(label):
            return f"{file} is {label}"
    return None


@pytest.mark.parametrize("ran", odd_inputs.CLIENTS, indirect=True)
def test_every_client_gives_right_answers_or_one_clear_sentence(ran):
    bad = {case.name: wrong(case, outcome) for case, outcome in ran}
    bad = {case: text for case, text in bad.items() if text}
    assert not bad, "\n".join(f"{case}: {text}" for case, text in bad.items())


# These warnings compare queries with support pictures, which a saved classifier does not have.
_OF_BOTH = ("a query among the support pictures", "inverted queries")


def test_litert_gives_right_answers(lite, cases, capsys):
    """Asks a classifier of the ordinary classes, in every case that has these and is answered."""
    [ordinary] = [case.root for case in cases if case.name == "nothing"]
    mine = [
        case
        for case in cases
        if case.entry.refused is None
        and case.name not in _OF_BOTH
        and toy.contents(case.root / "support") == toy.contents(ordinary / "support")
    ]
    assert len(mine) >= 20
    ask = ["predict", "--classifier", lite]
    bad = {case.name: wrong(case, by_command(ask, case, capsys)) for case in mine}
    bad = {case: text for case, text in bad.items() if text}
    assert not bad, "\n".join(f"{case}: {text}" for case, text in bad.items())


def test_the_table_is_large():
    assert len(TABLE) >= 60
    assert all(set(entry.clients) <= set(odd_inputs.CLIENTS) for entry in TABLE.values())
