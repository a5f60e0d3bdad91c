"""The batches of an epoch: which samples, read from memory maps, and the augmentations that need more than a sample."""

import keras
import numpy as np

from brainseg.config import Params
from brainseg.data.brains import stripping
from brainseg.data.dataset import TRAINED_ON, Dataset, stack_channels
from brainseg.errors import show_some
from brainseg.models import networks
from brainseg.training import sampling, soft_masks
from brainseg.training.lesion_mixing import LesionMixer
from brainseg.training.soft_masks import SoftMasks

NAMED = 5  # patients in a message
STRIPPING, MIXING = 3, 6  # the second number of the seeds of these; sampling has 0 to 2, 4 and 5


class Batches(keras.utils.PyDataset):
    """The batches of one epoch, read from the memory maps. Call ``start`` before each epoch.

    Images (B, H, W, K C): each slice between its neighbours. Masks (B, H, W, M): of the slice in the middle, or of all
    slices if the network's output has all. Some of the images have another patient's tumour
    (``augmentation.lesion_mix``) or no scalp (``augmentation.scalp_dropout``). With soft masks the masks are in 255ths.
    """

    def __init__(self, data: Dataset, params: Params, soft: SoftMasks | None = None):
        super().__init__()
        self.data, self.params, self.epoch = data, params.train, 0
        self.scalp_dropout, self.lesion_mix = params.augmentation.scalp_dropout, params.augmentation.lesion_mix
        self.strippable = stripping.find_strippable(data) if self.scalp_dropout else np.zeros(len(data.images), bool)
        self.context, self.volumetric = params.network.context, networks.is_volumetric(params.network)
        self.rows = data.rows(*TRAINED_ON[params.train.subset])
        self.targets = soft_masks.blend(data.masks, soft, params.train)
        self.mixer = LesionMixer(data, self.rows, self.targets) if self.lesion_mix else None
        self.patients = data.patient[self.rows] if self.params.sampling == "patient" else None
        self.has_tumour = data.slices["tumour_pixels"].to_numpy()[self.rows] > 0
        self.order = self._order()

    def _order(self) -> np.ndarray:
        p = self.params
        share = p.tumour_share
        positions = sampling.sample_epoch(self.has_tumour, self.epoch, p.seed, p.batch_size, share, self.patients)
        return self.rows[positions]

    def report_scalps(self) -> None:
        """Print that ``augmentation.scalp_dropout`` is off for want of brain masks, or whom it leaves out."""
        if not self.scalp_dropout:
            return
        patients = self.data.slices["patient"].iloc[self.rows]
        kept = sorted(patients[~self.strippable[self.rows]].unique())
        if not stripping.is_known(self.data, self.rows):
            print("augmentation.scalp_dropout is off: no brain masks for these images (brains.method)", flush=True)
        elif kept:
            why = "no brain mask, or one that cuts the tumour"
            print(f"augmentation.scalp_dropout leaves out {show_some(kept, NAMED)}: {why}", flush=True)

    def start(self, epoch: int) -> None:
        self.epoch = epoch
        self.order = self._order()

    def __len__(self) -> int:
        return len(self.order) // self.params.batch_size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rows = self.order[index * self.params.batch_size : (index + 1) * self.params.batch_size]
        windows = self.data.windows_around(rows, self.context)
        targets = windows if self.volumetric else rows[:, None]
        images = stack_channels(self.data.images, windows)
        masks = np.stack([self.targets[column] for column in targets.T], axis=-1)
        if self.mixer:
            images, masks = self.mixer.mix(images, masks, rows, self.lesion_mix, self._random(MIXING, index))
        if self.strippable[rows].any():
            rng, allowed = self._random(STRIPPING, index), self.strippable[rows]
            images = stripping.strip_at_random(images, self.data, windows, allowed, self.scalp_dropout, rng)
        return {"image": images, "mask": masks}

    def _random(self, use: int, index: int) -> np.random.Generator:
        """Random numbers of one use in one batch: the same whenever it is read, also by a training that goes on."""
        return np.random.default_rng((self.params.seed, use, self.epoch, index))
