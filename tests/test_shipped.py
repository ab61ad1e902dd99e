"""Recipes, clients, models and records are found from any folder, in a clone and in the wheel."""

import configparser
import json
import re
from pathlib import Path

import pytest

from tf_metalstm import __main__, export, flagfiles, loaded_model, reproduce, shipped, startup
from tf_metalstm.argv import COMMANDS
from tf_metalstm.flagfiles import FlagfileError, expand
from tf_metalstm.flags import parse_settings
from tf_metalstm.tables.results import read_records

ROOT = Path(__file__).resolve().parents[1]
RECIPE = "omniglot_5way_1shot"
IN_THE_CLONE = {"clients": "export", "flags": "flags", "models": "models", "tables": "docs/tables"}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Changes to a folder outside the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "arguments",
    [
        (f"--recipe={RECIPE}",),
        ("--recipe", RECIPE),
        ("-recipe", RECIPE),
        (f"--flagfile=flags/recipes/{RECIPE}.flags",),
        ("--flagfile", f"flags/recipes/{RECIPE}.flags"),
        (f"--flagfile={ROOT}/flags/recipes/{RECIPE}.flags",),
    ],
)
def test_a_recipe_is_the_same_by_name_and_by_file_from_anywhere(arguments):
    settings = parse_settings([*arguments, "--max_steps=7"])
    assert (settings.source, settings.get("num_shot"), settings.get("num_steps")) == (
        "omniglot",
        1,
        5,
    )
    assert settings.training.max_steps == 7  # a later flag replaces an earlier one


NAMED = "--flagfile=a.flags"


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.flags"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("files", "arguments", "expanded"),
    [
        ({"a": "--x=1\n\n# no\n// no\n  --y=2  \n"}, [NAMED], ["--x=1", "--y=2"]),
        ({"a": b"\xef\xbb\xbf--x=1\r\n--y=2\r\n"}, [NAMED], ["--x=1", "--y=2"]),
        (
            {"a": "--flagfile=b.flags\n--x=2", "b": "--x=1"},
            ["--flagfile=a.flags"],
            ["--x=1", "--x=2"],
        ),
        (
            {"a": "--x=a"},
            ["--y", "b", "--flagfile", "a.flags", "--z"],
            ["--y", "b", "--x=a", "--z"],
        ),
        ({"a": "--x=a"}, ["--", "--flagfile=a.flags"], ["--", "--flagfile=a.flags"]),
        ({"a": "--x=1", "b": "--flagfile=a.flags"}, ["--flagfile=a.flags"] * 2, ["--x=1"] * 2),
        ({"a": "--x=é"}, ["--flagfile=./a.flags"], ["--x=é"]),
    ],
)
def test_the_lines_of_a_flagfile_stand_where_it_is_named(elsewhere, files, arguments, expanded):
    write(elsewhere, **files)
    assert expand(arguments) == expanded


def test_lines_of_some_files_are_left_out(elsewhere):
    write(elsewhere, run="--x=1", mine="--flagfile=run.flags\n--y=2")
    assert expand(["--flagfile=mine.flags"], leave_out="run.flags") == ["--y=2"]


@pytest.mark.parametrize(
    ("files", "argument", "said"),
    [
        ({}, "--flagfile=no.flags", r"--flagfile=no\.flags: there is no such file\."),
        ({}, "--flagfile=flags/recipes/no.flags", "there is no such file"),
        (
            {"a": "--flagfile=no.flags"},
            "--flagfile=a.flags",
            r"\S+/a\.flags",
        ),
        ({"a": "--flagfile=a.flags"}, NAMED, "includes itself"),
        (
            {"a": "--flagfile=b.flags", "b": "--flagfile=a.flags"},
            "--flagfile=a.flags",
            "includes itself",
        ),
        ({"a": b"\xff\xfe-\x00"}, NAMED, r"a\.flags is not UTF-8 text"),
        ({}, "--flagfile", "--flagfile needs the name of a flagfile"),
        ({}, "--recipe=", "--recipe needs the name of a recipe"),
        ({}, "--recipe=omniglot_5way_1sht", f"did you mean {RECIPE} or "),
        ({}, f"--recipe=flags/recipes/{RECIPE}.flags", f"did you mean {RECIPE} or "),
        ({}, "--recipe=../data/omniglot", "there is no such recipe|did you mean"),
        ({}, "--recipe=xyz", "there is no such recipe. `python -m tf_metalstm recipes` lists all"),
    ],
)
def test_a_file_that_is_not_there_is_said(elsewhere, files, argument, said):
    write(elsewhere, **files)
    with pytest.raises(FlagfileError, match=said):
        expand([argument])


def test_a_recipe_takes_no_files_of_the_present_folder(elsewhere):
    write(elsewhere, flags__data__omniglot="--source=sine")
    assert "--source=omniglot" in expand([f"--recipe={RECIPE}"])
    assert expand(["--flagfile=flags/data/omniglot.flags"]) == ["--source=sine"]


def test_every_recipe_has_a_title():
    names = flagfiles.recipe_names()
    assert RECIPE in names
    for name in names:
        assert re.match(r"[\w-]+ \w+", flagfiles.recipe_title(name)), name
    assert "|" not in "".join(map(flagfiles.recipe_title, names))


@pytest.mark.parametrize("kind", IN_THE_CLONE)
def test_what_is_delivered_is_found_in_a_clone_and_in_the_wheel(tmp_path, monkeypatch, kind):
    assert shipped.folder(kind) == ROOT / IN_THE_CLONE[kind]
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path)
    (tmp_path / "share" / kind).mkdir(parents=True)
    assert shipped.folder(kind) == tmp_path / "share" / kind


def test_setup_names_every_package_and_what_is_delivered_beside_it():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "tf_metalstm").rglob("__init__.py")
    }
    beside = {f"tf_metalstm.share.{kind}": folder for kind, folder in IN_THE_CLONE.items()}
    assert named == found | beside.keys()
    lines = setup["options"]["package_dir"].strip().splitlines()
    assert dict(line.split(" = ") for line in lines) == beside


def test_models_for_research_alone_are_not_in_the_wheel():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["tf_metalstm.share.models"].split()
    delivered = {path.parent.name for p in patterns for path in (ROOT / "models").glob(p)}
    terms = {f.parent.name: f.read_text() for f in (ROOT / "models").glob("*/TERMS.md")}
    assert delivered - {"models"} == {name for name, text in terms.items() if "MIT" in text}


@pytest.mark.usefixtures("elsewhere")
def test_a_model_is_found_by_its_name_or_its_path(tmp_path):
    assert shipped.model_folder("omniglot_5way_5shot") == ROOT / "models" / "omniglot_5way_5shot"
    (tmp_path / "omniglot_5way_5shot").mkdir()
    assert shipped.model_folder("omniglot_5way_5shot") == Path("omniglot_5way_5shot")
    for other in ("", ".", "models", "no_model", "models/omniglot_5way_5shot"):
        assert shipped.model_folder(other) == Path(other)
    with pytest.raises(FileNotFoundError, match=r"nor a run, nor the name of .*omniglot_5way_5"):
        loaded_model.load_model("omniglot")


@pytest.mark.usefixtures("elsewhere")
def test_what_was_recorded_is_shown_from_anywhere(tmp_path, capsys):
    assert read_records("omniglot")
    reproduce.main(["--table=omniglot", "--print_only", f"--runs_dir={tmp_path}"])
    recorded = json.loads((ROOT / "docs" / "tables" / "omniglot.json").read_text())
    shown = capsys.readouterr().out
    assert all(f"{100 * result['mean']:.2f}" in shown for result in recorded.values())
    with pytest.raises(SystemExit, match="--record writes to docs/tables: call"):
        reproduce.main(["--table=omniglot", "--print_only", "--record", f"--runs_dir={tmp_path}"])


@pytest.mark.parametrize("is_clone", [True, False])
def test_export_advises_a_command_that_is_there(tmp_path, monkeypatch, is_clone):
    monkeypatch.chdir(ROOT if is_clone else tmp_path)
    client = "export/adapt.py" if is_clone else "-m tf_metalstm adapt"
    assert f"python {client} --model runs/a --support" in export._next_command(Path("runs/a"), None)


@pytest.mark.parametrize(
    ("started", "module"),
    [
        (["python", "-m", "tf_metalstm.train", "--help"], "tf_metalstm.train"),
        (["python", "-m", "tf_metalstm", "train", "--help"], "tf_metalstm.train"),
        (["python", "-X", "dev", "-m", "tf_metalstm", "demo"], "tf_metalstm.demo"),
        (["python", "/venv/bin/tf-metalstm", "evaluate"], "tf_metalstm.evaluate"),
        (["python", "/venv/bin/tf-metalstm", "adapt"], ""),
        (["python", "/venv/bin/tf-metalstm", "--help"], ""),
        (["python", "/venv/bin/tf-metalstm"], ""),
        (["python", "-m", "tf_metalstm"], ""),
        (["python", "-m", "pytest", "train"], ""),
        (["python", "train.py", "train"], ""),
        (["python", "-c", "import tf_metalstm"], ""),
    ],
)
def test_a_command_is_known_however_it_is_started(monkeypatch, started, module):
    monkeypatch.setattr(startup.sys, "orig_argv", started)
    assert startup.command() == module


@pytest.fixture
def started(monkeypatch):
    """Returns what `tf-metalstm` starts: (module or file, its command line)."""
    calls = []
    for name in ("run_module", "run_path"):
        monkeypatch.setattr(
            __main__.runpy,
            name,
            lambda what, **named: calls.append((what, list(__main__.sys.argv))),
        )
    monkeypatch.setattr(__main__.sys, "path", [])

    def call(*arguments):
        monkeypatch.setattr(__main__.sys, "argv", ["tf-metalstm", *arguments])
        __main__.main()
        return calls[-1]

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_there_by_its_name(started, name):
    assert started(name, "--help") == (f"tf_metalstm.{name}", [name, "--help"])
    assert (ROOT / "tf_metalstm" / f"{name}.py").is_file()


@pytest.mark.parametrize("name", __main__.CLIENTS)
def test_each_client_is_there_by_its_name(started, name):
    script, command = started(name, "--model", "omniglot_5way_1shot", "--support", "a")
    assert Path(script) == ROOT / "export" / f"{name}.py"
    model = str(ROOT / "models" / "omniglot_5way_1shot")
    assert command == [f"tf-metalstm {name}", "--model", model, "--support", "a"]
    assert started(name, "--model=omniglot_5way_1shot")[1][1:] == [f"--model={model}"]
    assert started(name, "--model=mine")[1][1:] == ["--model=mine"]
    assert started(name, "--model")[1][1:] == ["--model"]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_the_commands_are_listed(monkeypatch, capsys, arguments):
    monkeypatch.setattr(__main__.sys, "argv", ["tf-metalstm", *arguments])
    __main__.main()
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in (*COMMANDS, *__main__.CLIENTS, "recipes"))


def test_recipes_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(__main__.sys, "argv", ["tf-metalstm", "recipes"])
    __main__.main()
    assert re.search(rf"^{RECIPE}  +meta-learner LSTM on Omniglot", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    ("name", "said"), [("trian", "trian: did you mean train?"), ("xyz", "there is no such command")]
)
def test_an_unknown_command_is_said(monkeypatch, name, said):
    monkeypatch.setattr(__main__.sys, "argv", ["tf-metalstm", name])
    with pytest.raises(SystemExit, match=re.escape(said)):
        __main__.main()
