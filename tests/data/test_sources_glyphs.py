"""Tests the glyphs: enough shapes, no two alike, distorted by the formula, and repeatable.

Which letters are classes is tested with all letters, and their images with those of a few scripts.
`make test-slow` draws all images.
"""

import collections
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from tf_metalstm.data.sources import glyph_shapes
from tf_metalstm.data.sources import glyphs as glyphs_module
from tf_metalstm.data.sources.base import SPLITS, MissingDataError
from tf_metalstm.data.sources.glyph_shapes import SAME_SHAPE, SCRIPTS, GlyphShapes, Letter
from tf_metalstm.data.sources.glyphs import Glyphs, distorted, draw_letter


@pytest.fixture(scope="module", params=["few", pytest.param("all", marks=pytest.mark.slow)])
def source(request, glyphs, tmp_path_factory):
    if request.param == "few":
        return glyphs
    return Glyphs(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def classes(source):
    return {split: source.load(split) for split in SPLITS}


@pytest.fixture(scope="module")
def shapes():
    return GlyphShapes()


def test_there_are_enough_classes_for_a_stand_in_of_omniglot(shapes):
    counts = collections.Counter(letter.split for letter in shapes.letters)
    assert counts["train"] > 1000
    assert counts["validation"] > 200
    assert counts["test"] > 300


def test_every_class_has_twenty_images(source):
    counts = [source.counts(split) for split in SPLITS]
    assert {count.smallest_class for count in counts} == {20}
    assert {count.num_images / count.num_classes for count in counts} == {20.0}


def test_every_script_is_in_the_split_that_it_is_meant_for(shapes, source):
    found = {(script_of(letter.name), letter.split) for letter in shapes.letters}
    assert found == set(SCRIPTS.items())
    for split in SPLITS:
        assert {SCRIPTS[script_of(name)] for name in source.class_names(split)} == {split}


def script_of(name):
    return next(script for script in SCRIPTS if name.startswith(script))


def test_no_image_is_seen_twice(classes):
    images = [image.tobytes() for split in SPLITS for image in classes[split].images]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize(
    "lookalikes",
    [
        ("LATIN CAPITAL LETTER A", "GREEK CAPITAL LETTER ALPHA", "CYRILLIC CAPITAL LETTER A"),
        ("LATIN SMALL LETTER O", "GREEK SMALL LETTER OMICRON", "ARMENIAN SMALL LETTER OH"),
        ("LATIN CAPITAL LETTER O", "LATIN SMALL LETTER O", "TIFINAGH LETTER YAR"),
        ("LATIN CAPITAL LETTER H", "LISU LETTER XA", "CYRILLIC CAPITAL LETTER EN"),
        # These are alike in two fonts, but no font has both.
        ("TIFINAGH LETTER YA", "CYRILLIC CAPITAL LETTER ROUND OMEGA"),
        ("GEORGIAN CAPITAL LETTER CAN", "LATIN LETTER SMALL CAPITAL G"),
        ("HEBREW LETTER VAV", "ARABIC LETTER ALEF WITH HAMZA BELOW"),
        ("OLD ITALIC LETTER ER", "CYRILLIC SMALL LETTER ER"),
    ],
)
def test_of_letters_with_one_drawing_at_most_one_is_a_class(shapes, lookalikes):
    names = {letter.name for letter in shapes.letters}
    assert len(names & set(lookalikes)) <= 1


def test_no_shape_of_a_split_is_in_another_in_any_two_fonts(shapes):
    """Correlates every pair of shapes in float64 with NumPy."""
    vectors = {split: [] for split in SPLITS}
    for letter in shapes.letters:
        vectors[letter.split] += shapes.shapes(letter.character).values()
    standard = {}
    for split, found in vectors.items():
        centred = np.stack(found) - np.mean(found, axis=1, keepdims=True)
        standard[split] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    for one, other in itertools.combinations(SPLITS, 2):
        assert np.max(standard[one] @ standard[other].T) < SAME_SHAPE


def test_a_correlation_at_the_limit_is_decided_in_float64():
    """The pixels 1, 0, -1 and 1 + b, -2 b, b - 1 have the correlation 1 / sqrt(1 + 3 b^2)."""
    limit = 0.95
    letters = [Letter(c, f"LATIN {c}", split, (0,)) for c, split in (("A", "train"), ("B", "test"))]
    offset = np.sqrt((limit**-2 - 1) / 3)
    for nudge, expected in ((-1e-12, True), (1e-12, False)):
        b = offset + nudge
        shapes = [{0: np.array([1.0, 0.0, -1.0])}, {1: np.array([1.0 + b, -2 * b, b - 1.0])}]
        assert glyph_shapes._alike(letters, shapes)[0, 1] == expected


def test_glyphs_are_dark_on_white_and_inside_the_image(classes):
    for split in SPLITS:
        images = classes[split].images
        assert (images.min(axis=(1, 2, 3)) < 100).all()
        border = np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])
        assert (border == 255).mean() > 0.999


def test_the_drawing_depends_on_the_letter_alone(classes, shapes):
    name = "LAO LETTER KO"
    letter = Letter("\u0e81", name, "test", tuple(shapes.shapes("\u0e81")))
    row = 20 * classes["test"].class_names.index(name)
    np.testing.assert_array_equal(
        draw_letter(shapes, letter), classes["test"].images[row : row + 20]
    )


def test_every_font_that_has_a_letter_draws_some_of_its_images(shapes, monkeypatch):
    letter = Letter("A", "LATIN CAPITAL LETTER A", "train", tuple(shapes.shapes("A")))
    drawn = []
    monkeypatch.setattr(glyphs_module, "distorted", lambda ink, *_: drawn.append(id(ink)) or 0)
    draw_letter(shapes, letter)
    assert len(letter.fonts) == 8
    assert set(map(drawn.count, drawn)) == {2, 3}


def test_missing_and_blank_glyphs_are_no_letters(shapes):
    assert shapes.ink(" ", 0) is None
    assert shapes.shapes(" ") == {}
    assert shapes.shapes("\u4e00") == {}, "in none of the fonts"


@pytest.mark.parametrize(
    ("rotation", "shear", "scales", "shift"),
    [
        (0.0, 0.0, (1.0, 1.0), (0.0, 0.0)),
        (0.0, 0.0, (1.0, 1.0), (2.0, -1.0)),
        (0.25, 0.0, (1.0, 1.0), (0.0, 0.0)),
        (0.0, 0.2, (1.0, 1.0), (0.0, 0.0)),
        (-0.2, 0.15, (0.8, 1.1), (1.0, 2.0)),
    ],
)
@pytest.mark.parametrize("dot", [(20, 0), (0, -25), (15, 10)])
def test_a_dot_goes_where_the_formula_sends_it(rotation, shear, scales, shift, dot):
    """The dot lies at a known distance from the centre of a glyph of 60 x 80 pixels."""
    ink = Image.new("L", (60, 80), 0)
    ink.paste(255, (30 + dot[0] - 4, 40 + dot[1] - 4, 30 + dot[0] + 4, 40 + dot[1] + 4))
    image = 255.0 - distorted(ink, rotation, shear, *scales, *shift)[:, :, 0]
    rows, columns = np.mgrid[0.5:28, 0.5:28]
    found = np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()
    cosine, sine = math.cos(rotation), math.sin(rotation)
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ [[1.0, shear], [0.0, 1.0]]
    expected = 14.0 + linear @ (np.array(scales) * dot) * 18.0 / 80.0 + shift
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_unseen_letters_can_be_told_apart_by_their_pixels(classes):
    """Classifies 5-way 5-shot by the nearest raw image. Chance is 20 %."""
    images, _, names = classes["test"]
    vectors = images.reshape(len(names), 20, -1).astype(np.float32)
    vectors -= vectors.mean(axis=-1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        episode = vectors[generator.choice(len(names), 5, replace=False)]
        similarity = np.einsum("aqd,bsd->aqbs", episode[:, 5:], episode[:, :5]).max(axis=-1)
        hits.append(similarity.argmax(axis=-1) == np.arange(5)[:, np.newaxis])
    assert np.mean(hits) > 0.7


def test_missing_fonts_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(MissingDataError, match=r"DejaVuSans.ttf.*reinstall matplotlib"):
        Glyphs(tmp_path / "prepared").prepare()
