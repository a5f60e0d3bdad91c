"""A drawn head with a tumour, consistent in three dimensions.

Coordinates: x to the right, y to the back, z up; the unit is half the image side, about 115 mm. A shape is a signed
distance, positive inside. A signal is (3, size, size) float32: pre-contrast T1, FLAIR, post-contrast T1; white matter
in T1 is 1.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

WHITE, GREY, NUCLEUS = (1.0, 0.86, 1.0), (0.72, 1.0, 0.78), (0.82, 0.95, 0.86)
CSF, BONE, MARROW, AIR = (0.3, 0.2, 0.32), (0.12, 0.1, 0.13), (0.6, 0.45, 0.7), (0.02, 0.02, 0.02)
SKIN, FAT, MUSCLE, GLOBE = (0.8, 0.8, 1.1), (2.1, 2.0, 2.0), (0.6, 0.5, 0.75), (0.35, 0.16, 0.35)
MUCOSA, BLOOD, GLIOSIS = (0.7, 1.6, 1.5), (0.35, 0.25, 2.3), (0.8, 1.6, 0.82)

# Tubes through points (x, y, z, radius) on one side, mirrored to the other.
LATERAL_VENTRICLE = (
    (0.100, -0.30, 0.02, 0.018),
    (0.065, -0.16, 0.07, 0.042),
    (0.075, 0.00, 0.13, 0.042),
    (0.120, 0.16, 0.10, 0.045),
    (0.180, 0.26, 0.02, 0.045),
    (0.140, 0.40, -0.02, 0.015),
)
TEMPORAL_HORN = ((0.18, 0.26, 0.02, 0.03), (0.25, 0.08, -0.15, 0.018), (0.22, -0.06, -0.18, 0.012))
MIDLINE_VENTRICLES = ((0.0, -0.08, -0.02, 0.012), (0.0, 0.08, -0.04, 0.014), (0.0, 0.26, -0.32, 0.05))
SYLVIAN_FISSURE = ((0.27, -0.14, -0.08, 0.006), (0.38, -0.05, -0.02, 0.010), (0.58, 0.02, 0.06, 0.024))
NUCLEI = (  # centre, half-axes
    ((0.09, 0.07, 0.00), (0.075, 0.12, 0.09)),  # thalamus
    ((0.20, -0.07, 0.00), (0.05, 0.13, 0.09)),  # putamen
    ((0.11, -0.20, 0.04), (0.045, 0.07, 0.08)),  # caudate
)


class Head:
    """One patient, drawn once from ``rng``, and cut at ``heights`` into slices of ``size`` pixels a side."""

    def __init__(self, rng: np.random.Generator, heights: np.ndarray, size: int):
        self.heights = heights
        self.radii = rng.uniform(0.54, 0.62), rng.uniform(0.71, 0.78), rng.uniform(0.64, 0.68)
        self.egg = rng.uniform(0.02, 0.14)  # narrower in front
        self.scalp, self.skull, self.fat = rng.uniform(0.03, 0.05), rng.uniform(0.045, 0.06), rng.uniform(0.8, 1.3)
        self.atrophy, self.caps, self.spots = rng.uniform(0.6, 1.3), rng.uniform(0.0, 1.0), rng.uniform(2.2, 3.4)
        self.x, self.y = _make_coordinates(rng, size)
        self.shape, self.warp, self.lobes = (_draw_noise(rng, heights, length) for length in (0.5, 0.16, 0.12))
        self.folds, self.depths, self.texture = (_draw_noise(rng, heights, length) for length in (0.05, 0.12, 0.03))
        self.tumour = Tumour(rng, self)

    def depth(self, x: np.ndarray | float, y: np.ndarray | float, z: float) -> np.ndarray | float:
        """Depth below the skin. The head is the upper half of an ellipsoid on a nearly straight lower half."""
        x, z = x / (1 + self.egg * y), z + 0.05
        a, b, c = self.radii
        c += 0 if z > 0 else 1.5
        radius = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + 1e-6
        steepness = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) / radius + 1e-3
        return (1 - radius) / steepness

    def cut(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the signal of a slice and its tumour mask, (size, size) uint8 in {0, 255}."""
        return Cut(self, index).draw()


class Cut:
    """One slice: noise and distances at its pixels, and the tissues painted from them, from the outside in."""

    def __init__(self, head: Head, index: int):
        self.head, self.x, self.y, self.z = head, head.x, head.y, float(head.heights[index])
        self.warp, self.lobes, self.texture, shape, self.depths = (
            _sample(field[index], self.x, self.y)
            for field in (head.warp, head.lobes, head.texture, head.shape, head.depths)
        )
        self.skin = head.depth(self.x, self.y, self.z) + 0.016 * shape
        self.bone = self.skin - head.scalp * (1 + 0.15 * self.warp)
        self.inside = self.bone - head.skull
        self.floor = self.z - skull_base(self.x, self.y)
        self.brain = np.minimum(self.inside - 0.012, self.floor - 0.01)
        self.ventricle = self._ventricle(self.x + 0.012 * self.warp, self.y + 0.012 * self.lobes)
        self.sulci, self.cortex = self._folds(head.folds[index])

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        signal = _fill(AIR, self.x)
        self._paint_coverings(signal)
        if self.z < 0:
            self._paint_face(signal)
        tissue = self._draw_tissue()
        mask = self.head.tumour.paint(tissue, self)
        _paint(signal, np.minimum(self.inside, self.brain + 0.02), CSF)
        _paint(signal, self.brain, tissue)
        self._paint_vessels(signal)
        return signal, mask

    def _ventricle(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        lateral, horn, middle = (
            _tube(points, x, y, self.z, self.head.atrophy)
            for points in (LATERAL_VENTRICLE, TEMPORAL_HORN, MIDLINE_VENTRICLES)
        )
        return np.maximum(np.minimum(np.maximum(lateral, horn), np.abs(x) - 0.008), middle)

    def _folds(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sulci and the grey matter along them: from the surface inwards, along the midline, from the sides."""
        x, y, z = self.x + 0.01 * self.warp, self.y + 0.01 * self.lobes, self.z
        a, b, _ = self.head.radii
        outwards = (np.sqrt((x / a) ** 2 + (y / b) ** 2) + 0.05) ** 0.5
        noise = np.abs(_sample(noise, x / outwards, y / outwards))
        cerebellum = (y > 0.16) & (z < -0.13)
        noise = np.where(cerebellum, 1.5 * np.abs(np.sin((y - 0.5 * x * x) * 100)), noise)
        near = np.clip(1 - self.inside / (0.26 + 0.05 * self.depths), 0, 1)
        wide = self.head.atrophy**0.5
        folds = 0.03 * (0.4 * wide * near - noise - 0.1)
        cortex = 0.03 * (1.1 * near**0.5 - noise - 0.1)
        bridge = np.clip(0.8 - 3.5 * max(z, 0), 0, 1) * 0.35  # the hemispheres are joined below the fissure
        fissure = np.minimum(0.011 * wide - np.abs(x), np.abs(y + 0.02) - bridge)
        sides = _tube(SYLVIAN_FISSURE, x, y, z, self.head.atrophy)
        return np.maximum(np.maximum(folds, np.where(cerebellum, -1, fissure)), sides), cortex

    def _paint_coverings(self, signal: np.ndarray) -> None:
        """Skin, fat, the temporal muscles, and bone with its marrow."""
        head = self.head
        _paint(signal, self.skin, SKIN)
        _paint(signal, self.skin - 0.012, np.multiply.outer(FAT, head.fat * (1 + 0.12 * self.texture)))
        above = 0.4 + np.clip(2 * self.y + 0.2, 0, 1) + np.clip(4 - 10 * np.abs(self.x), 0, 1)
        _paint(signal, self.skin - head.scalp * above, MUSCLE)
        _paint(signal, self.bone, BONE)
        marrow = np.minimum(self.bone - 0.35 * head.skull, -self.inside - 0.25 * head.skull)
        _paint(signal, marrow + 0.006 * self.texture - 0.004, MARROW)

    def _paint_face(self, signal: np.ndarray) -> None:
        """Below the brain: muscle, fat and bone; the orbits and the nose in front."""
        x, y, fat = np.abs(self.x), self.y, np.multiply(FAT, 0.75 * self.head.fat)
        below = np.minimum(self.inside + self.head.skull * (y < -0.3), -self.floor)
        globe = 0.115 - np.sqrt((x - 0.23) ** 2 + (y + 0.52) ** 2 + (self.z + 0.26) ** 2)
        nose = np.minimum(0.075 - x, -0.25 - y)
        for shape, value in (
            (below, MUSCLE),
            (0.03 * (self.warp - 0.5), fat),
            (0.03 * (-0.4 - self.warp), BONE),
            (0.16 - np.hypot(x - 0.22, y + 0.45), fat),
            (globe + 0.012, MUSCLE),
            (globe, GLOBE),
            (nose, AIR),
            (np.minimum(nose, 0.03 * (np.abs(self.warp) - 0.4)), MUCOSA),
        ):
            _paint(signal, np.minimum(below, shape), value)

    def _draw_tissue(self) -> np.ndarray:
        """The brain without its tumour."""
        x, y, z = np.abs(self.x), self.y, self.z
        solid = (np.maximum(self.sulci, -self.brain) < 0).astype(np.uint8)
        depth = cv2.distanceTransform(solid, cv2.DIST_L2, 5) * (2 / len(solid))
        tissue = _fill(WHITE, x)
        _paint(tissue, np.maximum(self.cortex, 0.035 + 0.01 * self.warp - depth), GREY, soft=3)
        for centre, axes in NUCLEI:
            _paint(tissue, 0.07 * (1 - _radius(x, y, z, centre, axes)), NUCLEUS, soft=2)
        _paint(tissue, np.minimum(0.02 * (self.texture - self.head.spots), depth - 0.05), GLIOSIS)
        caps = self.ventricle + 0.028 * self.head.caps * (1 + 0.6 * self.warp)
        _paint(tissue, np.minimum(caps, np.abs(y) - 0.14), GLIOSIS, soft=3)
        tissue *= 1 + 0.025 * self.texture
        _paint(tissue, self.sulci, CSF, soft=3)
        _paint(tissue, self.ventricle, CSF)
        return tissue

    def _paint_vessels(self, signal: np.ndarray) -> None:
        """The sagittal sinus in front and at the back, and vessels in the sulci."""
        sinus = np.minimum(0.032 - np.hypot(self.x, np.maximum(self.inside - 0.012, 0) * 1.5), self.inside)
        _paint(signal, np.where(np.abs(self.y) > 0.3, sinus, -1), BLOOD)
        vessels = np.minimum(0.02 * (self.texture - 1.7), self.sulci + 0.004)
        _paint(signal, np.minimum(vessels, self.brain + 0.02), BLOOD)


class Tumour:
    """Lobes within the brain and outside the ventricles; solid, or with a cyst, an enhancing rim or a dim core."""

    def __init__(self, rng: np.random.Generator, head: Head):
        self.radius = float(np.exp(rng.uniform(np.log(0.095), np.log(0.28))))  # 11 to 32 mm
        self.rough, self.bright = rng.uniform(0.1, 0.22), rng.uniform(1.65, 2.2)
        self.core = rng.choice(["solid", "cyst", "rim", "dim"], p=[0.4, 0.15, 0.25, 0.2])
        centre = self._place(rng, head)
        self.lobes = [(centre, rng.uniform(0.8, 1.2, 3).tolist())]
        for _ in range(rng.integers(0, 3)):
            beside = (centre + self.radius * rng.normal(0, 0.5, 3)).tolist()
            self.lobes.append((beside, rng.uniform(0.5, 0.8, 3).tolist()))

    def _place(self, rng: np.random.Generator, head: Head) -> list[float]:
        """A point on a slice, well within one hemisphere."""
        heights = head.heights[(head.heights > -0.12) & (head.heights < 0.4)]
        while True:
            x, y, z = rng.uniform(-0.45, 0.45), rng.uniform(-0.6, 0.6), float(rng.choice(heights))
            depth = head.depth(x, y, z) - head.scalp - head.skull
            if depth > 0.06 + 0.5 * self.radius and z - skull_base(x, y) > 0.05 and abs(x) > 0.12 + 0.3 * self.radius:
                return [x, y, z]

    def paint(self, tissue: np.ndarray, cut: Cut) -> np.ndarray:
        """Paint the tumour into ``tissue``, the brain, and return its mask."""
        distance = np.full_like(cut.x, -1)
        for centre, axes in self.lobes:
            distance = np.maximum(distance, 1 - _radius(cut.x, cut.y, cut.z, centre, axes) / self.radius)
        distance = self.radius * (distance + self.rough * cut.lobes) + 0.004 * cut.texture
        flair = self.bright * (1 + 0.06 * cut.lobes + 0.03 * cut.texture)
        body = np.stack([0.68 - 0.06 * cut.lobes, flair, 0.7 - 0.06 * cut.lobes])
        core = distance - 0.45 * self.radius
        if self.core == "cyst":
            _paint(body, core, (0.38, 0.5, 0.4))
        elif self.core == "dim":
            _paint(body, core, (0.6, 1.35, 0.62), soft=4)
        elif self.core == "rim":
            _paint(body, core, (0.7, 1.45, 1.7), soft=2)
            _paint(body, core - 0.035, (0.45, 1.2, 0.5), soft=2)
        outline = np.minimum(distance, np.minimum(cut.brain, -cut.ventricle))
        _paint(tissue, outline, body)
        return np.where(outline > 0, np.uint8(255), np.uint8(0))


def skull_base(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray | float:
    """Height of the bone under the brain: high in front, lower at the temples, lowest at the back."""
    front = _step(-0.28 - y + 0.3 * np.abs(x))
    middle = _step(0.10 - y) * _step(0.16 - np.abs(x))
    ridge = np.exp(-(((y - 0.10 - 0.25 * np.abs(x)) / 0.035) ** 2)) * _step(np.abs(x) - 0.15)
    return -0.45 + 0.32 * front + (1 - front) * (0.24 * middle + 0.2 * ridge)


def _step(distance: np.ndarray | float) -> np.ndarray | float:
    return 1 / (1 + np.exp(-np.clip(distance / 0.03, -20, 20)))


def _radius(x: np.ndarray, y: np.ndarray, z: float, centre: Sequence[float], axes: Sequence[float]) -> np.ndarray:
    """The distance to ``centre``, 1 on the ellipsoid with half-axes ``axes``."""
    (x0, y0, z0), (a, b, c) = centre, axes
    return np.sqrt(((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 + ((z - z0) / c) ** 2)


def _tube(points: Sequence[tuple[float, float, float, float]], x, y, z: float, swell: float) -> np.ndarray:
    """The distance to a tube through ``points``, whose radii are multiplied by ``swell``."""
    x, best = np.abs(x), np.full_like(x, -1)
    for (x0, y0, z0, r0), (x1, y1, z1, r1) in pairwise(points):
        if not min(z0, z1) - 0.2 < z < max(z0, z1) + 0.2:
            continue  # too far from this slice to matter
        dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
        along = np.clip(((x - x0) * dx + (y - y0) * dy + (z - z0) * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
        away = np.sqrt((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 + (z - z0 - along * dz) ** 2)
        best = np.maximum(best, (r0 + along * (r1 - r0)) * swell - away)
    return best


def _make_coordinates(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Head coordinates x, y of the pixels: the head is a little rotated and off centre."""
    line = ((np.arange(size) + 0.5) * 2 / size - 1) / rng.uniform(1.0, 1.2)
    x, y = np.meshgrid(line - rng.normal(0, 0.02), line - rng.normal(0, 0.02))
    angle = rng.normal(0, 0.06)
    turned = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return turned[0].astype(np.float32), turned[1].astype(np.float32)


def _draw_noise(rng: np.random.Generator, heights: np.ndarray, length: float) -> np.ndarray:
    """Smooth noise (slices, cells, cells) of unit variance, correlated over ``length`` in all directions."""
    step = heights[1] - heights[0] if len(heights) > 1 else 1.0
    cells = min(128, int(6 / length))
    white = rng.standard_normal((len(heights), cells, cells), dtype=np.float32)
    smooth = gaussian_filter(white, (length / step / 2, length * cells / 4, length * cells / 4), mode="wrap")
    return smooth / smooth.std()


def _sample(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of a ``field``, which spans -1 to 1, at the points ``x``, ``y``."""
    half = len(field) / 2
    places = x * half + (half - 0.5), y * half + (half - 0.5)
    return cv2.remap(field, *places, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _fill(value: Sequence[float], like: np.ndarray) -> np.ndarray:
    return np.stack([np.full_like(like, level) for level in value])


def _paint(signal: np.ndarray, shape: np.ndarray, value: Sequence | np.ndarray, soft: float = 1) -> None:
    """Set ``signal`` in ``shape`` to ``value``, a level or an array per channel; the edge is ``soft`` pixels wide."""
    weight = np.clip(0.5 + shape * (signal.shape[-1] / 2 / soft), 0, 1)
    if not weight.any():
        return
    for plane, level in zip(signal, value, strict=True):
        plane += weight * (level - plane)
