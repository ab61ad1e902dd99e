"""If a file cannot be written, one sentence says so, and no partial file stays."""

import contextlib
import errno
import math
import os
import re
import resource
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import toy
import toy_images
from export_client import FOLDER, FirstClass, adapted, folders, report
from matplotlib.figure import Figure

from tf_metalstm import ctrl_c, evaluate, files, flags, reproduce, visualize
from tf_metalstm.classifier import FewShotClassifier, LoadedModel
from tf_metalstm.data.sources import builder
from tf_metalstm.data.sources.base import MissingDataError
from tf_metalstm.data.sources.decoding import UnreadableImageError, decode_image
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.failures import not_written, reason
from tf_metalstm.serving import saved_model, served
from tf_metalstm.training.callbacks import LogToTensorBoard

sys.path.insert(0, str(FOLDER))
import to_lite

NO_ROOM = "File too large"  # the kernel's message under `no_room`


@contextlib.contextmanager
def no_room(size=0):
    """Lets no file be larger than some bytes, as on a full disk, in Python and in TensorFlow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def report_of_evaluation():
    return {
        "split": "test",
        "task": "3-way",
        "num_steps": None,
        "query_normalization": None,
        "changed": {},
        "checkpoint": "best",
        "step": 4,
        "num_episodes": 2,
        "evaluation_seed": 0,
    }


# Each writes to a folder, to new.txt or to something below it.
WRITERS = {
    "a text": lambda folder: files.write_atomically(folder / "new.txt", "text"),
    "a text in a new folder": lambda folder: files.write_atomically(folder / "a" / "b.txt", "text"),
    "files": lambda folder: files.write_new_files(folder, {"a/1.png": b"", "a/2.png": b"12"}),
    "a figure": lambda folder: visualize._save(Figure(), folder / "new.png"),
    "an evaluation": lambda folder: evaluate.write_report(report_of_evaluation(), folder),
    "answers of the client": lambda folder: report.write(folder / "new.csv", "text"),
    "LiteRT models": lambda folder: to_lite._write(folder, {"a": b"", "b/c": b"12"}),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_cannot_be_written_leaves_nothing_half_written(tmp_path, what):
    (tmp_path / "before.txt").write_text("before")
    with no_room(), pytest.raises((OSError, folders.ClientError)) as said:
        WRITERS[what](tmp_path)
    assert re.search(rf"{re.escape(str(tmp_path))}/\S+ cannot be written.*{NO_ROOM}", str(said))
    assert toy.files_in(tmp_path) == {"before.txt"}
    WRITERS[what](tmp_path)
    assert len(toy.files_in(tmp_path)) > 1


def test_a_file_in_the_place_of_a_folder_of_models_is_one_sentence(tmp_path):
    (tmp_path / "a").write_text("no folder")
    with pytest.raises(folders.ClientError, match=r"/a cannot be written \(File exists\)"):
        to_lite._write(tmp_path / "a", {"b": b"12"})
    assert toy.files_in(tmp_path) == {"a"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), KeyboardInterrupt()])
@pytest.mark.parametrize("whole", [0, 1, 2])
def test_models_and_their_page_come_together_or_not_at_all(tmp_path, monkeypatch, error, whole):
    """The disk is full, or Ctrl-C comes, when some of the three are at their final place."""
    renamed, real = [], Path.rename

    def rename(self, target):
        if len(renamed) == whole:
            raise error
        renamed.append(real(self, target))
        return renamed[-1]

    (tmp_path / "before.txt").write_text("before")
    models = {"predict.tflite": b"1", "classifier.json": b"2", "page/a/b.js": b"3"}
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((folders.ClientError, KeyboardInterrupt)):
        to_lite._write(tmp_path, models)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.rglob("*")] == ["before.txt"]
    to_lite._write(tmp_path, models)
    assert {name: (tmp_path / name).read_bytes() for name in models} == models


def test_the_classifier_beside_which_a_model_is_written_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(to_lite, "convert", lambda *arguments: b"12")
    for name in ("mine", "other"):
        toy_images.write_folder(tmp_path / name, {"saved_model.pb": b"", "classifier.json": b"{}"})
    to_mine, to_other = (
        ["--model", str(tmp_path / "mine"), "--out", str(tmp_path / name)]
        for name in ("mine", "other")
    )
    with no_room():
        assert to_lite.main(to_mine) == 1
    assert toy.files_in(tmp_path / "mine") == {"saved_model.pb", "classifier.json"}
    assert to_lite.main(to_mine) == 0
    assert (tmp_path / "mine" / "classifier.json").read_bytes() == b"{}"
    assert to_lite.main(to_other) == 1
    assert "other/classifier.json exists already" in capsys.readouterr().err


def test_a_file_keeps_its_old_contents(tmp_path):
    files.write_atomically(tmp_path / "a.txt", "old")
    with no_room(), pytest.raises(OSError, match=r"a\.txt cannot be written"):
        files.write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert toy.files_in(tmp_path) == {"a.txt"}


def test_files_of_before_stay_where_new_ones_cannot_be_written(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"1")
    with no_room(), pytest.raises(OSError, match=r"2\.png cannot be written"):
        files.write_new_files(tmp_path, {"a/1.png": b"1", "b/c/2.png": b"2"})
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["a", "1.png"]


def half_a_model(module, folder, signatures):
    """Writes a part of a model and fails, as `tf.saved_model.save` does on a full disk."""
    Path(folder, "variables").mkdir(parents=True, exist_ok=True)
    file = f"{folder}/saved_model.pb.tmp1"
    raise tf.errors.ResourceExhaustedError(None, None, f"{file}; No space left on device")


def test_half_an_export_goes_and_the_one_before_stays(tmp_path, monkeypatch):
    target = tmp_path / "saved_model"
    target.mkdir()
    (target / saved_model.MANIFEST).write_text(f'{{"format": "{saved_model.FORMAT}"}}')
    monkeypatch.setattr(tf.saved_model, "save", half_a_model)
    monkeypatch.setattr(saved_model, "build_signatures", lambda served: (None, {}))
    monkeypatch.setattr(saved_model, "_describe", lambda served: {})
    with pytest.raises(OSError, match=r"saved_model cannot be written: No space left on device\."):
        saved_model.save_method(None, target)
    assert [path.name for path in tmp_path.iterdir()] == ["saved_model"]
    assert saved_model.read_manifest(target)


def test_half_a_saved_classifier_goes(tmp_path, monkeypatch):
    model = FirstClass()
    spec = {"query_images": tf.TensorSpec([None, 8, 8, 1])}
    model.signatures["predict_named"].structured_input_signature = ((), spec)
    model.signatures["predict_encoded_named"] = model.signatures["predict_named"]
    one = adapted.Adapted(model, np.zeros([2, 8, 8, 1]), ["a", "b"], None)
    monkeypatch.setattr(tf.saved_model, "save", half_a_model)
    with pytest.raises(folders.ClientError, match=r"--save .* cannot be written .*No space left"):
        one.save(tmp_path / "classifier", one.estimate(), 1.0, 0.0)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def source(tmp_path):
    tfds.disable_progress_bar()
    toy_images.write_folder(tmp_path / "raw", toy_images.omniglot_files())
    return Omniglot(tmp_path / "raw", tmp_path / "prepared", image_size=8)


def prepared_sets(tmp_path):
    """Returns the prepared data sets in the folder, complete or not."""
    return [path.name for path in (tmp_path / "prepared").glob("omniglot/*/*") if path.is_dir()]


def test_preparation_on_a_full_disk_is_one_sentence_and_made_later(source, tmp_path):
    with no_room(), pytest.raises(OSError) as said:
        source.prepare()
    assert re.fullmatch(
        rf"omniglot: \S+/prepared cannot be written: .*{NO_ROOM}.*\. Free some space there, "
        r"choose another prepared_dir or set \$TF_METALSTM_CACHE",
        str(said.value),
    )
    assert not prepared_sets(tmp_path)
    assert source.load("train").images.shape[1:] == (8, 8, 1)


def test_a_preparation_that_ctrl_c_stops_leaves_nothing(source, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(builder.ImageClassesBuilder, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.prepare()
    assert not prepared_sets(tmp_path)
    assert source.load("train").images.shape[1:] == (8, 8, 1)


def interrupted(*arguments, **named):
    raise KeyboardInterrupt


def test_a_raw_file_that_cannot_be_read_is_no_full_disk(source, tmp_path, monkeypatch):
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "raw" / "a.png"))
    monkeypatch.setattr(Omniglot, "stage", lambda self: raise_(error))
    with pytest.raises(PermissionError, match=r"a\.png"):
        source.prepare()


def test_data_that_are_not_there_are_no_full_disk(tmp_path):
    files = {"images_background/A/character01/deeper/0001_01.png": b"", "images_evaluation/a": b""}
    toy_images.write_folder(tmp_path / "raw", files)
    with pytest.raises(MissingDataError, match="has no image in the expected layout"):
        Omniglot(tmp_path / "raw", tmp_path / "prepared").prepare()


def raise_(error):
    raise error


def test_prepared_data_that_are_damaged_are_named(source, tmp_path):
    source.prepare()
    [record] = (tmp_path / "prepared").glob("omniglot/*/*/omniglot-train.tfrecord*")
    record.write_bytes(record.read_bytes()[:-9])
    with pytest.raises(
        OSError, match=r"prepared data in \S+ cannot be read .*: delete that folder"
    ):
        source.load("train")


def test_what_a_validation_shows_is_written_or_said():
    def full(step):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    callback = LogToTensorBoard(tf.summary.create_noop_writer(), 1, full)
    callback.set_model(types.SimpleNamespace(optimizer=types.SimpleNamespace(use_ema=False)))
    with pytest.raises(OSError, match=r"TensorBoard's files of update 3 cannot .* No space left"):
        callback.on_epoch_end(2, {"val_loss": 1.0})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a"), "No space left on device"),
        (OSError("in our words."), "in our words"),
        (tf.errors.ResourceExhaustedError(None, None, "{{node a/b}} OOM. [Op:Mul]"), "OOM"),
        (ValueError("Graph execution error:\n\nDetected at node a\n  File b\nThe end."), "The end"),
        (ValueError("assertion failed: [too many] [Condition x] [3]"), "too many"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_the_reason_is_one_line(error, said):
    assert reason(error) == said


def test_the_name_of_a_temporary_file_is_left_out():
    error = tf.errors.PermissionDeniedError(None, None, "/a/.b.1.partial/c.tmp2; Permission denied")
    assert str(not_written("/a/b", error)) == "/a/b cannot be written: Permission denied."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "OSError: .*No space left on device"),
        (FileNotFoundError(2, "No such file", "/a"), r"FileNotFoundError: /a: No such file\."),
        (MemoryError("Unable to allocate"), "MemoryError: Unable .*, add --traceback=true."),
        (
            tf.errors.ResourceExhaustedError(None, None, "Graph execution error:\n\nOOM at 7"),
            "ResourceExhaustedError: OOM at 7. To see",
        ),
    ],
)
def test_commands_end_with_a_sentence(error, said):
    with pytest.raises(SystemExit) as ended, flags._errors_in_one_sentence():
        raise error
    assert re.match(said, ended.value.code)


@pytest.fixture
def ctrl_c_as_before():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_as_before")
@pytest.mark.parametrize("kind", ["command", "client"])
def test_ctrl_c_is_one_sentence_and_130(capsys, kind):
    def main():
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as ended:
        folders.run_client(main) if kind == "client" else ctrl_c.in_one_sentence()(main)()
    assert ended.value.code == 130
    assert re.fullmatch(r"(SIGINT|error): stopped[^\n]*\n", capsys.readouterr().err)


@pytest.mark.usefixtures("ctrl_c_as_before")
def test_ctrl_c_reaches_a_command_through_absl(monkeypatch):
    monkeypatch.setattr(flags.app, "run", interrupted)
    with pytest.raises(SystemExit) as ended:
        flags.run_command(lambda settings: None, continues_a_run=False)
    assert ended.value.code == 130


def run_python(code, stdout):
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


def test_ctrl_c_while_a_command_is_imported_ends_it_at_once():
    code = (
        "import os, signal; from tf_metalstm import ctrl_c;"
        # A background job ignores it.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "ctrl_c.end_at_once(); os.close(2);"
        "os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    )
    ended = run_python(code, stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "SIGINT: stopped before anything was done.\n"


def test_an_ignored_ctrl_c_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ctrl_c.end_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_reproduce_waits_for_the_checkpoint_of_the_run_it_started(monkeypatch):
    done = []

    class Run:
        def __init__(self, call):
            self._waited = 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def wait(self):
            self._waited += 1
            if self._waited == 1:
                raise KeyboardInterrupt
            done.append("checkpoint")
            return 130

    monkeypatch.setattr(reproduce.subprocess, "Popen", Run)
    with pytest.raises(KeyboardInterrupt):
        reproduce._call("train", [])
    assert done == ["checkpoint"]


def test_the_clients_know_how_many_updates_there_are_at_most():
    assert folders.MAX_STEPS == served.MAX_STEPS
    for number in (-1, served.MAX_STEPS + 1, 5_000, 5_000_000_000):
        with pytest.raises(folders.ClientError, match=f"number from 0 to 1000, got {number}"):
            folders.num_steps_of(str(number))
    for number in (0, served.MAX_STEPS):
        assert folders.num_steps_of(str(number)) == number


def test_what_cannot_be_printed_is_one_sentence():
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import adapt;"
        "adapt._adapt = lambda options: print('an answer');"
        "sys.exit(adapt.main(['--model', 'm', '--support', 's', '--query', 'q']))"
    )
    with open("/dev/full", "w") as full:
        ended = run_python(code, stdout=full)
    assert ended.returncode == 1
    assert re.fullmatch(r"error: the answers cannot be printed \(.*No space.*\)\.\n", ended.stderr)


@pytest.mark.parametrize("number", [-1, 1001, 5_000, 5_000_000_000, 1.5, "3", math.nan, [2]])
def test_updates_of_a_classifier_are_a_whole_number_within_the_range(number):
    model = LoadedModel({}, (8, 8, 1), 3, 2, ())
    with pytest.raises(ValueError, match="num_steps must be a whole number from 0 to 1000, got"):
        FewShotClassifier("model", num_steps=number)._steps(model)
    assert int(FewShotClassifier("model", num_steps=1000)._steps(model)["num_steps"]) == 1000


@pytest.mark.parametrize("image_format", ["QOI", "AVIF"])
@pytest.mark.parametrize("kept", [3, 13, 20, 60])
def test_a_damaged_picture_is_named_with_a_reason_that_is_none_of_the_decoder(image_format, kept):
    encoded = toy_images.encode(np.arange(192, dtype=np.uint8).reshape(8, 8, 3), image_format)
    with pytest.raises(UnreadableImageError) as said:
        decode_image(encoded[:kept], "a.picture")
    assert re.fullmatch(
        r"a\.picture is not a readable image \((it is damaged.*|image file is truncated.*)\)",
        str(said.value),
    )
