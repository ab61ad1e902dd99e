"""A model that compares features, trained 5-way, takes any number of classes in every client."""

import json
import shutil

import c_programs
import numpy as np
import pytest
from export_client import client
from PIL import Image
from servers import Served, rest_server
from test_export_serving import rest

from tf_metalstm.classifier import FewShotClassifier

SIZE = (8, 8)
HAS_COMPILER = shutil.which("cc") and shutil.which("make")


def pictures(root, num_way):
    """Writes two pictures of each class, some with names that are not ASCII, and three queries."""
    generator = np.random.default_rng(num_way)
    for number in range(num_way):
        pattern = generator.integers(0, 200, SIZE)
        for k in range(2 + (number < 3)):
            part = "support" if k < 2 else "query"
            path = (
                root / part / (f"klass \u00e4 {number:02d}" if k < 2 else "") / f"{number}_{k}.png"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = generator.integers(0, 56, SIZE)
            Image.fromarray((pattern + noise).astype(np.uint8)).save(path)
    return root / "support", root / "query"


@pytest.mark.parametrize(
    "num_way", [1, 50, *(pytest.param(num_way, marks=pytest.mark.slow) for num_way in (2, 12))]
)
def test_the_same_probabilities_in_every_client(prototypes, num_way, tmp_path, capsys, request):
    model, (support, query) = prototypes, pictures(tmp_path, num_way)
    files, asked = sorted(support.glob("*/*")), sorted(query.iterdir())
    names = [file.parent.name for file in files]
    classifier = FewShotClassifier(model)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tf_metalstm.classifier._warn", lambda remarks: None)
        expected = classifier.fit(files, names).predict_proba(asked)
    assert expected.shape == (len(asked), num_way)

    arguments = ["--model", model, "--support", support, "--query", query, "--no_estimate"]
    out = tmp_path / "out.json"
    assert client.main([str(argument) for argument in (*arguments, "--json", out)]) == 0
    found = json.loads(out.read_text())["images"]
    rows = [[one["probabilities"][name] for name in classifier.classes_] for one in found]
    np.testing.assert_allclose(rows, expected, atol=1e-5)

    with rest_server(Served(model)) as url:
        served = rest.signatures(url)
        classes = {name: sorted((support / name).iterdir()) for name in classifier.classes_}
        adapted = rest.ask(url, rest.adapt_request(served, classes))
        answer = rest.ask(url, rest.predict_request(served, adapted, asked))
    order = [answer["class_names"].index(name) for name in classifier.classes_]
    np.testing.assert_allclose(np.array(answer["probabilities"])[:, order], expected, atol=1e-5)

    if num_way == 50 and HAS_COMPILER:
        program = c_programs.built(request.getfixturevalue("tmp_path_factory"))
        result = c_programs.call(program, model, support, *asked)
        assert result.returncode == 0, result.stderr
        listed, lines = c_programs.answers(result.stdout)
        order = [listed.index(name) for name in classifier.classes_]
        rows = np.array([line[2:] for line in lines], float)[:, order]
        np.testing.assert_allclose(rows, expected, atol=1e-5)
