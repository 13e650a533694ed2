"""The page in a real browser: no error in its console, nothing wider than a phone, and it prints."""

import re
import shutil
import subprocess

import pytest

from influence_cli.report.document import report_document
from influence_cli.report.pages import report_page

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")]


@pytest.fixture
def page(trained, catalogue, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(report_page(report_document([trained], catalogue)))
    return path


@pytest.fixture
def open_page(tmp_path):
    def run(path, *flags):
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert console == [], console
        return done.stdout

    return run


@pytest.mark.parametrize("scheme", [0, 1])
def test_it_shows_in_light_and_dark_without_an_error(page, open_page, tmp_path, scheme):
    from PIL import Image

    shot = tmp_path / "shot.png"
    open_page(
        page, f"--screenshot={shot}", "--window-size=1280,2000", f"--blink-settings=preferredColorScheme={scheme}"
    )
    with Image.open(shot) as image:
        grey = image.convert("L")
        corner = grey.getpixel((5, 1990))
        darkest, lightest = grey.getextrema()
    assert (corner > 200) == (scheme == 1)
    assert lightest - darkest > 150, "text stands out from the page"


def test_a_script_in_a_conversation_does_not_run(page, open_page):
    probe = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    hostile = page.with_name("hostile.html")
    hostile.write_text(page.read_text().replace("Of course.", probe, 1))  # as if escaping had failed
    command = [BROWSER, *FLAGS, f"--user-data-dir={page.parent / 'other'}", "--dump-dom", hostile.as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert "<title>ran</title>" not in dumped.stdout
    assert "Content Security Policy" in dumped.stderr


def test_nothing_but_tables_is_wider_than_a_phone(page, open_page):
    measured = page.with_name("measured.html")
    script = "<script>document.documentElement.dataset.width = document.documentElement.scrollWidth;</script></body>"
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text()).replace("</body>", script)
    measured.write_text(
        f'<iframe srcdoc="{text.replace("&", "&amp;").replace(chr(34), "&quot;")}" width=400 height=900></iframe>'
    )
    probe = measured.read_text() + (
        "<script>onload = () => document.title = document.querySelector('iframe').contentDocument"
        ".documentElement.dataset.width</script>"
    )
    measured.write_text(probe)
    dumped = open_page(measured, "--dump-dom", "--window-size=1000,1000", "--virtual-time-budget=3000")
    width = re.search(r"<title>(\d+)</title>", dumped)
    assert width is not None
    assert int(width[1]) <= 400


def test_it_prints(page, open_page, tmp_path):
    pdf = tmp_path / "report.pdf"
    open_page(page, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    data = pdf.read_bytes()
    assert data.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 20
