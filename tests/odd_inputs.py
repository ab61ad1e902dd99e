"""A table of odd inputs, and what every client does with each.

A case begins with an ordinary episode, three pictures of each of two classes and two queries, and
changes something: pictures, folders, lists, numbers, names. Every client gives the right answers,
which are in the names of the queries, or ends with one clear sentence. It names everything that it
warns about or leaves out. `odd_pictures.py` has odd picture files.
"""

import io
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

SHAPE = (16, 16, 1)
CLASSES = ["ant", "bee"]

API, ADAPT, REST, GRPC, C = CLIENTS = ("api", "adapt", "rest", "grpc", "c")
COMMANDS = (ADAPT, REST, GRPC, C)
SERVED = (REST, GRPC, C)  # these leave out files only on request
PYTHON = (ADAPT, REST, GRPC)
REFUSING = (API, *SERVED)  # these refuse a file that cannot be read; adapt.py leaves it out


class OddInput(NamedTuple):
    """A case.

    change: function that changes the episode in a folder.
    refused: a part of the sentence that ends the client; None if it answers. "{s}" is the folder of
        the support set, "{q}" that of the queries, "{r}" the folder above them.
    said: parts of the other sentences, in their order.
    support: the support set that the client gets; None for the folder.
    query: the queries that the client gets.
    flags: further flags; for `FewShotClassifier` its arguments.
    clients: the clients that the case is for.
    """

    change: Callable[[pathlib.Path], object] = lambda root: None
    refused: str | None = None
    said: tuple[str, ...] = ()
    support: str = "{s}"
    query: tuple[str, ...] = ("{q}",)
    flags: dict[str, object] = {}
    clients: tuple[str, ...] = COMMANDS


def picture(name, seed, ground=255):
    """Returns a picture of a class: a block at a fixed place, and three dots, [16, 16]."""
    place = CLASSES.index(name)
    pixels = np.full(SHAPE[:2], ground, np.uint8)
    row, column = 2 + 6 * (place // 2), 2 + 6 * (place % 2)
    pixels[row : row + 4, column : column + 5] = 255 - ground
    for spot in np.random.default_rng(seed).integers(1, 15, (3, 2)):
        pixels[tuple(spot)] = 255 - pixels[tuple(spot)]
    return pixels


def noise(seed, low, high):
    return np.random.default_rng(seed).integers(low, high, SHAPE[:2]).astype(np.uint8)


def encoded(pixels, kind="PNG"):
    image, file = Image.fromarray(pixels).convert("RGB"), io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


def write(path, contents):
    """Writes bytes, or pixels as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else encoded(contents))


def ordinary(root):
    """Writes the episode that every case begins with. The name of a query begins with its class."""
    for name in CLASSES:
        for seed in range(3):
            write(root / "support" / name / f"{seed}.png", picture(name, 10 * seed + len(name)))
        write(root / "query" / f"{name}_9.png", picture(name, 99))


def put(*files):
    """Returns a change that writes files: the path and the contents of each."""

    def change(root):
        for path, contents in files:
            write(root / path, contents)

    return change


def link(path, target):
    return lambda root: (root / path).symlink_to(target)


def only(path, contents=None):
    """Returns a change that empties a folder, and may write one file into it."""

    def change(root):
        shutil.rmtree(root / path)
        (root / path).mkdir()
        if contents is not None:
            write(root / path / contents[0], contents[1])

    return change


def moved(path, *parts):
    """Returns a change that moves a file or folder."""

    def change(root):
        target = root.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / path).rename(target)

    return change


def together(*changes):
    return lambda root: [change(root) for change in changes]


def renamed(name):
    """Returns a case in which the class ant and its query have another name."""
    return OddInput(
        together(moved("support/ant", "support", name), moved("query/ant_9.png", f"query/{name}_9"))
    )


def left(path, more=""):
    return (f"left out: {{r}}/{path}{more} (hidden, or of the system)",)


TEXT = b"no image, but text\n" * 9
CLUTTER = ["Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir/0.png", ".ipynb_checkpoints/0.png"]
CLUTTER += ["__MACOSX/0.png", "#recycle/0.png"]
UNREADABLE = "{{{}}}/{} is not a readable image ("
OFFER = "Leave such files out with "

WORTH_LITTLE = {
    "nothing": OddInput(clients=CLIENTS),
    "a blank picture": OddInput(
        put(("support/bee/7.png", noise(0, 9, 20))),
        said=("1 support picture is blank, or nearly so (no two pixels differ by more than 16 of "
              "255 levels): {s}/bee/7.png (bee). The model can neither learn from that nor "
              "classify it.",),
        clients=CLIENTS,
    ),
    "blank pictures": OddInput(
        put(*((f"support/bee/{k}.png", noise(k, 9, 20)) for k in range(10, 17))),
        said=("7 support pictures are blank", ),
        clients=CLIENTS,
    ),
    "a blank query": OddInput(
        put(("query/ant_8.png", np.full(SHAPE[:2], 0, np.uint8))),
        said=("1 query picture is blank, or nearly so (no two pixels differ by more than 16 of "
              "255 levels): {q}/ant_8.png. The model can neither learn from that nor "
              "classify it.",),
        clients=CLIENTS,
    ),
    "a picture in two classes": OddInput(
        put(("support/bee/7.png", picture("ant", 3))),
        said=("The same picture is in two classes: {s}/bee/7.png (bee) and {s}/ant/0.png (ant). "
              "The model cannot learn from it which is right: remove it from one.",),
        clients=CLIENTS,
    ),
    "a picture in two classes, saved anew": OddInput(
        put(("support/bee/7.bmp", encoded(picture("ant", 3), "BMP"))),
        said=("The same picture is in two classes: {s}/bee/7.bmp (bee) and {s}/ant/0.png (ant).",),
        clients=CLIENTS,
    ),
    "a picture twice in a class": OddInput(
        put(("support/bee/7.png", picture("bee", 3))),
        said=("The same picture is in a class more than once: {s}/bee/7.png (bee) is "
              "{s}/bee/0.png. It counts each time, and adds nothing new.",),
        clients=CLIENTS,
    ),
    "a query among the support pictures": OddInput(
        put(("query/bee_3.gif", encoded(picture("bee", 3), "GIF"))),
        said=("1 query picture is among the support pictures: {q}/bee_3.gif is {s}/bee/0.png "
              "(bee). An accuracy that counts them is too high.",),
        clients=CLIENTS,
    ),
    "inverted queries": OddInput(
        only("query", ("ant_9.png", picture("bee", 9, 0))),
        said=("The figures of the support pictures are darker than their ground, those of 1 of 1 "
              "query pictures lighter: {q}/ant_9.png. The model takes them for different things: "
              "invert one of the two.",),
        clients=CLIENTS,
    ),
    "classes of different sizes": OddInput(
        put(*((f"support/bee/{k}.png", picture("bee", k)) for k in range(50, 62))),
        said=("The classes differ in size: ant has 3 of the support pictures, bee has 15. The "
              "answers may lean towards the larger ones: take about as many of each.",),
        clients=CLIENTS,
    ),
    "one class": OddInput(
        together(lambda root: shutil.rmtree(root / "support/bee"),
                 lambda root: (root / "query/bee_9.png").unlink()),
        said=("ant is the only class: every picture gets this answer.",),
        clients=CLIENTS,
    ),
}  # fmt: skip

FOLDERS = {
    **{
        f"{clutter} in {where or 'the folder'}": OddInput(
            put((f"{where}/{clutter}", TEXT)), said=left(f"{where}/{clutter.split('/')[0]}")
        )
        for clutter, where in zip(
            CLUTTER,
            ("support/ant", "query", "support", "support/bee", "query", "support", "query"),
            strict=True,
        )
    },
    "two that are left": OddInput(
        put(("support/ant/Thumbs.db", TEXT), ("support/ant/.x", TEXT)),
        said=left("support/ant/.x", " and 1 more"),
    ),
    "a class in folders of its own": OddInput(
        moved("support/ant/1.png", "support/ant/2026/may/1.png"),
    ),
    "a folder with the name of a picture": OddInput(
        moved("support/ant/1.png", "support/ant/x.png/1.png"),
    ),
    "a class elsewhere": OddInput(
        together(moved("support/ant", "elsewhere"), link("support/ant", "../elsewhere")),
    ),
    "a picture elsewhere": OddInput(
        together(
            moved("support/ant/1.png", "elsewhere.png"),
            link("support/ant/1.png", "../../elsewhere.png"),
        ),
    ),
    "a link to the parent": OddInput(
        link("support/ant/up", ".."),
        said=("left out: {s}/ant/up (a link to a folder that it is in)",),
    ),
    "a link to itself": OddInput(
        link("support/again", "."),
        said=("left out: {s}/again (a link to a folder that it is in)",),
    ),
    "a link to nothing": OddInput(
        link("support/ant/gone.png", "nowhere.png"),
        said=("left out: {s}/ant/gone.png (a link to nothing, or no file)",),
    ),
    "a pipe": OddInput(
        lambda root: os.mkfifo(root / "support/ant/pipe"),
        said=("left out: {s}/ant/pipe (a link to nothing, or no file)",),
    ),
    "an empty class": OddInput(
        only("support/bee"), "The class folder {s}/bee holds no image."
    ),
    "a class of hidden files": OddInput(
        only("support/bee", (".0.png", picture("bee", 1))),
        "The class folder {s}/bee holds no image.",
        said=(),
    ),
    "no classes": OddInput(
        only("support"), "{s} has no class folders: expected {s}/<class>/<image>."
    ),
    "pictures without classes": OddInput(
        only("support", ("0.png", picture("ant", 1))),
        "{s} has no class folders: expected {s}/<class>/<image>.",
    ),
    "a picture beside the classes": OddInput(
        put(("support/0.png", picture("ant", 1))),
        "{s}/0.png is in no class folder: move it into one, or away.",
    ),
    "both parts as one": OddInput(
        refused="{r} holds the folders support and query, which are no classes: give {s} as the "
        "support set and {q} as the images to classify.",
        support="{r}",
    ),
    "both parts as queries": OddInput(
        refused="{r} holds the folders support and query, which are no classes: give {s} as the "
        "support set and {q} as the images to classify.",
        query=("{r}",),
    ),
    "an archive of classes": OddInput(
        put(("support.zip", b"PK\3\4")), "{r}/support.zip is an archive: unpack it.",
        support="{r}/support.zip",
    ),
    "an archive of queries": OddInput(
        put(("query.tar.gz", b"\x1f\x8b")), "{r}/query.tar.gz is an archive: unpack it.",
        query=("{r}/query.tar.gz",),
    ),
    "a file instead of classes": OddInput(
        refused="{q}/ant_9.png is not a folder.", support="{q}/ant_9.png"
    ),
    "no support set": OddInput(refused="{r}/nowhere is not a folder.", support="{r}/nowhere"),
    "no queries": OddInput(
        refused="{r}/nowhere: there is no such file or folder.", query=("{r}/nowhere",)
    ),
    "an empty folder of queries": OddInput(only("query"), "{q} holds no image."),
    "a folder of hidden queries": OddInput(
        only("query", (".x.png", picture("ant", 1))), "{q} holds no image."
    ),
    "a pipe as query": OddInput(
        lambda root: os.mkfifo(root / "pipe"), "{r}/pipe is neither a file nor a folder.",
        query=("{r}/pipe",),
    ),
    "queries in folders of their classes": OddInput(
        together(moved("query/ant_9.png", "query/ant/ant_9.png"),
                 moved("query/bee_9.png", "query/bee/bee_9.png")),
    ),
    "queries in folders of other classes": OddInput(
        together(moved("query/ant_9.png", "query/ant/ant_9.png"),
                 moved("query/bee_9.png", "query/wasp/bee_9.png")),
        "{q}/wasp is none of the classes of the support folder (ant, bee): rename it, or put "
        "images of unknown class into one folder without class folders.",
    ),
    "files beside folders of queries": OddInput(
        moved("query/ant_9.png", "query/ant/ant_9.png"),
        said=("{q} holds files beside its class folders, as bee_9.png: all of it counts as of "
              "unknown class.",),
    ),
}  # fmt: skip

LISTS = {
    # A file that is given twice has two answers: here there are two, and three below.
    "a query twice": OddInput(query=("{q}/ant_9.png", "{q}/ant_9.png")),
    "a file and its folder": OddInput(query=("{q}/bee_9.png", "{q}")),
    "a path that goes around": OddInput(support="{r}/query/../support", query=("{q}//ant_9.png",)),
    "slashes at the end": OddInput(support="{s}//", query=("{q}/",)),
    "a pattern": OddInput(query=("{q}/*_9.png",), clients=PYTHON),
    "a pattern of nothing": OddInput(
        refused="{q}/*.jpg: there is no such file or folder.", query=("{q}/*.jpg",)
    ),
    "a name that is too long": OddInput(
        refused=f"{'x' * 300} cannot be used (File name too long).", query=("x" * 300,),
        clients=PYTHON,
    ),
    "a name of classes that is too long": OddInput(
        refused=f"{'x' * 300} cannot be used (File name too long).", support="x" * 300,
        clients=PYTHON,
    ),
    "no path": OddInput(refused="a path is needed, got nothing.", query=("",)),
    "no path of classes": OddInput(refused="a path is needed, got nothing.", support=""),
    "another one's home": OddInput(
        refused="~nobody-here/x: there is no home folder of that name: give the whole path, or ./ "
        "before a name that begins with ~.",
        query=("~nobody-here/x",),
    ),
    "another one's home of classes": OddInput(
        refused="~nobody-here/x: there is no home folder of that name: give the whole path, or ./ "
        "before a name that begins with ~.",
        support="~nobody-here/x",
    ),
}  # fmt: skip

_STEPS = {"-1": "-1", "1001": "1001", "2147483648": "2147483648"}
_NO_STEPS = {"3.5": "3.5", "many": "many", "": "nothing", " ": " ", "1e3": "1e3"}
NUMBERS = {
    **{
        f"{given or 'nothing'} updates": OddInput(
            refused=f"num_steps must be a whole number from 0 to 1000, got {said}.",
            flags={"num_steps": given},
        )
        for given, said in (_STEPS | _NO_STEPS).items()
    },
    "updates of a model that makes none": OddInput(
        refused="num_steps is for models that learn by updates; this one does not.",
        flags={"num_steps": 5},
        clients=CLIENTS,
    ),
}

NAMES = {
    **{
        f"a class {kind}": renamed(name)
        for kind, name in {
            "of two words": "two words",
            "with an accent": "\u00e9t\u00e9",
            "of another script": "\u732b",
            "with quotes": "'\"",
            "that begins with a hyphen": "--ant",
            "with a percent sign": "100%s",
            "with a backslash": "a\\nt",
            "of a number": "007",
            "in capitals": "BEE",
            "with a point": "a.png",
            "of 200 letters": "a" * 200,
            "as the answer that there is none": "none of these",
            "called support": "support",
        }.items()
    },
    "a query with spaces": OddInput(moved("query/ant_9.png", "query/ant_9 (copy 2) .png")),
    "a query with a percent sign": OddInput(moved("query/ant_9.png", "query/ant_%s%n.png")),
    "a query of another kind by its name": OddInput(moved("query/ant_9.png", "query/ant_9.jpg")),
    "a query without a kind": OddInput(moved("query/ant_9.png", "query/ant_9")),
    "a query that ends as an archive in its folder": OddInput(
        moved("query/ant_9.png", "query/ant_9.zip")
    ),
}

_PNG = encoded(np.zeros(SHAPE[:2], np.uint8))
_BAD_FILES = {
    "a text": TEXT,
    "nothing": b"",
    "spaces": b" " * 99,
    "a document": b"%PDF-1.7\n" * 9,
    "an archive": b"PK\3\4" + bytes(40),
    "a page": b"<!doctype html><html></html>\n" * 9,
    "a film": b"\0\0\0\x20ftypisom" + bytes(40),
    "the first bytes of a PNG": _PNG[:8],
    "half the head of a PNG": _PNG[:20],
    "zeros": bytes(200),
    "a vector picture": b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
}


def _bad(place, contents):
    """A file that cannot be read; `adapt.py` leaves it out, the others end: {client: case}."""
    part, path = ("s", "ant/7.png") if place % 2 else ("q", "zoo.png")
    folder = {"s": "support", "q": "query"}[part]
    named = UNREADABLE.format(part, path)
    change = put((f"{folder}/{path}", contents))
    return {
        "ends it": OddInput(change, named, clients=REFUSING),
        "is left out": OddInput(change, said=("skipped: " + named,), clients=(ADAPT,)),
    }


BAD_FILES = {
    f"{kind} as a picture {what}": entry
    for place, (kind, contents) in enumerate(_BAD_FILES.items())
    for what, entry in _bad(place, contents).items()
}

BAD = {
    "text among the support pictures": OddInput(
        put(("support/ant/2.png", TEXT)),
        UNREADABLE.format("s", "ant/2.png"),
        clients=REFUSING,
    ),
    "text among the queries": OddInput(
        put(("query/ant_1.png", TEXT)),
        UNREADABLE.format("q", "ant_1.png"),
        clients=REFUSING,
    ),
    "an empty file": OddInput(
        put(("query/ant_1.png", b"")),
        "{q}/ant_1.png is not a readable image (the file is empty). " + OFFER,
        clients=REFUSING,
    ),
    "text left out of the support set": OddInput(
        put(("support/ant/7.png", TEXT)),
        said=("skipped: " + UNREADABLE.format("s", "ant/7.png"),),
        flags={"skip_corrupt": True},
        clients=CLIENTS,
    ),
    "three files left out of the queries": OddInput(
        put(("query/ant_1.png", TEXT), ("query/ant_2", b""), ("query/zoo", b"%PDF-1.7")),
        said=tuple("skipped: " + UNREADABLE.format("q", n) for n in ("ant_1.png", "ant_2", "zoo")),
        flags={"skip_corrupt": True},
        clients=CLIENTS,
    ),
    "nothing left of a class": OddInput(
        only("support/bee", ("0.png", TEXT)),
        "None of the images of class 'bee' can be read",
        said=("skipped: " + UNREADABLE.format("s", "bee/0.png"),),
        flags={"skip_corrupt": True},
    ),
    "nothing left of the queries": OddInput(
        only("query", ("0.png", TEXT)),
        "None of the images to classify can be read",
        said=("skipped: " + UNREADABLE.format("q", "0.png"),),
        flags={"skip_corrupt": True},
    ),
}

TABLE = WORTH_LITTLE | FOLDERS | LISTS | NUMBERS | NAMES | BAD_FILES | BAD
