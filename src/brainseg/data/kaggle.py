"""LGG MRI Segmentation as Kaggle publishes it, verified patient by patient against ``lgg.csv``.

``BRAINSEG_MIRROR`` (a URL, a zip or an unpacked folder) changes only where the files are taken from.
Kaggle's zip holds everything twice; the copies must be equal. ``data.csv`` and ``README.md`` are not used.

Data: Buda, Saha, Mazurowski, Comput. Biol. Med. 2019; Mazurowski et al., J. Neuro-Oncol. 2017; TCGA-LGG.
"""

import csv
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from brainseg import files
from brainseg.data import archive, download
from brainseg.data.archive import Pair
from brainseg.errors import IntegrityError, MachineError, Problem, raise_all
from brainseg.io import untrusted_zip

URL = "https://www.kaggle.com/api/v1/datasets/download/mateuszbuda/lgg-mri-segmentation"
TABLE = Path(__file__).with_name("lgg.csv")
TARGET = Path("data/raw")  # the folder to which the pipeline writes the archive

_FILE = re.compile(r"(?:.*/)?(TCGA_[A-Z0-9]+_[A-Z0-9]+_\d+/[^/]+\.tif)")
_MOST_NAMED = 20  # how many missing files are named
_FIX = "fetch it again from www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation"


class ExpectedPatient(NamedTuple):
    """What a patient must have; ``sha256`` is over the sorted lines ``<sha256>  <patient>/<file>\\n``."""

    slices: int
    tumour_slices: int
    sha256: str


def read_table(path: Path = TABLE) -> dict[str, ExpectedPatient]:
    """Patient → what it must have, from a CSV with columns patient, slices, tumour_slices, sha256."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {r["patient"]: ExpectedPatient(int(r["slices"]), int(r["tumour_slices"]), r["sha256"]) for r in rows}


def patient_digest(digests: dict[str, str]) -> str:
    """Digest of one patient from the sha256 of each of its files by name ``<patient>/<file>``."""
    lines = sorted(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def pairs(
    table: dict[str, ExpectedPatient] | None = None,
    limits: download.RetryLimits = download.RETRY_LIMITS,
    target: Path = TARGET,
) -> Iterator[Pair]:
    """The data set's pairs, sorted by patient and slice. All are verified only when the last one was taken.

    Args:
        table: what each patient must have; that of LGG by default.
        limits: how long to try to fetch them.
        target: the folder whose disk must have room for them.

    Raises:
        MachineError: the files cannot be fetched, or the disk is full.
        IntegrityError: not the files of ``table``. A downloaded file is then moved to quarantine.
    """
    table = table or read_table()
    place, fetched = _locate(limits)
    try:
        store = untrusted_zip.open_files(place)
        try:
            yield from _verify(store, table, target)
        finally:
            store.close()
    except IntegrityError as error:
        found = files.sha256(place) if place.is_file() else "a folder"
        place = download.quarantine(place) if fetched else place
        what = f"was not accepted; contents expected {_contents_digest(table)}, archive found {found}"
        raise IntegrityError("", problems=[*error.problems, Problem(str(place), what, _FIX)]) from None
    if fetched:
        download.discard(place)


def find_mirror() -> str | Path:
    """Where LGG is taken from: an address, a zip or a folder.

    Raises:
        MachineError: ``BRAINSEG_MIRROR`` names none.
    """
    mirror = os.environ.get("BRAINSEG_MIRROR") or URL
    if re.match(r"https?://", mirror):
        return mirror
    place = files.project_root() / Path(mirror).expanduser()
    if not place.exists():
        raise MachineError(place, "does not exist", "set BRAINSEG_MIRROR to a URL, a zip or an unpacked folder")
    return place


def measure(place: Path, table: dict[str, ExpectedPatient] | None = None) -> int:
    """The bytes of the data set in a zip or a folder, from names and sizes alone: no content is verified.

    Raises:
        IntegrityError: files are missing, or do not belong there.
    """
    store = untrusted_zip.open_files(place)
    try:
        return _sum_sizes(store, _list_copies(store, table or read_table()))
    finally:
        store.close()


def _locate(limits: download.RetryLimits) -> tuple[Path, bool]:
    """Where the files are on this disk, and whether this run downloaded them."""
    mirror = find_mirror()
    return (mirror, False) if isinstance(mirror, Path) else (download.fetch(mirror, limits), True)


def _verify(store: untrusted_zip.UntrustedFiles, table: dict[str, ExpectedPatient], target: Path) -> Iterator[Pair]:
    copies = _list_copies(store, table)
    archive.require_space(target, _sum_sizes(store, copies))
    problems: list[Problem] = []
    bar = tqdm(total=sum(p.slices for p in table.values()), desc="verify", unit="slices", mininterval=0.5, disable=None)
    with bar:
        for patient, expected in sorted(table.items()):
            try:
                yield from _verify_patient(store, copies, patient, expected, bar)
            except IntegrityError as error:
                problems += error.problems
    raise_all(problems, IntegrityError)


def _verify_patient(
    store: untrusted_zip.UntrustedFiles,
    copies: dict[str, list[str]],
    patient: str,
    expected: ExpectedPatient,
    bar: tqdm,
) -> Iterator[Pair]:
    digests: dict[str, str] = {}
    for number in range(1, expected.slices + 1):
        names = _pair_names(patient, number)
        image, mask = (_read_copies(store, copies[f"{patient}/{name}"]) for name in names)
        for name, data in zip(names, (image, mask), strict=True):
            digests[f"{patient}/{name}"] = hashlib.sha256(data).hexdigest()
        yield Pair(patient, patient.split("_")[1], number, *names, image, mask)
        bar.update()
    if (found := patient_digest(digests)) != expected.sha256:
        raise store.error(patient, f"was changed: digest expected {expected.sha256}, found {found}")


def _list_copies(store: untrusted_zip.UntrustedFiles, table: dict[str, ExpectedPatient]) -> dict[str, list[str]]:
    """``_find_copies``, if they are the files of ``table``. Raises IntegrityError: they are not."""
    copies = _find_copies(store)
    raise_all(_check_listing(store, set(copies), table), IntegrityError)
    return copies


def _sum_sizes(store: untrusted_zip.UntrustedFiles, copies: dict[str, list[str]]) -> int:
    return sum(store.sizes[names[0]] for names in copies.values())


def _find_copies(store: untrusted_zip.UntrustedFiles) -> dict[str, list[str]]:
    """``<patient>/<file>`` → the names under which the store holds it."""
    copies = defaultdict(list)
    for name in sorted(store.sizes):
        if match := _FILE.fullmatch(name):
            copies[match[1]].append(name)
    return copies


def _pair_names(patient: str, number: int) -> tuple[str, str]:
    return f"{patient}_{number}.tif", f"{patient}_{number}_mask.tif"


def _check_listing(
    store: untrusted_zip.UntrustedFiles, found: set[str], table: dict[str, ExpectedPatient]
) -> list[Problem]:
    expected = {
        f"{patient}/{name}"
        for patient, p in table.items()
        for n in range(p.slices)
        for name in _pair_names(patient, n + 1)
    }
    missing = sorted(expected - found)
    problems = [Problem(f"{store.path}:{name}", "is missing", _FIX) for name in missing[:_MOST_NAMED]]
    if len(missing) > _MOST_NAMED:
        problems.append(Problem(str(store.path), f"{len(missing) - _MOST_NAMED:,} more files are missing", _FIX))
    problems += [Problem(f"{store.path}:{name}", "does not belong here", _FIX) for name in sorted(found - expected)]
    if problems:
        patients, masks = {name.split("/")[0] for name in found}, [n for n in found if n.endswith("_mask.tif")]
        what = (f"holds {len(patients):,} patients and {len(masks):,} masks, "
                f"expected {len(table):,} and {len(expected) // 2:,}")  # fmt: skip
        problems = [Problem(str(store.path), what, _FIX), *problems]
    return problems


def _read_copies(store: untrusted_zip.UntrustedFiles, names: list[str]) -> bytes:
    data = store.read(names[0])
    for other in names[1:]:
        if store.read(other) != data:
            raise store.error(other, f"is not the same as its copy {names[0]}")
    return data


def _contents_digest(table: dict[str, ExpectedPatient]) -> str:
    """One digest for the whole data set: over the lines ``<patient's sha256>  <patient>\\n``."""
    return hashlib.sha256("".join(f"{p.sha256}  {n}\n" for n, p in sorted(table.items())).encode()).hexdigest()
