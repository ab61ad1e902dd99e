"""Chromium for the tests of pages, with a camera that shows a moving pattern."""

import json
import os
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
IS_MISSING = not (BROWSER and DRIVER)
NEEDED = "needs chromium and chromedriver on the PATH: tools/install_browser.sh"
# In the checks before a merge, these tests must not be skipped for lack of a browser.
needs_browser = pytest.mark.skipif(IS_MISSING and os.environ.get("CI") != "true", reason=NEEDED)
BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera that shows a moving pattern
    "--host-resolver-rules=MAP pictures.example 127.0.0.1",
    "--window-size=1400,1200",
)
SECONDS = 60
ELSEWHERE = "pictures.example"
"""A host name of this machine that is not its own, for the browser."""


def open_browser(profile):
    """Starts the browser with a folder for its files."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(SECONDS)
    driver.set_script_timeout(SECONDS)
    return driver


def until(driver, condition):
    wait = WebDriverWait(driver, SECONDS, poll_frequency=0.05, ignored_exceptions=(Exception,))
    return wait.until(condition)


def allow_camera(driver, setting):
    """Sets the user's answer to the question whether pages may use the camera."""
    given = {"permission": {"name": "camera"}, "setting": setting}
    driver.execute_cdp_cmd("Browser.setPermission", given)


def asked_for_elsewhere(driver):
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "chrome")):
                yield url
