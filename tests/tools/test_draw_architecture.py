"""The pictures of the architecture are those of the code."""

import pytest

from brainseg import config
from tools import draw_architecture


@pytest.mark.parametrize("name", draw_architecture.PICTURES)
def test_the_picture_is_up_to_date(name):
    kept = (draw_architecture.FOLDER / name).read_text(encoding="utf-8")
    assert kept == draw_architecture.PICTURES[name](), "python -m tools.draw_architecture"


def test_every_stage_has_a_place_and_words():
    stages = set(config.read_yaml(draw_architecture.ROOT / "dvc.yaml")["stages"])
    assert stages == set(draw_architecture.PLACES) == set(draw_architecture.WRITES)
