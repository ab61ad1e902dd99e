"""Characters of many scripts, drawn from the fonts that matplotlib installs.

A replacement for Omniglot that needs no download. Each letter has twenty gray images of
28 x 28 pixels, dark on white. Each image is drawn in one of the fonts that have the
letter, with a random affine map,

    x' = R(rotation) [[1, shear], [0, 1]] diag(scale_x, scale_y) x + shift

The classes are split by script, so training never sees the script of a test class. The
images depend only on the letter and a fixed seed. They are the same everywhere if the
fonts and Pillow are the same.
"""

import math
import os

import numpy as np
from PIL import Image
from tensorflow_datasets.core.utils import tqdm

from tf_metalstm.data.sources import raw_files
from tf_metalstm.data.sources.base import MissingDataError
from tf_metalstm.data.sources.contents import file_digest
from tf_metalstm.data.sources.glyph_shapes import (
    FONT_FILES,
    FONT_SIZE,
    SAME_SHAPE,
    SCRIPTS,
    GlyphShapes,
    Letter,
    font_paths,
)
from tf_metalstm.data.sources.pixels import encode_png
from tf_metalstm.data.sources.prepared import PreparedOptions, PreparedSource
from tf_metalstm.data.sources.staging import ImageIdentity, StagedSplits, Staging
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.parts import Part

IMAGE_SIZE = 28
IMAGES_PER_CLASS = 20
_SEED = 20170424

# Longer side of an undistorted glyph in pixels. It is so small that no distortion
# moves ink out of the image.
_GLYPH_SIDE = 18.0

# Bounds of rotation (radians), shear, the two scales and the two shifts (pixels).
_LOWEST = (-math.radians(15), -0.2, 0.8, 0.8, -2.0, -2.0)
_HIGHEST = (math.radians(15), 0.2, 1.1, 1.1, 2.0, 2.0)

# Glyphs are distorted at this multiple of the resolution and then averaged.
_OVERSAMPLING = 3


class Glyphs(PreparedSource):
    """Letters of fifteen scripts as gray images, dark on white."""

    part = Part("glyphs", "Characters of many scripts, drawn from fonts", "", PreparedOptions)
    name = "glyphs"
    description = (
        "Letters of fifteen scripts, drawn from the DejaVu and STIX fonts that matplotlib "
        f"installs, with random affine distortions; {IMAGES_PER_CLASS} images of each, dark on "
        "white. The classes are split by script."
    )

    def __init__(self, prepared_dir: str | os.PathLike[str] | None = None):
        super().__init__(prepared_dir)

    @classmethod
    def from_options(cls, options: PreparedOptions) -> ImageTasks:
        return ImageTasks.of(cls(options.prepared_dir), options)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """28 x 28 pixels, one channel."""
        return (IMAGE_SIZE, IMAGE_SIZE, 1)

    def config_name(self) -> str:
        """Returns a name with a fingerprint of the fonts and of the constants of the drawing."""
        paths = font_paths()
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise MissingDataError(
                f"glyphs: the fonts {', '.join(missing)} are not in {paths[0].parent}, where "
                "matplotlib installs them: reinstall matplotlib"
            )
        drawing = (_SEED, IMAGE_SIZE, IMAGES_PER_CLASS, _GLYPH_SIDE, _LOWEST, _HIGHEST)
        options = (tuple(SCRIPTS.items()), SAME_SHAPE, FONT_FILES, FONT_SIZE, drawing)
        fonts = [(path.name, file_digest(path)) for path in paths]
        return f"scripts-{raw_files.fingerprint(fonts, *options)}"

    def origin(self) -> str:
        """Returns a text with the folder of the fonts."""
        return f"Drawn from the fonts in {font_paths()[0].parent}"

    def stage(self) -> StagedSplits:
        """Returns the images of all letters."""
        shapes = GlyphShapes()
        staging = Staging(self.name)
        for letter in tqdm(shapes.letters, desc="Drawing glyphs", unit=" letters"):
            for number, pixels in enumerate(draw_letter(shapes, letter)):
                identity = ImageIdentity(letter.split, letter.name, f"{number:02d}")
                staging.add(identity, pixels, encode_png(pixels))
        return staging.finish(dict)


def draw_letter(shapes: GlyphShapes, letter: Letter) -> np.ndarray:
    """Returns the images of a letter, uint8 [IMAGES_PER_CLASS, 28, 28, 1].

    Args:
        shapes: the undistorted glyphs.
        letter: one of `shapes.letters`.
    """
    generator = np.random.default_rng([_SEED, ord(letter.character)])
    inks = [shapes.ink(letter.character, font) for font in letter.fonts]
    # All fonts are used equally often.
    turns = generator.permutation(IMAGES_PER_CLASS) % len(inks)
    distortions = generator.uniform(_LOWEST, _HIGHEST, (IMAGES_PER_CLASS, len(_LOWEST)))
    return np.stack([distorted(inks[t], *d) for t, d in zip(turns, distortions, strict=True)])


def distorted(
    ink: Image.Image,
    rotation: float,
    shear: float,
    scale_x: float,
    scale_y: float,
    shift_x: float,
    shift_y: float,
) -> np.ndarray:
    """Returns one image of a glyph, uint8 [28, 28, 1], dark on white.

    Args:
        ink: the glyph, 255 where there is ink; it is first scaled to a fixed size.
        rotation: angle in radians.
        shear: sideways shift of the top, as a fraction of the height.
        scale_x: factor on the width.
        scale_y: factor on the height.
        shift_x: shift of the centre to the right in pixels.
        shift_y: shift of the centre downwards in pixels.
    """
    unit = _OVERSAMPLING * _GLYPH_SIDE / max(ink.size)
    cosine, sine = math.cos(rotation), math.sin(rotation)
    # Pillow needs the map from the image back to the glyph, which is the inverse of
    # R(rotation) [[1, shear], [0, 1]] diag(scale_x, scale_y).
    xx, xy = (cosine + shear * sine) / scale_x / unit, (sine - shear * cosine) / scale_x / unit
    yx, yy = -sine / scale_y / unit, cosine / scale_y / unit
    centre_x = _OVERSAMPLING * (IMAGE_SIZE / 2 + shift_x)
    centre_y = _OVERSAMPLING * (IMAGE_SIZE / 2 + shift_y)
    offset_x = ink.width / 2 - xx * centre_x - xy * centre_y
    offset_y = ink.height / 2 - yx * centre_x - yy * centre_y
    large = ink.transform(
        (_OVERSAMPLING * IMAGE_SIZE, _OVERSAMPLING * IMAGE_SIZE),
        Image.Transform.AFFINE,
        (xx, xy, offset_x, yx, yy, offset_y),
        Image.Resampling.BILINEAR,
    )
    return 255 - np.asarray(large.reduce(_OVERSAMPLING))[..., np.newaxis]
