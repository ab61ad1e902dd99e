"""Tests the page that runs a classifier in the browser without our server, in a real browser."""

import base64
import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
from browser import (
    ELSEWHERE,
    IS_MISSING,
    NEEDED,
    allow_camera,
    asked_for_elsewhere,
    needs_browser,
    open_browser,
    until,
)
from export_client import FOLDER, images, lite_page, to_lite
from golden import EPISODE, MODEL
from odd_pictures import PICTURES, SHAPE, check, encode
from PIL import Image
from selenium.webdriver.common.by import By

from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.data.sources import decoding, pixels
from tf_metalstm.serving import estimate, remarks

NODE_MODULES = pathlib.Path(__file__).parents[1] / "build" / "litert_js" / "node_modules"
NO_LITERT = "needs LiteRT for the browser: tools/install_litert_js.sh"
needs_litert = pytest.mark.skipif(
    not NODE_MODULES.is_dir() and os.environ.get("CI") != "true", reason=NO_LITERT
)
GRAY, COLOR = (*SHAPE, 1), (*SHAPE, 3)
MOST_BYTES = 20_000  # larger ones are read in color alone, because it takes long
NOT_IN_BROWSERS = (b"qoif", b"II*\0", b"MM\0*")  # QOI and TIFF
NO_KIND = "it is damaged or no file of the kinds AVIF, BMP, GIF, JPEG, PNG or WEBP"
OF_PILLOW = ("", "runcated")  # damage that only a decoder finds, and says in its own words


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if IS_MISSING:
        pytest.fail(NEEDED)
    driver = open_browser(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def serve():
    """Returns a function that serves the files of a folder and returns the port."""
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    def start(folder):
        handler = functools.partial(Quiet, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def fitted():
    """Returns a classifier of three of the five classes."""
    files = sorted((EPISODE / "support").glob("*/*.png"))[:15]
    return FewShotClassifier(MODEL).fit(files, [file.parent.name for file in files])


@pytest.fixture(scope="module")
def classifier(fitted, tmp_path_factory):
    """Returns the folder where it is saved."""
    folder = tmp_path_factory.mktemp("classifier") / "mine"
    fitted.save(folder, false_alarms=0.2)
    return folder


@pytest.fixture(scope="module")
def page(classifier, tmp_path_factory):
    """Returns the folder of the page, as the command writes it."""
    if not NODE_MODULES.is_dir():
        pytest.fail(NO_LITERT)
    out = tmp_path_factory.mktemp("lite")
    given = ["--model", classifier, "--out", out, "--page", NODE_MODULES]
    assert to_lite.main([str(one) for one in given]) == 0
    return out / "page"


def text(browser, name):
    return browser.find_element(By.ID, name).text


def open_page(browser, port, host="127.0.0.1"):
    browser.get(f"http://{host}:{port}/index.html")
    until(browser, lambda d: d.find_element(By.ID, "camera").is_enabled())


def answers(browser, number):
    """Waits for answers. Returns the lines of each, in the order of the questions."""
    until(browser, lambda d: len(d.find_elements(By.CSS_SELECTOR, ".answer")) == number)
    rows = browser.find_elements(By.CSS_SELECTOR, ".answer")
    return [row.text.splitlines() for row in reversed(rows)]


@needs_litert
@needs_browser
def test_answers_are_those_of_the_saved_classifier(
    browser, serve, fitted, classifier, page, tmp_path
):
    queries = sorted((EPISODE / "query").glob("*/*.png"))
    given = np.stack([images.read_image(file, (28, 28, 1)) for file in queries])
    saved = tf.saved_model.load(str(classifier)).signatures["predict"]
    expected = {
        name: value.numpy() for name, value in saved(query_images=tf.constant(given)).items()
    }
    names = [name.decode() for name in expected["class_names"]]
    assert set(expected["none_of_these"]) == {True, False}

    (tmp_path / "no.png").write_bytes(b"%PDF-1.7")
    blank = tmp_path / "blank.bmp"
    Image.new("L", (28, 28)).save(blank)
    open_page(browser, serve(page))
    assert text(browser, "classes") == (
        f"The classes are {names[0]}, {names[1]} and {names[2]}. {fitted.estimate_in_words()[0]}"
    )
    every = [*queries, tmp_path / "no.png", blank]
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, every)))
    *found, refused, empty = answers(browser, len(every))

    for place, (label, name, *shares) in enumerate(found):
        assert name == queries[place].name
        foreign = expected["none_of_these"][place]
        assert label == ("None of these" if foreign else expected["labels"][place].decode())
        said = dict(share.removesuffix(" %").rsplit(": ", 1) for share in shares)
        wanted = dict(zip(names, 100 * expected["probabilities"][place], strict=True))
        assert {name: float(share) for name, share in said.items()} == pytest.approx(
            wanted, abs=0.06
        )
    [sentence] = refused
    assert sentence.startswith("no.png is not a readable image (it is damaged or no file of the ")
    [remark] = fitted.remarks([blank])
    assert empty[2] == remark.replace(str(blank), blank.name)
    assert not list(asked_for_elsewhere(browser))


SOMETIMES_FAILS = """
let asked = 0;
export async function loadClassifier() {
  const facts = await (await fetch("classifier.json")).json();
  const answer = async () => {
    asked += 1;
    if (asked === 1) throw new Error("no memory");
    if (asked > 2) throw 7;
    return { label: "a", probabilities: [0.75, 0.25], nearness: 1, isBlank: false };
  };
  return { facts, answer };
}
"""


@needs_browser
def test_why_a_picture_has_no_answer_is_said_and_the_others_have_theirs(browser, serve, tmp_path):
    shutil.copytree(FOLDER / "page", tmp_path / "page")
    (tmp_path / "page/classifier.js").write_text(SOMETIMES_FAILS)
    facts = {"class_names": ["a", "b"], "image_shape": [8, 8, 1], "estimate": None}
    (tmp_path / "page/classifier.json").write_bytes(
        lite_page.facts_with_sentences(json.dumps(facts).encode())
    )
    files = [tmp_path / f"{place}.png" for place in range(3)]
    for file in files:
        Image.new("L", (8, 8)).save(file)
    open_page(browser, serve(tmp_path / "page"))
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, files)))
    first, second, third = answers(browser, 3)
    assert first == ["0.png cannot be classified (no memory)"]
    assert second == ["a", "1.png", "a: 75.0 %", "b: 25.0 %"]
    assert third == ["2.png cannot be classified (7)"]
    allow_camera(browser, "granted")
    browser.find_element(By.ID, "camera").click()
    until(browser, lambda d: d.find_element(By.ID, "ask").is_displayed())
    browser.find_element(By.ID, "ask").click()
    assert answers(browser, 4)[3] == ["The picture of the camera cannot be classified (7)"]


@pytest.mark.parametrize(
    ("names", "said"),
    [("a", "The only class is a."), ("ab", "The classes are a and b."),
     ("abc", "The classes are a, b and c.")],
)  # fmt: skip
@pytest.mark.parametrize("number", [0, 8])
def test_a_page_has_the_sentences_of_python(names, said, number):
    labels = np.zeros([8], int)
    accuracy = 0.625 if number else np.nan  # Python rounds to the even number, JavaScript up
    unknown = np.full([8, len(names)], np.nan)
    found = estimate.Estimate(accuracy, 0.285, 0.875, number, 1.0, np.zeros([number]), unknown)
    facts = {"class_names": [*names], "image_shape": [8, 8, 3], "limit": None}
    facts["estimate"] = estimate.for_json(found)
    shown = json.loads(lite_page.facts_with_sentences(json.dumps(facts).encode()))
    [expected] = estimate.sentences(found, labels, [*"12345678"], [*names])
    assert shown["introduction"] == f"{said} {expected}"
    blank = remarks.look_at("a.png", None, np.zeros([8, 8, 3]))
    assert [shown["blank"].replace("{name}", "a.png")] == remarks.of_queries([], [blank])
    assert shown["blank_levels"] == 16
    assert facts.items() <= shown.items()


@needs_litert
@needs_browser
def test_the_camera_is_asked_about(browser, serve, page):
    port = serve(page)
    open_page(browser, port)
    allow_camera(browser, "denied")
    browser.find_element(By.ID, "camera").click()
    until(browser, lambda d: "The page may not use the camera. Allow it" in text(d, "says"))
    allow_camera(browser, "granted")
    browser.find_element(By.ID, "camera").click()
    until(browser, lambda d: d.find_element(By.ID, "ask").is_displayed())
    assert text(browser, "says") == ""
    browser.find_element(By.ID, "ask").click()
    [[_, name, *shares]] = answers(browser, 1)
    assert name == "The picture of the camera"
    assert len(shares) == 3
    browser.find_element(By.ID, "camera").click()
    assert not browser.find_elements(By.TAG_NAME, "video")
    assert text(browser, "camera") == "Use the camera"
    if os.environ.get("SCREENSHOT"):
        browser.save_screenshot(os.environ["SCREENSHOT"])


@needs_browser
def test_why_there_is_no_camera_is_said(browser, serve):
    """camera.js gives the reason on both pages that use it."""

    def reason(host, change=""):
        browser.get(f"http://{host}:{port}/camera.js")
        return browser.execute_async_script(
            f"{change}; const done = arguments[0];"
            "import('/camera.js').then((m) => m.openCamera()).catch((e) => done(e.message))"
        )

    port = serve(FOLDER / "page")
    refused = "{value: {getUserMedia: async () => { throw new DOMException('text', '%s') }}}"
    changed = "Object.defineProperty(navigator, 'mediaDevices', %s)"
    assert f"do not let a page of {ELSEWHERE}:{port} use the camera" in reason(ELSEWHERE)
    for change, said in {
        "{value: undefined}": "This browser cannot use a camera.",
        refused % "NotFoundError": "There is no camera. Connect one, and try again.",
        refused % "NotReadableError": "The camera cannot be read. Perhaps another program uses it",
        refused % "AbortError": "The camera cannot be used (text).",
    }.items():
        assert reason("127.0.0.1", changed % change).startswith(said)


@needs_litert
@needs_browser
def test_why_the_page_does_not_run_is_said(browser, serve, page, tmp_path):
    browser.get(f"file://{page}/index.html")
    assert "python -m http.server" in text(browser, "says")
    shutil.copytree(FOLDER / "page", tmp_path / "page")
    browser.get(f"http://127.0.0.1:{serve(tmp_path / 'page')}/")
    until(
        browser, lambda d: "The page cannot be loaded. Is the folder complete?" in text(d, "says")
    )
    shutil.copytree(page / "litert/core/dist", tmp_path / "page/litert/core/dist")
    shutil.copytree(page / "litert/wasm-utils", tmp_path / "page/litert/wasm-utils")
    browser.refresh()
    until(browser, lambda d: "(classifier.json cannot be loaded (404)). Is the" in text(d, "says"))


def read(browser, picture, shape):
    """Returns the pixels by pixels.js, [h, w, c], or the reason of its refusal."""
    found = browser.execute_async_script(
        "const [encoded, shape, done] = arguments;"
        "const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));"
        "import('/pixels.js').then((m) => m.readPixels(new Blob([bytes]), shape))"
        ".then((found) => done(Array.from(found)), (error) => done(error.message));",
        base64.b64encode(picture.encoded).decode(),
        list(shape),
    )
    return found if isinstance(found, str) else np.array(found).reshape(shape)


@needs_browser
def test_odd_pictures_become_the_same_pixels(browser, serve):
    """Pictures that Python refuses are refused in the same words, if browsers know the kind.

    Only of a damaged picture the browser may say another sentence than Pillow.
    """
    browser.get(f"http://127.0.0.1:{serve(FOLDER / 'page')}/camera.js")
    for picture in PICTURES:
        found = read(browser, picture, COLOR)
        if picture.encoded.startswith(NOT_IN_BROWSERS):
            assert found == NO_KIND, picture.name
            continue
        if picture.refused is not None:
            assert isinstance(found, str), picture.name
            said = "damaged" if picture.refused in OF_PILLOW else picture.refused
            assert said in found, (picture.name, found)
            continue
        check(picture, found, 1)
        as_trained = pixels.pixels(picture.encoded, COLOR, "odd")
        np.testing.assert_allclose(found, as_trained, atol=2, err_msg=picture.name)
        if len(picture.encoded) < MOST_BYTES:
            check(picture, read(browser, picture, GRAY), 1)


def test_the_page_knows_heic_as_python_does():
    [listed] = re.findall(r"HEIF_BRANDS = (\[.*?\])", (FOLDER / "page/pixels.js").read_text())
    assert {brand.encode() for brand in json.loads(listed)} == decoding._HEIF_BRANDS


@needs_browser
def test_pictures_are_resized_as_in_training(browser, serve):
    browser.get(f"http://127.0.0.1:{serve(FOLDER / 'page')}/camera.js")
    noise = np.random.default_rng(0).integers(0, 256, (45, 70, 3)).astype(np.uint8)
    picture = PICTURES[0]._replace(encoded=encode(Image.fromarray(noise), "PNG"))
    for shape in ((9, 9, 3), (28, 28, 1), (80, 60, 3)):
        found = read(browser, picture, shape)
        expected = pixels.pixels(picture.encoded, shape, "odd")
        np.testing.assert_allclose(found, expected, atol=1)


def test_a_method_that_lite_cannot_run_is_said(tmp_path, capsys, monkeypatch):
    """In place of the converter, which says the same in some thousand letters, and takes long."""

    def fail(*arguments):
        raise ValueError("<unknown>:0: error: Lowering tensor list ops is failed. Please consider")

    (tmp_path / "saved_model.pb").touch()
    monkeypatch.setattr(to_lite, "convert", fail)
    assert to_lite.main(["--model", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = f"error: LiteRT cannot run the model in {tmp_path}: its method has a loop, as relation "
    assert capsys.readouterr().err.startswith(said)


def test_what_a_page_needs_is_said(tmp_path, capsys):
    adapted = tmp_path / "adapted"
    adapted.mkdir()
    (adapted / "saved_model.pb").touch()
    (adapted / "classifier.json").touch()
    for model, said in {
        MODEL: f"--page needs an adapted classifier; {MODEL} was not adapted yet.",
        adapted: f"--page {tmp_path} has no LiteRT for the browser: ",
    }.items():
        given = ["--model", model, "--out", tmp_path / "out", "--page", tmp_path]
        assert to_lite.main([str(one) for one in given]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
