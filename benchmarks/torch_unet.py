"""The peer in PyTorch, well tuned: channels-last, a DataLoader, the precision that is fastest on the machine.

U-Net, sampler, loss, augmentation, optimizer and averaged weights are those of the pipeline, from the same parameters.
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (the usual name)

from brainseg import hardware
from brainseg.config import Augmentation, Network, Params
from brainseg.data.dataset import Dataset
from brainseg.errors import DataError, Problem, raise_all
from brainseg.io.sequences import FLAIR
from brainseg.training import sampling, warping

INITIAL_LOGIT = -4.6  # blocks.INITIAL_LOGIT
WORKERS = 1  # the fastest of 0, 1 and 2 on two cores
BATCHWISE, OPENCV = "torch", "opencv"  # augmentation by batch in the step, or by OpenCV in the loader's worker


class Block(nn.Sequential):
    """Two 3x3 convolutions with normalisation and ReLU."""

    def __init__(self, given: int, filters: int):
        super().__init__(*normalise(given, filters, 3, 1, 1), *normalise(filters, filters, 3, 1, 1))


def normalise(given: int, filters: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(given, filters, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    return [convolution, nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]


def gain(x: torch.Tensor) -> torch.Tensor:
    """``blocks.Gain``: divide each channel of each slice by its contraharmonic mean, which is at least 255 / 20."""
    level = x.square().sum((2, 3), keepdim=True) / x.sum((2, 3), keepdim=True).clamp(min=1)
    return x / level.clamp(min=0.05 * 255)


class UNet(nn.Module):
    """``networks.build`` with norm batch and upsampling resize."""

    def __init__(self, p: Network, channels: int):
        super().__init__()
        self.scaling = {"gain": gain, "full": lambda x: x / 255}[p.scaling]
        widths = [p.filters * 2**level for level in range(p.depth + 1)]
        side = max(1, p.stem)
        self.stem = (
            nn.Sequential(*normalise(channels, p.filters, 4, side, (4 - side) // 2)) if p.stem else nn.Identity()
        )
        given = [p.filters if p.stem else channels, *widths]
        self.down = nn.ModuleList(Block(given[level], widths[level]) for level in range(p.depth + 1))
        self.dropout = nn.Dropout(p.dropout)
        self.reduce = nn.ModuleList(nn.Conv2d(widths[level + 1], widths[level], 1) for level in range(p.depth))
        self.up = nn.ModuleList(Block(2 * widths[level], widths[level]) for level in range(p.depth))
        self.answer = nn.ConvTranspose2d(p.filters, 1, p.stem, p.stem) if p.stem else nn.Conv2d(p.filters, 1, 1)
        nn.init.constant_(self.answer.bias, INITIAL_LOGIT)

    def forward(self, x):
        x = self.stem(self.scaling(x))
        skips = []
        for block in self.down[:-1]:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.dropout(self.down[-1](x))
        for reduce, block, skip in reversed(list(zip(self.reduce, self.up, skips, strict=True))):
            x = F.interpolate(reduce(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], 1))
        return self.answer(x)


def fold(network: nn.Module) -> nn.Module:
    """Fold each normalisation into the convolution before it, for prediction, as in the exported file."""
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, norm = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place] = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
                    module[place + 1] = nn.Identity()
    return network


class Slices(torch.utils.data.Dataset):
    """Batches of slices by row numbers: one item is a whole batch, so that workers send few large arrays.

    uint8 (B, H, W, C) and (B, H, W, 1). With ``way`` OPENCV they are augmented here and become float32.
    """

    def __init__(self, data: Dataset, augmentation: Augmentation, seed: int, way: str):
        self.images, self.masks, self.way = data.images, data.masks, way
        self.augmentation, self.seed = augmentation, seed

    def __getitem__(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = self.images[rows], self.masks[rows][..., None]
        if self.way == OPENCV:
            images, masks = augment_by_opencv(self.augmentation, images, masks, self.seed)
        return torch.from_numpy(images), torch.from_numpy(masks)


def batches(data: Dataset, params: Params, epoch: int, way: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(B, C, H, W) channels-last and (B, 1, H, W), in the order of the pipeline."""
    rows, p = data.rows("train"), params.train
    has_tumour = data.slices["tumour_pixels"].to_numpy()[rows] > 0
    order = rows[sampling.sample_epoch(has_tumour, epoch, p.seed, p.batch_size, p.tumour_share)]
    slices = Slices(data, params.augmentation, p.seed, way)
    picked = order.reshape(-1, p.batch_size).tolist()
    loader = torch.utils.data.DataLoader(slices, batch_size=None, sampler=picked, num_workers=WORKERS)
    for images, masks in loader:
        yield images.permute(0, 3, 1, 2), masks.permute(0, 3, 1, 2)


def augment_by_opencv(
    p: Augmentation, images: np.ndarray, masks: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``augment`` for arrays, with the renderer of the pipeline."""
    count, side, _, channels = images.shape
    window = round(p.window * side) or side
    theta = _transforms(p, count, side, window)
    linear = theta[:, :, :2] * side / window
    shift = side / 2 * (theta[:, :, :2].sum(2) * (1 / window - 1) + theta[:, :, 2] + 1) - 0.5
    rows = torch.cat([linear, shift[..., None]], 2).reshape(count, 6)
    draw = lambda scale: ((2 * torch.rand(count, channels) - 1) * scale).numpy()  # noqa: E731
    what = warping.AugmentationDraw(
        transforms=F.pad(rows, (0, 2)).numpy(),
        exponents=np.exp(draw(math.log1p(p.gamma))),
        gains=1 + draw(p.contrast),
        shifts=draw(p.brightness * 255),
        missing=(torch.rand(count, channels) < p.sequence_dropout).numpy(),
        places=torch.rand(count, 1, 2).numpy(),
    )
    return warping.render(images, masks, what, window, warping.noise_field(seed, p.noise, channels, 2 * window))


def augment(p: Augmentation, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``Augmenter`` by batch: one affine transform, gamma, contrast, brightness, noise, missing sequences."""
    count, channels, side, _ = images.shape
    window = round(p.window * side) or side
    grid = F.affine_grid(
        _transforms(p, count, side, window), (count, channels + 1, window, window), align_corners=False
    )
    stacked = torch.cat([images, masks], 1).float()
    moved = F.grid_sample(stacked, grid, align_corners=False)
    x, masks = moved[:, :channels], (moved[:, channels:] >= 0.5).float()
    draw = lambda scale: (2 * torch.rand(count, channels, 1, 1) - 1) * scale  # noqa: E731
    x = 255 * (x / 255).clamp(1e-6, 1) ** torch.exp(draw(math.log1p(p.gamma)))
    mean = x.mean((2, 3), keepdim=True)
    x = (x - mean) * (1 + draw(p.contrast)) + mean + draw(p.brightness * 255)
    x = (x + torch.randn_like(x) * (p.noise * 255)).clamp(0, 255)
    missing = torch.rand(count, channels, 1, 1) < p.sequence_dropout
    return torch.where(missing, x[:, FLAIR : FLAIR + 1], x), masks


def _transforms(p: Augmentation, count: int, side: int, window: int) -> torch.Tensor:
    """Random (B, 2, 3) in the coordinates of ``affine_grid``: -1 to 1 over the sides."""
    uniform = lambda: 2 * torch.rand(count) - 1  # noqa: E731
    angle, shear = uniform() * math.radians(p.rotation), torch.tan(uniform() * math.radians(p.shear))
    flips = [1 - 2 * (torch.rand(count) < chance).float() for chance in (p.flip_horizontal, p.flip_vertical)]
    share = window / side
    sx, sy = (flip * share * torch.exp(-uniform() * math.log1p(p.zoom)) for flip in flips)
    room = 2 * p.translation + (1 - share)
    rows = [
        torch.stack([angle.cos() * sx, (angle.cos() * shear - angle.sin()) * sy, uniform() * room], -1),
        torch.stack([angle.sin() * sx, (angle.sin() * shear + angle.cos()) * sy, uniform() * room], -1),
    ]
    return torch.stack(rows, 1)


def bce_dice(masks: torch.Tensor, logits: torch.Tensor, smooth: float) -> torch.Tensor:
    """The loss over the whole batch, as ``losses.build`` with bce_dice and batch."""
    p = torch.sigmoid(logits)
    tp = (p * masks).sum()
    dice = (2 * tp + smooth) / (p.sum() + masks.sum() + smooth)
    return F.binary_cross_entropy_with_logits(logits, masks) + 1 - dice


def refuse_others(params: Params) -> None:
    """Raise DataError for parameters that the peer does not implement, instead of ignoring them."""
    wanted = {
        "network": {"name": "unet", "norm": "batch", "upsampling": "resize", "context": 0},
        "augmentation": {"flair_only": 0.0},
        "train": {"loss": "bce_dice", "loss_reduction": "batch", "optimizer": "adamw", "schedule": "cosine"},
    }
    problems = [
        Problem("params.yaml", f"the peer in PyTorch has no {block}.{name}: {given}", f"set it to {value} to compare")
        for block, values in wanted.items()
        for name, value in values.items()
        if (given := getattr(getattr(params, block), name)) != value
    ]
    raise_all(problems, DataError)


class Trainer:
    """Trains ``network`` epoch by epoch; ``average`` (EMA) is for validation."""

    def __init__(self, data: Dataset, params: Params, way: str = BATCHWISE, precision: str = "float32"):
        """``way`` of augmentation: BATCHWISE or OPENCV. ``precision``: float32 or bfloat16."""
        torch.manual_seed(params.train.seed)
        threads = params.train.threads
        torch.set_num_threads(hardware.cores() if threads == "auto" else threads)
        self.autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision == "bfloat16")
        refuse_others(params)
        self.data, self.params, self.way = data, params, way
        self.network = UNet(params.network, data.images.shape[-1]).to(memory_format=torch.channels_last)
        p = params.train
        kernels = [weight for weight in self.network.parameters() if weight.ndim > 1]
        others = {"params": [weight for weight in self.network.parameters() if weight.ndim == 1], "weight_decay": 0.0}
        groups = [{"params": kernels, "weight_decay": p.weight_decay}, others]
        self.optimizer = torch.optim.AdamW(groups, p.learning_rate, eps=1e-7)
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(p.ema)
        self.average = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=average)
        steps = p.epochs * (len(data.rows("train")) // p.batch_size)
        warmup = max(1, round(p.warmup * steps))
        rate = lambda t: t / warmup if t < warmup else 0.5 + 0.5 * math.cos(math.pi * (t - warmup) / (steps - warmup))  # noqa: E731
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def epoch(self, number: int) -> Iterator[None]:
        """Train for one epoch; yield after each step."""
        self.network.train()
        for images, masks in batches(self.data, self.params, number, self.way):
            by_batch = self.way == BATCHWISE
            x, y = augment(self.params.augmentation, images, masks) if by_batch else (images, masks)
            with self.autocast():
                logits = self.network(x.contiguous(memory_format=torch.channels_last))
            loss = bce_dice(y, logits.float(), self.params.train.loss_smooth)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.average.update_parameters(self.network)
            yield

    @torch.inference_mode()
    def logits(self, rows: np.ndarray) -> np.ndarray:
        """(n, H, W) logits of the averaged network."""
        self.average.eval()
        found = []
        for part in np.array_split(rows, max(1, len(rows) // self.params.train.batch_size)):
            x = torch.from_numpy(self.data.images[part]).permute(0, 3, 1, 2).float()
            with self.autocast():
                found.append(self.average(x.contiguous(memory_format=torch.channels_last)).float()[:, 0].numpy())
        return np.concatenate(found)
