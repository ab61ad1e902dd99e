"""Which characters the `glyphs` source draws, and their undistorted shapes.

Matplotlib installs the DejaVu and STIX fonts, which between them have the
letters of some fifteen scripts. Not every letter can be a class. Latin A, Greek
Alpha and Cyrillic A are one drawing; so are many letters that differ by a
diacritic once they are 28 pixels high. Two letters count as the same drawing
where the correlation of their shapes reaches `SAME_SHAPE`: in any font that has
both, and, for letters of two splits, in any two fonts, so that no shape of a test
class is seen in training. Of those the first one in the order of `SCRIPTS` is
kept. About 1,700 of 3,000 letters remain.
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

# The scripts that are for testing come first: where a test letter and a training
# letter look the same, training can spare it more easily.
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
"""Upright fonts only: in italics some letters take the shape of others."""

SAME_SHAPE = 0.95
"""Correlation of two shapes from which on they count as the same drawing."""

FONT_SIZE = 72
"""Pixels of an em at which glyphs are drawn, before they are scaled down."""

# Shapes are compared in a square of this many pixels, their longer side 20, a
# little blurred so that strokes that nearly meet count as similar.
_COMPARED_SIZE, _COMPARED_SIDE, _COMPARED_BLUR = 24, 20, 0.7

# Shapes that are compared with all others at a time, and how near to the limit a
# correlation in float32 is computed again.
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
    """The font files as matplotlib installed them, in the order of `FONT_FILES`."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return [folder / name for name in FONT_FILES]


class GlyphShapes:
    """Letters and what they look like, undistorted."""

    def __init__(self) -> None:
        paths = font_paths()
        # The basic layout draws the glyph of the character map and nothing else;
        # the other one is not in every build of Pillow and may join letters.
        self._fonts = [
            ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
            for path in paths
        ]
        self._coverage = [frozenset(TTFont(path, lazy=True).getBestCmap()) for path in paths]

    @cached_property
    def letters(self) -> list[Letter]:
        """The letters that no other letter looks like, in the order of `SCRIPTS`."""
        candidates = self._candidates()
        alike = _alike([letter for letter, _ in candidates], [s for _, s in candidates])
        kept: list[int] = []
        for index in range(len(candidates)):
            if not alike[index, kept].any():
                kept.append(index)
        return [candidates[index][0] for index in kept]

    def ink(self, character: str, font: int) -> Image.Image | None:
        """The glyph in gray, 255 where there is ink, cropped to its ink.

        Args:
            character: a character that the font has.
            font: index into `FONT_FILES`.

        Returns:
            An image of the size that the glyph has at `FONT_SIZE`; None for a
            blank glyph.
        """
        left, top, right, bottom = self._fonts[font].getbbox(character)
        if right <= left or bottom <= top:
            return None
        glyph = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)), 0)
        ImageDraw.Draw(glyph).text((-left, -top), character, fill=255, font=self._fonts[font])
        box = glyph.getbbox()
        return glyph.crop(box) if box else None

    def shapes(self, character: str) -> dict[int, np.ndarray]:
        """What each font has for a character, as vectors that can be compared.

        Returns:
            {index into `FONT_FILES`: uint8 vector}, without the fonts in which the
            character is missing, blank, or drawn as the box of a missing one.
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
        """What each font draws for a character that it does not have."""
        return [self.ink("\uffff", font) for font in range(len(self._fonts))]

    def _candidates(self) -> list[tuple[Letter, dict[int, np.ndarray]]]:
        """All letters of the scripts and their shapes, in the order of `SCRIPTS`."""
        by_script: dict[str, list] = {script: [] for script in SCRIPTS}
        for code in sorted(frozenset.union(*self._coverage)):
            character = chr(code)
            name = unicodedata.name(character, "")
            script = next((s for s in SCRIPTS if name.startswith(s + " ")), None)
            # Letters only, without the modifier letters (Lm): those are small
            # copies of other letters.
            if script is None or unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo"):
                continue
            if shapes := self.shapes(character):
                letter = Letter(character, name, SCRIPTS[script], tuple(shapes))
                by_script[script].append((letter, shapes))
        return [candidate for members in by_script.values() for candidate in members]


def _alike(letters: list[Letter], shapes: list[dict[int, np.ndarray]]) -> np.ndarray:
    """Whether two letters are the same drawing, bool [n, n].

    Args:
        letters: n letters.
        shapes: of each, as `GlyphShapes.shapes` returns them.
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
        # In float64 rounding can no more move a correlation across the limit.
        near = np.nonzero(np.abs(correlations - SAME_SHAPE) < _NEAR)
        pairs = vectors[rows][near[0]], vectors[first:][near[1]]
        correlations[near] = np.where(np.einsum("nv,nv->n", *pairs) >= SAME_SHAPE, 1.0, 0.0)
        compared = font[rows, np.newaxis] == font[first:]
        compared |= split[rows, np.newaxis] != split[first:]
        one, other = np.nonzero(compared & (correlations >= SAME_SHAPE))
        alike[owner[first + one], owner[first + other]] = True
    return alike | alike.T


def _comparable(ink: Image.Image) -> np.ndarray:
    """A glyph as a uint8 vector of pixels, centred and of one size."""
    scale = _COMPARED_SIDE / max(ink.size)
    width, height = (max(1, round(scale * side)) for side in ink.size)
    square = Image.new("L", (_COMPARED_SIZE, _COMPARED_SIZE), 0)
    corner = ((_COMPARED_SIZE - width) // 2, (_COMPARED_SIZE - height) // 2)
    square.paste(ink.resize((width, height), Image.Resampling.LANCZOS), corner)
    blurred = square.filter(ImageFilter.GaussianBlur(_COMPARED_BLUR))
    return np.asarray(blurred).ravel()
