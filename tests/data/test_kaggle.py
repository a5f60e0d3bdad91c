"""LGG from any source gives the same archive, verified, or nothing."""

import hashlib
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from brainseg import files
from brainseg.data import archive, download, kaggle
from brainseg.errors import IntegrityError, MachineError
from brainseg.io import pictures, untrusted_zip
from tests.support import fake_lgg, lgg_fixture
from tests.support.faulty_server import LOGIN_PAGE, FaultyServer

ROOT = Path(__file__).parents[2]
FAST = download.RetryLimits(idle_s=5, pause_s=0.001)
PATIENT, FILE = "TCGA_DU_0002_19990202", "TCGA_DU_0002_19990202/TCGA_DU_0002_19990202_7_mask.tif"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build the archive from a mirror; returns its digest."""
    target = tmp_path / "data/raw/slices.zip"

    def build(mirror, table=None) -> str:
        monkeypatch.setenv("BRAINSEG_MIRROR", str(mirror))
        archive.write(target, kaggle.pairs(table or fake_lgg.table(), FAST))
        return files.sha256(target)

    build.target = target
    return build


@pytest.fixture
def single(tmp_path):
    return fake_lgg.write_zip(tmp_path / "single.zip", fake_lgg.members())


def refused(build, mirror) -> list[str]:
    """Lines of the error; an earlier archive is still there, and nothing else."""
    build.target.parent.mkdir(parents=True, exist_ok=True)
    build.target.write_bytes(b"old")
    with pytest.raises(IntegrityError) as caught:
        build(mirror)
    assert [p.name for p in build.target.parent.iterdir()] == ["slices.zip"] and build.target.read_bytes() == b"old"
    expected = kaggle._contents_digest(fake_lgg.table())
    assert expected in caught.value.lines()[-1]
    return caught.value.lines()


def test_d8_doubled_zip_single_zip_folder_and_http_give_the_same_bytes(tmp_path, build, single, project_root):
    double = fake_lgg.write_zip(tmp_path / "doubled.zip", fake_lgg.doubled())
    mirrors = [single, double, fake_lgg.write_folder(tmp_path / "one", fake_lgg.members()),
               fake_lgg.write_folder(tmp_path / "two", fake_lgg.doubled()), tmp_path / "one/kaggle_3m"]  # fmt: skip
    digests = {build(mirror) for mirror in mirrors}
    for content in (single, double):
        with FaultyServer(content.read_bytes()) as server:
            digests.add(build(server.url))
    assert len(digests) == 1
    assert list((project_root / ".brainseg/downloads").iterdir()) == []


def test_the_archive_holds_every_file_once_and_unchanged(build, single):
    build(single)
    index = archive.read_index(build.target)
    with zipfile.ZipFile(build.target) as opened:
        assert {n: opened.read(n) for n in opened.namelist() if n != "index.csv"} == fake_lgg.files()
    assert index.groupby("patient").size().to_dict() == fake_lgg.PATIENTS
    assert index.slice.tolist() == [1, 2, 3, *range(1, 12), 1, 2]  # 10 after 9, not after 1
    assert index.institution.unique().tolist() == ["CS", "DU", "HT"]
    assert index["image"][3] == f"{PATIENT}/{PATIENT}_1.tif"


def test_d8_copies_that_differ(tmp_path, build):
    content = fake_lgg.doubled()
    content[f"lgg-mri-segmentation/kaggle_3m/{FILE}"] += b"!"
    lines = refused(build, fake_lgg.write_zip(tmp_path / "a.zip", content))
    assert f"lgg-mri-segmentation/kaggle_3m/{FILE}: is not the same as its copy kaggle_3m/{FILE}" in lines[0]


def test_d8_files_missing_or_too_many(tmp_path, build):
    content = fake_lgg.members()
    del content[f"kaggle_3m/{FILE}"]
    content["kaggle_3m/TCGA_XX_9999_20000101/TCGA_XX_9999_20000101_1.tif"] = b"x"
    lines = refused(build, fake_lgg.write_zip(tmp_path / "a.zip", content))
    assert "holds 4 patients and 15 masks, expected 3 and 16" in lines[0]
    assert f"{FILE}: is missing" in lines[1]
    assert "TCGA_XX_9999_20000101_1.tif: does not belong here" in lines[2]


def test_d8_of_many_missing_files_the_first_20_are_named(tmp_path, build):
    content = {name: data for name, data in fake_lgg.members().items() if PATIENT not in name}
    lines = refused(build, fake_lgg.write_zip(tmp_path / "a.zip", content))
    assert sum(": is missing." in line for line in lines) == 20
    assert "a.zip: 2 more files are missing" in lines[-2]


def test_d1_wrong_digest_names_both_for_every_patient(tmp_path, build):
    content, found = fake_lgg.members(), {}
    for name in (FILE, "TCGA_CS_0001_19990101/TCGA_CS_0001_19990101_1.tif"):
        content[f"kaggle_3m/{name}"] += b"!"
    mirror = fake_lgg.write_zip(tmp_path / "a.zip", content)
    lines = refused(build, mirror)
    for name, data in content.items():
        patient, _, file = name.removeprefix("kaggle_3m/").partition("/")
        found.setdefault(patient, {})[f"{patient}/{file}"] = hashlib.sha256(data).hexdigest()
    for line, patient in zip(lines, ("TCGA_CS_0001_19990101", PATIENT), strict=False):
        assert f"expected {fake_lgg.table()[patient].sha256}" in line
        assert f"found {kaggle.patient_digest(found[patient])}" in line
    assert len(lines) == 3 and files.sha256(mirror) in lines[-1]


@pytest.mark.parametrize("fault", ["html", "truncated", "flipped", "empty", "moved"])
def test_d1_bad_downloads_are_quarantined_and_both_digests_named(fault, build, single, project_root):
    body = single.read_bytes()
    half = len(body) // 2
    flipped = body[:half] + bytes([body[half] ^ 0xFF]) + body[half + 1 :]
    moved = body[:-3] + bytes([body[-3] ^ 1]) + body[-2:]  # the offset of the directory: members would start before 0
    bad = {"html": LOGIN_PAGE, "truncated": body[:half], "flipped": flipped, "moved": moved,
           "empty": b"PK\5\6" + bytes(18)}[fault]  # fmt: skip
    with FaultyServer(bad, "html" if fault == "html" else None) as server:
        lines = refused(build, server.url)
        assert hashlib.sha256(bad).hexdigest() in lines[-1] and "quarantine" in lines[-1]
        [kept] = (project_root / ".brainseg/quarantine").iterdir()
        assert kept.read_bytes() == bad and list((project_root / ".brainseg/downloads").iterdir()) == []
        server.body = body
        build(server.url)  # the next run fetches it again


def test_d1_a_bad_mirror_file_stays_where_it_is(tmp_path, build):
    for name, content in (("page.zip", LOGIN_PAGE), ("cut.zip", b"PK\x03\x04 and no more")):
        (tmp_path / name).write_bytes(content)
        refused(build, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("name", ["../evil.tif", "/evil.tif", "C:\\evil.tif", f"kaggle_3m/{FILE.upper()}"])
def test_d2_hostile_members_stop_everything(tmp_path, build, name):
    lines = refused(build, fake_lgg.write_zip(tmp_path / "a.zip", fake_lgg.members() | {name: b"x"}))
    assert name.replace("\\", "\\\\") in lines[0] or name in lines[0]


def test_d3_bombs_leave_nothing(tmp_path, build, monkeypatch):
    bomb = {f"kaggle_3m/{FILE}": bytes(2**20 + 1)}
    assert FILE in refused(build, fake_lgg.write_zip(tmp_path / "a.zip", fake_lgg.members() | bomb))[0]
    monkeypatch.setattr(untrusted_zip, "MAX_MEMBERS", 10)
    assert "more than 10 files" in refused(build, fake_lgg.write_zip(tmp_path / "b.zip", fake_lgg.members()))[0]


def test_d4_no_network_says_how_to_place_the_file(build):
    with FaultyServer(b"", "404", times=9) as server, pytest.raises(MachineError) as caught:
        build(server.url)
    assert "BRAINSEG_MIRROR=/path/to/archive.zip dvc repro" in caught.value.lines()[0]
    with pytest.raises(MachineError, match="does not exist"):
        build("/no/such/place.zip")


@pytest.mark.parametrize("fault", ["reset", "no-range", "truncate"])
def test_d5_faults_on_the_way_do_not_show_in_the_digest(fault, build, single, monkeypatch):
    monkeypatch.setattr(download, "_CHUNK_BYTES", 2**10)  # so that a part is kept
    with FaultyServer(single.read_bytes(), fault) as server:
        assert build(server.url) == build(single)
    assert len(server.ranges) == 2
    assert fault == "reset" or server.ranges[1]  # a reset may drop what was on its way


def test_d6_disk_full_before_the_contents_are_read(build, single, monkeypatch):
    needed = sum(len(data) for data in fake_lgg.files().values())
    target = build.target.parent
    monkeypatch.setenv("BRAINSEG_MIRROR", str(single))
    monkeypatch.setattr(files, "free_bytes", lambda path: needed - 1 if path == target else 2**30)
    monkeypatch.setattr(untrusted_zip.UntrustedFiles, "read", lambda *_: pytest.fail("read before there was room"))
    with pytest.raises(MachineError, match=rf"raw: {needed:,} bytes needed, {needed - 1:,} free"):
        next(kaggle.pairs(fake_lgg.table(), FAST, target))


def test_d7_sigkill_while_writing_then_same_digest(build, single):
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from brainseg.data import archive, kaggle\nfrom tests.support import fake_lgg\n"
        "def stalling():\n    yield next(kaggle.pairs(fake_lgg.table()))\n    time.sleep(600)\n"
        "archive.write(Path(sys.argv[1]), stalling())\n"
    )
    undisturbed = build(single)
    build.target.unlink()
    process = subprocess.Popen([sys.executable, "-c", script, str(build.target)], cwd=ROOT)
    end = time.monotonic() + 20
    while not list(build.target.parent.glob(".slices.zip.*/slices.zip")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not build.target.exists()
    assert build(single) == undisturbed
    assert [path.name for path in build.target.parent.iterdir()] == ["slices.zip"]


def test_table_is_that_of_the_real_data():
    table = kaggle.read_table()
    assert len(table) == 110
    assert sum(p.slices for p in table.values()) == 3929 and sum(p.tumour_slices for p in table.values()) == 1373
    assert Counter(name.split("_")[1] for name in table) == {"DU": 45, "HT": 34, "CS": 16, "FG": 14, "EZ": 1}
    assert all(0 < p.tumour_slices < p.slices for p in table.values())


def real_tumours(path) -> Counter:
    """Slices with tumour of each patient in an archive."""
    tumours = Counter()
    with zipfile.ZipFile(path) as opened:
        for row in archive.read_index(path).itertuples():
            tumours[row.patient] += bool(np.any(pictures.decode(opened.read(row.mask), row.mask)))
    return tumours


def test_d8_real_patients_are_those_of_the_table(build):
    """All that the archive holds of them: names, digests, slices with tumour."""
    mirror, table = lgg_fixture.archive()
    assert table
    build(mirror, table)
    counts = archive.read_index(build.target).groupby("patient").size().to_dict()
    assert counts == {patient: p.slices for patient, p in table.items()}
    assert real_tumours(build.target) == {patient: p.tumour_slices for patient, p in table.items()}


@pytest.mark.slow
def test_d8_real_data_110_patients_3929_pairs_1373_with_tumour(build):
    mirror = lgg_fixture.whole_archive()
    digest = build(mirror, kaggle.read_table())
    assert digest == "9a9ba8d96059683062d50a706a6950806b696a2f906024a60b4b77553ff3968c"
    index = archive.read_index(build.target)
    assert index.patient.nunique() == 110 and len(index) == 3929 and real_tumours(build.target).total() == 1373
    if mirror.is_file():
        with FaultyServer(mirror.read_bytes(), "reset") as server:
            assert build(server.url, kaggle.read_table()) == digest
