"""Makes toy raw data: a few small images in folders or archives of any kind."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def encode(pixels, image_format, mode=None):
    """Returns an image file of uint8 pixels, [h, w] gray, [h, w, 3] color or [h, w, 4] CMYK."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if mode == "CMYK":
        image = Image.frombytes("CMYK", image.size, pixels.tobytes())
    image.save(file, format=image_format)
    return file.getvalue()


def encode_gray(value, side=8):
    """Returns a BMP file of one gray level."""
    return encode(np.full((side, side), value, np.uint8), "BMP")


def recode(encoded, image_format):
    """Returns the same pixels in another format."""
    file = io.BytesIO()
    Image.open(io.BytesIO(encoded)).save(file, format=image_format)
    return file.getvalue()


def omniglot_files(drawings=2):
    """Returns {path: PNG} of 3 + 2 alphabets with 2 characters each, 1 bit, 35 x 35."""
    generator = np.random.default_rng(0)
    files = {}
    for part, alphabets in (("background", "ABC"), ("evaluation", "XY")):
        for alphabet in alphabets:
            for character in ("character01", "character02"):
                for drawing in range(drawings):
                    ink = generator.random((35, 35)) < 0.1
                    path = f"images_{part}/{alphabet}/{character}/0001_{drawing:02d}.png"
                    files[path] = encode(~ink, "PNG")
    return files


def mini_imagenet_files(images=3):
    """Returns {path: JPEG} of 2 train, 1 val and 1 test class, 84 x 84."""
    generator = np.random.default_rng(0)
    files = {}
    for split, wnids in (("train", ("n01", "n02")), ("val", ("n03",)), ("test", ("n04",))):
        for wnid in wnids:
            for number in range(images):
                coarse = generator.integers(0, 256, (7, 7, 3), np.uint8)
                pixels = coarse.repeat(12, axis=0).repeat(12, axis=1)
                files[f"{split}/{wnid}/{wnid}{number}.jpg"] = encode(pixels, "JPEG")
    return files


def folder_files(classes="abcdefg", images=4):
    """Returns {path: PNG} of class folders, 9 x 12."""
    generator = np.random.default_rng(0)
    return {
        f"{name}/{number}.png": encode(generator.integers(0, 256, (9, 12, 3), np.uint8), "PNG")
        for name in classes
        for number in range(images)
    }


class ToyTfds(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of TensorFlow Datasets with seven classes and two splits of the images."""

    VERSION = tfds.core.Version("1.2.3")
    code_path = None
    channels = 3

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, self.channels), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list("abcdefg")),
            "id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(3), "test": self._generate_examples(1)}

    def _generate_examples(self, number):
        files = folder_files(images=4)
        for path, content in files.items():
            if (int(path[2]) == 3) == (number == 1):
                pixels = np.asarray(Image.open(io.BytesIO(content)))[..., : self.channels]
                yield path, {"image": pixels, "label": path[0], "id": path}


def write_tfds(folder, kind=ToyTfds):
    kind(data_dir=folder).download_and_prepare()


def write_folder(folder, files):
    for path, content in files.items():
        target = Path(folder, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def write_zip(archive, files):
    with zipfile.ZipFile(archive, "w") as opened:
        for path, content in files.items():
            opened.writestr(path, content)


def write_tar(archive, files):
    """Writes a tar archive. The suffix of its name gives the compression."""
    compression = {".tar": "", ".gz": "gz", ".tgz": "gz", ".xz": "xz"}[Path(archive).suffix]
    with tarfile.open(archive, f"w:{compression}") as opened:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))


def part_of(files, prefix):
    return {path: content for path, content in files.items() if path.startswith(prefix)}
