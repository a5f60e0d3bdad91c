"""The model card: what a model is for, what it scored and where it fails, derived from the model's facts.

The card is a list of sections with plain text and tables. The page and the Markdown are written from this list.
The module imports no library but pydantic, so that the server can show the card. The facts
decide which passages apply: a card of phantoms does not mention patients, and a card of own images does not mention the
public data set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from brainseg.config import ParamsBlock, reason
from brainseg.errors import IntegrityError
from brainseg.evaluation.results import (
    CrossValidationSummary,
    Evaluation,
    GroupDice,
    Mean,
    NetworkScores,
    ReleasedEvaluation,
    SizeGroupDice,
    calibration_of,
    rule_of,
)
from brainseg.inference import postprocessing
from brainseg.inference.postprocessing import Rule
from brainseg.models.manifest import ExportedManifest, Manifest, Training
from brainseg.reporting import card_words as words
from brainseg.reporting import pages

NOTE = (
    "<!-- Written by `brainseg card` from the model's own facts and numbers; its words are in "
    "src/brainseg/reporting/card_words.py. -->"
)
MORE = (
    "Definitions: [metrics.md](metrics.md). All numbers and pictures: "
    "[metrics/report.html](../../metrics/report.html). Beside published numbers: "
    "[comparability.md](../explanation/comparability.md). What was tried, and the patients that fail: "
    "[experiments.md](../explanation/experiments.md)."
)


class ModelRule(ParamsBlock):
    """From probability to outline."""

    threshold: float
    min_component: int
    min_share: float = 0.0
    mirror: bool
    temperature: float = 1.0
    bias: float = 0.0
    skew: float = 0.0


class ModelFacts(ParamsBlock):
    """The facts that an exported model holds, without those that the card does not show."""

    model_config = ConfigDict(extra="ignore")

    marks: list[str]
    model: ExportedManifest
    rule: ModelRule
    evaluation: Evaluation | ReleasedEvaluation

    @property
    def is_released(self) -> bool:
        """Whether it was trained on all patients, so that its numbers are those of its recipe out of fold."""
        return isinstance(self.evaluation, ReleasedEvaluation)


def parse_facts(facts: Mapping, path: Path) -> ModelFacts:
    """The facts that the ONNX file at ``path`` holds.

    Raises:
        IntegrityError: they are of another version.
    """
    try:
        return ModelFacts.model_validate(facts)
    except ValueError as error:
        fix = "run: dvc repro export (of a training), or make pull (the released model)"
        raise IntegrityError(path, f"its metadata are of another version: {reason(error)}", fix) from None


def collect_facts(manifest: Manifest, evaluation: Evaluation) -> ModelFacts:
    """The facts that an exported model holds, from models/unet.json and metrics/evaluation.json."""
    protocol = evaluation.protocol
    return ModelFacts(
        marks=protocol.marks,
        model=ExportedManifest.model_validate(manifest.exported()),
        rule=ModelRule(
            **rule_of(protocol)._asdict(), **calibration_of(protocol)._asdict(), mirror=protocol.tta != "none"
        ),
        evaluation=evaluation,
    )


def render_document(facts: ModelFacts, out_of_fold: CrossValidationSummary | None = None) -> str:
    """The text of docs/reference/model-card.md: the card, a note on its origin, and links to related pages."""
    heading, _, rest = render_markdown(facts, out_of_fold).partition("\n")
    return f"{heading}\n\n{NOTE}\n{rest}\n{MORE}\n"


def render_markdown(facts: ModelFacts, out_of_fold: CrossValidationSummary | None = None) -> str:
    """The card as Markdown. Text from the data, such as names of institutions, is escaped."""
    parts = [f"# Model card: {title(facts)}"]
    for section in sections(facts, out_of_fold):
        parts += [f"## {_escape(section['title'])}", *map(_escape, section["text"])]
        if section["table"]:
            rows = [section["table"]["head"], *section["table"]["rows"]]
            lines = [f"| {' | '.join(map(_escape, row))} |" for row in rows]
            parts.append("\n".join([lines[0], f"| {' | '.join('---' for _ in rows[0])} |", *lines[1:]]))
    return "\n\n".join(parts) + "\n"


def title(facts: ModelFacts) -> str:
    return f"brainseg {words.NETWORKS[facts.model.network.name]}"


def sections(facts: ModelFacts, out_of_fold: CrossValidationSummary | None = None) -> list[dict]:
    """The card as plain text, in reading order.

    Args:
        facts: of the model.
        out_of_fold: metrics/cross_validation/summary.json; ignored if it is of another recipe than the model, or if the
            model's own numbers are out of fold.

    Returns:
        Sections with ``title``, ``text`` (paragraphs) and ``table`` (``head`` and ``rows`` of cells, or None).
    """
    source = facts.model.protocol.source
    folds = out_of_fold if out_of_fold and not facts.is_released and is_same_recipe(facts, out_of_fold) else None
    citations = [f"Cite the data: {text}" for text in words.CITATIONS] if source == "kaggle" else []
    return [
        *_marks(facts),
        _section("Intended use", "Research use only. Not for diagnosis, treatment, triage or any other clinical use.",
                 words.INTENDED[source]),
        _section("The model", table=_table(["", ""], _model(facts))),
        _section("Data and protocol", *_protocol(facts, folds), table=_count_table(facts)),
        _section("Numbers", *_describe_numbers(facts, folds), table=_numbers(facts, folds)),
        _section("By institution", words.SMALL_INSTITUTIONS,
                 table=_groups(facts, folds, "by_institution")),
        _section("By size of the tumour", "Thirds of the patients, by all tumour pixels of a patient.",
                 table=_groups(facts, folds, "by_size")),
        _section("Where it fails", *_describe_failures(facts, folds)),
        _section("What it does not know", words.UNKNOWN[source], *_describe_scalp(facts.model)),
        _section("Reference", words.REFERENCE[source]),
        _section("Fairness", words.FAIRNESS[source]),
        _section("Training", _describe_training(facts.model.training)),
        _section("Licence and citation", words.LICENCE[source], *citations),
    ]  # fmt: skip


def is_same_recipe(facts: ModelFacts, out_of_fold: CrossValidationSummary) -> bool:
    """Whether a cross-validation has this model's recipe and protocol, and the same number of patients."""
    model, made, folds = facts.model, out_of_fold.params, out_of_fold.protocol
    blocks = {"network": model.network, "preprocess": model.preprocess, **dict(model.training.parameters)}
    alike = "ensemble" not in made and all(
        blocks[block] == type(blocks[block]).model_validate(made[block]) for block in blocks
    )
    counts = sum(model.protocol.patients.values()), sum(model.protocol.slices.values())
    same = all(
        getattr(facts.evaluation.protocol, key) == getattr(folds, key) for key in ("source", "unit", "grid", "tta")
    )
    return alike and same and counts == (folds.patients, folds.slices)


def _section(title: str, *text: str, table: dict | None = None) -> dict:
    return {"title": title, "text": list(text), "table": table}


def _table(head: list[str], rows: list[list[str]]) -> dict | None:
    return {"head": head, "rows": rows} if rows else None


def _marks(facts: ModelFacts) -> list[dict]:
    """The warnings that a reader must know before any number."""
    warnings = [f"{mark[:1].upper()}{mark[1:]}." for mark in facts.marks]
    return [_section("Read this first", *warnings)] if warnings else []


def _model(facts: ModelFacts) -> list[list[str]]:
    model, rule = facts.model, facts.rule
    contract, network = model.contract, model.network
    height, width = contract.size
    channels = contract.channels
    missing = "; a missing contrast is replaced by FLAIR" if "FLAIR" in channels and len(channels) > 1 else ""
    slices = f", with {contract.slices - 1} neighbours of each" if contract.slices > 1 else ""
    stem = f", {('', 'half', 'a quarter')[network.stem // 2]} of the resolution inside" if network.stem else ""
    small = postprocessing.describe_removed(Rule(rule.threshold, rule.min_component, rule.min_share))
    removed = f"{small} are removed from a volume, none from a slice alone" if small else "nothing is removed"
    mirrored = "averaged with its mirror image, " if rule.mirror else ""
    calibrated = f"calibrated ({how}), " if (how := pages.describe_calibration(calibration_of(rule))) else ""
    several = model.parts is not None and len(model.parts) > 1
    joined = f"the mean of {len(model.parts or [])} networks, of which the first is: " if several else ""
    norm = "no" if network.norm == "none" else network.norm
    seen = "lower-grade gliomas" if model.protocol.source == "kaggle" else "what its training masks mark"
    rows = {
        "task": f"outline FLAIR abnormality of {seen}, slice by slice" if "FLAIR" in channels else f"outline {seen}",
        "input": f"axial slices{slices}, {height} x {width} pixels, {_format_quantity(len(channels), 'channel')} "
        f"({', '.join(channels)}), intensities from 0 to 255{missing}",
        "output": "probability of tumour in each pixel",
        "from probability to outline": f"{mirrored}{calibrated}cut at {rule.threshold:g}; {removed}",
        "network": f"{joined}{words.NETWORKS[network.name]}, {network.filters} filters, depth {network.depth}, {norm} "
        f"normalisation{stem}; {model.parameters:,} parameters",
        **({"scalp": _describe_brain(model.brain)} if model.brain else {}),
        "weights": f"sha256 {model.weights_sha256}",
    }
    return [list(row) for row in rows.items()]


def _describe_brain(brain: ExportedManifest) -> str:
    counts = brain.protocol.patients
    trained, validated, everyone = counts["train"], counts["val"], sum(counts.values())
    learned = {"train": trained, "train_and_val": trained + validated, "all": everyone}[
        brain.training.parameters.train.subset
    ]
    return (
        f"each slice is answered twice, whole and without what another network does not call brain, and averaged; that "
        f"one is {words.NETWORKS[brain.network.name]}, {brain.network.filters} filters, depth {brain.network.depth}, "
        f"of {learned:,} volumes with masks of the brain"
    )


def _protocol(facts: ModelFacts, folds: CrossValidationSummary | None) -> list[str]:
    protocol = facts.model.protocol
    if isinstance(facts.evaluation, ReleasedEvaluation):
        folds_of = facts.evaluation.protocol
        told = words.RELEASED.format(folds=folds_of.folds, choosers=words.CHOOSERS[folds_of.cross_fitted])
        return [f"{words.DATA[protocol.source]}. {told}"]
    apart = {
        "patient": "No patient is in more than one of training, validation and test.",
        "institution": "Whole institutions are left out for the test.",
        "slice": "Slices of one patient are in more than one of the three: neighbours of test slices were trained on.",
    }
    calibrated = "Calibration, threshold" if pages.describe_calibration(calibration_of(facts.rule)) else "Threshold"
    chosen = f"{calibrated} and smallest part were chosen on the validation patients, without the test patients."
    counted = folds and (folds.protocol.patients, protocol.patients["test"])
    recipe = [words.RECIPE] if protocol.source == "kaggle" and counted == words.TRIED else []
    return [f"{words.DATA[protocol.source]}. {apart[protocol.unit]} {chosen}", *recipe]


def _count_table(facts: ModelFacts) -> dict | None:
    """Patients and slices; of a network of all patients those of the folds, which are the same."""
    heads = {"train": "training", "val": "validation", "test": "test"}
    if facts.is_released:
        heads = {"train": "training", "test": "scored out of fold"}
    counts = {"patients": facts.model.protocol.patients, "slices": facts.model.protocol.slices}
    rows = [[what, *(f"{count[subset]:,}" for subset in heads)] for what, count in counts.items()]
    return _table(["", *heads.values()], rows)


def _describe_numbers(facts: ModelFacts, folds: CrossValidationSummary | None) -> list[str]:
    text = ["Brackets are 95 % bootstrap intervals over patients."]
    if isinstance(facts.evaluation, ReleasedEvaluation):
        return text
    dice = facts.evaluation.val.volume.dice
    text += [f"Validation patients, on whom the outline's rule was chosen: volume Dice {_format_mean(dice)}."]
    if folds:
        means = ", ".join(_format_number(fold.volume_dice.mean) for fold in folds.folds)
        patients = f"all {folds.protocol.patients:,} patients"
        text += [
            f"Out of fold: {patients}, each scored by a model of the same recipe that never saw it; the folds: {means}."
        ]
    return [" ".join(text)]


def _numbers(facts: ModelFacts, folds: CrossValidationSummary | None) -> dict | None:
    evaluation = facts.evaluation
    columns = [evaluation.test, *([folds.test] if folds else [])]
    unit = "pixels" if evaluation.test.slice.unit == "px" else "mm"
    rows = [
        _row("volume Dice (per patient, all slices together)", columns, "volume", "dice"),
        _row("volume IoU", columns, "volume", "iou"),
        _row("Dice of slices with tumour", columns, "slice", "dice_tumour"),
        _row(f"95th percentile Hausdorff distance of those slices, {unit}", columns, "slice", "hd95", digits=1),
        _row("surface Dice of slices", columns, "slice", "surface_dice"),
        _row("Dice of all pixels pooled", columns, "pooled", "dice"),
        _row("slices with tumour where any is marked", columns, "detection", "slice_sensitivity"),
        _row("slices without tumour where any is marked", columns, "detection", "slice_false_positive_rate"),
        _row("calibration error, pixels given 0.1 or more", columns, "calibration", "ece_from_tenth"),
        _row(
            "the same before calibration (other pixels have 0.1 then)",
            columns,
            "calibration",
            "ece_from_tenth_before",
        ),
        _row("volume Dice, each slice alone", columns, "alone", "one_slice_dice"),
        _row("volume Dice, given FLAIR alone", columns, "alone", "flair_only_dice"),
        _row("volume Dice, without scalp", columns, "alone", "stripped_dice"),
    ]
    rows = [row for row in rows if any(row[1:])]  # what no run has measured
    if isinstance(evaluation, Evaluation):
        found = evaluation.baselines
        for baseline, what in ((found.flair_threshold, "threshold on FLAIR"), (found.empty, "nothing marked")):
            row = _row(f"baseline: {what}, volume Dice", [baseline], "volume", "dice")
            rows.append(row + ["", ""] * (len(columns) - 1))
    count = facts.model.protocol.patients["test"]
    whose = f"{count:,} patients out of fold" if facts.is_released else _format_quantity(count, "test patient")
    head = ["", f"{whose}, mean", "median"]
    return _table([*head, *(["out of fold, mean", "median"] if folds else [])], rows)


def _row(name: str, columns: Sequence[Any], block: str, key: str, digits: int = 3) -> list[str]:
    row = [name]
    for column in columns:
        scores = getattr(column, block)
        value = getattr(scores, key)
        if key not in scores.model_fields_set:  # nobody has measured it
            row += ("", "")
            continue
        two = (
            (_format_mean(value, digits), _format_number(value.median, digits))
            if isinstance(value, Mean)
            else (_format_number(value), "")
        )
        row += two
    return row


def _groups(facts: ModelFacts, folds: CrossValidationSummary | None, block: str) -> dict | None:
    """Mean volume Dice of groups of patients; test and cross-validation may have different groups."""
    sides = [getattr(scores, block) for scores in (facts.evaluation.test, *([folds.test] if folds else []))]
    names = list(dict.fromkeys(name for side in reversed(sides) for name in side))
    rows = [[name, *(cell for side in sides for cell in _group(side.get(name)))] for name in names]
    head = [
        "",
        "patients out of fold" if facts.is_released else "test patients",
        "volume Dice",
        *(["patients out of fold", "volume Dice"] if folds else []),
    ]
    return _table(head, rows)


def _group(group: GroupDice | SizeGroupDice | None) -> tuple[str, str]:
    if group is None:
        return "", ""
    upto = f" (up to {group.up_to:,} pixels)" if isinstance(group, SizeGroupDice) else ""
    return f"{group.n:,}{upto}", _format_number(group.dice) + _interval(group)


THIRDS = {"small": ("smallest", "large"), "medium": ("middle", ""), "large": ("largest", "small")}  # the opposite


def _describe_failures(facts: ModelFacts, folds: CrossValidationSummary | None) -> list[str]:
    """The third and the institution with the lowest scores, and the loss with FLAIR alone.

    Taken from the cross-validation if there is one, as it has more patients.
    """
    test = facts.evaluation.test
    scored = folds.test if folds else test
    where = "out of fold" if folds or facts.is_released else "on the test patients"
    sizes, here = _defined_dice(scored.by_size), _defined_dice(test.by_size)
    said = []
    if len(sizes) > 1:
        worst = min(sizes, key=lambda name: sizes[name])
        other = THIRDS[worst][1] if THIRDS[worst][1] in sizes else max(sizes, key=lambda name: sizes[name])
        patients = sum(group.n for group in scored.by_size.values())
        numbers = f"{sizes[worst]:.3f} against {sizes[other]:.3f} for the {THIRDS[other][0]} third"
        said.append(
            f"{where[0].upper()}{where[1:]} the third of the {patients:,} patients with the {THIRDS[worst][0]} tumours "
            f"scores lowest (mean volume Dice {numbers}){_describe_worst_institution(scored)}."
        )
        said += [_describe_agreement(here, worst, other, test)] if folds and {worst, other} <= set(here) else []
    whole, flair = scored.volume.dice.mean, scored.alone.flair_only_dice
    if whole is not None and flair is not None:
        cost = f"loses {whole - flair:.2f}" if whole - flair >= 0.005 else "loses nothing"
        said.append(f"Given FLAIR alone it {cost} {where}.")
    return [" ".join(said)] if said else ["There are too few patients to tell."]


def _describe_agreement(here: dict[str, float], worst: str, other: str, test: NetworkScores) -> str:
    """Whether the test patients show the same order of the two thirds."""
    patients = sum(group.n for group in test.by_size.values())
    numbers = f"({here[other]:.3f} for the {THIRDS[other][0]} third, {here[worst]:.3f} for the {THIRDS[worst][0]})"
    if here[worst] < here[other]:
        return f"On the {patients:,} test patients it is the same {numbers}."
    return f"On the {patients:,} test patients it is the other way round {numbers}; they are too few to decide."


def _describe_worst_institution(scored: NetworkScores) -> str:
    groups = {name: dice for name, dice in _defined_dice(scored.by_institution).items() if name != "other"}
    if len(groups) < 2:
        return ""
    worst = min(groups, key=lambda name: groups[name])
    return f", and institution {worst} ({groups[worst]:.3f})"


def _defined_dice(groups: Mapping[str, GroupDice | SizeGroupDice]) -> dict[str, float]:
    return {name: group.dice for name, group in groups.items() if group.dice is not None}


def _describe_scalp(model: ExportedManifest) -> list[str]:
    """Whether it learned from scans without scalp."""
    share = model.training.parameters.augmentation.scalp_dropout
    also = words.ALSO_STRIPPED.format(percent=round(100 * share)) if share else ""
    risk = words.HARDLY_TRIED if share else words.HARDLY_SEEN
    return [text.format(also=also, risk=risk) for text in words.SCALP.get(model.protocol.source, ())]


def _describe_training(training: Training) -> str:
    began = " It started with the weights of another model." if training.initial_weights_sha256 else ""
    if training.soft_masks_sha256:
        share = round(100 * training.parameters.train.soft_weight)
        began += f" It learned the answers of other networks beside the masks, with a share of {share} %."
    count = f" ({training.devices} of them)" if training.devices > 1 else ""
    return (
        f"{_format_quantity(training.epochs, 'epoch')}, weights of epoch {training.kept_epoch}; "
        f"engine {training.engine}, device {training.device}{count}, precision {training.precision}, "
        f"{_format_quantity(training.threads, 'thread')}, seed {training.seed}.{began}"
    )


def _format_mean(mean: Mean, digits: int = 3) -> str:
    """A mean with its interval, where there is one."""
    return _format_number(mean.mean, digits) + _interval(mean, digits)


def _interval(block: Mean | GroupDice | SizeGroupDice, digits: int = 3) -> str:
    return "" if block.lo is None else f" [{_format_number(block.lo, digits)}, {_format_number(block.hi, digits)}]"


def _format_number(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _format_quantity(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _escape(text: str) -> str:
    """Escape a text for Markdown: no tag, link, emphasis, code or table cell; one line."""
    line = " ".join(text.split()).replace("&", "&amp;")
    for mark in "\\`*<|":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("](", "]\\(")
