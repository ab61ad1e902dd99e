"""The characters of the `glyphs` source and their undistorted shapes.

Matplotlib installs the DejaVu and STIX fonts, which have the letters of about fifteen
scripts. Not every letter can be a class, because some look the same: Latin A, Greek
Alpha and Cyrillic A, and at 28 pixels many letters that differ by a diacritic. Two
letters count as the same if the correlation of their shapes reaches `SAME_SHAPE` in a
font that has both. For letters of two splits any two fonts are compared, so that
training never sees the shape of a test class. Of letters with the same shape only the
first one in the order of `SCRIPTS` is kept. About 1,700 of 3,000 letters remain.
"""

import math
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# The test scripts come first, so a test letter is kept and a training letter with
# the same shape is dropped. Training has more letters.
SCRIPTS = {
    "ARMENIAN": "test",
    "GEORGIAN": "test",
    "HEBREW": "test",
    "LAO": "test",
    "OGHAM": "test",
    "TIFINAGH": "test",
    "ARABIC": "validation",
    "COPTIC": "validation",
    "LISU": "validation",
    "NKO": "validation",
    "OLD ITALIC": "validation",
    "CANADIAN SYLLABICS": "train",
    "CYRILLIC": "train",
    "GREEK": "train",
    "LATIN": "train",
}
"""Script, as in the Unicode name of its letters -> split of the classes."""

FONT_FILES = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
)
"""Upright fonts only, because in italics some letters look like others."""

SAME_SHAPE = 0.95
"""If the correlation of two shapes is at least this, they count as the same."""

FONT_SIZE = 72
"""Pixels per em of the drawn glyphs, before they are scaled down."""

# Shapes are compared in a square of 24 x 24 pixels, with a longer side of 20 pixels.
# They are slightly blurred, so that strokes that nearly coincide count as similar.
_COMPARED_SIZE, _COMPARED_SIDE, _COMPARED_BLUR = 24, 20, 0.7

# Number of shapes that are compared with all others at a time. A correlation in
# float32 that is this near to the limit is computed again in float64.
_BLOCK, _NEAR = 1024, 1e-4


class Letter(NamedTuple):
    """A character that is a class.

    Attributes:
        character: the character itself.
        name: its Unicode name, which is unique and begins with the script.
        split: split of the class.
        fonts: indices into `FONT_FILES` of the fonts that have it.
    """

    character: str
    name: str
    split: str
    fonts: tuple[int, ...]


def font_paths() -> list[Path]:
    """Returns the paths of matplotlib's font files, in the order of `FONT_FILES`."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return [folder / name for name in FONT_FILES]


class GlyphShapes:
    """Letters and their undistorted shapes."""

    def __init__(self) -> None:
        paths = font_paths()
        # The basic layout only draws the glyph of the character map. The other layout
        # is not in every build of Pillow and may join letters.
        self._fonts = [
            ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
            for path in paths
        ]
        self._coverage = [frozenset(TTFont(path, lazy=True).getBestCmap()) for path in paths]

    @cached_property
    def letters(self) -> list[Letter]:
        """The letters, without those that look like an earlier one, in the order of `SCRIPTS`."""
        candidates = self._candidates()
        alike = _alike([letter for letter, _ in candidates], [s for _, s in candidates])
        kept: list[int] = []
        for index in range(len(candidates)):
            if not alike[index, kept].any():
                kept.append(index)
        return [candidates[index][0] for index in kept]

    def ink(self, character: str, font: int) -> Image.Image | None:
        """Returns the glyph in gray, 255 where there is ink, cropped to its ink.

        Args:
            character: a character that the font has.
            font: index into `FONT_FILES`.

        Returns:
            An image in the size of the glyph at `FONT_SIZE`; None for a blank glyph.
        """
        left, top, right, bottom = self._fonts[font].getbbox(character)
        if right <= left or bottom <= top:
            return None
        glyph = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)), 0)
        ImageDraw.Draw(glyph).text((-left, -top), character, fill=255, font=self._fonts[font])
        box = glyph.getbbox()
        return glyph.crop(box) if box else None

    def shapes(self, character: str) -> dict[int, np.ndarray]:
        """Returns the shape of a character in each font, as a vector for comparison.

        Returns:
            {index into `FONT_FILES`: uint8 vector}, without the fonts in which the
            character is missing, blank, or drawn as the box for missing characters.
        """
        by_font = {}
        for font, codes in enumerate(self._coverage):
            if ord(character) in codes:
                ink = self.ink(character, font)
                if ink is not None and ink != self._missing[font]:
                    by_font[font] = _comparable(ink)
        return by_font

    @cached_property
    def _missing(self) -> list[Image.Image | None]:
        """The glyph that each font draws for a character that it does not have."""
        return [self.ink("\uffff", font) for font in range(len(self._fonts))]

    def _candidates(self) -> list[tuple[Letter, dict[int, np.ndarray]]]:
        """Returns all letters of the scripts with their shapes, in the order of `SCRIPTS`."""
        by_script: dict[str, list] = {script: [] for script in SCRIPTS}
        for code in sorted(frozenset.union(*self._coverage)):
            character = chr(code)
            name = unicodedata.name(character, "")
            script = next((s for s in SCRIPTS if name.startswith(s + " ")), None)
            # Only letters, without modifier letters (Lm), which are small copies of
            # other letters.
            if script is None or unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo"):
                continue
            if shapes := self.shapes(character):
                letter = Letter(character, name, SCRIPTS[script], tuple(shapes))
                by_script[script].append((letter, shapes))
        return [candidate for members in by_script.values() for candidate in members]


def _alike(letters: list[Letter], shapes: list[dict[int, np.ndarray]]) -> np.ndarray:
    """Returns whether two letters look the same, bool [n, n].

    Args:
        letters: n letters.
        shapes: the shapes of each letter, from `GlyphShapes.shapes`.
    """
    owner = np.array([i for i, of_letter in enumerate(shapes) for _ in of_letter])
    font = np.array([font for of_letter in shapes for font in of_letter])
    split = np.array([letters[i].split for i in owner])
    vectors = np.stack([shape for of_letter in shapes for shape in of_letter.values()])
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    quick = vectors.astype(np.float32)
    alike = np.zeros((len(letters), len(letters)), bool)
    for first in range(0, len(vectors), _BLOCK):
        rows = slice(first, first + _BLOCK)
        correlations = quick[rows] @ quick[first:].T
        # Near the limit correlations are computed in float64, where rounding does not matter.
        near = np.nonzero(np.abs(correlations - SAME_SHAPE) < _NEAR)
        pairs = vectors[rows][near[0]], vectors[first:][near[1]]
        correlations[near] = np.where(np.einsum("nv,nv->n", *pairs) >= SAME_SHAPE, 1.0, 0.0)
        compared = font[rows, np.newaxis] == font[first:]
        compared |= split[rows, np.newaxis] != split[first:]
        one, other = np.nonzero(compared & (correlations >= SAME_SHAPE))
        alike[owner[first + one], owner[first + other]] = True
    return alike | alike.T


def _comparable(ink: Image.Image) -> np.ndarray:
    """Returns a glyph as a uint8 vector of pixels, centred and scaled to a fixed size."""
    scale = _COMPARED_SIDE / max(ink.size)
    width, height = (max(1, round(scale * side)) for side in ink.size)
    square = Image.new("L", (_COMPARED_SIZE, _COMPARED_SIZE), 0)
    corner = ((_COMPARED_SIZE - width) // 2, (_COMPARED_SIZE - height) // 2)
    square.paste(ink.resize((width, height), Image.Resampling.LANCZOS), corner)
    blurred = square.filter(ImageFilter.GaussianBlur(_COMPARED_BLUR))
    return np.asarray(blurred).ravel()
