"""The model card: what a model is for, what it scored and where it fails, worked out from its own facts.

One list of sections, of plain text and tables, is what a page shows; the Markdown is written from the same list.
Nothing but its words is imported here, so that whoever serves the model can show its card. Which passages apply follows
from the facts: a card of phantoms does not speak of patients, nor one of own images of the public data set.
"""

from brainseg.reporting import card_words as words

NOTE = (
    "<!-- Written by `brainseg card` from the model's own facts and numbers; its words are in "
    "src/brainseg/reporting/card_words.py. -->"
)
MORE = (
    "Definitions: [metrics.md](metrics.md). All numbers and pictures: [metrics/report.html](../metrics/report.html). "
    "Beside other people's numbers: [comparability.md](comparability.md). What was tried, and the patients that fail: "
    "[experiments.md](experiments.md)."
)


def facts(manifest: dict, evaluation: dict) -> dict:
    """What an exported model carries, from models/unet.json and metrics/evaluation.json."""
    protocol = evaluation["protocol"]
    rule = {
        "threshold": protocol["threshold"],
        "min_component": protocol["postprocessing"]["min_component"],
        "mirror": protocol["tta"] != "none",
    }
    model = {name: value for name, value in manifest.items() if name not in ("layers", "seen")}
    return {"marks": protocol["marks"], "model": model, "rule": rule, "evaluation": evaluation}


def document(facts: dict, out_of_fold: dict | None = None) -> str:
    """The text of docs/model-card.md: the card, where it comes from, and links to the pages beside it."""
    heading, _, rest = markdown(facts, out_of_fold).partition("\n")
    return f"{heading}\n\n{NOTE}\n{rest}\n{MORE}\n"


def markdown(facts: dict, out_of_fold: dict | None = None) -> str:
    """The card as Markdown; text of the data, as names of institutions, cannot become markup."""
    parts = [f"# Model card: {title(facts)}"]
    for section in sections(facts, out_of_fold):
        parts += [f"## {_escaped(section['title'])}", *map(_escaped, section["text"])]
        if section["table"]:
            rows = [section["table"]["head"], *section["table"]["rows"]]
            lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
            parts.append("\n".join([lines[0], f"| {' | '.join('---' for _ in rows[0])} |", *lines[1:]]))
    return "\n\n".join(parts) + "\n"


def title(facts: dict) -> str:
    return f"brainseg {words.NETWORKS[facts['model']['network']['name']]}"


def sections(facts: dict, out_of_fold: dict | None = None) -> list[dict]:
    """The card as plain text, in reading order.

    Args:
        facts: ``marks``, ``model``, ``rule`` and ``evaluation``, as an exported model carries them.
        out_of_fold: metrics/cross_validation/summary.json; left out where it is of another recipe than the model.

    Returns:
        Each with ``title``, ``text`` (paragraphs) and ``table`` (``head`` and ``rows`` of cells, or None).
    """
    source = facts["model"]["protocol"]["source"]
    folds = out_of_fold if out_of_fold and same_recipe(facts, out_of_fold) else None
    citations = [f"Cite the data: {text}" for text in words.CITATIONS] if source == "kaggle" else []
    return [
        *_marks(facts),
        _section("Intended use", "Research use only. Not for diagnosis, treatment, triage or any other clinical use.",
                 words.INTENDED[source]),
        _section("The model", table=_table(["", ""], _model(facts))),
        _section("Data and protocol", *_protocol(facts, folds), table=_table(["", "training", "validation", "test"],
                 [_counts(facts, what) for what in ("patients", "slices")])),
        _section("Numbers", *_said_of_numbers(facts, folds), table=_numbers(facts, folds)),
        _section("By institution", "Institutions with few patients are together “other”, not the same in each column.",
                 table=_groups(facts, folds, "by_institution")),
        _section("By size of the tumour", "Thirds of the patients, by all tumour pixels of a patient.",
                 table=_groups(facts, folds, "by_size")),
        _section("Where it fails", *_failures(facts, folds)),
        _section("What it does not know", words.UNKNOWN[source]),
        _section("Reference", words.REFERENCE[source]),
        _section("Fairness", words.FAIRNESS[source]),
        _section("Training", _training(facts["model"]["training"])),
        _section("Licence and citation", words.LICENCE[source], *citations),
    ]  # fmt: skip


def same_recipe(facts: dict, out_of_fold: dict) -> bool:
    """Whether a cross-validation is of the recipe that trained this model, on as many patients and by its protocol."""
    model, made = facts["model"], out_of_fold["params"]
    blocks = {"network": model["network"], "preprocess": model["preprocess"], **model["training"]["parameters"]}
    alike = all(blocks[block].get(key) == value for block in blocks for key, value in made[block].items())
    here = facts["evaluation"]["protocol"]
    here = here | {counted: sum(model["protocol"][counted].values()) for counted in ("patients", "slices")}
    keys = ("source", "unit", "grid", "tta", "patients", "slices")
    return alike and all(here[key] == out_of_fold["protocol"][key] for key in keys)


def _section(title: str, *text: str, table: dict | None = None) -> dict:
    return {"title": title, "text": list(text), "table": table}


def _table(head: list[str], rows: list[list[str]]) -> dict | None:
    return {"head": head, "rows": rows} if rows else None


def _marks(facts: dict) -> list[dict]:
    """What a reader must know before believing any number, first of all."""
    marks = facts["marks"]
    return [_section("Read this first", *(f"{mark[:1].upper()}{mark[1:]}." for mark in marks))] if marks else []


def _model(facts: dict) -> list[list[str]]:
    model, rule = facts["model"], facts["rule"]
    contract, network = model["contract"], model["network"]
    height, width = contract["size"]
    channels = contract["channels"]
    missing = "; a missing contrast is replaced by FLAIR" if "FLAIR" in channels and len(channels) > 1 else ""
    slices = f", with {contract['slices'] - 1} neighbours of each" if contract["slices"] > 1 else ""
    stem = f", {('', 'half', 'a quarter')[network['stem'] // 2]} of the resolution inside" if network["stem"] else ""
    size = rule["min_component"]
    removed = f"connected parts under {size} voxels are removed" if size else "nothing is removed"
    mirrored = "averaged with its mirror image, " if rule["mirror"] else ""
    norm = "no" if network["norm"] == "none" else network["norm"]
    seen = "lower-grade gliomas" if model["protocol"]["source"] == "kaggle" else "what its training masks mark"
    rows = {
        "task": f"outline FLAIR abnormality of {seen}, slice by slice" if "FLAIR" in channels else f"outline {seen}",
        "input": f"axial slices{slices}, {height} x {width} pixels, {_counted(len(channels), 'channel')} "
        f"({', '.join(channels)}), intensities from 0 to 255{missing}",
        "output": "probability of tumour in each pixel",
        "from probability to outline": f"{mirrored}cut at {rule['threshold']:g}; {removed}",
        "network": f"{words.NETWORKS[network['name']]}, {network['filters']} filters, depth {network['depth']}, {norm} "
        f"normalisation{stem}; {model['parameters']:,} parameters",
        "weights": f"sha256 {model['weights_sha256']}",
    }
    return [list(row) for row in rows.items()]


def _protocol(facts: dict, folds: dict | None) -> list[str]:
    protocol = facts["model"]["protocol"]
    apart = {
        "patient": "No patient is in more than one of training, validation and test.",
        "institution": "Whole institutions are left out for the test.",
        "slice": "Slices of one patient are in more than one of the three: neighbours of test slices were trained on.",
    }
    chosen = "Threshold and smallest part were chosen on the validation patients; the test patients had no say in them."
    counted = folds and (folds["protocol"]["patients"], protocol["patients"]["test"])
    recipe = [words.RECIPE] if protocol["source"] == "kaggle" and counted == words.TRIED else []
    return [f"{words.DATA[protocol['source']]}. {apart[protocol['unit']]} {chosen}", *recipe]


def _counts(facts: dict, what: str) -> list[str]:
    counts = facts["model"]["protocol"][what]
    return [what, *(f"{counts[subset]:,}" for subset in ("train", "val", "test"))]


def _said_of_numbers(facts: dict, folds: dict | None) -> list[str]:
    dice = facts["evaluation"]["val"]["volume"]["dice"]
    text = ["Brackets are 95 % bootstrap intervals over patients."]
    text += [f"Validation patients, on whom the outline's rule was chosen: volume Dice {_mean(dice)}."]
    if folds:
        means = ", ".join(_number(fold["volume_dice"]["mean"]) for fold in folds["folds"])
        patients = f"all {folds['protocol']['patients']:,} patients"
        text += [
            f"Out of fold: {patients}, each scored by a model of the same recipe that never saw it; the folds: {means}."
        ]
    return [" ".join(text)]


def _numbers(facts: dict, folds: dict | None) -> dict | None:
    evaluation = facts["evaluation"]
    columns = [evaluation["test"], *([folds["test"]] if folds else [])]
    unit = evaluation["test"]["slice"]["unit"]
    unit = {"px": "pixels"}.get(unit, unit)
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
        _row("volume Dice, each slice by itself", columns, "alone", "one_slice_dice"),
        _row("volume Dice, given FLAIR alone", columns, "alone", "flair_only_dice"),
    ]
    for name, what in (("flair_threshold", "threshold on FLAIR"), ("empty", "nothing marked")):
        row = _row(f"baseline: {what}, volume Dice", [evaluation["baselines"][name]], "volume", "dice")
        rows.append(row + ["", ""] * (len(columns) - 1))
    head = ["", f"{_counted(facts['model']['protocol']['patients']['test'], 'test patient')}, mean", "median"]
    return _table([*head, *(["out of fold, mean", "median"] if folds else [])], rows)


def _row(name: str, columns: list[dict], block: str, key: str, digits: int = 3) -> list[str]:
    row = [name]
    for column in columns:
        value = column[block][key]
        two = (
            (_mean(value, digits), _number(value["median"], digits))
            if isinstance(value, dict)
            else (_number(value), "")
        )
        row += two
    return row


def _groups(facts: dict, folds: dict | None, block: str) -> dict | None:
    """Mean volume Dice of groups of patients; the sides may have other groups."""
    sides = [facts["evaluation"]["test"][block], *([folds["test"][block]] if folds else [])]
    names = list(dict.fromkeys(name for side in reversed(sides) for name in side))
    rows = [[name, *(cell for side in sides for cell in _group(side.get(name)))] for name in names]
    head = ["", "test patients", "volume Dice", *(["patients out of fold", "volume Dice"] if folds else [])]
    return _table(head, rows)


def _group(group: dict | None) -> tuple[str, str]:
    if group is None:
        return "", ""
    upto = f" (up to {group['up_to']:,} pixels)" if "up_to" in group else ""
    return f"{group['n']:,}{upto}", _mean({**group, "mean": group["dice"]})


THIRDS = {"small": ("smallest", "large"), "medium": ("middle", ""), "large": ("largest", "small")}  # the opposite


def _failures(facts: dict, folds: dict | None) -> list[str]:
    """Which third and which institution scores lowest, where most patients tell; what FLAIR alone costs."""
    test = facts["evaluation"]["test"]
    scored = folds["test"] if folds else test
    where = "out of fold" if folds else "on the test patients"
    sizes, here = _defined(scored["by_size"]), _defined(test["by_size"])
    said = []
    if len(sizes) > 1:
        worst = min(sizes, key=lambda name: sizes[name])
        other = THIRDS[worst][1] if THIRDS[worst][1] in sizes else max(sizes, key=lambda name: sizes[name])
        patients = sum(group["n"] for group in scored["by_size"].values())
        numbers = f"{sizes[worst]:.3f} against {sizes[other]:.3f} for the {THIRDS[other][0]} third"
        said.append(
            f"{where[0].upper()}{where[1:]} the third of the {patients:,} patients with the {THIRDS[worst][0]} tumours "
            f"scores lowest (mean volume Dice {numbers}){_worst_institution(scored)}."
        )
        said += [_agreement(here, worst, other, test)] if folds and {worst, other} <= set(here) else []
    whole, flair = scored["volume"]["dice"]["mean"], scored["alone"]["flair_only_dice"]
    if None not in (whole, flair):
        cost = f"loses {whole - flair:.2f}" if whole - flair >= 0.005 else "loses nothing"
        said.append(f"Given FLAIR alone it {cost} {where}.")
    return [" ".join(said)] if said else ["So few patients do not tell."]


def _agreement(here: dict[str, float], worst: str, other: str, test: dict) -> str:
    """Whether the test patients say the same of the two thirds."""
    patients = sum(group["n"] for group in test["by_size"].values())
    numbers = f"({here[other]:.3f} for the {THIRDS[other][0]} third, {here[worst]:.3f} for the {THIRDS[worst][0]})"
    if here[worst] < here[other]:
        return f"On the {patients:,} test patients it is the same {numbers}."
    return f"On the {patients:,} test patients it is the other way round {numbers}: so few do not settle it."


def _worst_institution(scored: dict) -> str:
    groups = {name: dice for name, dice in _defined(scored["by_institution"]).items() if name != "other"}
    if len(groups) < 2:
        return ""
    worst = min(groups, key=lambda name: groups[name])
    return f", and institution {worst} ({groups[worst]:.3f})"


def _defined(groups: dict) -> dict[str, float]:
    return {name: group["dice"] for name, group in groups.items() if group["dice"] is not None}


def _training(training: dict) -> str:
    began = " It began with the weights of another model." if training["initial_weights_sha256"] else ""
    return (
        f"{_counted(training['epochs'], 'epoch')}, weights of epoch {training['kept_epoch']}; "
        f"engine {training['engine']}, device {training['device']}, precision {training['precision']}, "
        f"{_counted(training['threads'], 'thread')}, seed {training['seed']}.{began}"
    )


def _mean(block: dict, digits: int = 3) -> str:
    """A mean with its interval, where there is one."""
    interval = "" if block["lo"] is None else f" [{_number(block['lo'], digits)}, {_number(block['hi'], digits)}]"
    return _number(block["mean"], digits) + interval


def _number(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _escaped(text: str) -> str:
    """Nothing of a text as markup: no tag, link, emphasis, code or second cell; one line."""
    line = " ".join(text.split()).replace("&", "&amp;")
    for mark in "\\`*<|":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("](", "]\\(")
