"""A page to try a trained model: python -m tf_metalstm.demo --model=...

Name some classes, give a few pictures of each, and let the model adapt to them. The page then
estimates the accuracy. Give other pictures to see the answers, correct wrong answers, and download
the adapted classifier. Pictures are drawn, dropped, or taken with the camera. The model is an
export or a run. The page runs on this machine, only for this machine, and needs no network. It only
answers requests for a name of this machine, so that other web pages cannot read it. It needs
Gradio: pip install 'tf_metalstm[demo]'.
"""

from __future__ import annotations

import argparse
import base64
import functools
import io
import os
import re
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

# Before Gradio is imported: Gradio must not send anything.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from matplotlib.figure import Figure
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tf_metalstm import ctrl_c, shipped
from tf_metalstm.classifier import FewShotClassifier, ImagesWarning
from tf_metalstm.data.sources.file_source import IMAGE_SUFFIXES
from tf_metalstm.data.sources.folders import files_below, is_clutter
from tf_metalstm.files import given_path
from tf_metalstm.loaded_model import LoadedModel, load_model
from tf_metalstm.serving.given_images import OFFER
from tf_metalstm.visualization.figures import adaptation_figure
from tf_metalstm.visualization.traces import with_weight_decay

_OWN_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_MOST_UPDATES = 30
_MOST_CLASSES = 20  # columns of the page, for a model of any number of classes
_FIRST_CLASSES = 5  # columns that are shown first
_FALSE_ALARMS = 5  # percent
_CAMERA = {"off": "Use the camera", "on": "Stop the camera"}  # the button in each state
_CANVAS = "<canvas width='280' height='280'></canvas>"
_STYLE = """
#canvas canvas {border: 2px solid #8884; border-radius: 8px; background: white; width: 280px;
                height: 280px; cursor: crosshair; touch-action: none; display: block; margin: auto}
.pictures .grid-container {grid-template-columns: repeat(3, minmax(0, 1fr)) !important;
                           grid-auto-rows: min-content !important}
.pictures .grid-container button {aspect-ratio: 1; min-width: 0}
.pictures .grid-wrap {padding-top: 26px}
#query img {min-height: 110px; image-rendering: pixelated}
#answer .output-class {font-size: 1.3rem; overflow-wrap: anywhere; padding: 1.6rem 0 .4rem}
"""
# Fonts of the machine, because those of Gradio come from the network.
_THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build_page(
    model: str | os.PathLike[str], examples: str | os.PathLike[str] | None = None
) -> gr.Blocks:
    """Returns the page for a model.

    Args:
        model: a model, as for `FewShotClassifier.load`.
        examples: a folder with a folder of pictures for each class, which are shown first.

    Raises:
        FileNotFoundError: the model or the examples do not exist.
        ValueError: they do not fit together, or the model takes numbers.
    """
    loaded = load_model(model)
    most = loaded.num_way or _MOST_CLASSES
    start = _examples(examples, most) if examples is not None else {}
    shown = max(len(start), min(most, _FIRST_CLASSES))
    start |= {f"class {i + 1}": [] for i in range(len(start), most)}
    # Every ten minutes Gradio deletes pictures that are more than an hour old.
    with gr.Blocks(
        title="Few-shot learning", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        gr.Markdown(_introduction(loaded))
        adapted, asked, drawing = gr.State(None), gr.State(None), gr.Textbox(visible=False)
        number = gr.State(shown)
        with gr.Row():
            columns, names, galleries = zip(
                *(
                    _class_column(place, name, pictures, place <= shown)
                    for place, (name, pictures) in enumerate(start.items(), 1)
                ),
                strict=True,
            )
        with gr.Row():
            more = gr.Button("Add a class", size="sm", elem_id="more_classes")
            fewer = gr.Button("Remove a class", size="sm", elem_id="fewer_classes")
        with gr.Row():
            with gr.Column():
                gr.Markdown(
                    "Draw a picture or use the camera. Then add the picture to a class or ask "
                    "about it."
                )
                gr.HTML(_CANVAS, elem_id="canvas")
                with gr.Row():
                    adders = [
                        gr.Button(
                            f"Add to {i}",
                            size="sm",
                            min_width=40,
                            elem_id=f"add_{i}",
                            visible=i <= shown,
                        )
                        for i in range(1, most + 1)
                    ]
                with gr.Row():
                    camera = gr.Button(_CAMERA["off"], elem_id="camera")
                    clear = gr.Button("Clear", elem_id="clear")
                    ask = gr.Button("What is this?", elem_id="ask")
            with gr.Column():
                adapt = gr.Button("Adapt", variant="primary", elem_id="adapt")
                steps = _steps_slider(loaded)
                alarms = gr.Slider(
                    0,
                    20,
                    _FALSE_ALARMS,
                    step=1,
                    label="None of these",
                    info="Percent of pictures of your classes that may be refused by mistake; 0: "
                    "no picture is refused.",
                    elem_id="alarms",
                )
                query = gr.Image(
                    label="Drop a picture to ask about",
                    sources=["upload", "clipboard"],
                    height=200,
                    elem_id="query",
                )
                query.preprocess = _as_dropped  # type: ignore[assignment]
                verdict = gr.Markdown(elem_id="verdict")
                answer = gr.Label(label="Answer", elem_id="answer")
                truth = gr.Radio(
                    [],
                    label="Wrong? Choose the right class: the picture is added to it.",
                    visible=False,
                    elem_id="truth",
                )
            with gr.Column():
                report = gr.Markdown("The model has not adapted yet.", elem_id="report")
                figure = gr.Plot(show_label=False, elem_id="figure")
                pack = gr.Button("Prepare a download", visible=False, elem_id="pack")
                download = gr.DownloadButton(
                    "Download classifier.zip", visible=False, elem_id="download"
                )
        for gallery, adder in zip(galleries, adders, strict=True):
            # The script replaces the second input by the drawing.
            adder.click(
                _guarded(_add), [gallery, drawing], gallery, js="(g, _) => [g, takeDrawing()]"
            ).success(None, js="clearDrawing")
        clear.click(None, js="clearDrawing")
        camera.click(
            _guarded(_camera_button), drawing, camera, js="async () => [await switchCamera()]"
        )
        of_classes = [number, *columns, *adders, *galleries]
        more.click(lambda now: _show(min(now + 1, most), most), number, of_classes)
        fewer.click(lambda now: _show(max(now - 1, 2), most), number, of_classes)
        inputs = [steps, *names, *galleries]
        learned = [adapted, report, figure, pack, download]
        said = [answer, verdict, truth]
        adapt.click(
            _guarded(lambda steps, *classes: _adapt(model, loaded, steps, classes)),
            inputs,
            [*learned, answer],
        ).success(lambda: (None, "", gr.update(visible=False)), None, [asked, verdict, truth])
        ask.click(
            _guarded(lambda known, drawn, alarms: _answer(known, _drawing(drawn), alarms)),
            [adapted, drawing, alarms],
            [asked, *said],
            js="(a, _, n) => [a, takeDrawing(), n]",
        )
        query.upload(_guarded(_answer), [adapted, query, alarms], [asked, *said])
        pack.click(_guarded(_packed), adapted, download)
        truth.input(
            _guarded(
                lambda name, asked, alarms, steps, *classes: _correct(
                    model, loaded, name, asked, alarms, steps, classes
                )
            ),
            [truth, asked, alarms, *inputs],
            [*galleries, *learned, *said],
        )
    return page


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that shows errors on the page and then changes nothing else."""

    @functools.wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except FileNotFoundError as error:
            name = _missing(error)
            gr.Warning(
                f"{name} was deleted after an hour. Remove it from the page and add it again."
            )
        except (OSError, ValueError) as error:
            # There is no such argument here, and paths are those of copies.
            text = str(error).replace(OFFER, "Remove such pictures from the page")
            gr.Warning(_without_folders(text))
        return gr.skip()

    return guarded


def _as_dropped(picture: ImageData | None) -> str | None:
    """Returns the file of a picture as it was dropped, which the classifier decodes or refuses.

    Gradio would open it first, and refuse in its own words what is no picture.
    """
    return None if picture is None else picture.path


def _missing(error: BaseException | None) -> str:
    """Returns the name of the missing file in an error or its cause."""
    while error is not None:
        if getattr(error, "filename", None):
            return Path(error.filename).name  # type: ignore[attr-defined]
        error = error.__cause__
    return "A picture"


def _say(remarks: Iterable[str]) -> None:
    """Shows warnings about pictures on the page, with names instead of paths."""
    for remark in remarks:
        gr.Warning(_without_folders(remark))


def _without_folders(text: str) -> str:
    """Returns a text with names of files instead of paths."""
    return re.sub(r"(?:/[^/\s]+)+/(?=[^/\s])", "", text)


def _introduction(loaded: LoadedModel) -> str:
    height, width, channels = loaded.image_shape
    kind = "color" if channels == 3 else "gray"
    return (
        "# Teach the model your classes\n"
        f"The model learns up to {loaded.num_way or _MOST_CLASSES} classes from a few pictures of "
        f"each. Pictures of any size are resized to {height} x {width} pixels, {kind}. Name at "
        "least two classes, draw or drop pictures of each, and press **Adapt**. Then ask about "
        "other pictures."
    )


def _class_column(
    number: int, name: str, pictures: list[str], visible: bool
) -> tuple[gr.Column, gr.Textbox, gr.Gallery]:
    with gr.Column(min_width=150, visible=visible) as column:
        return (
            column,
            gr.Textbox(name, label=f"Class {number}", max_lines=1, elem_id=f"name_{number}"),
            gr.Gallery(
                pictures,
                show_label=False,
                format="png",
                file_types=["image", *IMAGE_SUFFIXES],
                sources=["upload", "clipboard"],
                columns=3,
                height=200,
                object_fit="contain",
                interactive=True,
                buttons=[],
                elem_id=f"pictures_{number}",
                elem_classes="pictures",
            ),
        )


def _steps_slider(loaded: LoadedModel) -> gr.Slider:
    learns_by_updates = loaded.num_steps is not None
    return gr.Slider(
        0,
        max(_MOST_UPDATES, loaded.num_steps or 0),
        loaded.num_steps or 0,
        step=1,
        label="Updates",
        visible=learns_by_updates,
        elem_id="steps",
    )


def _examples(folder: str | os.PathLike[str], num_way: int) -> dict[str, list[str]]:
    """Returns the pictures of each class by its name."""
    root = given_path(folder, "--examples")
    if not root.is_dir():
        raise FileNotFoundError(f"--examples {folder} is not a folder.")
    pictures = {
        one.name: [str(file) for file in files_below(one) if file.suffix.lower() in IMAGE_SUFFIXES]
        for one in sorted(root.iterdir())
        if one.is_dir() and not is_clutter(PurePath(one.name))
    }
    if not 1 <= len(pictures) <= num_way:
        raise ValueError(
            f"--examples {folder} must have a folder for each class, 1 to {num_way}; it has "
            f"{len(pictures)}."
        )
    return pictures


def _script() -> str:
    """Returns the part of the page that runs in the browser."""
    camera = shipped.folder(shipped.CLIENTS) / "page" / "camera.js"
    files = [camera, Path(__file__).with_name("demo.js")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return f'<script type="module">\n{code}</script>'


def _camera_button(state: str) -> str:
    """Returns the label of the button; the state is "on", "off", or why there is no camera."""
    if state not in _CAMERA:
        raise ValueError(state)
    return _CAMERA[state]


def _drawing(data_url: str) -> bytes:
    """Returns the drawing on white, as a PNG file."""
    drawn = Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))).convert("RGBA")
    if drawn.getbbox() is None:
        raise ValueError("The canvas is empty: draw something first.")
    drawn = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    png = io.BytesIO()
    drawn.convert("RGB").save(png, format="PNG")
    return png.getvalue()


def _add(pictures: list | None, data_url: str) -> list:
    return [*_files(pictures), Image.open(io.BytesIO(_drawing(data_url)))]


def _files(gallery: list | None) -> list[str]:
    return [file for file, _ in gallery or []]


def _show(number: int, most: int) -> list[Any]:
    """Returns the number of classes to show, and the updates of columns, buttons, galleries."""
    visible = [gr.update(visible=place < number) for place in range(most)]
    galleries = [gr.skip() if place < number else [] for place in range(most)]
    return [number, *visible, *visible, *galleries]


def _adapt(
    model: str | os.PathLike[str], loaded: LoadedModel, steps: int, classes: Sequence[Any]
) -> tuple[FewShotClassifier, str, Figure | None, Any, Any, None]:
    """Adapts to the names and, after them, the galleries of all classes."""
    half = len(classes) // 2
    named = [
        (name.strip(), _files(gallery))
        for name, gallery in zip(classes[:half], classes[half:], strict=True)
        if gallery
    ]
    names = [name for name, _ in named]
    if len(named) < 2:
        raise ValueError("Add pictures to at least two classes.")
    if "" in names or len(set(names)) < len(names):
        raise ValueError("Every class with pictures needs its own name.")
    files = [file for _, files in named for file in files]
    labels = [name for name, files in named for _ in files]
    num_steps = None if loaded.num_steps is None else int(steps)
    with warnings.catch_warnings(action="ignore", category=ImagesWarning):
        classifier = FewShotClassifier(model, num_steps=num_steps, calibrated=True)
        classifier.fit(files, labels)
    _say(classifier.remarks_)
    losses = getattr(classifier, "support_losses_", np.zeros([0]))
    updates = f" in {len(losses)} updates" if len(losses) else ""
    report = [
        f"Learned **{len(named)} classes** from **{len(files)} pictures**{updates}.",
        *map(_without_folders, classifier.estimate_in_words()),
    ]
    figure = (
        adaptation_figure(losses, with_weight_decay(classifier.trace_)) if len(losses) else None
    )
    buttons = gr.update(visible=True), gr.update(visible=False)
    return classifier, "\n\n".join(report), figure, *buttons, None


def _packed(classifier: FewShotClassifier) -> Any:
    """Shows the button that downloads the adapted classifier, an archive."""
    folder = Path(tempfile.mkdtemp())
    classifier.save(folder / "classifier")
    archive = shutil.make_archive(str(folder / "classifier"), "zip", folder, "classifier")
    shutil.rmtree(folder / "classifier")
    return gr.update(value=archive, visible=True)


def _ask(
    classifier: FewShotClassifier | None, file: bytes | str, is_known: bool = False
) -> dict[str, float]:
    """Returns the answer to a picture; says its remarks, unless the user just gave its class."""
    if classifier is None:
        raise ValueError("The model has not adapted yet: press Adapt first.")
    if not is_known:
        _say(classifier.remarks([file]))
    with warnings.catch_warnings(action="ignore", category=ImagesWarning):
        probabilities = classifier.predict_proba([file])[0]
    return dict(zip(classifier.classes_.tolist(), probabilities.tolist(), strict=True))


def _answer(
    classifier: FewShotClassifier | None,
    file: bytes | str,
    percent: float,
    is_known: bool = False,
) -> tuple[bytes | str, dict[str, float], str, Any]:
    """Returns the query, the answer, whether it is none of these, and the choices."""
    answer = _ask(classifier, file, is_known)
    verdict = ""
    if classifier is not None and percent:
        with warnings.catch_warnings(action="ignore", category=ImagesWarning):
            [label] = classifier.predict([file], none_of_these=percent / 100)
        if label is None:
            verdict = (
                f"**None of these**: under {percent:g} % of the pictures of these classes are as "
                "different from all of them."
            )
    choices = gr.update(choices=list(answer), value=None, visible=True)
    return file, answer, verdict, choices


def _correct(
    model: str | os.PathLike[str],
    loaded: LoadedModel,
    name: str,
    asked: bytes | str,
    percent: float,
    steps: int,
    classes: Sequence[Any],
) -> list[Any]:
    """Adds the query to a class, adapts, and asks again."""
    half = len(classes) // 2
    place = [one.strip() for one in classes[:half]].index(name)
    galleries: list[list[tuple[Any, None]]] = [
        [(file, None) for file in _files(gallery)] for gallery in classes[half:]
    ]
    galleries[place].append((asked, None))
    *learned, _ = _adapt(model, loaded, steps, (*classes[:half], *galleries))
    _, answer, verdict, choices = _answer(learned[0], asked, percent, is_known=True)
    shown: list[Any] = [gr.skip()] * half
    is_file = isinstance(asked, str)
    picture = asked if is_file else Image.open(io.BytesIO(asked))  # type: ignore[arg-type]
    shown[place] = [*_files(classes[half + place]), picture]
    return [*shown, *learned, answer, verdict, choices]


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_metalstm.demo",
        description="A page in the browser to try a trained model on pictures of your own.",
    )
    parser.add_argument(
        "--model", required=True, help="the folder of an exported model or of a run"
    )
    parser.add_argument("--examples", help="a folder with a folder of pictures for each class")
    parser.add_argument("--port", type=int, default=7860, help="port of this machine, 1 to 65535")
    parser.add_argument(
        "--allow_host",
        action="append",
        type=_host_name,
        default=[],
        metavar="NAME",
        help="another host name of the page, for example behind a proxy; may be repeated",
    )
    return parser


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise argparse.ArgumentTypeError(
            f"expected a name without port and path, such as pictures.example, got {text!r}"
        )
    return text


def app_arguments(allowed: Sequence[str] = ()) -> dict[str, Any]:
    """Returns arguments of Gradio's app that make it refuse requests for other host names.

    Otherwise another web page could let its name point to this machine (DNS rebinding) and read
    the page.

    Args:
        allowed: names besides those of this machine, without ports.
    """
    hosts = [*_OWN_HOSTS, *allowed]
    return {
        "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)]
    }


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise ValueError(f"--port={port} is not a port: give one from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise OSError(f"--port={port} cannot be used ({error}): give another.") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves the page until it is stopped."""
    options = parser().parse_args(arguments)
    url = f"http://127.0.0.1:{options.port}"
    try:
        _check_port(options.port)
        page = build_page(options.model, options.examples)
        page.launch(
            server_name="127.0.0.1",
            server_port=options.port,
            app_kwargs=app_arguments(options.allow_host),
            ssr_mode=False,  # else another server would answer first
            show_error=True,
            footer_links=[],
            share=False,  # even if the environment asks for it
            theme=_THEME,
            css=_STYLE,
            head=_script(),
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"Open {url} in a browser. Ctrl-C ends it.", flush=True)
        page.block_thread()
    except (OSError, ValueError) as error:
        if "localhost is not accessible" in str(error):  # Gradio advises to publish the page
            sys.exit(
                f"The page does not answer at {url}. If you use a proxy, set NO_PROXY=127.0.0.1. "
                "If the machine is busy, try again."
            )
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    with ctrl_c.in_one_sentence():
        main()
