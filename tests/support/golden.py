"""Files for the browser's side to answer, and Python's own answers to them: the truth that the page is held against.

``write`` makes the files, ``run_node`` lets ``web/tests/golden.ts`` answer them in Node, ``expected`` is Python's own.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from PIL import Image

from brainseg.inference import cases, chosen_rule, plausibility
from brainseg.inference.cases import Case
from brainseg.inference.chosen_rule import RuleChoice
from brainseg.inference.outlining import Outliner, Segmentation
from brainseg.inference.predictor import Predictor
from brainseg.io import nifti, pictures
from brainseg.server import responses
from tests.support import dicom_study, implausible, nifti_files, onnx_toy
from tools import build_page, copy_released

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
NUMBERS = (5, 6, 7, 9, 10, 12)  # of the slices that are pictures
PHANTOM = ROOT / "src/brainseg/server/phantoms/phantom-1.tif"
SCORES = {"volume": {"dice": {"mean": 0.865}}, "alone": {"stripped_dice": 0.805}}  # of the toy, which nobody measured
TYPES = {"Uint8Array": np.uint8, "Uint16Array": np.uint16, "Int16Array": np.int16, "Float32Array": np.float32}


class Asked(NamedTuple):
    """A case: its files by role, paths in the folder; ``numbers`` of slices that are pictures."""

    id: str
    parts: dict[str, Sequence[str]]
    numbers: tuple[int, ...] = ()
    choice: RuleChoice = RuleChoice()
    reference: str = ""
    raw: int | None = None  # a slice whose raw probabilities are compared

    def for_node(self) -> dict[str, Any]:
        parts = [{"role": role, "path": path} for role, paths in self.parts.items() for path in paths]
        choice = {key: value for key, value in self.choice._asdict().items() if value is not None}
        told = {"id": self.id, "parts": parts, "choice": choice}
        told |= {"reference": [self.reference]} if self.reference else {}
        return told | ({} if self.raw is None else {"raw": self.raw})


def released(folder: Path) -> Path:
    """The released model as ``folder/model.onnx``, from weights/."""
    (copied,) = copy_released.copy(ROOT, folder, ["models/unet.onnx"])
    return copied.rename(folder / "model.onnx")


def toy(folder: Path) -> Path:
    """A model whose answer is FLAIR's intensity, with every part of a rule, as ``folder/model.onnx``."""
    rule = {"threshold": 0.55, "min_component": 4, "min_share": 0.1, "mirror": True}
    rule |= {"temperature": 1.4, "bias": -0.3, "skew": -0.4}
    return onnx_toy.write(folder / "model.onnx", onnx_toy.facts(rule=rule, evaluation={"test": SCORES}))


def phantom() -> np.ndarray:
    """(S, H, W, 3) uint8: drawn heads."""
    return pictures.decode_pages(PHANTOM.read_bytes(), "phantom")


def write(folder: Path) -> list[Asked]:
    """Write one file or more of every kind that is outlined, of other sizes and depths than the model's grid.

    Returns:
        ``ask`` of them.
    """
    whole = phantom()
    flair, few = whole[..., 1], whole
    shutil.copy(PHANTOM, folder / "phantom.tif")
    rng = np.random.default_rng(3)
    deep = few[..., 1].astype(np.float32) * 7.3 + rng.normal(0, 3, few.shape[:3]).astype(np.float32)
    turned = ((1, 2, 0), (-1, 1, -1))
    nifti_files.nifti(folder / "float.nii.gz", deep, turned)
    _scaled(folder / "scaled.nii", few[..., 1][:, 20:231, 15:240])
    for role, channel in (("pre", 0), ("flair", 1), ("post", 2)):
        nifti_files.nifti(folder / f"{role}.nii.gz", few[..., channel].astype(np.int16) * 3, rows=0.9)
    Image.fromarray(flair[3][30:230, 40:220]).save(folder / "small.png")
    Image.fromarray(whole[3]).resize((200, 310)).save(folder / "colour.png")
    twice = np.kron(flair[3], np.ones((2, 2), np.uint8))
    Image.fromarray(twice[:470, :500]).save(folder / "large.tif", compression="tiff_lzw")
    _write_slices(folder / "TCGA_XX_1234", flair)
    dicom_study.save(folder / "series", few[..., 1].astype(np.uint16) * 5)
    bright = (deep > np.quantile(deep, 0.96)).astype(np.uint8)
    ((head, brain),) = implausible.with_brains(1, slices=8)
    nifti_files.nifti(folder / "stripped.nii.gz", implausible.strip(head, brain)[..., 1].astype(np.int16))
    nifti_files.nifti(folder / "own_seg.nii.gz", bright, nifti_files.ORIENTATIONS[7])
    return ask(folder)


def ask(folder: Path) -> list[Asked]:
    """The cases of the files that ``write`` wrote."""
    slices = [f"TCGA_XX_1234/TCGA_XX_1234_{number}.tif" for number in NUMBERS]
    masks = [path.replace(".tif", "_mask.tif") for path in slices]
    return [
        Asked("pages", {"file": ["phantom.tif"]}, raw=3),
        Asked("float", {"file": ["float.nii.gz"]}, reference="own_seg.nii.gz", raw=2),
        Asked("rule", {"file": ["float.nii.gz"]}, choice=RuleChoice(0.25, 30)),
        Asked("scaled", {"file": ["scaled.nii"]}),
        Asked("three", {"flair": ["flair.nii.gz"], "pre": ["pre.nii.gz"], "post": ["post.nii.gz"]}),
        Asked("two", {"flair": ["flair.nii.gz"], "post": ["post.nii.gz"]}),
        Asked("small", {"file": ["small.png"]}, raw=0),
        Asked("single", {"file": ["small.png"]}, choice=RuleChoice(0.4, 60)),
        Asked("colour", {"file": ["colour.png"]}),
        Asked("large", {"file": ["large.tif"]}),
        Asked("slices", {"file": [*slices, *masks]}, NUMBERS),
        Asked("stripped", {"file": ["stripped.nii.gz"]}),
        Asked("dicom", {"file": [f"series/{path.name}" for path in sorted((folder / "series").iterdir())]}),
    ]


def _scaled(path: Path, slices: np.ndarray) -> None:
    """Thick oblique slices of 16 bits with a slope, big-endian, of pixels that are not square."""
    affine = np.array([[-0.9, 0.05, 0, 70], [0.05, -1.3, 0.2, 90], [0, 0.1, 5, -30], [0, 0, 0, 1.0]])
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nibabel.Nifti1Image(slices.swapaxes(0, 2).astype(">i2") * 11 - 500, affine, header)
    image.header.set_slope_inter(0.37, -12.5)
    image.set_sform(affine, 1)
    data = bytearray(image.to_bytes())
    path.write_bytes(bytes(data))


def _write_slices(folder: Path, flair: np.ndarray) -> None:
    """A patient's folder as in LGG: numbered slices, a mask beside each; one number is missing."""
    folder.mkdir()
    for number, pixels in zip(NUMBERS, flair, strict=True):
        Image.fromarray(np.repeat(pixels[..., None], 3, -1)).save(
            folder / f"{folder.name}_{number}.tif", compression="tiff_lzw"
        )
        Image.fromarray((pixels > 190) * np.uint8(255)).save(folder / f"{folder.name}_{number}_mask.tif")


class Expected(NamedTuple):
    """Python's answer."""

    case: Case
    prepared: np.ndarray
    result: Segmentation
    answer: dict[str, Any]


def expected(folder: Path, asked: Asked) -> Expected:
    """Read, outline and measure as ``brainseg predict`` and the server do."""
    model = chosen_rule.apply(Predictor(folder / "model.onnx", threads=1), asked.choice)
    case = _read(folder, asked)
    prepared = model.prepared(case.voxels, case.pixel)
    verdict = plausibility.assess(prepared, plausibility.describe_no_scalp(model.facts))
    result = model.segment(case.voxels, case.pixel, numbers=asked.numbers)
    warnings = [*chosen_rule.remarks(model.facts), *case.warnings, *verdict.marks]
    outlined = responses.OutlinedCase(case, result.mask, result.probability, model.facts, warnings, 0.0)
    answer = responses.build_answer(outlined).model_dump(mode="json", exclude={"volumes"})
    return Expected(case, prepared, result, answer)


def _read(folder: Path, asked: Asked) -> Case:
    if asked.numbers:
        paths = [folder / path for path in asked.parts["file"] if "_mask" not in path]
        voxels = np.stack([pictures.decode(path.read_bytes(), path.name) for path in paths])
        return cases.make_case(asked.id, "slices", voxels, None)._replace(numbers=asked.numbers)
    found = {}
    for role, paths in asked.parts.items():
        path = folder / paths[0]
        found[role] = cases.read(path.parent if len(paths) > 1 else path, path.name)
    return found["file"] if "file" in found else cases.combine(found, asked.id)


def mirrored_apart(model: Outliner, prepared: np.ndarray) -> np.ndarray:
    """How far the two passes of a mirrored model are apart, float32."""
    straight = model.session.run(prepared)[..., 0]
    return np.abs(straight - model.session.run(prepared[:, :, ::-1])[:, :, ::-1, 0])


def read_labels(path: Path) -> np.ndarray:
    return nifti.read_labels(path, path.name).voxels


def build(out: Path) -> None:
    """Make ``golden.js`` of the page's own sources."""
    _vite("vite.golden.config.js", out)
    (out / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (out / "node_modules").symlink_to(WEB.absolute() / "node_modules")  # where ONNX Runtime is found


def build_raw(out: Path) -> None:
    """Make ``tests/raw.html``, the network alone in a browser."""
    _vite("vite.raw.config.js", out)


def _vite(config: str, out: Path) -> None:
    command = ["npx", "--no-install", "vite", "build", "-c", config, "--outDir", str(out), "--emptyOutDir"]
    path = f"{build_page.node_folder(WEB)}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=WEB, env=os.environ | {"PATH": path}, check=True, capture_output=True)


def run_node(program: Path, folder: Path, asked: Sequence[Any]) -> dict[str, Any]:
    """What Node made of the cases; files beside them."""
    (folder / "cases.json").write_text(json.dumps([each.for_node() for each in asked]), encoding="utf-8")
    node = build_page.node_folder(WEB) / "node"
    done = subprocess.run([node, program, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "told.json").read_text(encoding="utf-8"))


def told_array(folder: Path, identity: str, name: str, like: np.ndarray) -> np.ndarray:
    """An array that Node wrote, in the type and shape of Python's."""
    return np.fromfile(folder / f"{identity}.{name}", like.dtype).reshape(like.shape)
