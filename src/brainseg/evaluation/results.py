"""What evaluation and cross-validation write, as pydantic models: read by attribute, refused where a key is amiss.

docs/reference/metrics.md defines each number; the JSON Schemas beside it are made by tools/write_schemas.py.
A model's fields stand in the order of the file's keys. A key that a file may lack has a default and is not written.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field

from brainseg.config import ParamsBlock, reason
from brainseg.errors import DataError, IntegrityError, guard
from brainseg.inference.postprocessing import Rule
from brainseg.inference.probabilities import Calibration

Count = Annotated[int, Field(ge=0)]
Least = Annotated[float, Field(ge=0)] | None  # 0 or more; None: undefined
UnitShare = Annotated[float, Field(ge=0, le=1)]
Share = UnitShare | None
Threshold = Annotated[float, Field(gt=0, lt=1)]
Temperature = Annotated[float, Field(gt=0)]  # of the probabilities to which the threshold is applied
Skew = Annotated[float, Field(gt=-1, lt=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]
Unit = Literal["patient", "slice", "institution"]
Mirroring = Literal["none", "mirrored left to right"]
Kind = TypeVar("Kind", bound=ParamsBlock)
DIGEST = "content_sha256"  # key of a summary of folds
FOLDS_AGAIN = "git restore it, or make it again, as the README says: brainseg cross-validate"


class Mean(ParamsBlock):
    """Over the n defined values; lo and hi: 95 % interval of the mean, patients resampled."""

    mean: Least
    median: Least
    lo: Least
    hi: Least
    n: Count
    undefined: Count


class MeanShare(Mean):
    """A mean of shares."""

    mean: Share
    median: Share
    lo: Share
    hi: Share


class VolumeScores(ParamsBlock):
    """Per patient over all its slices."""

    dice: MeanShare
    iou: MeanShare


class SliceScores(ParamsBlock):
    """Per slice; hd95 in the unit."""

    unit: Literal["px", "mm"]
    dice_tumour: MeanShare
    dice_empty_as_one: MeanShare
    iou_tumour: MeanShare
    hd95: Mean
    surface_dice: MeanShare


class PooledScores(ParamsBlock):
    """All pixels of the subset at once."""

    dice: Share
    iou: Share
    precision: Share
    recall: Share
    pixel_accuracy: Share


class Detection(ParamsBlock):
    """By any predicted pixel."""

    slice_sensitivity: Share
    slice_false_positive_rate: Share
    patient_sensitivity: Share


class KerasScores(ParamsBlock):
    """Smooth 100, batch 32: for comparison with older projects only."""

    dice_batch_soft: Share
    iou_batch_soft: Share


class LessInput(ParamsBlock):
    """Mean volume Dice of the same model with less input: no neighbouring slices; only FLAIR; no scalp, if known."""

    one_slice_dice: Share
    flair_only_dice: Share
    stripped_dice: Share = None


class GroupDice(ParamsBlock):
    """Mean volume Dice of a group of patients, with its interval."""

    n: Annotated[int, Field(ge=1)]
    dice: Share
    lo: Share
    hi: Share


class SizeGroupDice(ParamsBlock):
    """The same of a third of the patients by tumour size; up_to: tumour pixels of the largest."""

    up_to: Annotated[int, Field(ge=1)]
    n: Annotated[int, Field(ge=1)]
    dice: Share
    lo: Share
    hi: Share


class CalibrationError(ParamsBlock):
    """Expected calibration error of all pixels, and of those given a probability of at least a tenth.

    before: of the network's own probabilities, which nothing has calibrated.
    """

    ece: Share
    ece_from_tenth: Share
    ece_before: Share = None
    ece_from_tenth_before: Share = None


class MaskScores(ParamsBlock):
    """All numbers of one subset; alone and calibration are of a network only."""

    volume: VolumeScores
    slice: SliceScores
    pooled: PooledScores
    detection: Detection
    keras: KerasScores
    alone: LessInput | None = None
    by_institution: Annotated[dict[str, GroupDice], Field(min_length=1)]
    by_size: dict[str, SizeGroupDice]
    calibration: CalibrationError | None = None


class NetworkScores(MaskScores):
    """All numbers of one subset."""

    alone: LessInput
    calibration: CalibrationError


class Baseline(ParamsBlock):
    """What needs no network, scored on test by the same code."""

    volume: VolumeScores
    slice: SliceScores
    pooled: PooledScores
    detection: Detection


class Postprocessing(ParamsBlock):
    """The smallest 3D component that is kept: its voxels, and its share of the largest one's in the volume."""

    min_component: Count
    min_share: UnitShare = 0.0


class FlairBaseline(ParamsBlock):
    """A threshold on FLAIR, chosen on validation like the model's."""

    threshold: Threshold
    postprocessing: Postprocessing
    volume: VolumeScores
    slice: SliceScores
    pooled: PooledScores
    detection: Detection


class SomeBaselines(ParamsBlock):
    """Scores of an empty prediction and, if its rule is known, of a threshold on FLAIR."""

    empty: Baseline
    flair_threshold: FlairBaseline | None = None


class Baselines(SomeBaselines):
    """Nothing predicted, and a threshold on FLAIR."""

    flair_threshold: FlairBaseline


class EvaluationProtocol(ParamsBlock):
    """What was scored and how; patients and slices of each subset; grid: pixels, side of the square."""

    source: Text
    unit: Unit
    grid: Annotated[int, Field(ge=1)]
    patients: dict[str, Count]
    slices: dict[str, Count]
    weights_sha256: Digest | None = None
    temperature: Temperature = 1.0
    bias: float = 0.0
    skew: Skew = 0.0
    threshold: Threshold
    postprocessing: Postprocessing
    tta: Mirroring
    empty_rule: Text
    marks: list[Text]


class InputFacts(ParamsBlock):
    """Of the images: patients, those whose scans look like ones without scalp, and whether all channels are FLAIR."""

    patients: Count
    no_scalp: Count
    flair_alone: bool


class ExternalEvaluation(ParamsBlock):
    """evaluation.json of ``brainseg evaluate``: a model, or ready-made masks, on files from outside the pipeline.

    inputs, and tables (sha256 of the tables beside it): the pipeline's own has none.
    """

    protocol: EvaluationProtocol
    test: MaskScores
    val: MaskScores | None = None
    baselines: SomeBaselines
    inputs: InputFacts | None = None
    tables: dict[str, Digest] | None = None


class Evaluation(ExternalEvaluation):
    """metrics/evaluation.json: numbers of one model on validation and test patients."""

    test: NetworkScores
    val: NetworkScores
    baselines: Baselines


class Summary(ParamsBlock):
    """metrics/summary.json: what DVC shows of a run, first the number by which one may choose among runs."""

    val_volume_dice_mean: Share
    volume_dice_mean: Share
    volume_dice_median: Share
    volume_iou_mean: Share
    slice_dice_tumour_mean: Share
    hd95_median: Least
    slice_sensitivity: Share
    slice_false_positive_rate: Share
    flair_threshold_dice_mean: Share
    threshold: Threshold


class CrossValidationProtocol(ParamsBlock):
    """The protocol that the folds share; patients and slices: all of them, each tested once.

    cross_fitted: calibration and rule of each fold were chosen on the test patients of the others.
    """

    source: Text
    unit: Unit
    grid: Annotated[int, Field(ge=1)]
    tta: Mirroring
    empty_rule: Text
    marks: list[Text]
    patients: Count
    slices: Count
    folds: Count
    cross_fitted: bool = False


class ReleasedEvaluation(ParamsBlock):
    """What the file of a network of all patients holds: the numbers of its recipe, out of fold."""

    protocol: CrossValidationProtocol
    test: NetworkScores


class FoldSummary(ParamsBlock):
    """One fold, and its rule: chosen on its own validation patients, or cross-fitted, who then are not scored."""

    fold: Count
    experiment: Text
    institutions: list[str]
    patients: dict[str, Count]
    temperature: Temperature = 1.0
    bias: float = 0.0
    skew: Skew = 0.0
    threshold: Threshold
    min_component: Count
    min_share: UnitShare = 0.0
    volume_dice: MeanShare
    val_volume_dice_mean: Share


class CalibrationOfFolds(ParamsBlock):
    """A calibration fitted to the patients of all folds; the errors that remain if each fold has that of the others.

    For a network of all patients, which has none left to be calibrated by.
    """

    temperature: Temperature
    bias: float
    skew: Skew = 0.0
    ece: Share
    ece_from_tenth: Share
    ece_before: Share
    ece_from_tenth_before: Share


class MadeFrom(ParamsBlock):
    """What determines scores besides the parameters: digests of the prepared data and of code, and commands."""

    data: list[str]
    code: dict[str, str]
    commands: list[str]


class CrossValidationSummary(ParamsBlock):
    """metrics/cross_validation/summary.json: every patient scored once; seconds: of each stage, if timed.

    tables: sha256 of the tables beside it; content_sha256: of all other keys, as JSON. Early ones have neither.
    """

    protocol: CrossValidationProtocol
    test: NetworkScores
    calibration: CalibrationOfFolds | None = None
    folds: list[FoldSummary]
    params: dict[str, Any]
    overrides: dict[str, Any]
    made_from: MadeFrom
    seconds: dict[str, list[float]] | None = None
    tables: dict[str, Digest] | None = None
    content_sha256: Digest | None = None


def rule_of(block: EvaluationProtocol | FlairBaseline) -> Rule:
    """The rule that turned probabilities into the masks that were scored."""
    return Rule(block.threshold, block.postprocessing.min_component, block.postprocessing.min_share)


class Calibrated(Protocol):
    """What has a calibration."""

    temperature: float
    bias: float
    skew: float


def calibration_of(block: Calibrated) -> Calibration:
    """What calibrated the probabilities to which the threshold was applied."""
    return Calibration(block.temperature, block.bias, block.skew)


def text(content: ParamsBlock) -> str:
    """The text of a file: strict JSON."""
    return json.dumps(content.model_dump(exclude_unset=True), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read(path: Path, kind: type[Kind]) -> Kind:
    """Read one of these files.

    Raises:
        DataError: there is no such file, or it is damaged.
        IntegrityError: a summary of folds is not the one that was made.
    """
    folds = issubclass(kind, CrossValidationSummary)
    fix = FOLDS_AGAIN if folds else "run: dvc repro, or git restore it"
    try:
        written = path.read_text(encoding="utf-8")
        found = kind.model_validate_json(written)
    except FileNotFoundError:
        raise DataError(path, "there is no such file", fix) from None
    except ValueError as error:
        raise DataError(path, f"is damaged or of another version: {reason(error)}", fix) from None
    if folds:
        require_digest(path, written)
    return found


def seal(summary: CrossValidationSummary) -> CrossValidationSummary:
    """``summary`` with the digest of its content: no stage makes that file, so dvc.lock has none."""
    return summary.model_copy(update={DIGEST: digest(json.loads(text(summary)))})


def digest(content: dict[str, Any]) -> str:
    """sha256 of what a JSON file says, without the digest itself; neither order nor spaces count."""
    told = {key: value for key, value in content.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def require_digest(path: object, written: str, *, early: bool = False) -> None:
    """Refuse a summary of folds whose content is not what its digest says.

    Args:
        path: what the error calls the file.
        written: its text.
        early: it may have keys of other versions. One without a digest, as earlier versions wrote it, is accepted.

    Raises:
        IntegrityError: see above.
    """
    with guard(path, FOLDS_AGAIN, IntegrityError):
        content = json.loads(written)
        found, expected = digest(content), content.get(DIGEST)
    if expected is None and not early and content.keys() - CrossValidationSummary.model_fields.keys():
        raise IntegrityError(path, f"has no {DIGEST}, but keys of no version: edited or damaged", FOLDS_AGAIN)
    if expected not in (None, found):
        what = f"the sha256 of its content is {found}, its {DIGEST} says {expected}: edited or damaged"
        raise IntegrityError(path, what, FOLDS_AGAIN)
