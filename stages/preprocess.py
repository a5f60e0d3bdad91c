"""preprocess: the archive → arrays on one grid, masks in {0, 1}, and a table of the slices."""

from pathlib import Path

from brainseg import config, errors
from brainseg.data import inputs, preprocessing


def main() -> None:
    params = config.load("preprocess")
    inputs.check("preprocess")
    print(preprocessing.run(Path("data/raw/slices.zip"), params.preprocess, Path("data/processed")))


if __name__ == "__main__":
    errors.run(main)
