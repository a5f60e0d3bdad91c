"""The plausibility check on LGG and on a fixed set of images that are no axial brain MRI: limits, rates and time.

Run ``python -m benchmarks.plausibility`` in the root of the repository, after ``dvc repro preprocess split``. It uses
training and validation patients, on which the limits were set; ``--test`` adds the rates of the test patients.
``--brains`` tells whole heads of LGG from their brains alone: a file of brain masks of all slices in the order of
slices.csv, as bits (``np.packbits`` along the rows), compressed with xz.
"""

import argparse
import lzma
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from brainseg.inference import plausibility
from brainseg.inference.plausibility import SliceMeasures
from brainseg.io.sequences import CHANNELS, FLAIR
from tests.support import implausible


def main() -> None:
    options = _options()
    negatives()
    if not (options.processed / "images.npy").exists():
        return
    images = np.load(options.processed / "images.npy", mmap_mode="r")
    table = pd.read_csv(options.processed / "slices.csv").assign(subset=pd.read_csv(options.split)["subset"])
    seen = table[table["subset"] != "test"]
    looks = measure(images, seen)
    ranks = [0, 0.005, 0.05, 0.5, 0.95, 0.995, 1]
    print(looks.loc[looks["brain"], [*SliceMeasures._fields, "score"]].quantile(ranks).T.round(3).to_string())
    for channel, name in enumerate(CHANNELS):
        rates(images, seen, f"training and validation, {name} alone" if channel != FLAIR else "", channel)
    if options.test:
        rates(images, table[table["subset"] == "test"], "test", FLAIR)
    if options.brains:
        bits = np.frombuffer(lzma.decompress(options.brains.read_bytes()), np.uint8)
        brains = np.unpackbits(bits.reshape(*images.shape[:2], -1), axis=-1)
        for name, part in (
            ("training and validation", seen),
            *[("test", table[table["subset"] == "test"])] * options.test,
        ):
            rows = [slices["row"].values for _, slices in part.groupby("patient")]
            scalps(f"{name}, ", ((images[own], brains[own]) for own in rows))
    cuts(images, seen)


def measure(images: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """One row for each slice that is not empty.

    ``upper``: at or above the patient's largest cross-section, and at least half as large. ``brain``: upper, or with
    tumour. LGG does not say which slices show brain; those below the largest cross-section may show none.
    """
    rows = []
    for patient, slices in table.groupby("patient"):
        looks = [plausibility.describe(images[row]) for row in slices["row"]]
        found = pd.DataFrame([look or SliceMeasures(*[np.nan] * len(SliceMeasures._fields)) for look in looks])
        found = found.assign(patient=patient, row=slices["row"].values, tumour=slices["tumour_pixels"].values > 0)
        found["score"] = [np.nan if look is None else plausibility.score(look) for look in looks]
        heads = found[(found["level"] >= 0.3 * found["level"].max()) & (found["corners"] < 0.05)]
        largest = heads["area"].idxmax()
        upper = found.index.isin(heads.index) & (found.index >= largest)
        found["upper"] = upper & (found["area"] >= 0.5 * found["area"][largest])
        found["brain"] = found["tumour"] | found["upper"]
        rows.append(found.dropna(subset="level"))
    return pd.concat(rows, ignore_index=True)


def rates(images: np.ndarray, table: pd.DataFrame, name: str, channel: int) -> None:
    """Print the rates of marked and of refused slices and volumes."""
    slices = measure(images, table)
    verdicts = [plausibility.assess(_alone(images[row], channel)[None]) for row in slices["row"]]
    slices = slices.assign(refused=[v.refused for v in verdicts], marked=[_is_marked(v) for v in verdicts])
    print(f"\n{name or 'training and validation'}")
    tumour, brain, upper = slices["tumour"], slices["brain"], slices["upper"]
    groups = {
        "slices with tumour": tumour,
        "others that are not empty": ~tumour,
        "upper slices with tumour": upper & tumour,
        "upper slices without": upper & ~tumour,
        "slices with brain": brain,
        "slices that are not empty": brain | True,
    }
    for kind, chosen in groups.items():
        _line(kind, slices.loc[chosen, "marked"], slices.loc[chosen, "refused"])
    volumes = [plausibility.assess(_alone(images[rows["row"].values], channel)) for _, rows in table.groupby("patient")]
    _line("volumes", [_is_marked(v) for v in volumes], [v.refused for v in volumes])


def scalps(name: str, heads: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    """Print how often whole heads and their brains alone are told to have no scalp, as volumes and as single slices.

    Of slices those count that show at least 30 % as much brain as the patient's largest.

    Args:
        heads: volumes (S, H, W, 3) and where their brain is (S, H, W).
    """
    slices: dict[str, list[bool]] = {}
    volumes: dict[str, list[bool]] = {}
    for volume, inside in heads:
        area = inside.sum(axis=(1, 2))
        for kind, shown in _with_and_without_scalp(volume, inside):
            alone = [plausibility.assess(picture[None]) for picture in shown[area >= 0.3 * area.max()]]
            slices.setdefault(kind, []).extend(plausibility.NO_SCALP in verdict.marks for verdict in alone)
            volumes.setdefault(kind, []).append(plausibility.NO_SCALP in plausibility.assess(shown).marks)
    for kind, told in volumes.items():
        print(
            f"{name + kind:50} volumes {len(told):4}   no scalp {np.mean(told):7.2%}   "
            f"slices {len(slices[kind]):5}   no scalp {np.mean(slices[kind]):7.2%}"
        )


def _with_and_without_scalp(volume: np.ndarray, brains: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "whole", volume
    for grow in (0, 2, -2):
        yield "stripped" + (f", mask {grow:+} pixels" if grow else ""), implausible.strip(volume, brains, grow)


def negatives() -> None:
    """Print the rates for the fixed set and for phantoms, which must pass, and the time for a slice."""
    kinds: dict[str, list[plausibility.Verdict]] = {}
    for kind, picture in implausible.marked_pictures():
        kinds.setdefault(kind, []).append(plausibility.assess(picture[None]))
    phantoms = implausible.phantoms(8)
    kinds["phantoms, volumes"] = [plausibility.assess(volume) for volume in phantoms.values()]
    for kind, verdicts in kinds.items():
        _line(kind, [_is_marked(v) for v in verdicts], [v.refused for v in verdicts])
    scalps("phantoms, ", implausible.with_brains(40))
    volume = np.concatenate(list(phantoms.values()))[:100]
    print(f"{_seconds(lambda: [plausibility.describe(picture) for picture in volume]) * 10:.2f} ms a slice")


def cuts(images: np.ndarray, table: pd.DataFrame) -> None:
    """Print the rates for sagittal and coronal cuts and for rotated axial slices, as single pictures."""
    kinds: dict[str, list[plausibility.Verdict]] = {}
    for _, slices in table.groupby("patient"):
        volume = images[slices["row"].values]
        middle = volume[len(volume) // 2]
        pictures = [*implausible.reslices(volume), ("turned by 90°", np.rot90(middle)), ("by 180°", middle[::-1, ::-1])]
        for kind, picture in pictures:
            kinds.setdefault(kind, []).append(plausibility.assess(picture[None]))
        sagittal = np.stack([cut for kind, cut in implausible.reslices(volume) if kind.startswith("sagittal")])
        kinds.setdefault("sagittal volume", []).append(plausibility.assess(sagittal))
    for kind, verdicts in kinds.items():
        _line(kind, [_is_marked(v) for v in verdicts], [v.refused for v in verdicts])


def _alone(pictures: np.ndarray, channel: int) -> np.ndarray:
    """The pictures with ``channel`` in place of FLAIR, which the check reads."""
    return pictures if channel == FLAIR else np.repeat(pictures[..., channel : channel + 1], 3, axis=-1)


def _is_marked(verdict: plausibility.Verdict) -> bool:
    """Marked as no axial slice; ``scalps`` counts those without scalp."""
    return any(mark != plausibility.NO_SCALP for mark in verdict.marks)


def _line(kind: str, marked, refused) -> None:
    print(f"{kind:32} n {len(marked):5}   marked {np.mean(marked):7.2%}   refused {np.mean(refused):7.2%}")


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processed", type=Path, default=Path("data/processed"))
    parser.add_argument("--split", type=Path, default=Path("data/splits/split.csv"))
    parser.add_argument("--test", action="store_true", help="also the test patients")
    parser.add_argument("--brains", type=Path, help="brain masks of all slices")
    return parser.parse_args()


if __name__ == "__main__":
    main()
