"""The JSON bodies that the API answers with. Null is what is not known, or what does not exist without a tumour.

They do not forbid other fields: a client that was made of them goes on when a later server answers more. A test holds
each answer against its model, so that neither has a field that the other lacks.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from brainseg.server.progress import Stage

Kind = Literal["picture", "slices", "tif", "nifti", "nrrd", "metaimage", "mgh", "dicom"]


class AnsweringModel(BaseModel):
    """The model that made an outline."""

    weights_sha256: str
    variant: str = Field(description="float32 or int8")
    marks: list[str] = Field(description="remarks that must accompany every number of this model")


class Input(BaseModel):
    """What was sent."""

    kind: Kind
    numbers: list[int] | None = Field(description="of numbered pictures the numbers in their names, by slice")
    slices: int
    height: int
    width: int
    spacing_mm: tuple[float, float, float] | None = Field(description="row, column, slice")
    orientation: Literal["known", "unknown"]
    channels: list[str] = Field(description="what each of the model's three channels was given")


class Summary(BaseModel):
    """The outline in numbers."""

    tumour_pixels: int
    slices_with_tumour: int
    largest_slice: int | None = Field(description="counted from 1")
    area_mm2: float | None = Field(description="on the slice with the largest area")
    area_pixels: int
    volume_ml: float | None
    mean_probability: float | None = Field(description="calibrated, inside the outline")
    seconds: float


class SliceNumbers(BaseModel):
    """One slice."""

    slice: int = Field(description="counted from 1")
    pixels: int
    area_mm2: float | None
    mean_probability: float | None


class Rule(BaseModel):
    """How probabilities became an outline."""

    threshold: float
    min_component: int
    min_share: float = Field(description="of the volume's largest component, below which one is removed")
    of_the_model: bool = Field(description="false: the request chose another rule")


class LesionRow(BaseModel):
    """One connected part of the outline; the columns are those of lesions.csv, see docs/how-to/predict.md."""

    lesion: int
    voxels: int
    volume_ml: float | None
    area_mm2: float | None
    extent_x_mm: float | None
    extent_y_mm: float | None
    extent_z_mm: float | None
    max_diameter_mm: float | None
    centroid_i: float
    centroid_j: float
    centroid_k: float
    centroid_x_mm: float | None
    centroid_y_mm: float | None
    centroid_z_mm: float | None
    first_slice: int
    last_slice: int
    largest_slice: int
    mean_probability: float
    max_probability: float


class Volumes(BaseModel):
    """For a viewer: base64 of .nii.gz files on one axial grid."""

    image: str | None = Field(default=None, description="uint8 or RGB, windowed; not with image=false")
    mask: str
    probability: str = Field(description="in steps of 1/255")


class Answer(BaseModel):
    """An outline."""

    disclaimer: str
    model: AnsweringModel
    input: Input
    seg: bool = Field(description="whether the mask can be had as DICOM SEG")
    warnings: list[str]
    summary: Summary
    slices: list[SliceNumbers]
    rule: Rule
    lesions: list[LesionRow] = Field(description="the largest first, at most 1,000")
    volumes: Volumes | None = Field(default=None, description="with volumes=true")


class ModelFile(BaseModel):
    """The ONNX file that answers here, for clients that compute on their own."""

    path: str = Field(description="relative to the address of the server; with ?digest=... it may be kept for good")
    sha256: str
    bytes: int


class ModelDescription(BaseModel):
    """The model that answers here."""

    disclaimer: str
    weights_sha256: str
    variant: str
    source: str | None
    marks: list[str]
    rule: dict[str, Any] | None = Field(description="threshold, min_component, mirror")
    numbers: dict[str, Any] = Field(description="scores of the test patients")
    protocol: dict[str, Any] = Field(description="how it was trained and tested")
    card_markdown: str | None
    file: ModelFile | None


class Example(BaseModel):
    """An example to try."""

    id: str
    title: str
    kind: str = Field(description="tif, or slices: a zip of numbered pictures with the readers' mask beside each")
    note: str | None = Field(
        None, description="what is known of it: how well the model does on it, or that it may know it"
    )
    attribution: str | None = Field(None, description="whose it is, and on what terms it may be passed on")
    licence: str | None = Field(None, description="where these terms are")


class Progress(BaseModel):
    """How far a request is."""

    stage: Stage
    bytes_received: int
    bytes_total: int | None = Field(description="of the upload; null if its length was not announced")
    place: int | None = Field(
        description="in the queue, also that for the model; 1 is the next; null if it does not wait"
    )
    slices_done: int
    slices_total: int | None = Field(description="null until the file is read")


class Status(BaseModel):
    """That the server runs, or is ready."""

    status: str


class Problem(BaseModel):
    """What is wrong, and what to do about it."""

    code: int = Field(description="2: what was sent, 3: the machine, 4: the model's integrity, 5: the run, 1: a bug")
    what: str
    fix: str


class Refused(BaseModel):
    """Every answer but 2xx and 304."""

    error: Problem
