"""Tests the page in a real browser: it classifies pictures right, and asks no other server."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from browser import (
    IS_MISSING,
    NEEDED,
    SECONDS,
    allow_camera,
    asked_for_elsewhere,
    needs_browser,
    open_browser,
    until,
)
from golden import EPISODE, MODEL
from gradio.components.gallery import GalleryData, GalleryImage
from gradio.data_classes import ImageData
from gradio.routes import App
from odd_pictures import PICTURES
from PIL import Image, ImageOps
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from starlette.testclient import TestClient

from tf_metalstm import demo
from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.data.sources.file_source import IMAGE_SUFFIXES
from tf_metalstm.demo import build_page, main
from tf_metalstm.loaded_model import load_model

CROSS = [[(-70, -70), (70, 70)], [(70, -70), (-70, 70)]]
BARS = [[(-80, -50), (80, -50)], [(-80, 50), (80, 50)]]


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    """Returns the address of the page. The real command serves it with the golden model."""
    if IS_MISSING:
        pytest.fail(NEEDED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tf_metalstm.demo", "--model", MODEL, "--port", str(port)]
    log = tmp_path_factory.mktemp("demo") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file)
    try:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(6 * SECONDS):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def driver(page_url, tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver, page_url):
    """Opens the page in its own tab."""
    before = driver.current_window_handle
    driver.switch_to.new_window("tab")
    driver.get(page_url)
    until(driver, lambda d: d.find_element(By.CSS_SELECTOR, "#canvas canvas"))
    yield driver
    driver.close()
    driver.switch_to.window(before)


def click(driver, name):
    until(driver, lambda d: d.find_element(By.ID, name)).click()


def click_button(driver, where, label):
    buttons = {
        button.get_attribute("aria-label"): button
        for button in driver.find_elements(By.CSS_SELECTOR, f"{where} button")
    }
    assert label in buttons, sorted(map(str, buttons))
    buttons[label].click()


def rename(driver, number, name):
    box = driver.find_element(By.CSS_SELECTOR, f"#name_{number} input, #name_{number} textarea")
    box.clear()
    box.send_keys(name)


def thumbnails(driver, number):
    return driver.find_elements(By.CSS_SELECTOR, f"#pictures_{number} .grid-container img")


def drop(driver, where, files):
    field = until(driver, lambda d: d.find_element(By.CSS_SELECTOR, f"#{where} input[type=file]"))
    field.send_keys("\n".join(map(str, files)))


def adapt(driver, num_classes):
    click(driver, "adapt")
    until(driver, lambda d: f"{num_classes} classes" in d.find_element(By.ID, "report").text)


def answer_is(driver, expected):
    """Waits for the answer: the most probable class, then all classes with their shares."""

    def lines(d):
        return d.find_element(By.ID, "answer").text.splitlines()[1:]

    until(driver, lambda d: lines(d)[0] == expected)
    found = lines(driver)[1:]
    shares = dict(zip(found[::2], (int(x.rstrip("%")) for x in found[1::2]), strict=True))
    assert max(shares, key=shares.get) == expected
    assert abs(sum(shares.values()) - 100) <= 3
    return shares


def draw(driver, strokes):
    canvas = driver.find_element(By.CSS_SELECTOR, "#canvas canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    for (x, y), (to_x, to_y) in strokes:
        pen = ActionChains(driver, duration=20).move_to_element_with_offset(canvas, x, y)
        pen.click_and_hold().move_by_offset(to_x - x, to_y - y).release().perform()


@needs_browser
def test_pictures_that_are_dropped_are_told_apart(browser):
    folders = sorted((EPISODE / "support").iterdir())[:3]
    for number, folder in enumerate(folders, 1):
        rename(browser, number, folder.name)
        drop(browser, f"pictures_{number}", sorted(folder.iterdir()))
        until(browser, lambda d, n=number: len(thumbnails(d, n)) == 5)
    adapt(browser, 3)
    assert "15 pictures in 5 updates" in browser.find_element(By.ID, "report").text
    until(browser, lambda d: d.find_element(By.CSS_SELECTOR, "#figure img"))
    for folder in folders:
        [query, *_] = sorted((EPISODE / "query" / folder.name).iterdir())
        drop(browser, "query", [query])
        assert len(answer_is(browser, folder.name)) == 3
        click_button(browser, "#query", "Remove Image")
        until(browser, lambda d: not d.find_elements(By.CSS_SELECTOR, "#query img"))
    assert not list(asked_for_elsewhere(browser))


@needs_browser
def test_drawings_are_told_apart(browser):
    for number, (name, strokes) in enumerate({"cross": CROSS, "bars": BARS}.items(), 1):
        rename(browser, number, name)
        for drawn in (1, 2):
            draw(browser, strokes)
            click(browser, f"add_{number}")
            until(browser, lambda d, n=number, k=drawn: len(thumbnails(d, n)) == k)
    adapt(browser, 2)
    for name, strokes in (("cross", CROSS), ("bars", BARS)):
        click(browser, "clear")
        draw(browser, strokes)
        click(browser, "ask")
        assert len(answer_is(browser, name)) == 2


@needs_browser
def test_the_camera_gives_pictures_of_a_class_and_to_ask_about(browser):
    """One class is a drawing, the other the camera's picture. A refusal is written on the page."""
    draw(browser, CROSS)
    click(browser, "add_1")
    until(browser, lambda d: len(thumbnails(d, 1)) == 1)
    allow_camera(browser, "denied")
    click(browser, "camera")
    refusal = "The page may not use the camera. Allow it in the browser"
    until(browser, lambda d: refusal in d.find_element(By.TAG_NAME, "body").text)
    allow_camera(browser, "granted")
    click(browser, "camera")
    until(browser, lambda d: d.find_element(By.ID, "camera").text == "Stop the camera")
    click(browser, "add_2")
    until(browser, lambda d: len(thumbnails(d, 2)) == 1)
    adapt(browser, 2)
    click(browser, "ask")
    assert len(answer_is(browser, "class 2")) == 2
    click(browser, "camera")
    until(browser, lambda d: d.find_element(By.ID, "camera").text == "Use the camera")
    click(browser, "ask")
    until(browser, lambda d: "The canvas is empty" in d.find_element(By.TAG_NAME, "body").text)


@needs_browser
@pytest.mark.parametrize(
    ("button", "draws", "message"),
    [
        ("ask", False, "The canvas is empty: draw something first."),
        ("add_1", False, "The canvas is empty: draw something first."),
        ("ask", True, "The model has not adapted yet: press Adapt first."),
        ("adapt", False, "Add pictures to at least two classes."),
    ],
)
def test_what_is_wrong_is_said_on_the_page(browser, button, draws, message):
    if draws:
        draw(browser, CROSS)
    click(browser, button)
    until(browser, lambda d: message in d.find_element(By.TAG_NAME, "body").text)


def test_a_port_that_is_taken_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"--port={port} cannot be used .* give another"):
            main(["--model", str(MODEL), "--port", str(port)])


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**9])
def test_what_is_no_port_is_said(port):
    with pytest.raises(SystemExit, match=f"--port={port} is not a port: give one from 1 to 65535"):
        main(["--model", str(MODEL), "--port", str(port)])


@pytest.mark.parametrize("way", ["~/my episode/support", "~/my episode/support/", "link", "~/link"])
def test_paths_are_taken_as_they_are_typed(way, tmp_path, monkeypatch):
    """Paths may have ~, blanks, a final slash or links, or be relative. Clutter is left out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EPISODE, tmp_path / "my episode")
    (tmp_path / "link").symlink_to("my episode/support")
    (tmp_path / "model").symlink_to(MODEL)
    (tmp_path / "my episode/support/@eaDir").mkdir()
    found = demo._examples(way, 5)
    assert list(found) == sorted(path.name for path in (EPISODE / "support").iterdir())
    assert all(len(files) == 5 for files in found.values())
    assert load_model("~/model") is load_model(MODEL)
    with pytest.raises(ValueError, match="--examples=~nobody-here: there is no home folder"):
        demo._examples("~nobody-here", 5)


def test_a_model_that_is_not_there_and_examples_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a model"):
        build_page(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"--examples .* is not a folder"):
        build_page(MODEL, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="a folder for each class, 1 to 5; it has 0"):
        build_page(MODEL, tmp_path)


def test_a_picture_that_is_dropped_is_decoded_as_all_others(tmp_path):
    """The page gets the file as it was dropped, whatever its kind. Bad files cause a message."""
    support = sorted((EPISODE / "support").glob("*/*.png"))
    classifier = FewShotClassifier(MODEL).fit(support, [path.parent.name for path in support])
    query = sorted((EPISODE / "query").glob("*/*.png"))[0]
    with Image.open(query) as image:
        moving = tmp_path / "moving.webp"
        frames = [image.convert("RGB"), ImageOps.invert(image.convert("RGB"))]
        frames[0].save(moving, save_all=True, append_images=frames[1:], lossless=True)
    expected = demo._ask(classifier, query.read_bytes())
    assert demo._ask(classifier, str(moving)) == pytest.approx(expected, abs=1e-5)
    said = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(demo.gr, "Warning", said.append)
        demo._guarded(demo._ask)(classifier, b"text")
        demo._guarded(demo._ask)(classifier, str(tmp_path / "gone.png"))
        (tmp_path / "bad.png").write_bytes(b"text")
        files = [tmp_path / "bad.png", query]
        demo._guarded(classifier.fit)(files, ["a", "b"])
    assert said.pop().endswith("Remove such pictures from the page.")
    assert "is not a readable image" in said[0]
    assert "gone.png" in said[1]


@pytest.mark.filterwarnings("ignore:.* blank:tf_metalstm.classifier.ImagesWarning")
def test_odd_pictures_are_answered_or_refused_as_elsewhere(monkeypatch):
    """What is dropped arrives as it is. What other clients refuse is refused in their words."""
    said = []
    monkeypatch.setattr(demo.gr, "Warning", said.append)
    support = sorted((EPISODE / "support").glob("*/000.png"))
    classifier = FewShotClassifier(MODEL).fit(support, [path.parent.name for path in support])
    read = [picture for picture in PICTURES if picture.refused is None]
    rows = classifier.predict_proba([picture.encoded for picture in read])
    expected = {picture.name: row for picture, row in zip(read, rows, strict=True)}
    assert len(np.unique(np.round(rows, 3), axis=0)) > 5  # the pictures have different answers
    page = build_page(MODEL)
    page.max_file_size = None  # else `launch` sets it
    client = TestClient(App.create_app(page, app_kwargs=demo.app_arguments(["testserver"])))
    [query] = [block for block in page.blocks.values() if block.elem_id == "query"]
    for picture in PICTURES:
        files = [("files", ("odd.png", picture.encoded))]
        [path] = client.post("/gradio_api/upload", files=files).json()
        given = query.preprocess(ImageData(path=path, orig_name="odd.png"))
        assert pathlib.Path(given).read_bytes() == picture.encoded, picture.name
        said.clear()
        answer = demo._guarded(demo._ask)(classifier, given)
        if picture.refused is None:
            assert list(answer) == classifier.classes_.tolist(), (picture.name, said)
            row = list(answer.values())
            np.testing.assert_allclose(row, expected[picture.name], atol=1e-5)
            continue
        [sentence] = said
        assert sentence.startswith("odd.png is not a readable image ("), picture.name
        assert picture.refused in sentence


def test_a_class_takes_every_kind_of_file():
    page = build_page(MODEL)
    [gallery] = [block for block in page.blocks.values() if block.elem_id == "pictures_1"]
    files = [f"{folder}/odd{suffix}" for folder in "ab" for suffix in IMAGE_SUFFIXES]
    given = GalleryData([GalleryImage(image=ImageData(path=file)) for file in files])
    assert demo._files(gallery.preprocess(given)) == files


def test_what_answers_are_worth_is_said_on_the_page(monkeypatch):
    """Warnings about pictures are on the page, for galleries and drops, and name the files."""
    said = []
    monkeypatch.setattr(demo.gr, "Warning", said.append)
    folders = sorted((EPISODE / "support").iterdir())[:2]
    one, other = ([(str(file), None) for file in sorted(f.iterdir())[:2]] for f in folders)
    loaded = load_model(MODEL)
    fitted = [demo._adapt(MODEL, loaded, 5, ("a", "b", one, more))[0] for more in (other, one)]
    assert len(said) == 1
    assert said[0].startswith("The same picture is in two classes: 000.png (b) and 000.png (a); 0")
    demo._ask(fitted[0], other[1][0])
    assert said[1].startswith(
        "1 query picture is among the support pictures: 001.png is 001.png (b)"
    )
    demo._ask(fitted[0], str(sorted(folders[0].iterdir())[3]))
    assert len(said) == 2


def test_a_wrong_answer_is_corrected_and_the_classifier_taken_along(tmp_path, monkeypatch):
    """The picture joins the class that the user chooses, and the answer changes at once."""
    said = []
    monkeypatch.setattr(demo.gr, "Warning", said.append)
    folders = sorted((EPISODE / "support").iterdir())[:3]
    first, second = ([(str(file), None) for file in sorted(f.iterdir())[:3]] for f in folders[:2])
    [asked, *_] = sorted(folders[2].iterdir())
    loaded, names = load_model(MODEL), ["a", " b ", "c"]
    learned = demo._adapt(MODEL, loaded, 5, (*names, first, second, None))
    assert "About " in learned[1]
    assert "of the answers will be right" in learned[1]
    file, before, verdict, choices = demo._answer(learned[0], str(asked), 0)
    assert (file, list(before), verdict) == (str(asked), ["a", "b"], "")
    assert choices["choices"] == ["a", "b"]
    for drawn in (str(asked), asked.read_bytes()):
        found = demo._correct(MODEL, loaded, "a", drawn, 5, 5, (*names, first, second, None))
        galleries, (classifier, report, *_), answer = found[:3], found[3:8], found[8]
        assert [one for one, _ in first] == galleries[0][:3]
        assert len(galleries[0]) == 4
        assert "7 pictures" in report
        assert answer["a"] > before["a"]
    assert said == []  # no warning about a picture that just joined a class
    demo._packed(classifier)
    archive = demo._packed(classifier)["value"]
    shutil.unpack_archive(archive, tmp_path)
    assert (tmp_path / "classifier" / "classifier.json").is_file()


def test_classes_come_and_go():
    number, *changes = demo._show(3, 4)
    assert number == 3
    columns, buttons, galleries = changes[:4], changes[4:8], changes[8:]
    for shown in (columns, buttons):
        assert [one["visible"] for one in shown] == [True, True, True, False]
    assert galleries[3] == []  # its class was removed, so it does not count


def is_shown(browser, place):
    """Whether an element is visible. A removed class may be hidden, or have no element any more."""
    return any(one.is_displayed() for one in browser.find_elements(By.ID, place))


@needs_browser
def test_the_page_is_corrected_by_a_click(browser):
    folders = sorted((EPISODE / "support").iterdir())[:3]
    for number in (5, 4, 3):
        click(browser, "fewer_classes")
        until(browser, lambda d, n=number: not is_shown(d, f"pictures_{n}"))
    click(browser, "more_classes")
    until(browser, lambda d: is_shown(d, "pictures_3"))
    for number, folder in enumerate(folders[:2], 1):
        rename(browser, number, folder.name)
        drop(browser, f"pictures_{number}", sorted(folder.iterdir())[:3])
        until(browser, lambda d, n=number: len(thumbnails(d, n)) == 3)
    adapt(browser, 2)
    until(browser, lambda d: "will be right" in d.find_element(By.ID, "report").text)
    drop(browser, "query", sorted(folders[2].iterdir())[:1])
    choices = until(browser, lambda d: d.find_elements(By.CSS_SELECTOR, "#truth input"))
    assert len(choices) == 2
    choices[1].click()
    until(browser, lambda d: len(thumbnails(d, 2)) == 4)
    until(browser, lambda d: "7 pictures" in d.find_element(By.ID, "report").text)
    assert answer_is(browser, folders[1].name)
    if os.environ.get("SCREENSHOT"):
        browser.set_window_size(1400, 1640)  # all of the page
        browser.save_screenshot(os.environ["SCREENSHOT"])
