"""Tests which hosts the page answers, and its errors when Gradio fails. Needs no browser."""

import gradio as gr
import pytest
from gradio.routes import App
from starlette.testclient import TestClient

from tf_metalstm import demo

FILES = ("/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd")


@pytest.fixture(scope="module")
def client():
    """Sends requests to an app like that of the page, with one more host name."""
    with gr.Blocks() as page:
        gr.Markdown("text")
    app = App.create_app(page, app_kwargs=demo.app_arguments(["pictures.example"]))
    return TestClient(app)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:7860",
        "localhost:7860",
        "LOCALHOST",
        "[::1]:7860",
        "pictures.example",
    ],
)
def test_it_is_there_under_its_own_names(client, host):
    assert client.get("/config", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "sub.pictures.example",
        "www.localhost",
        "a@127.0.0.1",
        "127.0.0.1, evil.example",
        "[::2]:7860",
        "",
    ],
)
def test_a_page_that_has_its_name_point_here_is_refused(client, host, path):
    answer = client.get(path, headers={"host": host}, follow_redirects=False)
    assert (answer.status_code, answer.text) == (400, "Invalid host header")


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD"])
def test_no_method_gets_past(client, method):
    answer = client.request(method, "/gradio_api/upload", headers={"host": "evil.example"})
    assert answer.status_code == 400


@pytest.fixture
def launched(monkeypatch):
    """Returns the arguments that the command gives to Gradio, and what it gets back."""
    given = {}

    class Page:
        def launch(self, **options):
            given.update(options)
            if "error" in given:
                raise given["error"]

        def block_thread(self):
            pass

    monkeypatch.setattr(demo, "build_page", lambda model, examples: Page())
    monkeypatch.setattr(demo, "_check_port", lambda port: None)
    return given


def test_the_command_serves_so(launched, capsys):
    demo.main(["--model", "m", "--allow_host", "a.example", "--allow_host", "b.example"])
    [middleware] = launched["app_kwargs"]["middleware"]
    assert middleware.kwargs["allowed_hosts"][-2:] == ["a.example", "b.example"]
    assert launched["server_name"] == "127.0.0.1"
    assert not launched["share"]
    assert not launched["ssr_mode"]
    assert "Open http://127.0.0.1:7860" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "*", "*.example", "a*b", "a.example:80", "http://a.example"])
def test_other_names_are_names(launched, capsys, name):
    with pytest.raises(SystemExit):
        demo.main(["--model", "m", f"--allow_host={name}"])
    assert (
        "--allow_host: expected a name without port and path, such as pictures.example"
        in capsys.readouterr().err
    )
    assert not launched


def test_a_page_that_does_not_answer_is_not_to_be_published(launched):
    launched["error"] = ValueError("When localhost is not accessible, a shareable link must be ...")
    with pytest.raises(SystemExit, match=r"does not answer at http://127\.0\.0\.1:7860\. If you"):
        demo.main(["--model", "m"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(2, "No such file", "cache/ab/cat.png"),
            "cat.png was deleted after an hour. ",
        ),
        (
            ValueError("cat.png is not a readable image (it is damaged)"),
            "cat.png is not a readable",
        ),
    ],
)
def test_what_is_wrong_with_a_picture_is_said_on_the_page(monkeypatch, error, said):
    warnings = []
    monkeypatch.setattr(demo.gr, "Warning", warnings.append)

    def fail():
        raise error

    assert demo._guarded(fail)() == gr.skip()
    assert warnings[0].startswith(said)
