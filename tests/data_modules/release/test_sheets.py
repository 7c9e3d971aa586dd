import base64
import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import openpyxl
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
            ([("Subject", "Apex"), ("a", 3)], "worksheet 'label', row 1 has Subject, Apex"),
            ([("Subject", "Onset Frame"), ("a", "=1+1")], "no value in the column.s. Onset Frame.*formulas"),
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

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\xd0\xcf\x11\xe0 broken", bytes(range(256)) * 40])
    def test_what_does_not_open_is_named(self, tmp_path, content):
        (tmp_path / "a.xlsx").write_bytes(content)
        with pytest.raises(InputError, match="a.xlsx: is not a workbook that opens.*save it again as .xlsx"):
            SHEET.read(tmp_path / "a.xlsx")

    def test_the_newest_is_found_in_any_case(self, tmp_path):
        for name in ("casme2-CODING-2014.XLSX", "CASME2-coding-2019.xlsx", "~$CASME2-coding-2020.xlsx", "other.xlsx"):
            (tmp_path / name).touch()
        found = find("CASME2-coding-*.xlsx", [tmp_path / "nowhere", tmp_path])
        assert [path.name for path in found] == ["CASME2-coding-2019.xlsx", "casme2-CODING-2014.XLSX"]

    def test_a_spare_copy_comes_last(self, tmp_path):
        names = ("coding-2014.xlsx", "coding-2014_old.xlsx", "coding-2014 (1).xlsx", "Copy of coding-2019.xlsx")
        names += ("coding-2014.csv", "._coding-2020.xlsx", "coding-2014-edited.ods")
        for name in names:
            (tmp_path / name).touch()
        found = [path.name for path in find("*coding*.xlsx", [tmp_path])]
        assert found[:3] == ["coding-2014.xlsx", "coding-2014.csv", "coding-2014-edited.ods"]
        assert set(found) == {*names} - {"._coding-2020.xlsx"}

    def test_hidden_worksheets_are_read_only_when_they_are_named(self, tmp_path):
        rows = [("Subject", "Onset Frame"), ("a", 1)]
        sheets = {"old": [*rows, ("b", 2)], "Sheet1": rows, "Sheet2": rows}
        path = trees.write_workbook(tmp_path / "a.xlsx", sheets)
        book = openpyxl.load_workbook(path)
        book["old"].sheet_state = "hidden"
        book.save(path)
        reading = SHEET.read(path)
        assert (reading.worksheet, reading.others, len(reading.rows)) == ("Sheet1", ("Sheet2",), 1)
        assert len(SHEET.read(path, "old").rows) == 2
        with pytest.raises(InputError, match="no worksheet 'new', only 'old', 'Sheet1', 'Sheet2'"):
            SHEET.read(path, "new")
        for title in ("Sheet1", "Sheet2"):
            del book[title]
        book["old"].sheet_state = "veryHidden"
        book.create_chartsheet("shown")
        book.save(path)
        with pytest.raises(InputError, match="hidden ones are not read .old.; name one with --data.sheet"):
            SHEET.read(path)

    def test_numbers_and_words_are_read_as_they_are_meant(self, tmp_path):
        rows = [("Subject", "Onset Frame", "AU"), ("'01", "172.0", 4.5), (" 006 ", "'46", "4.0"), ("x", 46.5, True)]
        table = SHEET.read(trees.write_workbook(tmp_path / "a.xlsx", {"label": rows})).rows
        assert table.to_numpy().tolist() == [[2, "01", "172", "4.5"], [3, "006", "46", "4"], [4, "x", "46.5", "True"]]

    @pytest.mark.parametrize("names", [("SUBJECT", "OnsetF", "AUs"), ("sub", "onset", "action_units")])
    def test_renamed_columns_are_recognised(self, tmp_path, names):
        path = trees.write_workbook(tmp_path / "a.xlsx", {"label": [names, ("a", 1, "R12")]})
        assert SHEET.read(path).rows.to_dict("records") == [
            {"row": 2, "subject": "a", "onset": "1", "action_units": "R12"}
        ]

    def test_a_column_that_is_declared_is_no_synonym_of_another(self, tmp_path):
        sheet = Sheet("*.xlsx", {"Clip": "clip", "Label": "emotion"}, optional={"Video": "video"})
        path = trees.write_workbook(tmp_path / "a.xlsx", {"x": [("Video", "Label", "Clip"), ("v", "joy", "c")]})
        assert sheet.read(path).rows.to_dict("records") == [{"row": 2, "clip": "c", "emotion": "joy", "video": "v"}]


OLD_EXCEL = zlib.decompress(base64.b85decode(
    'c-rk)O=uHA6#izjo1ZpKlbQ;xP(s0~wMY{Wda1F3Eeh6Jk%|bKw0qFRRAPG2i`AN=Ab3)|6ngPe_2R#vHxEKZ4}u^hdh{eJcxbb}dAl1^jnI'
    'GwBl|7$=FOXV``*rbGqbxd7ej@)JDo-RgdK39Wcc8&kO?Y2yAcHS8-`@<+DpZ7&`|JsDUfark6K=MWDI4zi%@V|eMS^`Pvt01V`M6$N9u@O>'
    '_b9G9|nX<xu@U;l>j=}uQsL=OxG~I#bX~c-N};6Ob2LeK^(zie57}~mB)vbZte>Z6}ZPbZ&?yWJD$rtK7U1+V>JwBPbAX+W=EIm$2=%<!+J)'
    '~Cej6jDTMR*YD9o9_F8=!apd)t3y}QVO1Y<s{Hme?Gcb+|nTUD#@!2KAt77kTCY47E_GogXhIAsSr<W+3<u2<n%fad7Nqr*M4D8RG(Q}cZY~'
    'qwoSv+`%NPkq47^z3M#kTa*ZO5XqCb@<4k`Jy}@-4g&{6r_w%6y2ILy*iZ-Td@wUve~lj3qPdfO#0Km)^s`1*t*GfpU*Yds$;M(~Er9b<B4%'
    '4bxLm-80&5F+;OF<`Vbzke#iJ*YOP%{6^yQ9}nE`%72J&B7R}GcrLu~CO(I5I-Dj+UtY856Mf?PHHimtyB5~A@s4T7FI$LL30l4z)`{1OWi&'
    'AxGLJ>24R_^G+G2j79<%By(?*?D*KcRlY{}UX<(6X2mDCnhv;}L+`FKM11#3TKS+hrKOFgBEp2A~P%Z?cnt=y7U-FBQ&EzS-cIB?*=fddB(4'
    '#BTl=8L7u9~$PXtH=7UvrMJr{3iKtF@`C+a`aic8yTvzI9pTxtc51*dx=%**#8S9#>sjXDJ0pCRL%KIpB|#}c~-3${BujFR{Nz|{QS%IzXSN'
    'l`Zx'
))  # fmt: skip
"""Written by Excel's format of 1997, with a hidden worksheet before the one to read."""

STRICT = {
    b"http://schemas.openxmlformats.org/spreadsheetml/2006/main": b"http://purl.oclc.org/ooxml/spreadsheetml/main",
    b"http://schemas.openxmlformats.org/officeDocument/2006/": b"http://purl.oclc.org/ooxml/officeDocument/",
}
ODS = """<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0">
<office:body><office:spreadsheet><table:table table:name="label">{}</table:table></office:spreadsheet></office:body>
</office:document-content>"""


def changed(change: Callable[[str, bytes], bytes | None]) -> bytes:
    """A workbook whose files are changed, or left out for None."""
    book = openpyxl.Workbook()
    for row in ROWS:
        book.worksheets[0].append(row)
    whole, packed = io.BytesIO(), io.BytesIO()
    book.save(whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(packed, "w") as other:
        for name in archive.namelist():
            content = change(name, archive.read(name))
            if content is not None:
                other.writestr(name, content)
    return packed.getvalue()


def strict(name: str, content: bytes) -> bytes:
    for transitional, own in STRICT.items():
        content = content.replace(transitional, own)
    return content


def ods() -> bytes:
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    rows = ("<table:table-row>" + "".join(map(cell.format, row)) + "</table:table-row>" for row in ROWS)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr("content.xml", ODS.format("".join(rows)))
    return packed.getvalue()


ROWS = [("Subject", "Onset Frame", "AU"), ("01", 46, "4.5"), ("02", "172.0", "R12")]
MACROS = b"ms-excel.sheet.macroEnabled.main+xml"
FORMATS = {
    "strict.xlsx": changed(strict),
    "no_styles.xlsx": changed(lambda name, content: None if "styles" in name else content),
    "odd_styles.xlsx": changed(
        lambda name, content: content.replace(b"gray125", b"odd").replace(b"<fill>", b"<fill a=''>")
    ),
    "odd_date.xlsx": changed(lambda name, content: content.replace(b"T", b"T99:") if "core.xml" in name else content),
    "macros.xlsm": changed(lambda name, content: content.replace(b"spreadsheetml.sheet.main+xml", MACROS)),
    "1997.xls": OLD_EXCEL,
    "1997_renamed.xlsx": OLD_EXCEL,
    "libre.ods": ods(),
    "comma.csv": b"Subject,Onset Frame,AU\r\n01,46,4.5\r\n02,172.0,R12\r\n",
    "renamed.xlsx": b"\xef\xbb\xbfsome note\n\nSubject;Onset Frame;AU\n'01;'46;4.5\n02;172.0;R12\n",
    "utf16.csv": "Subject\tOnset Frame\tAU\n01\t46\t4.5\n02\t172\tR12\n".encode("utf-16"),
    "latin.csv": "Sübject,Subject,Onset Frame,AU\nü,01,46,4.5\nü,02,172,R12\n".encode("latin-1"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_whatever_a_sheet_was_saved_as_is_read(tmp_path, name):
    path: Path = tmp_path / name
    path.write_bytes(FORMATS[name])
    table = SHEET.read(path).rows
    assert table[["subject", "onset", "action_units"]].to_numpy().tolist() == [
        ["01", "46", "4.5"],
        ["02", "172", "R12"],
    ]


def test_a_cell_at_the_end_of_the_world_costs_no_memory(tmp_path):
    far = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    content = changed(lambda name, content: content.replace(b"</sheetData>", far) if "sheet1" in name else content)
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(InputError, match="is not a workbook that opens"):
        SHEET.read(tmp_path / "a.xlsx")
