import zipfile

import pytest

from data_modules.release.sheets import Sheet, find
from mer import InputError
from tests import trees

COLUMNS = {"Subject": "subject", "Onset Frame": "onset"}
SHEET = Sheet("*.xlsx", COLUMNS, optional={"AU": "action_units"}, worksheet="label")


class TestSheet:
    def test_columns_are_found_by_name_below_text(self, tmp_path):
        rows = [("Text",), (None,), ("Subject", "and", "more"), ("AU", None, "OnsetFrame", " subject ")]
        rows += [(4, None, 46.0, "01"), (None, None, None, None), ("R12 + L15", "x", "46", 6)]
        path = trees.write_workbook(tmp_path / "a.xlsx", {"junk": [("Subject", "OnsetFrame"), (1, 2)], "Label": rows})
        assert SHEET.read(path).rows.to_dict("records") == [
            {"row": 5, "subject": "01", "onset": "46", "action_units": "4"},
            {"row": 7, "subject": "6", "onset": "46", "action_units": "R12 + L15"},
        ]

    def test_an_optional_column_may_lack(self, tmp_path):
        path = trees.write_workbook(tmp_path / "a.xlsx", {"other": [("Onset Frame", "Subject"), (1, "a")]})
        assert SHEET.read(path).rows["action_units"].tolist() == [""]

    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            ([("Subject", "Onset Frame")], "no row"),
            ([], "lacks the column"),
            ([("Subject", "Apex"), ("a", 3)], "lacks the column.*Onset Frame"),
            ([("Subject", "Onset Frame"), ("a", "=1+1")], "formulas.*row 2, onset: =1\\+1"),
            ([("Subject", "Onset Frame"), ('=HYPERLINK("http://x")', 3)], "formulas"),
        ],
    )
    def test_what_is_no_sheet_is_named(self, tmp_path, rows, words):
        path = trees.write_workbook(tmp_path / "a.xlsx", {"label": rows})
        with pytest.raises(InputError, match=words) as caught:
            SHEET.read(path)
        assert str(path) in str(caught.value)

    def test_a_formula_beside_what_is_read_does_no_harm(self, tmp_path):
        rows = [("Subject", "Duration", "Onset Frame"), ("a", "=SUM(F2-D2)+1", 3)]
        assert SHEET.read(trees.write_workbook(tmp_path / "a.xlsx", {"label": rows})).rows["onset"].tolist() == ["3"]

    def test_a_huge_file_is_not_opened(self, tmp_path):
        path = tmp_path / "a.xlsx"
        with path.open("wb") as file:
            file.truncate(100 << 20)
        with pytest.raises(InputError, match="100 MB"):
            SHEET.read(path)

    def test_a_bomb_is_not_unpacked(self, tmp_path):
        path = trees.write_workbook(tmp_path / "a.xlsx", {"label": [("Subject", "Onset Frame"), ("a", 1)]})
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb", "w") as bomb:
            for _ in range(110):
                bomb.write(b"\0" * (1 << 20))
        assert path.stat().st_size < 1 << 20
        with pytest.raises(InputError, match="110 unpacked"):
            SHEET.read(path)

    @pytest.mark.parametrize(
        "content", [b"", b"Subject,Onset Frame\na,1\n", b"PK\x03\x04 broken", bytes(range(256)) * 40]
    )
    def test_what_does_not_open_is_named(self, tmp_path, content):
        (tmp_path / "a.xlsx").write_bytes(content)
        with pytest.raises(InputError, match="a.xlsx: is not an Excel workbook"):
            SHEET.read(tmp_path / "a.xlsx")

    def test_the_newest_is_found_in_any_case(self, tmp_path):
        for name in ("casme2-CODING-2014.XLSX", "CASME2-coding-2019.xlsx", "~$CASME2-coding-2020.xlsx", "other.xlsx"):
            (tmp_path / name).touch()
        assert find("CASME2-coding-*.xlsx", [tmp_path / "nowhere", tmp_path]).name == "CASME2-coding-2019.xlsx"
