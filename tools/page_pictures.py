"""Photograph the page for the documents: four states, each as a person comes to it, with the example patients.

``python -m tools.page_pictures`` in the project's folder, after ``make pull``, builds the static site, opens it in
Chromium and writes ``PICTURES`` into docs/images. Nothing depends on the model's scores: what is corrected is found
where it is most wrong. What is looked for is that a reader sees all of it, so look at each picture afterwards.
"""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage, spatial

from brainseg import errors, files
from brainseg.errors import MachineError
from brainseg.inference.outlining import Outliner
from brainseg.io.sequences import FLAIR
from tools import build_site, example_patients, hosting
from tools.example_patients import PIXEL, Patient

FOLDER = Path("docs/images")
MOST_BYTES = 350_000
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COLOURS = (256, 224, 192, 160, 128, 96, 64)  # tried until a picture is small enough
# White, found, false, missed, both outlines, what is chosen: small places of them are not among the commonest colours.
KEPT = ((255, 255, 255), (86, 180, 233), (213, 94, 0), (240, 228, 66), (255, 92, 51), (86, 214, 255), (0, 99, 156))
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
OPACITY = 55  # percent, of found, false and missed
SECONDS = 1200  # that a step may take: of a busy machine little may be left
# Heights at which nothing is half under the bar of downloads.
DESK = {"viewport": {"width": 1120, "height": 748}, "device_scale_factor": 1.5}
LIST = {"viewport": {"width": 1120, "height": 800}, "device_scale_factor": 1.5}
PHONE = {"viewport": {"width": 390, "height": 886}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
WHERE = """() => {
  const {width, height} = document.querySelector('#stage').getBoundingClientRect();
  const along = (end, at, axis) => {
    const found = {};
    for (let n = 0; n < end; n++) {
      const voxel = brainseg.voxel(...at(n));
      if (voxel) (found[voxel[axis]] ??= []).push(n);
    }
    return Object.fromEntries(Object.entries(found).map(([k, all]) => [k, all.reduce((a, b) => a + b) / all.length]));
  };
  return [along(height, n => [width / 2, n], 1), along(width, n => [n, height / 2], 2)];
}"""  # the pixel of the stage in the middle of each row, and of each column, of the slice that is seen


class Wrong(NamedTuple):
    """Where an outline is most wrong: a slice, whether tumour is missed there (else it is a false alarm), where."""

    slice: int
    is_missed: bool
    where: np.ndarray


class Studio:
    """A browser that looks at the site, the patients, and a folder for the files that are opened."""

    def __init__(self, browser: Any, address: str, patients: dict[str, Patient], folder: Path):
        self.patients, self._folder = patients, folder
        self._browser, self._address = browser, address

    @contextlib.contextmanager
    def page(self, settings: dict[str, Any]) -> Iterator[Any]:
        """The site in a new window, light, with its model."""
        context = self._browser.new_context(color_scheme="light", reduced_motion="reduce", **settings)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.goto(self._address)
        page.wait_for_selector("#model-state:has-text('Computed on this computer')")
        page.wait_for_selector("body[data-ready]")
        yield page
        context.close()

    def open(self, page: Any, level: str) -> Patient:
        """Open a patient's scan and the readers' mask, and wait for the scores."""
        patient = self.patients[level]
        paths = example_patients.save(self._folder / level, patient.name, patient.images, patient.truth)
        page.set_input_files("#files", paths)
        page.wait_for_selector("#scores:visible dt")
        white = np.percentile(patient.images[..., FLAIR], 99.5)
        for slider, value in {"#width": white, "#centre": white / 2, "#opacity": OPACITY}.items():
            set_value(page, slider, round(value))
        return patient

    def cohort(self) -> Path:
        """A folder as people have them: all patients, one of them without scalp too, and a file that was cut short."""
        folder = self._folder / "cohort"
        for each in self.patients.values():
            example_patients.save(folder, each.name, each.images, each.truth)
        first = self.patients["easy"]
        bare = first.images * example_patients.brain(first)[..., None]
        scan, _ = example_patients.save(folder, f"{first.name}-brain", bare, first.truth)
        (folder / "cut-short.nii.gz").write_bytes(scan.read_bytes()[: scan.stat().st_size // 2])
        return folder


def take_planes(studio: Studio, picture: Path) -> None:
    """All planes and 3D beside the readers' mask, with scores and volumes."""
    with studio.page(DESK) as page:
        studio.open(page, "median")
        page.check("input[value=planes]", force=True)
        turn_to_scores(page)
        shoot(page, picture)


def take_phone(studio: Studio, picture: Path) -> None:
    """The same patient on a phone."""
    with studio.page(PHONE) as page:
        studio.open(page, "median")
        shoot(page, picture)


def take_correction(studio: Studio, picture: Path) -> None:
    """Half of what is wrong on a slice is painted over; the rest is still in its colour under the brush."""
    with studio.page(DESK) as page:
        patient = studio.open(page, "fails")
        wrong = find_wrong(patient)
        set_value(page, "#slice", wrong.slice + 1)
        come_closer(page, patient.truth[wrong.slice] | wrong.where)
        correct(page, patient.truth[wrong.slice], wrong)
        turn_to_scores(page)
        shoot(page, picture)


def take_list(studio: Studio, picture: Path) -> None:
    """A folder of several patients, all done."""
    with studio.page(LIST) as page:
        page.set_input_files("#folder", studio.cohort())
        page.wait_for_selector("#batch-state:has-text('All done')")
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        shoot(page, picture)


PICTURES: dict[str, Callable[[Studio, Path], None]] = {
    "page.png": take_planes,
    "page-phone.png": take_phone,
    "page-correct.png": take_correction,
    "page-list.png": take_list,
}


def find_wrong(patient: Patient) -> Wrong:
    """The largest place of one slice where the model's outline is not the readers'."""
    found = Outliner(example_patients.MODEL, threads=1).segment(patient.images).mask.astype(bool)
    best = Wrong(0, True, np.zeros(found.shape[1:], bool))
    for k, (truth, mask) in enumerate(zip(patient.truth, found, strict=True)):
        for is_missed, wrong in ((True, truth & ~mask), (False, mask & ~truth)):
            parts, count = ndimage.label(wrong)
            for part in (parts == number for number in range(1, count + 1)):
                if part.sum() > best.where.sum():
                    best = Wrong(k, is_missed, part)
    return best


def come_closer(page: Any, where: np.ndarray) -> None:
    """Bring a place of the slice that is seen into the middle of the stage, so that it fills most of it."""
    rows, columns, box = find_pixels(page)
    down, across = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[down[0]], rows[down[-1]], columns[across[0]], columns[across[-1]]
    factor = 0.62 * min(box["width"] / (right - left + 1), box["height"] / (bottom - top + 1))
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.down("Shift")
    page.mouse.move((left + right) / 2, (top + bottom) / 2)
    page.mouse.down()
    page.mouse.move(*middle, steps=5)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300 * np.log(np.clip(factor, 1, 2.5)))
    page.keyboard.up("Control")
    settle(page)


def find_pixels(page: Any) -> tuple[dict[int, float], dict[int, float], dict[str, float]]:
    """Where on the page each row and each column of the slice is that is seen; the box of the stage."""
    box = page.locator("#stage").bounding_box()
    down, across = page.evaluate(WHERE)
    return ({int(row): box["y"] + place for row, place in down.items()},
            {int(column): box["x"] + place for column, place in across.items()}, box)  # fmt: skip


def correct(page: Any, truth: np.ndarray, wrong: Wrong) -> None:
    """Paint what is missed, or erase what is false, line by line; stop halfway, the brush above what is left."""
    depth = ndimage.distance_transform_edt(truth if wrong.is_missed else ~truth)
    radius = float(np.clip(depth[wrong.where].max() / 2, 1, 7))
    page.keyboard.press("b" if wrong.is_missed else "e")
    set_value(page, "#brush", round(radius * PIXEL + 0.5))
    rows, columns, _ = find_pixels(page)
    lines = plan_lines(wrong.where & (depth >= radius), max(1, round(radius)))
    half = max(1, len(lines) // 2)
    for row, first, last in lines[:half]:
        page.mouse.move(columns[first], rows[row])
        page.mouse.down()
        page.mouse.move(columns[last], rows[row], steps=12)
        page.mouse.up()
    left = wrong.where.copy()
    left[: lines[half - 1][0] + round(radius) + 1] = False
    row, column = np.unravel_index(ndimage.distance_transform_edt(left).argmax(), left.shape)
    page.mouse.move(columns[int(column)], rows[int(row)])
    page.wait_for_selector("#edited:visible")


def plan_lines(inside: np.ndarray, step: int) -> list[tuple[int, int, int]]:
    """Lines that fill a place from above, so many rows apart: row, first and last column."""
    lines = []
    for row in np.flatnonzero(inside.any(axis=1))[::step]:
        runs, count = ndimage.label(inside[row])
        for run in (np.flatnonzero(runs == number) for number in range(1, count + 1)):
            lines.append((int(row), int(run[0]), int(run[-1])))
    return lines


def set_value(page: Any, selector: str, value: float) -> None:
    """As by hand, on a slider."""
    script = "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', {bubbles: true})) }"
    page.eval_on_selector(selector, script, str(value))


def turn_to_scores(page: Any) -> None:
    """Scroll the column at the side to the comparison."""
    page.evaluate("document.querySelector('aside').scrollTop = document.querySelector('#judge').offsetTop - 52")


def settle(page: Any) -> bytes:
    """What the page looks like once two looks at it are equal."""
    last, now = b"", page.screenshot()
    for _ in range(20):
        last, now = now, (page.wait_for_timeout(400), page.screenshot())[1]
        if last == now:
            break
    return now


def shoot(page: Any, picture: Path) -> None:
    """Keep what the page looks like, in as many colours as its size allows."""
    with files.replacing(picture) as temporary:
        whole = Image.open(io.BytesIO(settle(page))).convert("RGB")
        for colours in COLOURS:
            reduce(whole, colours).save(temporary, "PNG", optimize=True)
            if temporary.stat().st_size <= MOST_BYTES:
                return


def reduce(whole: Image.Image, colours: int) -> Image.Image:
    """Each pixel in the nearest of the commonest colours, or of ``KEPT``."""
    common = whole.quantize(colours - len(KEPT), Image.Quantize.MEDIANCUT, kmeans=5).getpalette() or []
    palette = np.array([*common[: 3 * (colours - len(KEPT))], *np.ravel(KEPT)], np.uint8).reshape(-1, 3)
    found, where = np.unique(np.asarray(whole).reshape(-1, 3), axis=0, return_inverse=True)
    nearest = spatial.cKDTree(palette.astype(float)).query(found)[1].astype(np.uint8)
    small = Image.fromarray(nearest[where.reshape(whole.height, whole.width)], "P")
    small.putpalette(palette.tobytes())
    return small


def run(folder: Path = FOLDER, names: tuple[str, ...] = tuple(PICTURES)) -> str:
    """Take the pictures; say how large they are.

    Raises:
        DataError: the examples or the model are not here. MachineError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    if not CHROMIUM:
        raise MachineError("chromium", "is not here", "install Chromium, or Chrome")
    patients = example_patients.read()
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        build_site.run(Path(made) / "site", example_patients.MODEL)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with hosting.host(Path(made) / "site") as address:
            studio = Studio(browser, address, patients, Path(made) / "files")
            for name in names:
                PICTURES[name](studio, folder / name)
        browser.close()
    sizes = [f"{name} {(folder / name).stat().st_size / 1e3:.0f} kB" for name in names]
    return f"{folder}: {', '.join(sizes)}"


if __name__ == "__main__":
    errors.run(lambda: print(run()))
