"""Tests how clients read folders: the files that they take, leave out, and name."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf
from export_client import CLIENT, FOLDER, SANITIZED, client, folders
from golden import EPISODE, MODEL

CLUTTER = [
    "@eaDir/0.png",
    "Thumbs.db",
    "THUMBS.DB",
    "desktop.ini",
    ".DS_Store",
    ".ipynb_checkpoints/0.png",
    "__MACOSX/0.png",
    "#recycle/0.png",
    "$RECYCLE.BIN/0.png",
    "lost+found/0.png",
]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.fixture
def support(tmp_path):
    for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/deeper/1.png"):
        touch(tmp_path / "support" / name)
    return tmp_path / "support"


class Python:
    """The reader of adapt.py and of the clients of servers."""

    class_files = staticmethod(folders.class_files)

    @staticmethod
    def queries(*paths):
        return [path for _, path in folders.query_files(list(map(str, paths)), ["ant", "bee"])[0]]


class C:
    """The reader of export/c, in its own program."""

    def __init__(self, program):
        self._program = program

    def class_files(self, root):
        classes = {}
        for name, path in self._read("support", root):
            classes.setdefault(name, []).append(path)
        return classes

    def queries(self, *paths):
        return [path for _, path in self._read("query", *paths)]

    def _read(self, part, *paths):
        command = [self._program, part, *map(str, paths)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
        assert "Sanitizer" not in result.stderr, result.stderr
        if result.returncode:
            raise folders.ClientError(result.stderr)
        sys.stderr.write(result.stderr)
        rows = (row.split("\t") for row in result.stdout.split("\0")[:-1])
        return [(name, pathlib.Path(path)) for name, path in rows]


@pytest.fixture(scope="module", params=["python", "c"])
def reader(request, tmp_path_factory):
    if request.param == "python":
        return Python()
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    program = tmp_path_factory.mktemp("harness") / "folders"
    sources = [pathlib.Path(__file__).parent / "folders_harness.c", FOLDER / "c" / "folders.c"]
    command = ["cc", "-std=c11", *SANITIZED.split(), f"-I{FOLDER / 'c'}", "-o", program, *sources]
    subprocess.run(list(map(str, command)), check=True)
    return C(program)


@pytest.fixture
def names(reader):
    def names_of(root):
        return {
            name: [path.relative_to(root / name).as_posix() for path in files]
            for name, files in reader.class_files(root).items()
        }

    return names_of


PLAIN = {"ant": ["0.png", "1.png"], "bee": ["0.png", "deeper/1.png"]}


@pytest.mark.parametrize("clutter", CLUTTER)
@pytest.mark.parametrize("where", ["", "ant", "bee/deeper"])
def test_what_is_of_the_system_is_left_and_said(names, reader, support, clutter, where, capsys):
    touch(support / where / clutter)
    assert names(support) == PLAIN
    top = support / where / clutter.split("/")[0]
    assert capsys.readouterr().err == f"left out: {top} (hidden, or of the system)\n"
    if where:  # for queries this is no error
        assert reader.queries(support) == [
            support / name / file for name, files in PLAIN.items() for file in files
        ]


def test_all_of_it_is_counted(names, support, capsys):
    for clutter in CLUTTER:
        touch(support / "ant" / clutter)
    assert names(support) == PLAIN
    assert f"and {len(CLUTTER) - 1} more (hidden" in capsys.readouterr().err


@pytest.mark.parametrize("target", [".", "..", "../..", "../bee/.."])
@pytest.mark.parametrize("where", ["ant/up", "bee/deeper/up"])
def test_a_link_that_leads_back_is_not_followed(names, support, where, target, capsys):
    link = support / where
    here = link.parent
    end = {".": here, "..": here.parent, "../..": here.parent.parent, "../bee/..": support}[target]
    link.symlink_to(end, target_is_directory=True)
    assert names(support) == PLAIN
    assert f"left out: {link} (a link to a folder that" in capsys.readouterr().err


@pytest.mark.parametrize("target", [".", ".."])
def test_a_link_that_leads_back_is_no_class(names, support, target, capsys):
    (support / "again").symlink_to(target, target_is_directory=True)
    assert names(support) == PLAIN
    assert f"left out: {support / 'again'} (a link to a folder" in capsys.readouterr().err


def test_linked_folders_and_files_are_taken(names, support, tmp_path, capsys):
    touch(tmp_path / "elsewhere/0.png")
    touch(tmp_path / "one.png")
    (support / "cat").symlink_to("../elsewhere", target_is_directory=True)
    (support / "ant/2.png").symlink_to("../../one.png")
    (support / "bee/more").symlink_to("../../elsewhere", target_is_directory=True)
    assert names(support) == {
        "ant": ["0.png", "1.png", "2.png"],
        "bee": ["0.png", "deeper/1.png", "more/0.png"],
        "cat": ["0.png"],
    }
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_linked_twice_counts_once(names, support, tmp_path, capsys):
    touch(tmp_path / "elsewhere/0.png")
    for name in ("more", "most"):
        (support / "bee" / name).symlink_to("../../elsewhere", target_is_directory=True)
    assert names(support)["bee"] == ["0.png", "deeper/1.png", "more/0.png"]
    assert f"left out: {support / 'bee/most'} (a link to a folder" in capsys.readouterr().err


def test_what_is_no_file_is_left_and_not_waited_for(names, support, capsys):
    (support / "ant/gone.png").symlink_to("nowhere.png")
    os.mkfifo(support / "ant/pipe")
    assert names(support) == PLAIN
    assert capsys.readouterr().err.count("(a link to nothing, or no file)") == 2


@pytest.mark.parametrize("read", ["class_files", "queries"])
def test_a_folder_of_both_parts_is_none_of_them(reader, tmp_path, read):
    for part in ("support", "query"):
        touch(tmp_path / "episode" / part / "ant/0.png")
    said = r"holds the folders support and query.*: give .*/episode/support as the support set and"
    with pytest.raises(folders.ClientError, match=said):
        getattr(reader, read)(tmp_path / "episode")


def test_files_beside_class_folders_are_said(support, capsys):
    touch(support / "notes.txt")
    files, known = folders.query_files([support], ["ant", "bee"])
    assert len(files) == 5
    assert known == {}
    assert "holds files beside its class folders, as notes.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no class folders: expected"),
        (["stray.png", "ant/0.png"], "stray.png is in no class folder"),
        (["ant/.hidden.png"], "The class folder .*/ant holds no image"),
    ],
)
def test_what_cannot_be_a_support_set(reader, tmp_path, files, message):
    (tmp_path / "support").mkdir()
    for name in files:
        touch(tmp_path / "support" / name)
    with pytest.raises(folders.ClientError, match=message):
        reader.class_files(tmp_path / "support")
    with pytest.raises(folders.ClientError, match="is not a folder"):
        reader.class_files(tmp_path / "none")
    touch(tmp_path / "support.zip")
    with pytest.raises(folders.ClientError, match="is an archive: unpack it"):
        reader.class_files(tmp_path / "support.zip")


def test_queries_are_files_and_folders_of_them(reader, support, tmp_path, capsys):
    alone = touch(tmp_path / "alone.png")
    touch(support / "z.png")
    expected = [alone, *(support / name for name in ("ant/0.png", "ant/1.png", "bee/0.png"))]
    expected += [support / "bee/deeper/1.png", support / "z.png"]
    assert reader.queries(alone, support) == expected
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "there is no such file"), ("pipe", "neither a file nor"), ("empty", "no image")],
)
def test_what_cannot_be_a_query(reader, tmp_path, name, message):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    with pytest.raises(folders.ClientError, match=message):
        reader.queries(tmp_path / name)


def test_files_come_in_the_order_of_their_parts(names, tmp_path):
    for name in (
        "a/b/0",
        "a/b-c/0",
        "a/b.png",
        "a/B/0",
        "a/b/c/0",
        "a/0",
        "a/\N{LATIN SMALL LETTER E WITH ACUTE}/0",
    ):
        touch(tmp_path / "support" / name)
    found = names(tmp_path / "support")["a"]
    assert found == ["0", "B/0", "b/0", "b/c/0", "b-c/0", "b.png", "\u00e9/0"]


def test_every_path_may_begin_with_the_users_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODEL, tmp_path / "my models/model")
    shutil.copytree(EPISODE, tmp_path / "episode")
    arguments = ["--model", "~/my models/model/", "--support", "~/episode/support/"]
    arguments += ["--query", "~/episode/query", "~/episode/query/*/000.png"]
    for kind in ("csv", "json", "html"):
        arguments += [f"--{kind}", f"~/out.{kind}"]
    assert client.main([*arguments, "--save", "~/classifier"]) == 0, capsys.readouterr().err
    made = {path.name for path in tmp_path.iterdir()} - {"my models", "episode"}
    assert made == {"out.csv", "out.json", "out.html", "classifier"}


def test_half_a_classifier_is_not_left(tmp_path, monkeypatch, capsys):
    def full(module, directory, **_):
        touch(tmp_path / "classifiers" / os.path.basename(directory) / "saved_model.pb")
        raise OSError("No space left on device")

    (tmp_path / "classifiers").mkdir()
    monkeypatch.setattr(tf.saved_model, "save", full)
    arguments = ["--model", MODEL, "--support", EPISODE / "support", "--query", EPISODE / "query"]
    arguments += ["--save", tmp_path / "classifiers/one"]
    assert client.main([str(argument) for argument in arguments]) == 1
    assert "one cannot be written (No space left on device)" in capsys.readouterr().err
    assert list((tmp_path / "classifiers").iterdir()) == []


def test_help_needs_no_tensorflow():
    command = [sys.executable, "-X", "importtime", CLIENT, "--help"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0
    assert "| tensorflow" not in result.stderr
