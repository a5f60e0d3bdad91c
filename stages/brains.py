"""brains: prepared images → brain masks, with which training and evaluation remove the scalp."""

from pathlib import Path

from brainseg import config, errors
from brainseg.data import inputs
from brainseg.data.brains import masks

PROCESSED = Path("data/processed")


def main() -> None:
    params = config.load("brains", "download")
    inputs.check("brains")
    print(masks.run(PROCESSED, params.brains, params.download.source))


if __name__ == "__main__":
    errors.run(main)
