"""The generator of the older projects: OpenCV warps and flips one slice after the other, in the process that trains."""

import cv2
import numpy as np

from brainseg.config import Augmentation
from brainseg.training import batches


class Batches(batches.Batches):
    """Float32 images, as in the older projects; rotation, shift, zoom, shear and flip as in ``augmentation``."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch = super().__getitem__(index)
        rng = np.random.default_rng((self.epoch, index))
        pairs = [augment(*pair, self.augmentation, rng) for pair in zip(batch["image"], batch["mask"], strict=True)]
        images, masks = zip(*pairs, strict=True)
        return {"image": np.stack(images), "mask": np.stack(masks)[..., None]}

    def __init__(self, data, params):
        super().__init__(data, params)
        self.augmentation = params.augmentation


def augment(image: np.ndarray, mask: np.ndarray, p: Augmentation, rng: np.random.Generator):
    """Warp one slice (H, W, C) and its mask with one affine transform to the window that the pipeline trains on."""
    side = image.shape[0]
    window = round(p.window * side) or side
    angle, zoom = rng.uniform(-p.rotation, p.rotation), np.exp(rng.uniform(-1, 1) * np.log1p(p.zoom))
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, zoom)
    shear = np.tan(np.radians(rng.uniform(-p.shear, p.shear)))
    matrix[0, 1:] += shear, -shear * side / 2
    room = (side - window) / 2
    matrix[:, 2] += rng.uniform(-1, 1, 2) * (p.translation * side + room) - room
    image = cv2.warpAffine(image.astype(np.float32), matrix, (window, window))
    mask = cv2.warpAffine(mask, matrix, (window, window), flags=cv2.INTER_NEAREST)
    if rng.random() < p.flip_horizontal:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return image, mask.astype(np.float32)
