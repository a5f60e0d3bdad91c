"""download: a source's slices → the canonical archive."""

from pathlib import Path

from brainseg import config, errors
from brainseg.data import archive, sources


def main() -> None:
    params = config.load("download", "phantom")
    pairs = sources.pairs(params.download, params.phantom)
    print(archive.write(Path("data/raw/slices.zip"), pairs, sources.describe_table(params.download)))


if __name__ == "__main__":
    errors.run(main)
