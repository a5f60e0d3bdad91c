"""``download.patients``: whose each case is by a CSV, what it may call a case, and what is refused."""

from pathlib import Path

import pytest

from brainseg import config
from brainseg.data import archive, folder, sources
from brainseg.data.archive import Pair
from brainseg.data.layouts import patient_table, recognition
from brainseg.data.layouts.finding import Found
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import DataError
from tests.support import own_layouts
from tests.support.own_layouts import SLICES

HEAD = "case,patient,institution"
BRATS = ["BraTS20_Training_001", "BraTS20_Training_002"]


def params(root: Path, *rows: str, head=HEAD, **changes) -> config.Download:
    """The folder, and a table of these rows beside it."""
    table = root.parent / f"{root.name}.csv"
    table.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    values = {"images": "**/*", "masks": "**/*_mask.*", "patient": "folder", "patients": str(table)}
    return config.Download(source="folder", path=str(root), **values | changes)


def find(root: Path, *rows: str, **changes) -> Found:
    return recognition.find(params(root, *rows, **changes)).found


def read(root: Path, *rows: str, **changes) -> list[Pair]:
    return list(folder.pairs(params(root, *rows, **changes)))


def faults(root: Path, *rows: str, **changes) -> str:
    """All that is wrong with the table, in one text."""
    with pytest.raises(DataError) as caught:
        read(root, *rows, **changes)
    assert {Path(problem.path).suffix for problem in caught.value.problems} == {".csv"}
    return "\n".join(f"{problem.what} | {problem.fix}" for problem in caught.value.problems)


NAMES = {  # layout → what the table may call the first case and the second one
    "brats": [BRATS, [f"{case}/{case}_flair.nii.gz" for case in BRATS], [f"{case}_flair" for case in BRATS]],
    "nnunet": [["A_1", "A_2"], ["imagesTr/A_1_0000", "imagesTr/A_2_0000.nii.gz"], ["labelsTr/A_1", "A_2.nii.gz"]],
    "decathlon": [["BRATS_001", "BRATS_002"], ["imagesTr/BRATS_001.nii.gz", "./imagesTr/BRATS_002.nii.gz"]],
    "bids": [["sub-01", "sub-02"], ["sub-01/anat", "sub-02/anat/"], ["sub-01_FLAIR", "sub-02\\anat\\sub-02_FLAIR"]],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_named_by_its_file_or_folder(name, tmp_path):
    root = getattr(own_layouts, name)(tmp_path / "own")
    first = recognition.find(params(root, patients=None)).found.cases
    names = [*NAMES[name], [case.image for case in first]]
    for one, other in names:
        pairs = read(root, f"{one},Ann,North", f"{other},Bob,South")
        assert [(p.patient, p.institution) for p in pairs][::SLICES] == [("Ann", "North"), ("Bob", "South")]


def test_slices_of_one_folder(tmp_path, capsys):
    """Whose names do not say which are of one patient, so that without the table they are refused."""
    root = own_layouts.folders(tmp_path / "own", ["img_1", "img_2", "img_3"])
    found = read(root, "images/img_1.tif,p,", "img_2,q,Y", "img_3,p,")
    assert [(p.patient, p.slice, p.institution) for p in found] == [
        ("p", 1, "unknown"),
        ("p", 3, "unknown"),
        ("q", 2, "Y"),
    ]
    assert (
        f"2 patients (download.patients: {tmp_path}/own.csv): images/img_1 -> patient p; images/img_2 -> patient q"
        in (capsys.readouterr().err)
    )


def test_a_folder_stands_for_all_slices_in_it(tmp_path):
    root = own_layouts.folders(tmp_path / "own", ["p1/a/1", "p1/b/2", "p2/a/3"])  # in which the rule folder is refused
    assert [(p.patient, p.slice) for p in read(root, "p1,A,", "images/p2,B,")] == [("A", 1), ("A", 2), ("B", 3)]


def test_patterns(tmp_path):
    root = own_layouts.folders(tmp_path / "own")
    flat = {"images": "images/*", "masks": "masks/*"}
    rows = ["p1_1,A,", "p1_2,A,", "p2_1,B,"]
    assert [p.patient for p in read(root, *rows, "p2_2,B,", **flat)] == ["A", "A", "B", "B"]
    assert "has no row for 1 case, such as images/p2_2" in faults(root, *rows, **flat)


def test_of_several_volumes_of_a_patient_the_first_in_the_table_is_read(tmp_path, capsys):
    root = own_layouts.decathlon(tmp_path / "own", cases=["C_1", "C_2", "C_3"])
    found = read(root, "C_3,A,", "C_2,B,", "C_1,A,")
    assert [p.image_file for p in found][::SLICES] == ["imagesTr/C_3.nii.gz", "imagesTr/C_2.nii.gz"]
    told = f"passed over, {patient_table.LATER}: imagesTr/C_1.nii.gz, labelsTr/C_1.nii.gz"
    assert told in capsys.readouterr().err


def test_sessions_are_cases_of_their_own(tmp_path):
    """A folder names all of them; by the names alone the first one would be read."""
    root = tmp_path / "own"
    for session in ("ses-1", "ses-2"):
        own_layouts.bids(root, ["sub-01"], session)
    found = find(root, "sub-01/ses-1,A,", "sub-01_ses-2,B,")
    assert [(case.patient, case.image.split("/")[1]) for case in found.cases] == [("A", "ses-1"), ("B", "ses-2")]
    (case,) = find(root, "sub-01,A,").cases
    assert case.image.startswith("sub-01/ses-1/")
    assert "may be sub-01/ses-1 or sub-02/ses-1" in faults(
        own_layouts.bids(root, ["sub-02"], "ses-1"), "ses-1,A,", "ses-2,B,"
    )


def test_time_points_that_the_table_tells_apart(tmp_path):
    root = own_layouts.brats_2023(tmp_path / "own", ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"])
    rows = ["BraTS-GLI-00005-000,A,", "BraTS-GLI-00005-001,B,"]
    assert [case.patient for case in find(root, *rows).cases] == ["A", "B"]
    next(root.glob("*-001/*-seg.nii.gz")).unlink()
    found = find(root, *rows)
    assert [case.patient for case in found.cases] == ["A"]
    assert [problem.what for problem in found.problems] == ["has no mask"]  # B is not another scan of A
    assert "own.csv has 1 row of files that are not read" in found.remarks


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            ["C_1,A,", "C_2,B,"],
            ["has no row for 3 cases, such as imagesTr/C_3 and imagesTr/C_4 | add a line for each: imagesTr/C_3,"],
        ),
        (
            [*(f"C_{n},A{n}," for n in range(1, 6)), "C_6,F,", "C_7,G,", "C_8,H,"],
            ["has 3 rows without a case, such as C_6 (line 7) and C_7 (line 8) | correct or remove them; cases"],
        ),
        (["C_1,A,", "./C_1.nii.gz,B,"], ["has the case C_1 in line 2 and in line 3 | keep one of the lines"]),
        (["C_1,A,", "imagesTr/C_1,B,"], ["names imagesTr/C_1 in line 2 (C_1) and in line 3 (imagesTr/C_1) | keep one"]),
        (["C_1,,X", ",B,"], ["has no patient in line 2", "has no case in line 3 | fill the cell, or remove the line"]),
        (["C_1,A,X", "C_2,A,Y"], ["has patient A in X (line 2) and Y (line 3) | write one institution"]),
        (["C_1,a/b,"], ["has the patient 'a/b' in line 2, which cannot be the name of a folder"]),
    ],
    ids=["no row", "no case", "twice", "two names", "empty", "institutions", "folder"],
)  # fmt: skip
def test_faults(tmp_path, rows, told):
    root = own_layouts.decathlon(tmp_path / "own", cases=[f"C_{n}" for n in range(1, 6)])
    found = faults(root, *rows)
    for part in told:
        assert part in found


@pytest.mark.parametrize("head", ["case,institution", "name,patient", "case"])
def test_columns_that_are_missing(head, tmp_path):
    root = own_layouts.decathlon(tmp_path / "own")
    assert "give it the columns case, patient, institution" in faults(root, "BRATS_001", head=head)


def test_a_table_that_is_not_there(tmp_path):
    assert "is no file | set download.patients to a CSV of case, patient, institution" in faults(
        own_layouts.decathlon(tmp_path / "own"), patients="none.csv"
    )


def test_as_a_spreadsheet_writes_it(tmp_path):
    root = own_layouts.decathlon(tmp_path / "own")
    table = tmp_path / "sheet.csv"
    table.write_text("Patient;Case\r\nA;BRATS_001\r\nB;BRATS_002\r\n;\r\n", "utf-8-sig")
    assert [p.patient for p in read(root, patients=str(table))][::SLICES] == ["A", "B"]


def test_a_csv_of_pairs_that_names_patients_leaves_no_choice(tmp_path):
    root = own_layouts.table(tmp_path / "own")
    rows = ["x,A,", "y,B,"]
    assert "has a column patient, and download.patients" in faults(root, *rows)
    pairs = root / "pairs.csv"
    pairs.write_text(pairs.read_text().replace(",patient,", ",subject,"))
    found = read(root, *rows)
    assert [(p.patient, p.institution) for p in found][::SLICES] == [("A", "North"), ("B", "South")]


def test_the_table_may_be_the_patients_csv_of_the_folder(tmp_path):
    """Which else names the institution of each patient; of one with two cases it would be there twice."""
    root = own_layouts.folders(tmp_path / "own")
    table = root / "patients.csv"
    table.write_text(f"{HEAD}\np1_1,A,North\np1_2,A,North\np2_1,B,\np2_2,B,\n")
    assert {(p.patient, p.institution) for p in read(root, patients=str(table))} == {("A", "North"), ("B", "unknown")}
    assert find(root, patients=str(table)).passed == {}  # it is read
    table.write_text("patient,institution\nA,West\nB,East\n")
    rows = ["p1_1,A,North", "p1_2,A,North", "p2_1,B,", "p2_2,B,"]
    assert {(p.patient, p.institution) for p in read(root, *rows)} == {("A", "North"), ("B", "East")}


def test_a_folder_within_another_counts_for_its_own_cases(tmp_path):
    names = ["scan/a_FLAIR.nii.gz", "scan/old/b_FLAIR.nii.gz"]
    cases = [PairedFiles("", 1, name, name.replace("FLAIR", "mask"), True) for name in names]
    table = tmp_path / "t.csv"
    for rows in (["scan,P1,", "scan/old,P2,"], ["scan/old,P2,", "scan,P1,"]):
        table.write_text("\n".join([HEAD, *rows]) + "\n")
        found = patient_table.apply(Found(cases, [], {}, []), table)
        assert {case.image: case.patient for case in found.cases} == dict(zip(names, ("P1", "P2"), strict=True))
        assert not found.problems


def test_a_table_that_has_changed_is_told_before_dvc_passes_over_it(tmp_path):
    root = own_layouts.brats(tmp_path / "own")
    given = params(root, *(f"{case},{name}," for case, name in zip(BRATS, "AB", strict=True)))
    packed = tmp_path / "slices.zip"
    archive.write(packed, sources.pairs(given, None), sources.describe_table(given))
    sources.check_table(given, packed)
    params(root, *(f"{case},A," for case in BRATS))
    with pytest.raises(DataError, match="has changed since") as caught:
        sources.check_table(given, packed)
    assert caught.value.problems[0].fix == "dvc repro -f download"
    sources.check_table(given.model_copy(update={"patients": None}), packed)
