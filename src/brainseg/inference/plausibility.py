"""Does a picture look like an axial slice of a head? A few measures, each with a limit and a text.

No network: the measures describe what people see in FLAIR (air around an oval that is longer than wide, left like
right, dark bone between scalp and brain). Their limits come from the training and validation patients of LGG. Rates,
and what the check cannot see: docs/explanation/plausibility.md; ``python -m benchmarks.plausibility`` measures again.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from brainseg.io.sequences import FLAIR

SIDE = 128  # pixels a side of the picture that is measured; only roughness is measured on the model's grid
MAX_SLICES = 40  # slices of a volume at most, evenly spaced: more do not change the medians
EMPTY = 6.0  # grey values between air and head: a slice above the head has less
ROUGH = 0.3  # LGG slices with brain: 0.002 to 0.062; noise and print: from 0.38
FILLED = 0.35  # LGG: 99.8 % below 0.08
TILTS = range(-24, 25, 4)  # degrees by which a head may be tilted


class SliceMeasures(NamedTuple):
    """The measures of one slice, or their medians (of ``bone``, the upper quartile) over a volume's middle slices."""

    level: float  # grey values of the head above air
    area: float  # share of the picture that is head
    roughness: float  # share of the variance that a slight blur removes
    corners: float  # share of the four corners, without padding, that is as bright as a head
    contact: float  # share of the edge of the picture that is as bright as a head
    length: float  # of the outline: front to back, divided by left to right
    oval: float  # overlap (intersection over union) of the outline with the ellipse of the same moments
    mirror: float  # overlap of the outline with its mirror image at the best axis through its centre
    ring: float  # brightest layer below the outline, divided by the brightness of the inside
    gap: float  # darkest layer between that layer and the inside, in the same units
    clipped: float  # share of the brightest layer that has the maximum brightness of the picture
    spread: float  # of the grey values in the inner half, in the same units: 15th to 85th percentile
    bone: float  # how far the grey values fall between scalp and brain, in the same units: median over directions


class Limit(NamedTuple):
    """A measure whose usual value is ``usual``. At ``limit`` it causes a mark alone."""

    measure: str
    usual: float
    limit: float
    words: str

    def excess(self, look: SliceMeasures) -> float:
        """0 at the usual value and on its other side, 1 at the limit."""
        return max(0.0, (getattr(look, self.measure) - self.usual) / (self.limit - self.usual))


# Usual: the median of LGG. Each limit excludes about 0.5 % of the LGG slices that contain brain.
LIMITS = (
    Limit("corners", 0.0, 0.15, "its corners are bright: a photograph, or cut out of something larger?"),
    Limit("contact", 0.0, 0.40, "the picture's edge cuts it off: neck, limb or trunk?"),
    Limit("length", 1.25, 1.06, "hardly longer than wide: turned on its side, or another part of the body?"),
    Limit("length", 1.25, 1.46, "too long and narrow: another part of the body, or pixels that are not square?"),
    Limit("oval", 0.955, 0.89, "its outline is no oval: face, sagittal or coronal slice, another part of the body?"),
    Limit("mirror", 0.975, 0.90, "left and right outlines differ: a sagittal slice?"),
)
# In MRI, bone and fluid are dark between scalp and brain. In CT, bone is a bright ring: clipped by a narrow window, or
# in a wide window around a brain of nearly one grey value.
CT_RING, CT_GAP, CT_CLIPPED, CT_SPREAD = 1.5, 0.75, 0.5, 0.2
# Upper quartiles: whole volumes of LGG from 0.48, but for one at 0.05; their brains alone to 0.33, larger masks too.
BONE_VOLUME = 0.4
BONE_SLICE = 0.3  # of a slice alone: the cut through the vertex looks more like a brain without scalp
DIRECTIONS = 32
LAYERS = 20  # pixels below the outline at least: near the vertex, scalp and bone are cut aslant and thick
EDGE = ", and may miss lesions at the brain's edge"
NO_SCALP = f"no scalp: a model of whole heads has hardly seen such scans{EDGE}"
MAX_LOSS = 0.02  # of mean volume Dice without scalp, above which the mark warns of missed lesions


class Verdict(NamedTuple):
    """``marks``: texts for the reader. ``refused``: the picture is clearly no slice of a head."""

    refused: bool
    marks: list[str]


def describe_no_scalp(facts: Mapping[str, Any]) -> str:
    """The mark for a scan without scalp: with what the model scores on such scans of its own patients, if known.

    Args:
        facts: the metadata of the model's file, see ``onnx_session``.
    """
    test = (facts.get("evaluation") or {}).get("test") or {}
    without, whole = (
        (test.get("alone") or {}).get("stripped_dice"),
        (test.get("volume") or {}).get("dice", {}).get("mean"),
    )
    if without is None or whole is None:
        return NO_SCALP
    told = f"no scalp: on its own patients this model has a volume Dice of {without:.2f} so, {whole:.2f} with scalp"
    return told + (EDGE if whole - without > MAX_LOSS else "")


def assess(prepared: np.ndarray, no_scalp: str = NO_SCALP) -> Verdict:
    """Check pictures on the model's grid: uint8 (S, H, W, 3), one slice or the slices of a volume.

    For a volume, the medians over the slices count that show at least half of the largest area of the head: slices
    that are empty or small are part of every scan, at its top and bottom.

    Args:
        no_scalp: the mark for a scan without scalp, see ``describe_no_scalp``.
    """
    step = -(-len(prepared) // MAX_SLICES)
    looks = [look for picture in prepared[::step] if (look := describe(picture)) is not None]
    if not looks:
        return Verdict(True, ["nothing to see: no more than one grey value and a little noise"])
    look = _take_medians(looks)
    name = "does not look like an axial brain slice" if len(prepared) == 1 else "do not look like axial brain slices"
    subject = "" if len(prepared) == 1 else "the middle slices "
    if clear := _refusal_reason(look):
        return Verdict(True, [f"{subject}{name} ({clear})"])
    marks = [f"{subject}{name} ({'; '.join(reasons)})"] if (reasons := _doubt_reasons(look)) else []
    stripped = look.bone < (BONE_SLICE if len(prepared) == 1 else BONE_VOLUME)
    return Verdict(False, marks + [no_scalp] * stripped)


def describe(picture: np.ndarray) -> SliceMeasures | None:
    """Measure one slice, uint8 (H, W, 3). None if nothing is brighter than the noise of air."""
    plane = np.ascontiguousarray(picture[..., FLAIR])
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if min(len(rows), len(columns)) < 8:
        return None
    full = plane.astype(np.float32)
    roughness = float((full - cv2.GaussianBlur(full, (0, 0), 1.0)).var() / max(float(full.var()), 1e-6))
    small = cv2.resize(full, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    box = tuple(
        slice(int(at[0] * SIDE / side), -int(-(at[-1] + 1) * SIDE // side))
        for at, side in zip((rows, columns), plane.shape, strict=True)
    )
    smooth = cv2.GaussianBlur(small, (0, 0), 1.5)
    air = float(np.percentile(smooth[box], 2))
    split, _ = cv2.threshold(smooth.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = smooth[smooth > split]
    level = float(np.percentile(bright, 75)) - air if bright.size else 0.0
    if level < EMPTY:
        return None
    raw = (smooth > min(split, air + 0.3 * level)).astype(np.uint8)  # fat can be much brighter than brain
    head = _find_outline(raw)
    length, oval, mirror = _measure_shape(head)
    grey = small - air
    depth = _find_depth(grey, head)
    return SliceMeasures(
        level,
        float(head.mean()),
        roughness,
        _measure_corners(raw[box]),
        float(np.concatenate([raw[0], raw[-1], raw[:, 0], raw[:, -1]]).mean()),
        length,
        oval,
        mirror,
        *_measure_layers(grey, depth),
        _measure_bone(grey, head, depth),
    )


def score(look: SliceMeasures) -> float:
    """Distance from the usual values: the root of the sum of squared excesses. From 1 on there is a mark."""
    return float(np.sqrt(sum(limit.excess(look) ** 2 for limit in LIMITS)))


def _take_medians(looks: list[SliceMeasures]) -> SliceMeasures:
    table = np.array(looks)
    table = table[table[:, 0] >= 0.3 * table[:, 0].max()]  # above the head there is only noise, which has no shape
    table = table[table[:, 1] >= 0.5 * table[:, 1].max()]
    medians = SliceMeasures(*np.median(table, axis=0).tolist())
    return medians._replace(bone=float(np.quantile(table[:, SliceMeasures._fields.index("bone")], 0.75)))


def _refusal_reason(look: SliceMeasures) -> str | None:
    """The reason to refuse the picture, None if there is none."""
    if look.roughness > ROUGH:
        return "neighbouring pixels differ as in noise or print"
    if look.corners > FILLED:
        return "bright up to its corners: a photograph, a pattern, or cut out of something larger?"
    return None


def _doubt_reasons(look: SliceMeasures) -> list[str]:
    """Reasons to mark the picture, the strongest first, without those that add little to the score."""
    found = []
    if score(look) >= 1:
        excess = sorted(((limit.excess(look), limit.words) for limit in LIMITS), reverse=True)
        found = [words for value, words in excess if value >= max(0.5, excess[0][0] / 2)] or [excess[0][1]]
    if look.ring > CT_RING and look.gap > CT_GAP and (look.clipped > CT_CLIPPED or look.spread < CT_SPREAD):
        found.append("a bright ring right around the inside, nothing dark between: a CT?")
    return found


def _find_outline(raw: np.ndarray) -> np.ndarray:
    """The largest part of a mask (H, W) with gaps closed and holes filled: uint8 in {0, 1}."""
    closed = cv2.morphologyEx(raw, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(raw)
    cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, -1)
    return filled


def _measure_corners(raw: np.ndarray) -> float:
    height, width = (max(side * 15 // 100, 1) for side in raw.shape)  # an ellipse leaves these corners free
    corners = (
        raw[rows, columns]
        for rows in (slice(height), slice(-height, None))
        for columns in (slice(width), slice(-width, None))
    )
    return float(np.mean([corner.mean() for corner in corners]))


def _measure_shape(head: np.ndarray) -> tuple[float, float, float]:
    """Length over width, overlap with the ellipse of the same moments, overlap with the best mirror image."""
    m = cv2.moments(head, True)
    x, y = m["m10"] / m["m00"], m["m01"] / m["m00"]
    xx, yy, xy = ((m[key] / m["m00"]) for key in ("mu20", "mu02", "mu11"))
    xx, yy = xx + 1 / 12, yy + 1 / 12  # the extent of a pixel: never 0
    u, v = np.meshgrid(np.arange(head.shape[1]) - x, np.arange(head.shape[0]) - y)
    ellipse = (yy * u * u - 2 * xy * u * v + xx * v * v) / (xx * yy - xy * xy) < 4
    return float(np.sqrt(yy / xx)), _overlap(head > 0, ellipse), _measure_mirror(head, x, y)


def _measure_mirror(head: np.ndarray, x: float, y: float) -> float:
    best = 0.0
    for tilt in TILTS:  # reflection at the axis through (x, y) with this tilt
        c, s = np.cos(np.radians(2 * tilt)), np.sin(np.radians(2 * tilt))
        reflection = np.array([[-c, -s, x + c * x + s * y], [-s, c, y + s * x - c * y]])
        mirrored = cv2.warpAffine(head, reflection, head.shape[::-1], flags=cv2.INTER_NEAREST)
        best = max(best, _overlap(head > 0, mirrored > 0))
    return best


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.count_nonzero(a & b) / max(int(np.count_nonzero(a | b)), 1))


class Depth(NamedTuple):
    """``depth`` (H, W): of each pixel below the outline; the largest; the brightness of the inside."""

    depth: np.ndarray
    deepest: float
    inside: float


def _find_depth(grey: np.ndarray, head: np.ndarray) -> Depth:
    depth = cv2.distanceTransform(np.pad(head, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    deepest = float(depth.max())
    return Depth(depth, deepest, max(float(np.median(grey[depth > 0.3 * deepest])), 1.0))


def _measure_layers(grey: np.ndarray, below: Depth) -> tuple[float, float, float, float]:
    """``ring``, ``gap``, ``clipped`` and ``spread`` of grey values above air, from layers one pixel thick."""
    depth, deepest, inside = below
    low, high = np.percentile(grey[depth > 0.45 * deepest], (15, 85))
    layers = [grey[(depth > k) & (depth <= k + 1)] for k in range(max(int(0.4 * deepest), 1))]
    medians = [float(np.median(layer)) for layer in layers]
    brightest = int(np.argmax(medians))
    clipped = float(np.mean(layers[brightest] > 0.93 * float(grey.max())))
    return medians[brightest] / inside, min(*medians[brightest:], inside) / inside, clipped, float(high - low) / inside


def _measure_bone(grey: np.ndarray, head: np.ndarray, below: Depth) -> float:
    """``bone``: in each direction from the centre, the deepest fall between a brighter layer outside and one inside."""
    depth, deepest, inside = below
    layers = max(int(0.5 * deepest), LAYERS)
    rows, columns = np.nonzero((depth > 0) & (depth <= layers))
    y, x = (float(places.mean()) for places in np.nonzero(head))
    direction = (np.arctan2(rows - y, columns - x) / (2 * np.pi) * DIRECTIONS).astype(int) % DIRECTIONS
    cell = direction * layers + np.ceil(depth[rows, columns]).astype(int) - 1
    count = np.bincount(cell, minlength=DIRECTIONS * layers)
    total = np.bincount(cell, grey[rows, columns], DIRECTIONS * layers)
    means = np.divide(total, count * inside, out=np.full(len(total), np.nan), where=count > 0).reshape(-1, layers)
    outside = np.fmax.accumulate(means, axis=1)
    within = np.fmax.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    fall = np.minimum(np.minimum(outside, within), 1.0) - means  # fat much brighter than brain makes it no deeper
    return float(np.median(np.nan_to_num(fall).max(axis=1)))
