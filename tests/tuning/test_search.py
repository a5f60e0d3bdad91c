"""Optuna's proposals, and trials that are finished, stopped, failed or lost; without any training."""

import hashlib
import math
import threading

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from brainseg.errors import DataError, MachineError, RunError
from brainseg.experiments.running import local
from brainseg.experiments.running import runner as running
from brainseg.experiments.running.local import LocalRunner
from brainseg.experiments.running.progress import Board
from brainseg.experiments.running.runner import Seen
from brainseg.tuning import outcome, report, search, space, trials, tune
from brainseg.tuning.search import Options, Search
from brainseg.tuning.space import SearchSpace
from brainseg.tuning.trials import Experiment, Study
from tests.support.toy_pipeline import PROJECT

EPOCHS = 9
SPACE = SearchSpace(
    parameters={
        "train.learning_rate": space.Range(low=0.0001, high=0.1, log=True),
        "train.loss": space.Choices(choices=["dice", "bce_dice"]),
        "network.dropout": space.Range(low=0.0, high=0.5),
    },
    fixed={"train": {"epochs": EPOCHS}},
)


def objective(overrides) -> float:
    """Best at a learning rate of 0.01, with bce_dice and without dropout."""
    train = {"loss": "bce_dice", "learning_rate": 0.002} | overrides["train"]
    dropout = overrides.get("network", {}).get("dropout", 0.1)
    return 0.9 - 0.1 * abs(math.log10(train["learning_rate"]) + 2) - 0.2 * dropout - 0.05 * (train["loss"] == "dice")


class Trainings:
    """Arithmetic in place of trainings; ``names``: those that were run; ``broken``: the number of one that fails."""

    def __init__(self):
        self.names, self.broken, self.lock = [], None, threading.Lock()
        self.error: Exception = RunError("train.loss", "is not finite", "lower the learning rate")

    def plan(self, study, overrides):
        digest = hashlib.sha256(str(overrides).encode()).hexdigest()[:8]
        return [Experiment(f"tune-{study.name}-{digest}-{fold}", overrides, digest) for fold in range(study.folds)]

    def run(self, study, experiments, watch, runner):
        with self.lock:
            self.names.append(experiments[0].name)
            if len(self.names) == self.broken:
                raise self.error
        score = objective(experiments[0].overrides)
        for fold in range(study.folds):
            for epoch in range(1, EPOCHS + 1):
                if watch(fold, Seen("train", epoch, EPOCHS, score * epoch / EPOCHS)):
                    assert fold == 0, "an epoch of another fold is no comparison"
                    return None
        return score


@pytest.fixture
def trainings(monkeypatch):
    found = Trainings()
    monkeypatch.setattr(trials, "plan", found.plan)
    monkeypatch.setattr(trials, "run", found.run)
    monkeypatch.setattr(search.repro, "clean_up", lambda root: None)
    return found


@pytest.fixture
def study(tmp_path, trainings):
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    return Study("toy", tmp_path, 5, 1)


def go(study, count, jobs=1, seed=1, searched=SPACE):
    board = Board("toy", "trial", EPOCHS * study.folds, is_quiet=True)
    return Search(study, searched, Options(count, seed), board, LocalRunner(study.root, jobs)).run()


def test_the_search_begins_with_the_default_and_finds_better(study):
    found = go(study, 20)
    first, best = found.trials[0], search.list_ended(found)[0]
    assert first.params == {"train.learning_rate": 0.002, "train.loss": "bce_dice", "network.dropout": 0.1}
    assert best.value > first.value + 0.02
    states = [trial.state for trial in found.trials]
    assert len(states) == 20 and states.count(TrialState.PRUNED) >= 3
    assert all(max(t.intermediate_values) == 3 for t in found.trials if t.state == TrialState.PRUNED)  # a third


def test_the_default_is_never_stopped(study, monkeypatch):
    """Also when it was lost and is run again: what is found cannot be worse."""
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: True)
    go(study, 2)
    found = go(study, 3)
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    lost = optuna.create_study()
    lost.enqueue_trial({"x": 1.0}, user_attrs={search.DEFAULT: True})
    lost.ask().suggest_float("x", 0, 2)
    search.requeue_lost(lost)
    assert lost.ask().user_attrs == {search.DEFAULT: True, search.AGAIN: 0}


def test_the_same_search_again_gives_the_same_proposals(study, tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "again/params.yaml").write_text((PROJECT / "params.yaml").read_text())
    one, other = (go(each, 14) for each in (study, study._replace(root=tmp_path / "again")))
    assert [trial.params for trial in one.trials] == [trial.params for trial in other.trials]


def test_a_killed_search_runs_no_finished_trial_again(study, trainings):
    """Two trials were running when it was killed: they are run again with the same parameters, the others are not."""
    found = go(study, 5)
    lost = [found.ask() for _ in range(2)]
    proposed = [SPACE.suggest(trial) for trial in lost]
    before = list(trainings.names)
    again = go(study, 9)
    assert trainings.names[:5] == before and not set(trainings.names[5:]) & set(before)
    assert trainings.names[5:7] == [trainings.plan(study, each)[0].name for each in proposed]
    assert search.count_begun(again) == 9 and len(trainings.names) == 9
    assert [trial.params for trial in again.trials[7:9]] == [trial.params for trial in lost]
    assert go(study, 9).trials[-1].number == again.trials[-1].number  # all are done


def test_side_by_side_each_trial_is_run_once(study, trainings):
    found = go(study, 16, jobs=4)
    assert len(found.trials) == len(set(trainings.names)) == 16


def test_a_trial_that_fails_is_no_end_of_the_search(study, trainings):
    trainings.broken = 2
    found = go(study, 6)
    assert found.trials[1].state == TrialState.FAIL and "not finite" in found.trials[1].user_attrs[search.REASON]
    assert search.count_begun(found) == 6
    table = outcome.tabulate(found, SPACE)
    assert (table["state"] == "failed").sum() == 1 and table["dice"].iloc[0] == table["dice"].max()


def test_what_hits_every_trial_ends_the_search_and_is_run_again(study, trainings):
    """A full disk is no fault of the parameters: the trial is lost, and the next run begins with it."""
    trainings.broken, trainings.error = 3, MachineError("the disk", "is full", "free some space")
    with pytest.raises(MachineError, match="is full"):
        go(study, 6)
    asked = trainings.names[2]
    trainings.broken = None
    found = go(study, 6)
    assert trainings.names[3] == asked and len(search.list_kept(found)) == 6
    assert "failed" not in set(outcome.tabulate(found, SPACE)["state"])


def test_ctrl_c_ends_what_runs_and_asks_for_no_more(study, trainings, monkeypatch):
    ended, begun = threading.Event(), threading.Event()

    def run(*_):
        begun.set()
        assert ended.wait(20)
        raise MachineError("log", "the training ended with code -2", "")

    monkeypatch.setattr(trials, "run", run)
    monkeypatch.setattr(local, "end_groups", ended.set)

    def interrupt(jobs):
        assert begun.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(study, 6, jobs=2)
    monkeypatch.undo()
    storage = f"sqlite:///{study.state / 'study.db'}"
    left = optuna.load_study(study_name="toy", storage=storage).trials
    assert len(left) == 2 and all(trial.state == TrialState.RUNNING for trial in left)


def test_a_trial_of_the_same_parameters_is_not_run_twice(study, trainings):
    few = SearchSpace(parameters={"train.loss": space.Choices(choices=["dice", "bce_dice"])}, fixed=SPACE.fixed)
    found = go(study, 6, searched=few)
    assert len(trainings.names) == len(set(trainings.names)) <= 2
    assert len(found.trials) == 6


def test_a_lost_trial_tells_again_what_it_had_told(study):
    found = go(study, 2)
    lost = found.ask()
    SPACE.suggest(lost)
    lost.report(0.123, 1)
    again = go(study, 4)
    repeated = next(trial for trial in again.trials if search.AGAIN in trial.user_attrs)
    assert repeated.intermediate_values[1] == 0.123 and len(repeated.intermediate_values) > 1


def test_trials_of_another_machine_are_left_alone(study):
    found = go(study, 2)
    theirs = found.ask()
    SPACE.suggest(theirs)
    theirs.set_user_attr(search.HOST, "elsewhere")
    assert go(study, 4).trials[theirs.number].state == TrialState.RUNNING


def test_only_the_first_inner_fold_can_stop_a_trial(study):
    found = go(study._replace(folds=3), 14)
    stopped = [trial for trial in found.trials if trial.state == TrialState.PRUNED]
    assert stopped and all(set(trial.intermediate_values) <= set(range(1, EPOCHS + 1)) for trial in found.trials)


def test_another_search_of_the_same_name_is_refused(study):
    go(study, 2)
    with pytest.raises(DataError, match="toy: is a search of other ranges"):
        go(study, 3, searched=SPACE.model_copy(update={"fixed": {"train": {"epochs": 3}}}))


def test_a_search_without_a_result_says_where_to_look(study, trainings, monkeypatch):
    def fail(*_):
        raise RunError("train.loss", "is not finite", "")

    monkeypatch.setattr(trials, "run", fail)
    with pytest.raises(RunError, match="no trial came to its end"):
        go(study, 2)


def test_what_chance_explains():
    """Blom's value is the mean of the largest of n normal values, within a few percent."""
    rng = np.random.default_rng(1)
    for count in (5, 30):
        drawn = rng.normal(0, 0.01, (20000, count)).max(axis=1).mean()
        assert outcome.expect_by_chance(count, 0.01) == pytest.approx(drawn, rel=0.03)
    assert outcome.expect_by_chance(1, 0.01) == 0
    assert outcome.estimate_deviation([0.80, 0.81, 0.79]) == pytest.approx(0.01 / 0.8862, rel=1e-4)  # c4 of 3


def test_equal_scores_have_no_importance(study, trainings, monkeypatch):
    monkeypatch.setattr(trials, "run", lambda *_: 0.0)
    assert outcome.measure_importance(go(study, 6)) == {}


def test_the_report_has_every_trial_three_pictures_and_the_honest_sentence(study):
    found = go(study, 20)
    repeats = outcome.repeat_default(
        study, SPACE, 3, Board("toy", "trial", EPOCHS, is_quiet=True), LocalRunner(study.root, 2)
    )
    assert repeats == pytest.approx([objective({"train": {}})] * 3)
    done = outcome.gather(study, SPACE, found, [0.80, 0.81, 0.79], None)
    page = report.write(done, tune.watch_all(found))
    text = page.read_text()
    assert text.count("data:image/png") == 3 and text.count("<tr>") == 21
    gain, chance = done.score - 0.80, outcome.expect_by_chance(20, 0.01 / 0.8862)
    assert f"chance explains about {chance / gain:.0%} of the gain" in text and "train.epochs 9" in text
    assert set(done.importance) == set(SPACE.parameters)
    assert {path.name for path in page.parent.iterdir()} == {
        "trials.csv", "summary.json", "history.png", "parallel.png", "importance.png", "report.html",
    }  # fmt: skip


def test_nothing_better_than_the_default_is_said(study):
    done = outcome.gather(study, SPACE, go(study, 3), [0.95, 0.96], None)
    assert any("found nothing better" in line for line in outcome.describe(done))


def test_parameters_in_a_row():
    params = {"train.learning_rate": 0.00123, "train.loss": "dice"}
    assert search.describe_params(params) == "learning_rate 0.00123  loss dice"


def test_a_training_that_begins_again_tells_no_epoch_twice(study, trainings, monkeypatch):
    """As on another node: the pruner has heard of its first epochs, and Optuna warns of values that are told twice."""
    told = []
    monkeypatch.setattr(optuna.Trial, "report", lambda trial, value, step: told.append((step, value)))
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: False)

    def run(study, experiments, watch, runner):
        for epoch in (1, 2, 1, 2, 3):
            watch(0, Seen("train", epoch, EPOCHS, epoch / 10))
        return 0.5

    monkeypatch.setattr(trials, "run", run)
    go(study, 1)
    assert told == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_optuna_says_nothing_itself(study, capsys):
    go(study, 2)
    assert "A new study" not in capsys.readouterr().err
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
