"""The pages in a browser, opened from the disk: they draw, they switch, they sort, and ask nothing of a network."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import EASY, SMALL

from benchmarks.browser import TIMEOUT_MS, browser, chromium
from benchmarks.report_pictures import loaded
from neuralrecon.files import replacing
from neuralrecon.sweep.outcome import Outcome, Status
from neuralrecon.sweep.results import write_results
from neuralrecon.train.__main__ import cli as train

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium and no google-chrome on the PATH")


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture
def page(started: Any) -> Iterator[Any]:
    """A page that fails the test if it logs an error or asks for anything but itself and files beside it."""
    context = started.new_context(viewport={"width": 1000, "height": 800}, offline=True)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda ask: None if ask.url.startswith(("file:", "data:")) else wrong.append(ask.url))
    page.on("requestfailed", lambda ask: wrong.append(f"failed: {ask.url}"))
    yield page
    context.close()
    assert not wrong


@pytest.fixture(scope="module")
def report(sphere_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sphere"
    assert train([f"capture={sphere_folder}", f"out={out}", *SMALL, *EASY, "scene.hold_out_every=5"]) == 0
    return out / "report.html"


def shown(page: Any) -> np.ndarray:
    """The canvas as RGBA."""
    text = page.evaluate("document.getElementById('view').toDataURL('image/png')")
    with Image.open(BytesIO(base64.b64decode(text.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGBA"))


def opened(page: Any, report: Path) -> Any:
    page.goto(report.as_uri())
    loaded(page)
    return page


def after(page: Any, act: Any) -> np.ndarray:
    """What the canvas shows once something that is done to the page has been drawn."""
    frames = page.evaluate("document.getElementById('view').dataset.frames")
    act()
    # not wait_for_function: it builds its function from a text, which the page's policy refuses
    page.evaluate(
        "before => new Promise((done, fail) => { setTimeout(() => fail('nothing was drawn'), 60000); const look = () =>"
        " document.getElementById('view').dataset.frames !== before ? done() : requestAnimationFrame(look); look(); })",
        frames,
    )
    return shown(page)


# -------------------------------------------------------------------------------------------------------------- report


def test_every_section_can_be_reached_and_no_picture_is_broken(page: Any, report: Path) -> None:
    opened(page, report)
    links = page.eval_on_selector_all("nav a", "links => links.map(a => a.getAttribute('href'))")
    assert len(links) == 13
    for link in links:
        assert page.locator(f"section{link}").is_visible()
        assert page.locator(f"section{link} h2").inner_text()
    sizes = page.eval_on_selector_all("img", "all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(sizes) > 20
    assert min(sizes) > 10
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
    # only the page itself was asked for
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    )


def test_the_page_may_not_fetch_anything(started: Any, report: Path) -> None:
    """A canary: of a request that is tried the console tells, and the page's own policy refuses it."""
    page, told = started.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.goto(report.as_uri())
    refused = page.evaluate(
        "new Promise(told => { document.addEventListener('securitypolicyviolation', e => told(e.effectiveDirective));"
        " new Image().src = 'http://127.0.0.1:9/x.png'; setTimeout(() => told('none'), 5000); })"
    )
    page.close()
    assert refused == "img-src"
    assert any("127.0.0.1:9" in line for line in told)


def test_the_mesh_is_drawn_in_the_middle(page: Any, report: Path) -> None:
    canvas = shown(opened(page, report))
    covered = canvas[..., 3] > 0
    v, u = np.nonzero(covered)
    # a sphere's disc, whole, about the middle; as wide as high but for what so short a fit makes of it
    assert 0.1 < covered.mean() < 0.7
    assert 0 < v.min() < v.max() < covered.shape[0] - 1
    assert abs((v.min() + v.max()) / 2 / covered.shape[0] - 0.5) < 0.1
    assert abs((u.min() + u.max()) / 2 / covered.shape[1] - 0.5) < 0.1
    assert np.ptp(u) / np.ptp(v) == pytest.approx(1, abs=0.35)
    assert canvas[covered][:, :3].std() > 3


def test_colours_switch_and_normals_are_those_of_the_side_that_is_seen(page: Any, report: Path) -> None:
    opened(page, report)
    pictures = {"color": shown(page)}
    for name in ("grey", "normals", "error", "observed"):
        pictures[name] = after(page, lambda name=name: page.click(f"[data-layer={name}]"))
        assert page.get_attribute(f"[data-layer={name}]", "aria-pressed") == "true"
        assert page.locator("[aria-pressed=true]").count() == 1
        assert page.locator("[data-legend]:not([hidden])").count() == (name != "grey")
    names = list(pictures)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert (pictures[a] != pictures[b]).any(axis=-1).mean() > 0.02, (a, b)
    # from above, without light, all normals point up: blue
    after(page, lambda: page.click("[data-layer=normals]"))
    after(page, lambda: page.uncheck("#lit"))
    top = after(page, lambda: page.click("[data-look=top]"))
    v, u = (side // 2 for side in top.shape[:2])
    red, green, blue = top[v - 5 : v + 5, u - 5 : u + 5, :3].reshape(-1, 3).mean(axis=0)
    assert blue > 215
    assert abs(red - 127) < 45
    assert abs(green - 127) < 45


def test_it_turns_and_comes_closer(page: Any, report: Path) -> None:
    opened(page, report)
    first = after(page, lambda: page.click("[data-layer=normals]"))
    page.evaluate("document.getElementById('view').scrollIntoView({ block: 'center' })")
    box = page.locator("#view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag() -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 150, y, steps=3)
        page.mouse.up()

    turned = after(page, drag)
    assert (turned != first).any(axis=-1).mean() > 0.05
    assert (turned[..., 3] > 0).mean() == pytest.approx((first[..., 3] > 0).mean(), abs=0.1)
    page.mouse.move(x, y)
    closer = after(page, lambda: page.mouse.wheel(0, -500))
    assert (closer[..., 3] > 0).mean() > 1.3 * (turned[..., 3] > 0).mean()
    page.focus("#view")
    assert (after(page, lambda: page.keyboard.press("ArrowLeft")) != closer).any()


def test_both_colour_schemes_and_print_can_be_read(page: Any, report: Path) -> None:
    """Text against its ground: a contrast of 4.5 or more, as WCAG asks."""
    opened(page, report)

    def luminance(color: str) -> float:
        channels = np.array([float(c) for c in color[color.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ground = luminance(page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor"))
        for what in ("section h2", ".note", "nav a", ".status", "td"):
            ink = luminance(page.evaluate(f"getComputedStyle(document.querySelector({what!r})).color"))
            light, dark = max(ink, ground), min(ink, ground)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, what)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()


# ------------------------------------------------------------------------------------------------------------- gallery

SHARES = {"mug": 0.9, "box": 0.5, "can": None, "jar": 0.7, "pan": None}


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    statuses = {"mug": Status.ok, "box": Status.poor, "can": Status.failed, "jar": Status.ok}
    outcomes = {}
    for name, status in statuses.items():
        folder = tmp_path / "runs" / name
        if status != Status.failed:
            with replacing(folder / "preview.jpg") as temporary:
                Image.new("RGB", (320, 320), (90, 120, 160)).save(temporary)
            (folder / "report.html").write_text("<!doctype html><title>its report</title>")
        reasons = {"box": ("silhouette IoU 0.6",), "can": ("<b>no</b> table", "two")}.get(name, ())
        outcomes[name] = Outcome(name=name, status=status, reasons=reasons, figures={"observed_share": SHARES[name]})
    write_results(list(SHARES), outcomes, tmp_path)
    return tmp_path / "results.html"


def names(page: Any) -> list[str]:
    """Of the objects that are shown, in their order."""
    return page.eval_on_selector_all(
        "#objects tbody tr:not([hidden])", "rows => rows.map(row => row.querySelector('.name').textContent)"
    )


def test_the_gallery_sorts_by_every_figure(page: Any, gallery: Path) -> None:
    page.goto(gallery.as_uri())
    assert names(page) == ["box", "can", "jar", "mug", "pan"]
    page.select_option("#key", label="observed share")
    assert names(page) == ["box", "jar", "mug", "can", "pan"]
    page.click("#way")
    assert names(page) == ["mug", "jar", "box", "can", "pan"]  # what is not known stays last
    page.click("#form")
    page.click("th button:text-is('status')")
    assert names(page)[:2] == ["jar", "mug"] or names(page)[:2] == ["mug", "jar"]
    assert names(page)[2:] == ["box", "can", "pan"]
    assert page.get_attribute("th:nth-child(2)", "aria-sort") == "ascending"
    before = names(page)
    page.reload()  # the address keeps what was chosen
    assert names(page) == before
    assert page.locator("#objects.rows").count() == 1


def test_the_gallery_filters(page: Any, gallery: Path) -> None:
    page.goto(gallery.as_uri())
    page.click(".chips .ok")
    assert names(page) == ["box", "can", "pan"]
    page.fill("#words", "NO table")
    assert names(page) == ["can"]
    page.fill("#words", "nothing of the kind")
    assert names(page) == []
    assert page.locator("#none").inner_text() == "Nothing fits."
    page.fill("#words", "")
    page.click(".chips .ok")
    assert len(names(page)) == 5
    assert page.locator(".why b").count() == 0  # a reason is a text


def test_the_gallery_shows_pictures_and_leads_to_reports(page: Any, gallery: Path) -> None:
    page.goto(gallery.as_uri())
    sizes = page.eval_on_selector_all("img", "all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))")
    assert sizes == [320, 320, 320]
    assert page.locator("tr:has(.failed) .nothing").inner_text() == "no picture"
    hrefs = page.eval_on_selector_all(".who a", "all => [...new Set(all.map(a => a.getAttribute('href')))]")
    assert sorted(hrefs) == ["runs/box/report.html", "runs/can", "runs/jar/report.html", "runs/mug/report.html"]
    page.click("a:has-text('mug')")
    page.wait_for_url("**/runs/mug/report.html")
    assert page.title() == "its report"


def test_a_gallery_of_hundreds_stays_small(page: Any, tmp_path: Path) -> None:
    outcomes = {
        f"n{i:03d}": Outcome(name=f"n{i:03d}", status=Status.ok, figures={"psnr_db": float(i % 7)}) for i in range(500)
    }
    write_results(list(outcomes), outcomes, tmp_path)
    assert (tmp_path / "results.html").stat().st_size < 1_500_000
    page.goto((tmp_path / "results.html").as_uri())
    page.select_option("#key", label="PSNR dB")
    assert len(names(page)) == 500
    assert names(page)[0] == "n000"
