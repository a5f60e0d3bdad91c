"""CSV files as tables: what pandas would read without a word, in other columns."""

import io

import pytest

from brainseg.data import csv_tables


@pytest.mark.parametrize(
    "lines", [["1,2,3"], ["1,2,3", "4,5,6"], ["1,2", "3,4,5"], ["1,2,"], ["", "x,1,"], ["x,1,"] * 9]
)
@pytest.mark.parametrize("options", [{}, {"keep_default_na": False}, {"keep_default_na": False, "na_values": [""]}])
def test_a_table_with_a_cell_too_many_is_refused(tmp_path, lines, options):
    (tmp_path / "a.csv").write_text("\n".join(["a,b", *lines]))
    with pytest.raises(ValueError):
        csv_tables.read_csv(tmp_path / "a.csv", **options)


@pytest.mark.parametrize("data", [b"a,b\n1,2\n", b"\xef\xbb\xbfa,b\r\n1,2\r\n", b'\n"a",b\n\n"1",2'])
def test_a_table_is_read_whoever_wrote_it(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    for source in (tmp_path / "a.csv", io.BytesIO(data), data.decode("utf-8-sig")):
        assert csv_tables.read_csv(source).to_dict("list") == {"a": [1], "b": [2]}


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"\n\n"])
def test_what_is_no_table_is_refused(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ValueError):
        csv_tables.read_csv(tmp_path / "a.csv")
