"""What is told of all slices together: the order of the warnings, and which images patients share."""

import hashlib
import itertools

import pytest

from brainseg.data import archive, findings
from brainseg.data.archive import Archive, Pair, Row
from brainseg.data.findings import Findings, SliceFacts
from brainseg.errors import Problem


def seen(image: str, *labels: int, is_constant: bool = False, is_jpeg: bool = False) -> SliceFacts:
    """The facts of a slice. ``image``: the same for equal images."""
    return SliceFacts(hashlib.sha256(image.encode()).digest(), is_constant, frozenset(labels), is_jpeg, 9 * len(labels))


def row(patient: str, image: str, mask: str = "", image_file: str = "") -> Row:
    return Row(patient, "X", 1, f"{patient}/{image}", f"{patient}/{mask or image}", image_file=image_file)


COHORT = {  # two pictures, a volume with constant slices, one of which any label is tumour, and the user's own files
    "A": [
        (row("A", "1.png"), seen("blank", is_constant=True)),
        (row("A", "2.png"), seen("a", 255)),
        (row("A", "3.png"), seen("a", 255, is_jpeg=True)),
    ],
    "B": [
        (row("B", "b_0001.npy"), seen("blank", is_constant=True)),
        (row("B", "b_0002.npy"), seen("blank", is_constant=True)),
        (row("B", "b_0003.npy"), seen("b", 4)),
    ],
    "C": [(row("C", "c_0001.npy", "c_0001_labels.npy"), seen("c", 2, 10))],
    "D": [
        (row("D", "1.png", image_file="mine/d 1.png"), seen("black", is_constant=True)),
        (row("D", "2.png"), None),
        (row("D", "3.png", image_file="mine/d 3.png"), seen("d", 7)),
        (row("D", "4.png", image_file="mine/d 4.png"), seen("d", 7)),
    ],
}
UNNAMED = """\
WARNING B: every pixel has the same value in 2 slices
WARNING preprocess.foreground: each label above 0 was taken as tumour: 2, 10
WARNING preprocess.foreground: masks hold 4, 7 as their only value above 0, which was taken as tumour
WARNING 1 masks are JPEG, taken as black and white: save masks as PNG or TIF
WARNING A/1.png: every pixel has the same value
WARNING mine/d 1.png: every pixel has the same value
WARNING A/3.png: the same image as another of the patient
WARNING mine/d 4.png: the same image as another of the patient
"""
NAMED = """\
WARNING B: every pixel has the same value in 2 slices
WARNING 1 masks are JPEG, taken as black and white: save masks as PNG or TIF
WARNING preprocess.foreground: no mask holds 3
WARNING preprocess.foreground: no mask holds 9
WARNING B: no tumour, its labels are 4: preprocess.foreground
WARNING C: no tumour, its labels are 2, 10: preprocess.foreground
WARNING A/1.png: every pixel has the same value
WARNING mine/d 1.png: every pixel has the same value
WARNING A/3.png: the same image as another of the patient
WARNING mine/d 4.png: the same image as another of the patient
"""


@pytest.mark.parametrize(("foreground", "told"), [([], UNNAMED), ([255, 9, 7, 3], NAMED)], ids=["unnamed", "named"])
def test_warnings_come_in_one_order(capsys, foreground, told):
    found = Findings(foreground)
    for slices in COHORT.values():
        found.add_patient([each for each, _ in slices], [facts for _, facts in slices])
    found.warn()
    assert capsys.readouterr().err == told
    assert (found.patients, found.slices, found.tumour) == (4, 11, 6)


@pytest.fixture
def compare(tmp_path):
    """Archive a slice for each of the facts of patients, and look for images that patients share."""

    def run(**cohort: list[SliceFacts | None]) -> tuple[Findings, list[Problem], list[str]]:
        pairs = [
            Pair(patient, "X", number, f"{number}.png", f"{number}_mask.png", b"", b"")
            for patient, facts in cohort.items()
            for number in range(1, len(facts) + 1)
        ]
        archive.write(tmp_path / "slices.zip", pairs)
        found = Findings([])
        with Archive(tmp_path / "slices.zip") as source:
            for patient, rows in itertools.groupby(source.rows(), lambda each: each.patient):
                found.add_patient(list(rows), cohort[patient])
            problems, rows = found.find_shared(source)
        return found, problems, [each.image for each in rows]

    return run


def shared(images: str) -> Problem:
    return Problem(images, "are the same image in different patients", "keep one of them")


def test_an_image_that_three_patients_share_is_one_problem(compare):
    cohort = {"A": [seen("a"), seen("x")], "B": [seen("x")], "C": [seen("y"), seen("c"), seen("x")], "D": [seen("y")]}
    _, problems, rows = compare(**cohort)
    assert problems == [shared("A/2.png, B/1.png, C/3.png"), shared("C/1.png, D/1.png")]
    assert rows == ["A/2.png", "B/1.png", "C/1.png", "C/3.png", "D/1.png"]


def test_an_image_is_shared_also_if_one_of_the_patients_has_it_twice(compare):
    _, problems, _ = compare(A=[seen("x"), seen("x")], B=[seen("x")])
    assert problems == [shared("A/1.png, A/2.png, B/1.png")]


def test_repeated_images_of_one_patient_and_constant_images_are_no_problem(compare, capsys):
    blank = seen("blank", is_constant=True)
    found, problems, rows = compare(A=[seen("a"), blank, seen("a")], B=[blank, blank])
    assert (problems, rows) == ([], [])
    found.warn()
    assert capsys.readouterr().err.splitlines() == [
        "WARNING A/2.png: every pixel has the same value",
        "WARNING B/1.png: every pixel has the same value",
        "WARNING B/2.png: every pixel has the same value",
        "WARNING A/3.png: the same image as another of the patient",
    ]


def test_slices_that_could_not_be_read_count_and_are_equal_to_none(compare):
    _, problems, rows = compare(A=[None, seen("x")], B=[None, None], C=[seen("c"), None, seen("x")])
    assert problems == [shared("A/2.png, C/3.png")]
    assert rows == ["A/2.png", "C/3.png"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ({4, 0, 1}, "0, 1, 4"), (range(8), "0, 1, 2, 3, 4, 5, 6, 7"), (range(9), "0, 1, 2, 3, 4, 5, 6, 7, ...")],
)
def test_up_to_eight_values_are_shown(values, shown):
    assert findings.show(values) == shown
