"""preprocess compared with what a user would write: a serial loop of OpenCV over unpacked files.

The sides take turns, each run in a new process, on the canonical archive. Where there is none they use phantoms, and
nothing is recorded. Then the archive's slices are repeated, to see how time and memory grow with the data. Both sides
end with images and masks in .npy files; the pipeline also flushes them to the disk.
`make bench QUICK=1`, or QUICK=1 in the environment: on phantoms, without the repeated slices.
"""

import argparse
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import psutil
import results
from alone import alone, peak_mebibytes

from brainseg import config, errors, files
from brainseg.data import archive, preprocessing
from brainseg.data.phantom import cohort

SIZE = 256


def main() -> None:
    options, quick = _options(), os.environ.get("QUICK", "0") not in ("", "0")
    real = options.archive.exists() and not quick
    with workspace() as work:
        source = options.archive if real else work / "phantoms.zip"
        if not real:
            print(archive.write(source, cohort.pairs(config.load("phantom").phantom)))
        rows = compare(source, work, options.runs)
        if options.scale > 1 and not quick:
            grow(source, work, options.scale)
    if real:
        results.save(rows)


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder in .brainseg; those of killed runs are removed first."""
    state = files.state_dir()
    for folder in state.glob("bench-*-*"):
        if not psutil.pid_exists(int(folder.name.split("-")[1])):
            shutil.rmtree(folder)
    with tempfile.TemporaryDirectory(prefix=f"bench-{os.getpid()}-", dir=state) as folder:
        yield Path(folder)


def compare(source: Path, work: Path, runs: int) -> list[results.Row]:
    """Time the pipeline and the serial loop in turn."""
    index = archive.read_index(source)
    pairs = unpack(source, work / "unpacked")
    ours, peer = [], []
    for number in range(runs):
        ours.append(alone(measure, pipeline, source, work / "out"))
        peer.append(alone(measure, serial, pairs, work / "out"))
        print(f"run {number + 1}: pipeline {ours[-1][0]:.1f} s, serial loop {peer[-1][0]:.1f} s", flush=True)
    rates = [[len(index) / seconds for seconds, _ in side] for side in (ours, peer)]
    peaks = [[mebibytes for _, mebibytes in side] for side in (ours, peer)]
    rows = [
        results.row("preprocess_vs_serial", *rates, "slices/s", higher_is_better=True),
        results.row("preprocess_rss_mib", *peaks, "MiB", higher_is_better=False),
    ]
    results.show(rows)
    return rows


def grow(source: Path, work: Path, scale: int) -> None:
    """Print time and memory for the slices, and for ``scale`` times as many."""
    archive.require_space(work, 2 * scale * source.stat().st_size + 2**30)
    large = work / "large.zip"
    archive.write(large, repeat(source, scale))
    small = alone(measure, pipeline, source, work / "out")
    big = alone(measure, pipeline, large, work / "out")
    print(f"\n{'slices':>12}{'seconds':>12}{'ms a slice':>12}{'peak MiB':>12}")
    for path, (seconds, peak) in ((source, small), (large, big)):
        count = len(archive.read_index(path))
        print(f"{count:>12,}{seconds:>12.1f}{1000 * seconds / count:>12.2f}{peak:>12,.0f}")


def measure(function: Callable, *arguments) -> tuple[float, float]:
    """Call ``function``; return its seconds, and the peak of memory of the process in MiB."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start, peak_mebibytes()


def pipeline(source: Path, out: Path) -> None:
    preprocessing.run(source, config.Preprocess(size=SIZE, channels="all", foreground=None, window=[0.5, 99.5]), out)


def serial(pairs: list[tuple[str, str]], out: Path) -> None:
    """The loop of a typical notebook: one file after the other, everything in memory, saved at the end."""
    images, masks = [], []
    for image, mask in pairs:
        images.append(cv2.resize(cv2.imread(image), (SIZE, SIZE)))
        masks.append((cv2.resize(cv2.imread(mask, cv2.IMREAD_GRAYSCALE), (SIZE, SIZE)) > 127).astype(np.uint8))
    np.save(out / "images.npy", np.stack(images))
    np.save(out / "masks.npy", np.stack(masks))


def unpack(source: Path, folder: Path) -> list[tuple[str, str]]:
    """Write the archive's members as files; return the pairs' paths."""
    index = archive.read_index(source)
    with zipfile.ZipFile(source) as opened:
        for name in (*index["image"], *index["mask"]):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(opened.read(name))
    pairs = zip(index["image"], index["mask"], strict=True)
    return [(str(folder / image), str(folder / mask)) for image, mask in pairs]


def repeat(source: Path, times: int) -> Iterator[archive.Pair]:
    """Yield each patient ``times`` times. Copies differ in a pixel, because two patients must not share an image."""
    with zipfile.ZipFile(source) as opened:
        for patient, rows in archive.read_index(source).groupby("patient"):
            for copy in range(times):
                for row in rows.itertuples():
                    image = bytearray(opened.read(row.image))
                    image[len(image) // 2] ^= copy
                    names = Path(row.image).name, Path(row.mask).name
                    data = bytes(image), opened.read(row.mask)
                    yield archive.Pair(f"{patient}_{copy:03d}", row.institution, row.slice, *names, *data)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, default=Path("data/raw/slices.zip"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=int, default=10, help="1: without the repeated slices")
    return parser.parse_args()


if __name__ == "__main__":
    errors.run(main)
