"""The table of the benchmark of scale."""

import pytest

from tests.support.toy_pipeline import PROJECT

FOUND = {
    "1": {
        "download": {"seconds": 3.929, "with_dvc": 11.787, "anonymous": 100.4, "resident": 300.0},
        "train": {"seconds": 39.29, "with_dvc": 40.0757, "anonymous": 800.0, "resident": 900.0},
    },
    "10": {
        "download": {"seconds": 19.645, "with_dvc": 58.935, "anonymous": 150.6, "resident": 800.0},
        "train": {"seconds": 491.125, "with_dvc": 491.125, "anonymous": 1000.0, "resident": 3000.0},
    },
}
TABLE = """\
| stage | 1 times: ms, DVC, MiB | 10 times: ms, DVC, MiB | MiB, 10 / 1 |
| --- | --- | --- | --- |
| `download` | 1.00, 2.00, 100 | 0.50, 1.00, 151 | 1.50 |
| `train` | 10.00, 0.20, 800 | 12.50, 0.00, 1000 | 1.25 |"""


@pytest.fixture
def scale_table(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    import scale_table

    return scale_table


def test_the_table_of_scale_tells_costs_of_a_slice_and_how_memory_grows(scale_table):
    assert scale_table.show(FOUND) == TABLE
