"""A user's own labelled ads: what is wrong with a file is said by line and column."""

from pathlib import Path

import pytest

from training.__main__ import main as train
from training.labelled_csv import UNKNOWN_RULE, BadCsv, read_labelled_csv

HEADER = "name,description,category,images_qty,is_verified_seller,is_violation,rule\n"
FINE = "Диван,мягкий,5,3,yes,0,\n"
BROKEN = "Диван,звоните 89160001234,5,3,no,1,contacts\n"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_a_file_with_a_header_in_any_order_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ads.csv",
        "is_violation,category,name,description,is_verified_seller,images_qty\n1,5,a,b,true,2\n0,0,c,,0,0\n",
        "utf-8-sig",
    )
    broken, fine = read_labelled_csv(path)
    assert (broken.rule, fine.rule) == (UNKNOWN_RULE, "")
    assert (broken.ad.is_verified_seller, fine.ad.description) == (True, "")


def test_blanks_and_capitals_in_the_header_do_not_matter(tmp_path: Path) -> None:
    header = " Name,DESCRIPTION , category,Images_Qty,is_verified_seller,Is_Violation,Rule\n"
    [_, broken] = read_labelled_csv(write(tmp_path / "ads.csv", header + FINE + BROKEN))
    assert broken.ad.name
    assert broken.rule == "contacts"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "lacks the columns"),
        ("name,category\na,1\n", "lacks the columns description"),
        (HEADER, "no ads"),
        (HEADER + FINE, "one kind only"),
        (HEADER + FINE + "a,b,5,3,maybe,1,\n", r"line 3: is_verified_seller is 'maybe', expected 1 or 0"),
        (
            HEADER + FINE + "a,b,101,3,1,1,\n",
            r"line 3: category is '101', expected a whole number from 0 to 100",
        ),
        (HEADER + FINE + "a,b,5,-1,1,1,\n", "line 3: images_qty"),
        (HEADER + FINE + f"a,b,5,{'9' * 5_000},1,1,\n", "line 3: images_qty"),
        ((HEADER + FINE + BROKEN).replace(",", ";"), "separate the columns with commas"),
        (HEADER + FINE + "a,b,5,3,1,1,rudeness\n", "line 3: rule is 'rudeness', expected empty or one of"),
        (HEADER + FINE + "a,b,5,3,1,0,contacts\n", "line 3: rule is 'contacts', expected nothing"),
        (HEADER + FINE + "a,b\n", "line 3: is_violation"),
        (HEADER.replace("rule", "Name") + FINE + BROKEN, "more than one column name"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(BadCsv, match=complaint):
        read_labelled_csv(write(tmp_path / "ads.csv", text))


def test_another_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCsv, match="not UTF-8"):
        read_labelled_csv(write(tmp_path / "ads.csv", HEADER + FINE + BROKEN, "cp1251"))


def test_training_on_a_bad_file_says_so_and_leaves_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.pkl"
    assert train(["--data", str(tmp_path / "none.csv"), "--out", str(out)]) == 2
    assert "none.csv cannot be read" in capsys.readouterr().err
    assert not out.exists()
