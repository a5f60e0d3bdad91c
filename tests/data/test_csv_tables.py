"""CSV files as tables: what pandas would read without a word, in other columns; and how much memory that takes."""

import tracemalloc

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
    for source in (tmp_path / "a.csv", data.decode("utf-8-sig")):
        assert csv_tables.read_csv(source).to_dict("list") == {"a": [1], "b": [2]}


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"\n\n"])
def test_what_is_no_table_is_refused(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ValueError):
        csv_tables.read_csv(tmp_path / "a.csv")


TYPES = {"patient": csv_tables.CATEGORY, "slice": "int32", "dice": "float64"}


def test_columns_are_read_in_parts(tmp_path, monkeypatch):
    """Names such as 007 and NA stay text, in the order of text, although no part has them all."""
    names = ["b", "007", "NA", "", "10", "9", "b", "a"]
    lines = "".join(f"{name},{number},x,{number or ''}\n" for number, name in enumerate(names))
    (tmp_path / "a.csv").write_text(f"patient,slice,other,dice\n{lines}")
    monkeypatch.setattr(csv_tables, "LINES", 3)
    table = csv_tables.read_columns(tmp_path / "a.csv", TYPES)
    assert list(table) == list(TYPES) and table["slice"].dtype == "int32"
    assert table["patient"].tolist() == names and table["slice"].tolist() == list(range(8))
    assert table["dice"].isna().tolist() == [True] + [False] * 7
    assert table.sort_values("patient")["patient"].tolist() == sorted(names)


@pytest.mark.parametrize("lines", ["a,1.5,", "a,x,", "a,,", "a,99999999999,", "a,1,2,3"])
def test_a_cell_of_another_type_is_refused(tmp_path, lines):
    (tmp_path / "a.csv").write_text(f"patient,slice,dice\n{lines}\n")
    with pytest.raises(ValueError):
        csv_tables.read_columns(tmp_path / "a.csv", TYPES)


def test_a_header_alone_is_an_empty_table(tmp_path):
    (tmp_path / "a.csv").write_text("patient,slice,dice\n")
    table = csv_tables.read_columns(tmp_path / "a.csv", TYPES)
    assert list(table) == list(TYPES) and table.empty


def test_the_text_of_a_table_is_not_in_memory(tmp_path):
    line = ",".join(["1"] + ["some text"] * 10) + "\n"
    (tmp_path / "a.csv").write_text("a,b,c,d,e,f,g,h,i,j,k\n" + line * 40_000)  # 4 MB
    csv_tables.read_csv(tmp_path / "a.csv", nrows=1)
    tracemalloc.start()
    csv_tables.read_csv(tmp_path / "a.csv", usecols=["a"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6
