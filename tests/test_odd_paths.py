"""Paths with ~, spaces, a slash at the end or links, and relative paths, all find the place.

This is tested for every option that is a path, every path flag of the clients, and in Python.
"""

import argparse
import contextlib
import os
import pathlib

import numpy as np
import odd_inputs
import pytest
import tiny_model
import toy
import toy_images
from export_client import client, folders, grpc_client, rest, to_lite
from fresh_run import fresh_run
from in_process import call

from tf_metalstm import (
    FewShotClassifier,
    demo,
    files,
    flagfiles,
    loaded_model,
    reproduce,
    rule_folder,
)
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.data.sources.folder import Folder
from tf_metalstm.flags import parse_settings, read_settings
from tf_metalstm.options import options_of
from tf_metalstm.rules.catalogue import RULES
from tf_metalstm.serving.given_images import take_images
from tf_metalstm.settings import known_options, make_settings

FORMS = {
    "the home folder": "~/a b/place",
    "below the home folder, with a slash": "~/a b/place/",
    "relative": "a b/place",
    "relative, with a slash": "a b/place/",
    "relative, with a point": "./a b/place",
    "around": "a b/../a b/place",
    "two slashes": "a b//place",
    "through a link": "linked/place",
    "a link itself": "linked place",
    "whole": "{home}/a b/place",
}
UNKNOWN = "~nobody-here/x"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Makes the home folder, which is also the current folder, with the place and links to it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b" / "place").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("a b")
    (tmp_path / "linked place").symlink_to("a b/place")
    yield tmp_path
    assert not (tmp_path / "~").exists()


@pytest.fixture(params=FORMS)
def typed(request, home):
    return FORMS[request.param].format(home=home)


def is_the_place(path, home):
    return os.path.realpath(path) == str(home / "a b" / "place")


PATHS = {each.name: each for each in known_options().values() if each.is_path}


def owned_by(name):
    """Returns the other choices that an option needs."""
    for family in FAMILIES.values():
        for member in family:
            if name in options_of(member.part.options):
                return [f"--{family.name}={member.part.name}"]
    return []


def test_every_option_that_is_a_path(typed, home):
    assert len(PATHS) >= 8
    for name in PATHS:
        owner = owned_by(name)
        if owner and owner[0].startswith("--rule="):
            owner += ["--source=quadratics", "--method=learned_optimizer"]
        settings = parse_settings([*owner, f"--{name}={typed}", f"--run_dir={typed}"])
        value = settings.get(name)
        for one in value if PATHS[name].many else (value,):
            assert is_the_place(one, home), name
        assert is_the_place(settings.run_dir, home)


PARSERS = {
    "adapt": client._parser("adapt"),
    "adapt check": client._parser("check"),
    "adapt predict": client._parser("predict"),
    "to_lite": to_lite._parser(),
    "rest.py": rest._parser(),
    "grpc_client.py": grpc_client._parser(),
    "reproduce": reproduce.parser({"a": None}),
    "demo": demo.parser(),
}
FLAGS = {
    f"{name} {action.option_strings[0]}": action.type
    for name, parser in PARSERS.items()
    for action in parser._actions
    if action.nargs != 0  # it takes a value
}
NO_PATHS = {"--num_steps", "--none_of_these", "--address", "--url", "--port", "--allow_host"}
NO_PATHS |= {"--table", "--parts", "--only", "--max_minutes", "--num_episodes"}
NO_PATHS |= {"--learner_precision"}
# These are read after the command line: see LISTS in odd_inputs.py, and test_demo.py.
READ_LATER = {"adapt --query", "adapt predict --query", "rest.py --query", "grpc_client.py --query"}
READ_LATER |= {"demo --model", "demo --examples"}
PATH_FLAGS = {
    name: read
    for name, read in FLAGS.items()
    if name not in READ_LATER and name.split()[-1] not in NO_PATHS
}


def test_every_path_flag_of_the_clients(typed, home):
    for name, read in PATH_FLAGS.items():
        assert is_the_place(read(typed), home), name


def test_every_path_flag_of_the_clients_refuses_the_home_folder_of_nobody(home):
    """A flag that is a path and is read as plain text would fail here."""
    assert len(PATH_FLAGS) >= 20
    for name, read in PATH_FLAGS.items():
        with pytest.raises((folders.ClientError, argparse.ArgumentTypeError)) as said:
            read(UNKNOWN)
        assert "there is no home folder of that name" in str(said.value), name


def test_no_list_names_a_flag_that_is_gone():
    assert {name.split()[-1] for name in FLAGS} >= NO_PATHS
    assert FLAGS.keys() >= READ_LATER


def test_flagfiles(typed, home):
    (home / "a b" / "place" / "my.flags").write_text("--num_way=7\n")
    settings = parse_settings([f"--flagfile={typed.rstrip('/')}/my.flags"])
    assert settings.get("num_way") == 7


def test_lists_of_images(typed, home):
    place = home / "a b" / "place"
    toy_images.write_folder(place, toy_images.folder_files(images=1))
    lines = [f"{name}/0.png,{name}" for name in "abcdefg"]
    (place / "list.csv").write_text("\n".join(["file,label", *lines]))
    source = Folder(
        typed, home / "prepared", image_size=8, image_list=f"{typed.rstrip('/')}/list.csv"
    )
    assert sum(map(len, source.stage().images.values())) == len("abcdefg")


def test_models_of_the_python_interface(typed, home, monkeypatch):
    found = []
    monkeypatch.setattr(loaded_model, "_load", lambda folder, times: found.append(folder))
    with contextlib.suppress(AttributeError):  # no model is loaded
        FewShotClassifier.load(typed)
    assert is_the_place(found[0], home)
    rule = RULES["sgd"](0.5)
    rule.build()
    rule_folder.write_rule(rule, {"inner_rate": 0.5}, home / "a b" / "place", 1)
    assert rule_folder.read_rule(typed).trained_steps == 1


def test_pictures_of_the_python_interface(typed, home):
    file = f"{typed.rstrip('/')}/0.png"
    odd_inputs.write(home / "a b" / "place" / "0.png", np.zeros((16, 16), np.uint8))
    assert len(take_images([file], odd_inputs.SHAPE).pixels) == 1
    assert len(take_images([pathlib.Path(file)], odd_inputs.SHAPE).pixels) == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "a b"
    odd_inputs.ordinary(folder)
    tiny_model.write(folder / "model")
    fresh_run(make_settings(toy.SINE).placed(folder / "run"))
    return folder


@pytest.mark.parametrize("start", ["~/a b", "a b", "./a b/", "{home}/a b"])
def test_a_client_from_end_to_end(start, made, monkeypatch):
    """Tests the support set, the queries and the output files."""
    monkeypatch.setenv("HOME", str(made.parent))
    monkeypatch.chdir(made.parent)
    place = start.format(home=made.parent)
    out = made / f"out{len(list(made.glob('out*')))}"
    out.mkdir()
    ended = call(
        *("adapt", "--no_estimate", "--model", f"{place}/model", "--support", f"{place}/support"),
        *("--query", f"{place}/query/", "--csv", f"{place}/{out.name}/a.csv"),
    )
    assert ended.code == 0, ended
    assert (out / "a.csv").is_file()


@pytest.mark.parametrize("start", ["~/a b/run", "a b/run/", "a b/../a b/run"])
def test_a_command_finds_a_run(start, made, monkeypatch):
    monkeypatch.setenv("HOME", str(made.parent))
    monkeypatch.chdir(made.parent)
    ended = call("visualize", f"--run_dir={start}", "--num_evaluation_steps=0")
    assert "There are no updates to draw" in ended.err  # the run was read
    assert read_settings(start.replace("~", str(made.parent))).source == "sine"


LINES = [
    "evaluate --run_dir={}",
    "train --run_dir={}",
    "train --flagfile={}",
    "train --source=folder --data_dir={}",
    "train --source=omniglot --prepared_dir={}",
    "reproduce --table=omniglot --print_only --runs_dir={}",
    "demo --model={}",
    "adapt --model={} --support=a",
    "adapt --model=a --support={}",
    "adapt --model=a --support=a --csv={}",
    "adapt predict --classifier={} --query=a",
    "to_lite --model={} --out=a",
    "to_lite --model=a --out={}",
]


@pytest.mark.parametrize("line", LINES)
def test_the_home_folder_of_nobody_is_said(line, home):
    ended = call(*line.format(UNKNOWN).split())
    assert ended.code in (1, 2), ended  # 2: argparse
    assert "there is no home folder of that name" in ended.out + ended.err, ended
    assert not list(home.glob("~*"))


def test_every_option_that_is_a_path_refuses_the_home_folder_of_nobody():
    for name in (*PATHS, "run_dir"):
        with pytest.raises(ValueError, match=f"{name}={UNKNOWN}: there is no home folder of that"):
            parse_settings([f"--{name}={UNKNOWN}"])


@pytest.mark.parametrize(
    "read",
    [
        lambda path: FewShotClassifier.load(path),
        lambda path: rule_folder.read_rule(path),
        lambda path: files.given_path(path, "model"),
        lambda path: flagfiles.expand([f"--flagfile={path}"]),
        lambda path: Folder(path),
    ],
    ids=["model", "rule", "path", "flagfile", "source"],
)
def test_the_home_folder_of_nobody_in_python(read):
    with pytest.raises(ValueError, match="there is no home folder of that name"):
        read(UNKNOWN)
