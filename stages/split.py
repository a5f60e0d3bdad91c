"""split: the slices → train, validation and test, no patient in two of them."""

from pathlib import Path

from brainseg import config, errors
from brainseg.data import inputs, splitting


def main() -> None:
    params = config.load("split")
    inputs.check("split")
    print(splitting.run(Path("data/processed/slices.csv"), params.split, Path("data/splits/split.csv")))


if __name__ == "__main__":
    errors.run(main)
