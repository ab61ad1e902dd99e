"""Requests of export/serving run on the real signatures, by the rules of TensorFlow Serving."""

import numpy as np
import odd_pictures
import pytest
import tensorflow as tf
import toy
from export_client import FOLDER, folders, grpc_client, images, rest
from golden import EPISODE, MODEL, expected
from google.protobuf import text_format
from servers import Served, grpc_server, rest_server
from tensorflow_serving.config import model_server_config_pb2

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.serving.served import ServedMethod

class_files = folders.class_files


@pytest.fixture(scope="module")
def golden():
    return Served(MODEL)


@pytest.fixture
def url(golden):
    with rest_server(golden) as found:
        yield found


@pytest.fixture
def address(golden):
    with grpc_server(golden) as found:
        yield found


def query_paths():
    return sorted((EPISODE / "query").glob("*/*.png"))


@pytest.mark.parametrize("client", [rest, grpc_client])
def test_same_answers(url, address, capsys, client):
    where = ["--url", url, "--num_steps", 5] if client is rest else ["--address", address]
    arguments = [*where, "--support", EPISODE / "support", "--query", *query_paths()]
    client.main([str(argument) for argument in arguments])
    names, rows = expected()
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(rows)
    for path, (file, name, percent) in zip(query_paths(), lines, strict=True):
        wanted = rows[path.relative_to(EPISODE / "query").as_posix()]
        assert file == str(path)
        assert name == names[np.argmax(wanted)]
        assert abs(float(percent.rstrip("%")) / 100 - max(wanted)) < 1e-4


def test_what_the_server_says_is_passed_on(url, address, tmp_path):
    (tmp_path / "support/cat").mkdir(parents=True)
    (tmp_path / "support/cat/0.png").write_bytes(b"%PDF")
    arguments = ["--url", url, "--support", tmp_path / "support", "--query", query_paths()[0]]
    arguments += ["--num_steps", 5]
    with pytest.raises(SystemExit, match=r"(?s)the server says: .*Unknown image file format"):
        rest.main([str(argument) for argument in arguments])
    with pytest.raises(SystemExit, match=r"(?s)the server says: .*Unknown image file format"):
        grpc_client.main([str(a) for a in ("--address", address, *arguments[2:])])
    with pytest.raises(SystemExit, match="does not answer"):
        rest.main([str(a) for a in ("--url", "http://127.0.0.1:9/v1/models/x", *arguments[2:])])


def test_the_configuration_is_one_and_names_what_the_clients_ask():
    text = (FOLDER / "serving" / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == grpc_client.metadata_request().model_spec.name


def test_all_of_the_probabilities(url):
    model = rest.signatures(url)
    adapted = rest.ask(url, rest.adapt_request(model, class_files(EPISODE / "support"), 5))
    answer = rest.ask(url, rest.predict_request(model, adapted, query_paths()))
    names, rows = expected()
    assert answer["class_names"] == names
    wanted = [rows[path.relative_to(EPISODE / "query").as_posix()] for path in query_paths()]
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5)


SHAPE = (28, 28, 1)


def nearest_neighbor():
    return PixelNearestNeighbor()


def matching_networks():
    return MatchingNetworks(embedding_of(mlp(SHAPE, 5, (8,))), 5, full_context=True)


@pytest.fixture(scope="module", params=[nearest_neighbor, matching_networks])
def without_updates(request, tmp_path_factory):
    """Exports a model that makes no updates. `adapt` returns tensors that only this model knows."""
    folder = tmp_path_factory.mktemp("run") / "saved_model"
    toy.save(ServedMethod(request.param(), Normalization((0.0,), (255.0,)), SHAPE, None), folder)
    return Served(folder)


@pytest.mark.parametrize("client", [rest, grpc_client])
def test_every_method_is_served(without_updates, client, capsys):
    classes = class_files(EPISODE / "support")
    pairs = [(path, name) for name, paths in classes.items() for path in paths]
    expected = without_updates.model.signatures["classify_encoded_named"](
        support_images=tf.constant([path.read_bytes() for path, _ in pairs]),
        support_labels=tf.constant([name for _, name in pairs]),
        query_images=tf.constant([path.read_bytes() for path in query_paths()]),
    )
    start, flag = (rest_server, "--url") if client is rest else (grpc_server, "--address")
    with start(without_updates) as place:
        arguments = [flag, place, "--support", EPISODE / "support", "--query", EPISODE / "query"]
        client.main([str(argument) for argument in arguments])
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        with pytest.raises(SystemExit, match="--num_steps is for models that learn by updates"):
            client.main([str(argument) for argument in (*arguments, "--num_steps", "5")])
    assert [file for file, _, _ in lines] == [str(path) for path in query_paths()]
    assert [name.encode() for _, name, _ in lines] == expected["labels"].numpy().tolist()
    best = np.max(expected["probabilities"], axis=1)
    np.testing.assert_allclose([float(p.rstrip("%")) / 100 for *_, p in lines], best, atol=1e-4)


def test_updates_have_to_be_said(url):
    with pytest.raises(SystemExit, match="This model learns by updates: give --num_steps"):
        rest.main(
            ["--url", url, "--support", str(EPISODE / "support"), "--query", str(query_paths()[0])]
        )


@pytest.mark.parametrize("without_updates", [nearest_neighbor], indirect=True)
@pytest.mark.parametrize("client", [rest, grpc_client])
def test_odd_pictures_that_are_refused_are_named(without_updates, client, tmp_path, capsys):
    start, flag = (rest_server, "--url") if client is rest else (grpc_server, "--address")
    refused = [picture for picture in odd_pictures.PICTURES if picture.not_served is not None]
    # The server stops at the first bad file, and is asked again without it. All take too long.
    refused = refused[::6]
    for number, picture in enumerate(refused):
        (tmp_path / f"{number:02d}").write_bytes(picture.encoded)
    with start(without_updates) as place:
        arguments = [flag, place, "--skip_corrupt", "--support", EPISODE / "support"]
        arguments += ["--query", tmp_path, query_paths()[0]]
        client.main([str(argument) for argument in arguments])
    output, errors = capsys.readouterr()
    skipped = [line for line in errors.splitlines() if line.startswith("skipped: ")]
    # Headers are checked before anything is decoded, so these errors come first.
    assert sorted(line.split(" is not ")[0] for line in skipped) == [
        f"skipped: {tmp_path}/{number:02d}" for number in range(len(refused))
    ]
    for line in skipped:
        picture = refused[int(line.split(" is not ")[0][-2:])]
        assert f" is not a readable image ({picture.not_served}" in line
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("without_updates", [nearest_neighbor], indirect=True)
@pytest.mark.parametrize("client", [rest, grpc_client])
def test_odd_pictures_are_answered_as_the_python_client_answers(
    without_updates, client, capsys, tmp_path
):
    read = [picture for picture in odd_pictures.PICTURES if picture.not_served is None]
    for number, picture in enumerate(read):
        (tmp_path / f"{number:02d}").write_bytes(picture.encoded)
    classes = class_files(EPISODE / "support")
    support, labels, _ = images.read_support(classes, SHAPE)
    queries = [pixels for _, pixels in images.read_images(sorted(tmp_path.iterdir()), SHAPE)]
    expected = without_updates.model.signatures["classify_named"](
        support_images=tf.constant(support, tf.float32),
        support_labels=tf.constant(labels),
        query_images=tf.constant(np.stack(queries), tf.float32),
    )
    names = expected["class_names"].numpy().tolist()
    start, flag = (rest_server, "--url") if client is rest else (grpc_server, "--address")
    with start(without_updates) as place:
        arguments = [flag, place, "--support", EPISODE / "support", "--query", tmp_path]
        client.main([str(argument) for argument in arguments])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [file for file, _, _ in lines] == [str(path) for path in sorted(tmp_path.iterdir())]
    for picture, (_, name, percent), row in zip(
        read, lines, expected["probabilities"].numpy(), strict=True
    ):
        share = row[names.index(name.encode())]
        assert share > max(row) - 0.005, picture.name  # of two that are alike, either
        assert abs(float(percent.rstrip("%")) / 100 - share) < 0.005, picture.name
