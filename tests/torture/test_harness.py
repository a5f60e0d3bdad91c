"""The harness of `make torture`: its table is of its counts, it draws the same again, it tells right from wrong."""

import contextlib
import hashlib
import random
import signal
import sqlite3

import pytest

from tests.torture import corpus, decoders, finished, flip_world, flips, kills, mutations, report, together
from tests.torture.flip_uses import Used
from tests.torture.mutate import mutate, mutate_packed_frames, mutate_sealed, repair_png
from tests.torture.project import Finished, differences

QUICK = 600


def test_the_page_has_the_table_of_its_counts():
    assert f"\n\n{report.table(report.read())}\n\n" in report.PAGE.read_text(encoding="utf-8")


def test_every_kind_ran_as_often_as_it_must_and_has_no_failure():
    counts = report.read()
    assert [failure for kind in counts.values() for failure in kind["failures"]] == []
    assert set(counts) == set(report.KINDS)
    for kind, least in {"kills": 200, "flips": 500, "mutations": 200_000, "full_disks": 60, "together": 24}.items():
        assert sum(sum(outcomes.values()) for outcomes in counts[kind]["groups"].values()) >= least, kind


def test_counts_keep_the_failures_with_their_seeds_and_the_largest_values(capsys):
    cases = [
        report.Result(4, "a", "fine", "", {"s": 2}),
        report.Result(5, "a", "bad", "why"),
        report.Result(6, "b", "fine"),
    ]
    found = report.collect("kind", iter(cases), frozenset(["fine"]), 3)
    assert found["groups"] == {"a": {"fine": 1, "bad": 1}, "b": {"fine": 1}}
    assert found["largest"] == {"a": {"s": 2}}
    assert [(each["seed"], each["outcome"]) for each in found["failures"]] == [(5, "bad")]
    assert "again: python -m tests.torture kind --only 5" in capsys.readouterr().out
    assert "| `kills` | a | 2 | fine 1, bad 1 | s 2 | 1 |" in report.table({"kills": found})


def count(*cases):
    return report.collect("kind", iter(cases), frozenset(["fine"]), len(cases))


def test_runs_of_other_seeds_are_counted_together():
    one = count(report.Result(0, "a", "fine", "", {"s": 2}), report.Result(1, "a", "bad", "why"))
    two = count(report.Result(2, "a", "fine", "", {"s": 1}), report.Result(3, "b", "fine"))
    both = report.add(one, two)
    assert both["groups"] == {"a": {"fine": 2, "bad": 1}, "b": {"fine": 1}}
    assert both["largest"] == {"a": {"s": 2}}
    assert [run["seeds"] for run in both["runs"]] == [[0, 1], [2, 3]]
    assert report.add(both, one) == one  # seeds that were counted before


def test_a_case_that_is_run_again_takes_the_place_of_its_failure():
    again = count(report.Result(1, "a", "fine"))
    for earlier in ({"commit": "another"}, {}):  # older records have no commit
        kept = count(report.Result(0, "a", "fine"), report.Result(1, "a", "bad", "why"))
        del kept["failures"][0]["commit"]
        kept["failures"][0] |= earlier
        found = report.add(kept, again)
        assert found["groups"] == {"a": {"fine": 2}}
        assert found["failures"] == []


def test_a_failure_of_this_commit_stays():
    kept = count(report.Result(0, "a", "fine"), report.Result(1, "a", "bad", "why"))
    fine = [report.Result(seed, "a", "fine") for seed in range(2)]
    assert report.add(kept, count(fine[1])) == kept
    for some in (fine[:1], fine):
        found = report.add(kept, count(*some))
        assert found["failures"] == kept["failures"]
        assert found["groups"] == {"a": {"fine": len(some), "bad": 1}}


def test_what_was_counted_stays_when_a_run_is_ended():
    def cases():
        yield report.Result(0, "a", "fine")
        raise SystemExit(143)

    assert report.collect("kind", cases(), frozenset(["fine"]), 2)["groups"] == {"a": {"fine": 1}}


def test_damage_is_the_same_for_the_same_seed_and_does_something():
    data = bytes(range(256)) * 4
    first, again, other = (mutate(data, random.Random(seed), b"other") for seed in (1, 1, 2))
    assert first == again != other
    assert sum(mutate(data, random.Random(seed), b"other") != data for seed in range(100)) > 95


def test_digests_of_a_journal_are_made_right():
    journal = next(corpus.journals())
    whole, hurt = (mutate_sealed(journal, random.Random(seed), b"x") for seed in (1, 2))
    assert whole != hurt != journal
    for line in hurt.splitlines()[1:]:
        digest, _, text = line.partition(b" ")
        assert hashlib.sha256(text).hexdigest().encode() == digest


def test_a_whole_journal_gives_its_rows(tmp_path):
    """Else nothing but the look at digests would be tested."""
    (journal,) = (decoder for decoder in decoders.ALL if decoder.name == "journal")
    journal.act(next(corpus.journals()), tmp_path)
    (summary,) = tmp_path.rglob("summary.csv")
    assert [line.split(",")[0] for line in summary.read_text().splitlines()[1:]] == list(corpus.ANSWERED)


def test_checksums_of_a_png_are_made_right():
    png = next(data for data in corpus.pictures() if data.startswith(b"\x89PNG"))
    hurt = bytearray(png)
    hurt[30] ^= 1  # of the first chunk's checksum
    assert repair_png(bytes(hurt)) == png


@pytest.mark.parametrize("decoder", decoders.ALL, ids=lambda decoder: decoder.name)
def test_each_decoder_reads_a_whole_input(decoder, tmp_path):
    """Else its damaged ones would all be refused at the first look."""
    refused = []
    for number, data in enumerate(decoders.inputs_of(decoder)):
        (tmp_path / str(number)).mkdir()
        decoders.refusals.clear()
        decoder.act(data, tmp_path / str(number))
        refused.append(list(decoders.refusals))
    assert [] in refused, refused


def test_the_codestream_of_compressed_dicom_is_damaged_alone():
    (data, *_), plain = decoders.inputs_of(decoders.NAMED["DICOM compressed"]), decoders.inputs_of(decoders.ALL[0])[0]
    changed = [mutate_packed_frames(data, random.Random(seed), b"other") for seed in range(20)]
    start = data.index(b"\xe0\x7f\x10\0") + 12
    assert all(each[:start] == data[:start] for each in changed) and len(set(changed)) > 10
    assert mutate_packed_frames(plain, random.Random(0), b"other") == b""


@pytest.mark.parametrize(
    ("native", "code", "good"),
    [(True, -signal.SIGSEGV, True), (False, -signal.SIGSEGV, False), (True, -signal.SIGXCPU, False), (True, 1, False)],
)
def test_only_a_codec_that_is_not_ours_may_crash(native, code, good):
    assert (mutations.judge_end(native, code) in mutations.GOOD) == good


@pytest.mark.filterwarnings("ignore")
def test_some_damaged_inputs_are_refused_or_read_and_nothing_else():
    """The first of the 200,000 of `make torture`."""
    found = ((seed, decoders.draw(seed)) for seed in range(QUICK))
    results = [(seed, decoder.name, *mutations.act(decoder, data)) for seed, (decoder, data) in found]
    assert [result for result in results if result[2] not in mutations.GOOD] == []


ONNX = flip_world.TARGETS[0]
WITH_OTHERS = flip_world.predict("inputs/png", others=True)
RIGHT = {"masks/png/x": "a", "masks/good/y": "a"}
GOOD = {"masks/good/y": "a"}
REFUSAL = "ERROR 4 models/unet.onnx: is damaged. Fix: make pull"
OUTCOMES = [
    (Used(Finished(0, "", ""), RIGHT), "harmless"),
    (Used(Finished(0, "", ""), GOOD | {"masks/png/x": "b"}), "silent wrong answer"),
    (Used(Finished(4, "", REFUSAL), GOOD), "refused"),
    (Used(Finished(4, "", REFUSAL), {}), "took others with it"),
    (Used(Finished(4, "", REFUSAL), {"masks/good/y": "b"}), "took others with it"),
    (Used(Finished(4, "", REFUSAL), GOOD | {"masks/png/x": "b"}), "left wrong results"),
    (Used(Finished(4, "", "ERROR 4 model: is damaged"), GOOD), "refused without its name"),
    (Used(Finished(1, "", "ERROR 1 a.py:1: KeyError. Fix: this is a bug"), {}), "reported as a bug"),
    (Used(Finished(3, "", ""), GOOD), "no error with a code"),
    (Used(Finished(-11, "", ""), {}), "killed by a signal"),
    (Used(Finished(None, "", ""), {}), "hangs"),
]


def judge(target, path, used, before=None):
    return flips.judge(target, WITH_OTHERS, path, flips.Results(before or {}, used.results, RIGHT), used.finished)[0]


@pytest.mark.parametrize(
    ("used", "outcome"), OUTCOMES, ids=[f"{n} {outcome}" for n, (_, outcome) in enumerate(OUTCOMES)]
)
def test_outcomes_of_a_flipped_bit(used, outcome, tmp_path):
    assert judge(ONNX, tmp_path / "models/unet.onnx", used) == outcome
    assert (outcome in flips.GOOD) == (outcome in ("harmless", "refused"))


def test_a_refusal_may_leave_what_was_there_before(tmp_path):
    used = Used(Finished(4, "", REFUSAL), GOOD | {"masks/png/x": "old"})
    assert judge(ONNX, tmp_path / "models/unet.onnx", used, {"masks/png/x": "old"}) == "refused"


def test_a_picture_without_a_checksum_changes_no_other_answer(tmp_path):
    tif = next(target for target in flip_world.TARGETS if target.name == "input tif")
    obeyed, mixed = (
        Used(Finished(0, "", ""), {"masks/png/x": "b", "masks/good/y": neighbour}) for neighbour in ("a", "b")
    )
    assert judge(tif, tmp_path / "hurt.tif", obeyed) == "obeyed"
    assert judge(tif, tmp_path / "hurt.tif", mixed) == "silent wrong answer"


def test_a_server_that_goes_on_without_a_file_shows_what_it_shows_where_the_file_is_missing(tmp_path):
    """Anything else is a wrong answer, whatever a warning says; and so is a right fallback without a warning."""
    path = tmp_path / "models/unet.onnx"

    def told(shown, without, errors="WARNING models/unet.onnx: is damaged; the examples are the packaged ones"):
        used = Used(Finished(0, "", errors), {"answer": shown})
        results = flips.Results({}, used.results, {"answer": "right"})
        return flips.judge(ONNX, flip_world.EXAMPLES, path, results, used.finished, {"answer": without})[0]

    assert told("packaged", "packaged") == "told"
    assert told("other", "packaged") == told("packaged", "packaged", "") == "silent wrong answer"


def test_what_the_program_can_make_again_may_not_be_refused(tmp_path):
    used = Used(Finished(2, "", "ERROR 2 .predict.jsonl: is damaged"), {})
    journal = next(target for target in flip_world.TARGETS if target.must_heal)
    assert judge(journal, tmp_path / ".predict.jsonl", used) == "locked out"


def test_one_bit_is_flipped_and_the_date_kept_or_not(tmp_path):
    path, kept = tmp_path / "file", []
    for seed in range(20):
        path.write_bytes(bytes(5000))
        before = path.stat().st_mtime_ns
        said = flips.flip(path, random.Random(seed))
        assert sum(byte.bit_count() for byte in path.read_bytes()) == 1
        kept.append("date kept" in said)
        assert not kept[-1] or path.stat().st_mtime_ns == before
    assert 0 < sum(kept) < 20


def test_differences_name_what_is_missing_new_or_other():
    assert differences({"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "1", "d": "1"}) == (
        "a is missing, b differs, d is new"
    )


def test_a_store_that_is_no_store_is_a_fault(tmp_path):
    path = tmp_path / "mlflow.db"
    assert kills.find_store_fault(path) == "there is no store"
    with contextlib.closing(sqlite3.connect(path)) as store, store:
        store.execute("create table runs (id integer)")
    assert kills.find_store_fault(path) == ""


RAN = "Running stage 'train':\n> python stages/train.py\n"
FINISHED = [
    (finished.FinishedWork({"split"}, 0, set()), RAN, ""),
    (finished.FinishedWork({"train"}, 0, set()), RAN, "dvc.lock had train, which ran again"),
    (finished.FinishedWork(set(), 2, set()), RAN + "resumed after epoch 2 of 4\n", ""),
    (finished.FinishedWork(set(), 2, set()), RAN + "resumed after epoch 1 of 4\n", "checkpoint of epoch 2"),
    (finished.FinishedWork(set(), 2, set()), "Stage 'train' is cached - skipping run, checking out outputs\n", ""),
    (finished.FinishedWork(set(), 0, {"ab12"}), "", "DVC's cache lacks ab12"),
]


@pytest.mark.parametrize(("before", "shown", "lost"), FINISHED)
def test_what_was_finished_is_not_made_again(before, shown, lost, tmp_path):
    found = finished.find_lost(before, tmp_path, shown)
    assert lost in found and bool(lost) == bool(found)


def test_a_dvc_lock_that_is_cut_records_nothing(tmp_path):
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  a:\n    cmd: x\n    outs:\n    - path: b\n")
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "dvc.lock").write_bytes((tmp_path / "dvc.lock").read_bytes())
    assert finished.read_recorded(tmp_path, whole) == {"a"}
    for cut in ("    cmd: x\n", "  a:\n", "stages:\n"):
        content = (whole / "dvc.lock").read_text()
        (tmp_path / "dvc.lock").write_text(content[: content.index(cut) + len(cut)])
        assert finished.read_recorded(tmp_path, whole) == set()


def test_a_run_that_is_logged_twice_is_found(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store, store:
        store.execute("create table tags (key text, value text, run_uuid text)")
        runs = [("r1", "train"), ("r2", "train"), ("r3", "evaluate")]
        store.executemany("insert into tags values ('stage', ?, ?)", [(stage, run) for run, stage in runs])
        store.executemany("insert into tags values ('model.sha256', 'a', ?)", [(run,) for run, _ in runs])
    assert together.find_logged_twice(tmp_path) == "2 runs of model.sha256 a, stage train"


def test_a_crash_counts_apart_only_where_the_program_has_another_process(tmp_path, monkeypatch):
    """A single picture is read by predict itself, one of several is not."""
    seen = []

    @contextlib.contextmanager
    def noted():
        seen.append("in its own process")
        yield

    monkeypatch.setattr(decoders, "own_process", noted)
    decoder, png = decoders.NAMED["cases in a folder, x.png"], next(corpus.pictures())
    decoder.act(png, tmp_path)
    assert seen == []
    (tmp_path / "folder/y.png").write_bytes(png)
    decoder.act(png, tmp_path)
    assert len(seen) == 2
