"""Labels files: what columns mean, how rows meet files, and what is refused with which sentence."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.labels import LabelTable, RowFacts
from indexer.labels.columns import label_values, number
from retrieval.errors import UsageError
from retrieval.types import Attributes, Label
from tests.shared_data import shared_root


def table(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> LabelTable:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return LabelTable.read(path)


def named(facts: RowFacts | None) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for label in facts.labels if facts else ():
        out.setdefault(label.name, []).append(label.value)
    return out


def test_special_columns_fill_attributes_and_the_rest_are_labels(tmp_path: Path) -> None:
    facts = table(
        tmp_path,
        "path,PatientID,Study_ID,Modality,BodyPartExamined,View Position,Laterality,Gender,Age,Report,finding,split\n"
        'a.png,P1,S1,DX,chest,PA,left,female,045Y,"Clear lungs,\nno effusion.",normal,test\n',
    ).match(tmp_path / "a.png")
    assert facts is not None
    assert (facts.patient_id, facts.study_id, facts.report) == ("P1", "S1", "Clear lungs,\nno effusion.")
    assert facts.attributes == Attributes(
        modality="DX", body_part="CHEST", view="PA", laterality="L", sex="F", age=45.0
    )
    assert named(facts) == {"finding": ["normal"], "split": ["test"]}


def test_overrides_only_what_the_row_states(tmp_path: Path) -> None:
    facts = table(tmp_path, "path,modality,sex,age\na.png,,M,\n").match(tmp_path / "a.png")
    assert facts is not None
    assert facts.over(Attributes(modality="CT", sex="F", age=50.0)) == Attributes(modality="CT", sex="M", age=50.0)


def test_several_values_and_numbers(tmp_path: Path) -> None:
    labels = table(tmp_path, "path,findings,size,grade\na,Mass| Edema |Mass,3.5,2\nb,,1e2,KL2\nc,n/a,,1\n")
    first, second, third = (labels.match(tmp_path / name) for name in "abc")
    assert first is not None and second is not None and third is not None
    assert first.labels == (
        Label("findings", "Mass"), Label("findings", "Edema"), Label("size", "3.5", 3.5), Label("grade", "2"),
    )  # fmt: skip
    assert second.labels == (Label("size", "1e2", 100.0), Label("grade", "KL2"))  # one grade is no number: none is
    assert named(third) == {"grade": ["1"]}


@pytest.mark.parametrize(
    ("text", "years"),
    [("7", 7.0), ("006M", 0.5), ("10D", 10 / 365.25), ("012W", 84 / 365.25), ("N/A", None), ("unknown", None)],
)
def test_ages(tmp_path: Path, text: str, years: float | None) -> None:
    facts = table(tmp_path, f"path,age\na,{text}\n").match(tmp_path / "a")
    assert facts is not None
    assert facts.attributes.age == (None if years is None else pytest.approx(years))


def test_the_nearest_path_wins_and_uids_come_after(tmp_path: Path) -> None:
    labels = table(
        tmp_path,
        "path,series_uid,study_uid,label\n.,,,root\nct,,,folder\nct/1.dcm,,,file\n,1.2.3,,series\n,,1.2,study\n",
    )
    assert named(labels.match(tmp_path / "ct" / "1.dcm"))["label"] == ["file"]
    assert named(labels.match(tmp_path / "ct" / "deep" / "2.dcm", series_uid="1.2.3"))["label"] == ["folder"]
    assert named(labels.match(tmp_path / "elsewhere.png"))["label"] == ["root"]
    elsewhere = tmp_path.parent / "x.dcm"
    assert named(labels.match(elsewhere, study_uid="1.2", series_uid="1.2.3"))["label"] == ["series"]
    assert named(labels.match(elsewhere, study_uid="1.2", series_uid="9"))["label"] == ["study"]
    assert labels.match(elsewhere, study_uid="8") is None
    assert labels.unmatched() == ()


def test_unmatched_rows_name_their_line_and_path(tmp_path: Path) -> None:
    labels = table(tmp_path, 'path,label\na.png,x\n"b\nc.png",y\n\nd.png,z\n')
    assert labels.match(tmp_path / "a.png") is not None
    assert [(row.line, row.names) for row in labels.unmatched()] == [(3, "b\nc.png"), (6, "d.png")]


def test_absolute_links_windows_and_decomposed_paths_meet_their_files(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "sub").mkdir(parents=True)
    (real / "sub" / "e\u0301.png").touch()
    (tmp_path / "link").symlink_to(real, target_is_directory=True)
    text = f"path,label\n{tmp_path / 'abs.png'},absolute\nsub\\\u00e9.png,accent\nsub/../b.png,dots\n"
    labels = table(tmp_path / "link", text)
    assert named(labels.match(tmp_path / "abs.png"))["label"] == ["absolute"]
    for folder in (real, tmp_path / "link"):
        assert named(labels.match(folder / "sub" / "e\u0301.png"))["label"] == ["accent"]
        assert named(labels.match(folder / "b.png"))["label"] == ["dots"]
    relative = Path(os.path.relpath(real / "b.png"))
    assert named(labels.match(relative))["label"] == ["dots"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_and_delimiters(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = f"path{delimiter}Befund\r\na.png{delimiter}Knöchelödem\r\n"
    facts = table(tmp_path, text, encoding=encoding).match(tmp_path / "a.png")
    assert named(facts) == {"Befund": ["Knöchelödem"]}


def test_parquet_types_become_text(tmp_path: Path) -> None:
    columns = {
        "path": ["a", "b"], "findings": [["Mass", "Edema"], None], "size": [3.5, None], "count": [2, 3],
        "flag": [True, False], "age": [61, None],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    labels = LabelTable.read(tmp_path / "labels.parquet")
    first, second = labels.match(tmp_path / "a"), labels.match(tmp_path / "b")
    assert first is not None and second is not None
    assert first.labels == (
        Label("findings", "Mass"), Label("findings", "Edema"), Label("size", "3.5", 3.5), Label("count", "2", 2.0),
        Label("flag", "true"),
    )  # fmt: skip
    assert first.attributes.age == 61.0
    assert second.attributes.age is None
    assert named(second) == {"count": ["3"], "flag": ["false"]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("label,age\nx,3\n", "Expected a column 'path' or one of study_uid"),
        ("path,label\na,x\na,y\n", "Lines 2 and 3 of labels.csv name the same path"),
        ("path,label\na,x\n./a,y\n", "name the same path"),
        ("series_uid,label\n1.2,x\n1.2,y\n", "name the same UID"),
        ("path,label\n,x\n", "Line 2 of labels.csv names neither a path nor a UID"),
        ("path,Sex,gender\na,F,F\n", "'Sex' and 'gender' of labels.csv mean the same"),
        ("path,x,x\na,1,2\n", "'x' and 'x' of labels.csv mean the same"),
        ("path,,x\na,1,2\n", "Column 2 of labels.csv has no name"),
        ("path,label\na,x,y\n", "Line 2 of labels.csv has 3 values, the header has 2"),
        ("path,sex\na,Martha\n", "Line 2 of labels.csv: expected one of F, M, O"),
        ("path,age\na,1963-05-04\n", "Line 2 of labels.csv: expected years"),
        ("path,age\na,151\n", "expected years between 0 and 150"),
        ('path,label\na,"x\n', "is not valid CSV"),
    ],
)
def test_what_cannot_be_understood_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as refused:
        table(tmp_path, text)
    for private in ("Martha", "1963"):
        assert private not in str(refused.value)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        LabelTable.read(tmp_path / "absent.csv")
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"Expected a .csv or .parquet"):
        LabelTable.read(tmp_path / "labels.xlsx")
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match="can't be read as Parquet"):
        LabelTable.read(tmp_path / "labels.parquet")
    pq.write_table(pa.table({"path": ["a"], "deep": [{"x": 1}]}), tmp_path / "deep.parquet")
    with pytest.raises(UsageError, match=r"column 'deep' of deep\.parquet holds dict values"):
        LabelTable.read(tmp_path / "deep.parquet")


def test_rows_that_share_a_series_are_told_apart_by_path_alone(tmp_path: Path) -> None:
    labels = table(tmp_path, "path,series_uid,label\na,1.2,x\nb,1.2,y\n")
    assert named(labels.match(tmp_path / "b", series_uid="1.2"))["label"] == ["y"]
    assert labels.match(tmp_path / "moved", series_uid="1.2") is None


@given(st.text(max_size=30))
def test_a_number_is_finite_and_values_are_clean(text: str) -> None:
    value = number(text)
    assert value is None or (value == value and abs(value) != float("inf"))
    values = label_values(text)
    assert len(set(values)) == len(values)
    assert all(part and part == part.strip() and "|" not in part for part in values)


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_text_survives_the_file(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "one", "two"], *([str(i), *row] for i, row in enumerate(cells))])
    labels = LabelTable.read(path)
    for i, (one, two) in enumerate(cells):
        expected = {name: list(values) for name, cell in (("one", one), ("two", two)) if (values := label_values(cell))}
        assert named(labels.match(path.parent / str(i))) == expected


def _tables() -> list[Path]:
    root = shared_root()
    return [] if root is None else [*sorted(root.glob("data/*/labels.csv")), root / "volumes" / "labels.csv"]


@pytest.mark.skipif(shared_root() is None, reason="the shared data is not here")
@pytest.mark.parametrize("path", _tables(), ids=lambda path: path.parent.name)
def test_every_row_of_the_shared_tables_meets_its_file(path: Path) -> None:
    labels = LabelTable.read(path)
    for place, _ in labels.rows():
        assert place is not None and place.exists()
        file = next(inner for inner in sorted(place.rglob("*")) if inner.is_file()) if place.is_dir() else place
        assert labels.match(file) is not None
    assert len(labels) > 20
    assert labels.unmatched() == ()
