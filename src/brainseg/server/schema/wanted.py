"""What a request for an outline asks for in its query."""

from pydantic import BaseModel, Field

from brainseg.inference.chosen_rule import MAX_COMPONENT, RuleChoice


class Wanted(BaseModel):
    """The defaults ask for numbers by the model's own rule."""

    volumes: bool = Field(default=False, description="add image, mask and probability as base64 NIfTI")
    image: bool = Field(default=True, description="false: of the volumes leave out the image, which the client has")
    slice: int | None = Field(default=None, ge=1, le=10_000, description="of a PNG answer, counted from 1")
    threshold: float | None = Field(
        default=None, gt=0, lt=1, description="the probability from which a voxel is tumour; the model's own"
    )
    min_component: int | None = Field(
        default=None, ge=0, le=MAX_COMPONENT,
        description="remove components of fewer voxels, counted on the model's grid, from volumes and single slices; "
        "the model's own, from volumes alone",
    )  # fmt: skip
    probability: bool = Field(
        default=False, description="a NIfTI answer is the probabilities, float32 from 0 to 1, instead of the mask"
    )

    @property
    def choice(self) -> RuleChoice:
        return RuleChoice(self.threshold, self.min_component)
