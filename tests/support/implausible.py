"""A fixed set of what is no axial brain MRI, for the plausibility check: the same pixels every time.

Real ones come from the wheels of pydicom, scikit-learn and matplotlib; drawn ones stand in for what no wheel brings.
A picture is (256, 256, 3) uint8 as the model's grid has it: the longer side fills it, black fills the rest.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from brainseg import config
from brainseg.data.phantom import anatomy, cohort
from brainseg.io import grid, pictures

SIDE = 256
VARIANTS = 6  # of each drawn kind
AXIS = np.linspace(-1, 1, SIDE, dtype=np.float32)
across, down = np.meshgrid(AXIS, AXIS)


def on_grid(image: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3), stretched to 0..255 where it goes beyond, on the model's grid."""
    image = np.asarray(image, np.float32)
    if image.max() > 255 or image.min() < 0:
        low, high = np.percentile(image, (0.5, 99.5))
        image = (image - low) / max(high - low, 1e-6) * 255
    return grid.resize_image(np.clip(np.rint(image), 0, 255).astype(np.uint8), SIDE)


def marked_pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Each kind with one picture of it, in order of kinds."""
    for kind, made in (*SYNTHETIC.items(), *DRAWN.items()):
        for number in range(VARIANTS):
            yield kind, on_grid(made(np.random.default_rng([len(kind), number])))
    real = {
        "photograph": _photographs(),
        "CT head": _ct_head(),
        "CT spine": [_dicom("CT_small.dcm")],
        "MR, cut out of a body": [_dicom("MR_small.dcm")],
        "MR abdomen": [_dicom("examples_overlay.dcm")],
        "sagittal head": _sagittal(),
    }
    for kind, images in real.items():
        for image in images:
            yield kind, on_grid(image)


# --- patterns ---------------------------------------------------------------------------------------------------


def _constant(rng: np.random.Generator) -> np.ndarray:
    return np.full((SIDE, SIDE), rng.integers(0, 256))


def _uniform(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (SIDE, SIDE))


def _gaussian(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.normal(rng.uniform(60, 180), rng.uniform(5, 50), (SIDE, SIDE)), 0, 255)


def _coarse(rng: np.random.Generator) -> np.ndarray:
    """Noise of few pixels, enlarged: smooth on the grid."""
    side = int(rng.integers(24, 128))
    return cv2.resize(rng.uniform(0, 255, (side, side)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def _salt_and_pepper(rng: np.random.Generator) -> np.ndarray:
    share = rng.uniform(0.05, 0.5)
    return np.select([rng.random((SIDE, SIDE)) < share / 2, rng.random((SIDE, SIDE)) < share / 2], [0, 255], 90)


def _checkerboard(rng: np.random.Generator) -> np.ndarray:
    cell = int(rng.integers(4, 40))
    return (np.indices((SIDE, SIDE)) // cell).sum(axis=0) % 2 * 255


def _gradient(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * across + np.sin(angle) * down
    return (ramp - ramp.min()) / np.ptp(ramp) * 255


def _text(rng: np.random.Generator) -> np.ndarray:
    """A page of lines, dark on white or light on black."""
    page = np.zeros((SIDE, SIDE), np.uint8)
    for line in range(14, SIDE - 6, int(rng.integers(11, 20))):
        words = " ".join("".join(rng.choice(list("abcdefghiklmnoprstuw"), rng.integers(2, 9))) for _ in range(9))
        cv2.putText(page, words, (10, line), cv2.FONT_HERSHEY_SIMPLEX, 0.38, 255, 1, cv2.LINE_AA)
    page[:, -10:] = 0
    return page if rng.random() < 0.3 else 255 - page


SYNTHETIC = {
    "constant": _constant,
    "uniform noise": _uniform,
    "Gaussian noise": _gaussian,
    "coarse noise": _coarse,
    "salt and pepper": _salt_and_pepper,
    "checkerboard": _checkerboard,
    "gradient": _gradient,
    "text page": _text,
}

# --- drawn stand-ins --------------------------------------------------------------------------------------------


def _ellipse(x: float, y: float, a: float, b: float, turn: float = 0.0) -> np.ndarray:
    """Where the ellipse about (x, y) with half-axes (a, b) is."""
    u, v = across - x, down - y
    c, s = np.cos(turn), np.sin(turn)
    return ((c * u + s * v) / a) ** 2 + ((c * v - s * u) / b) ** 2 < 1


def _finished(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Texture, blur and noise of a scanner."""
    texture = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), 3)
    image = cv2.GaussianBlur(image.astype(np.float32) * (1 + 0.6 * texture), (0, 0), 1.0)
    return np.clip(np.abs(image + rng.normal(0, 2.5, image.shape)), 0, 255)


def _knee(rng: np.random.Generator) -> np.ndarray:
    """Frontal cut: the thigh's two condyles over the shin's plateau, a dark gap, soft tissue from edge to edge."""
    lean, bone, fat = rng.uniform(-0.06, 0.06), rng.uniform(110, 190), rng.uniform(190, 250)
    waist = rng.uniform(0.62, 0.78) + 0.06 * np.cos(3 * down)
    image = np.where(np.abs(across - lean * down) < waist, fat, 2.0)
    image[np.abs(across - lean * down) < waist - rng.uniform(0.05, 0.1)] = rng.uniform(60, 90)
    gap, apart = rng.uniform(-0.05, 0.1), rng.uniform(0.25, 0.3)
    shaft = np.abs(across - lean * down) < 0.26 + 0.3 * np.clip(0.6 - np.abs(down - gap), 0, 0.3)
    condyles = _ellipse(-apart, gap - 0.25, 0.29, 0.24) | _ellipse(apart, gap - 0.25, 0.29, 0.24)
    femur = (shaft & (down < gap - 0.25)) | condyles
    tibia = ((np.abs(across) < 0.54) & (down > gap + 0.05) & (gap + 0.35 > down)) | (shaft & (gap + 0.3 < down))
    for part in (femur, tibia):
        rim = cv2.dilate(part.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        image[rim] = 15
        image[part] = bone
    image[condyles & ~_ellipse(0, gap - 0.3, 0.6, 0.26) & (gap - 0.12 < down)] = rng.uniform(150, 220)  # cartilage
    return _finished(image, rng)


def _knee_axial(rng: np.random.Generator) -> np.ndarray:
    """Cross cut: a patella in front of two condyles with a notch between them, fat around, vessels behind."""
    a, b = rng.uniform(0.7, 0.85), rng.uniform(0.65, 0.8)
    bone, fat = rng.uniform(120, 190), rng.uniform(190, 250)
    image = np.where(_ellipse(0, 0, a, b), fat, 2.0)
    image[_ellipse(0, 0.02, a - 0.08, b - 0.08)] = rng.uniform(55, 85)
    shift = rng.uniform(-0.06, 0.06)
    condyles = _ellipse(shift - 0.28, 0.06, 0.27, 0.34, 0.2) | _ellipse(shift + 0.27, 0.03, 0.25, 0.31, -0.2)
    condyles |= _ellipse(shift, -0.1, 0.4, 0.17)
    notch = _ellipse(shift, 0.3, 0.1, 0.2)
    patella = _ellipse(shift + rng.uniform(0.02, 0.12), -0.47, 0.24, 0.11, rng.uniform(-0.2, 0.2))
    for part in (condyles & ~notch, patella):
        image[cv2.dilate(part.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0] = 15
        image[part] = bone
    image[_ellipse(shift + 0.08, 0.52, 0.05, 0.05)] = 240
    return _finished(image, rng)


def _ct_drawn(rng: np.random.Generator) -> np.ndarray:
    """Axial, in Hounsfield units with a scanner's noise, seen through a brain, soft-tissue or bone window."""
    a, b, thick = rng.uniform(0.55, 0.65), rng.uniform(0.7, 0.8), rng.uniform(0.05, 0.08)
    units = np.where(_ellipse(0, 0, a, b), 20.0, -1000.0)  # scalp
    units[_ellipse(0, 0, a - 0.04, b - 0.04)] = rng.uniform(800, 1400)
    inner = _ellipse(0, 0, a - 0.04 - thick, b - 0.04 - thick)
    folds = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)), (0, 0), 4)
    units[inner] = np.where(folds > 0, 37, 29)[inner]  # grey and white matter
    for side in (-1, 1):
        units[_ellipse(side * 0.09, -0.02, 0.05, 0.22, side * 0.2)] = 8
    units[_ellipse(0, 0.02, a + 0.2, b + 0.16) & ~_ellipse(0, 0, a + 0.18, b + 0.14) & (down > 0.3)] = -300  # headrest
    units = cv2.GaussianBlur(units, (0, 0), 0.7) + rng.normal(0, rng.uniform(3, 8), units.shape)
    low, high = ((0, 80), (-20, 100), (-100, 300), (-200, 1000))[rng.integers(4)]
    return np.clip((units - low) / (high - low), 0, 1) * 255


def _sagittal_drawn(rng: np.random.Generator) -> np.ndarray:
    """A head in profile: cranium, face in front of it, neck down to the edge; brain, cerebellum and stem inside."""
    fat, brain = rng.uniform(190, 250), rng.uniform(90, 130)
    face = _ellipse(-0.42, 0.28, 0.3, 0.48, rng.uniform(-0.2, 0.05)) | _ellipse(-0.72, 0.2, 0.1, 0.1)
    neck = (np.abs(across - 0.14 + 0.2 * (1 - down)) < rng.uniform(0.26, 0.34)) & (down > 0.3)
    skull = _ellipse(0, -0.22, 0.74, 0.62)
    head = (face | neck | skull).astype(np.uint8)
    image = np.where(head, fat, 2.0)
    image[cv2.erode(head, np.ones((9, 9), np.uint8)) > 0] = rng.uniform(60, 80)
    image[_ellipse(-0.5, 0.3, 0.12, 0.2) | _ellipse(-0.3, 0.42, 0.07, 0.25)] = 8  # nose and throat
    image[_ellipse(0, -0.22, 0.68, 0.56)] = 15
    image[_ellipse(0, -0.24, 0.62, 0.48) & (down - 0.2 < 0)] = brain
    image[_ellipse(0.32, 0.2, 0.24, 0.17) | _ellipse(0.03, 0.28, 0.08, 0.22, 0.3)] = brain * 0.9
    image[_ellipse(0, -0.2, 0.26, 0.08, 0.15)] = 35  # ventricle
    image[(np.abs(across - 0.02 + 0.2 * (1 - down)) < 0.07) & (down > 0.45)] = 140  # cord and vertebrae
    return _finished(image if rng.random() < 0.5 else image[:, ::-1], rng)


DRAWN = {
    "knee, frontal (drawn)": _knee,
    "knee, axial (drawn)": _knee_axial,
    "CT head (drawn)": _ct_drawn,
    "sagittal head (drawn)": _sagittal_drawn,
}

# --- real ones, bundled -----------------------------------------------------------------------------------------


def _photographs() -> list[np.ndarray]:
    """Whole, and squares cut from them; colour and grey."""
    from sklearn.datasets import load_sample_images

    found = []
    for photo in load_sample_images().images:
        grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
        found += [photo, grey, photo[:, :427], grey[:, 213:], grey[150:406, 200:456]]
    return found


def _dicom(name: str) -> np.ndarray:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    dataset = dcmread(get_testdata_file(name, download=False))
    return dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def _ct_head() -> list[np.ndarray]:
    """One axial CT, whole and cut to the head, as brain, soft-tissue, bone and full windows show it."""
    units = _dicom("693_J2KI.dcm")
    windows = ((0, 80), (-20, 100), (-100, 300), (-200, 1000), (-1000, 1500))
    shown = [np.clip((units - low) / (high - low), 0, 1) * 255 for low, high in windows]
    return [units, *shown, *(image[60:452, 60:452] for image in shown)]


def _sagittal() -> list[np.ndarray]:
    """A head's sagittal T1 that matplotlib's examples use, and its mirror image."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "sample_data" / "s1045.ima.gz"
    image = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint16).reshape(256, 256)
    return [image, image[:, ::-1]]


def reslices(volume: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Sagittal and coronal cuts of an axial volume (S, 256, 256, 3), upright, stretched to the square."""
    for share in (0.4, 0.5, 0.6):
        cut = round(share * SIDE)
        for kind, plane in (("sagittal cut", volume[:, :, cut]), ("coronal cut", volume[:, cut])):
            yield kind, cv2.resize(plane[::-1], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def phantoms(patients: int, slices: int = 20) -> dict[str, np.ndarray]:
    """Patient → (S, 256, 256, 3): what must pass."""
    drawn: dict[str, list] = {}
    for pair in cohort.pairs(_drawing(patients, slices)):
        drawn.setdefault(pair.patient, []).append(pictures.decode(pair.image, pair.image_name))
    return {name: np.stack(images) for name, images in drawn.items()}


def with_brains(patients: int, slices: int = 20) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The volume of each phantom and where its brain is, with the fluid around it: (S, 256, 256) bool."""
    params = _drawing(patients, slices)
    for name, volume in phantoms(patients, slices).items():
        yield volume, _brains(name, params)


def strip(volume: np.ndarray, brains: np.ndarray, grow: int = 0) -> np.ndarray:
    """Black outside ``brains`` (S, H, W), which are first made larger by ``grow`` pixels, or smaller."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1, 2 * abs(grow) + 1))
    change = cv2.dilate if grow > 0 else cv2.erode
    inside = np.stack([change(brain.astype(np.uint8), disc) for brain in brains])
    return volume * inside[..., None]


def _drawing(patients: int, slices: int) -> config.Phantom:
    return config.Phantom(patients=patients, slices=slices, size=SIDE, seed=11)


def _brains(name: str, params: config.Phantom) -> np.ndarray:
    """Of the head that ``cohort`` draws for ``name``: it draws from the same numbers in the same order."""
    rng = np.random.default_rng([params.seed, int(name.split("_")[2])])
    spread = params.slices // 5
    count = params.slices + int(rng.integers(-spread, spread + 1))
    head = anatomy.Head(rng, np.linspace(cohort.SKULL_BASE, cohort.VERTEX, count + 2)[1:-1], params.size)
    cuts = (anatomy.Cut(head, index) for index in range(count))
    return np.stack([np.minimum(cut.inside, cut.brain + 0.02) > 0 for cut in cuts])
