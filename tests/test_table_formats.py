"""Delta Lake and Iceberg tables: the rows of a snapshot, deleted ones left out, to the bits of plain Parquet."""

from __future__ import annotations

import builtins
import datetime
import json
import os
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.cli import main
from fastloss.errors import ReadError, SchemaError, UsageError
from fastloss.sources import ReadOptions, open_source

REQUEST = {"label": "click", "logit": "score", "by": "country", "metrics": ["log_loss", "calibration"]}
OPTIONS = ["--label", "click", "--logit", "score", "--by", "country", "-m", "log_loss,calibration"]


def log_table(n_rows=3000):
    rng = np.random.default_rng(11)
    missing = rng.random(n_rows) < 0.1
    return pa.table(
        {
            "click": pa.array(rng.integers(0, 2, n_rows), pa.int32()),
            "score": pa.array(rng.normal(size=n_rows), mask=missing),
            "country": pa.array(rng.choice(["DE", "F R", "ü/ä=%20"], n_rows), mask=missing),
            "row": pa.array(np.arange(n_rows)),
        }
    )


@pytest.fixture(scope="module")
def table():
    return log_table()


@pytest.fixture(scope="module")
def expected(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "log.parquet"
    pq.write_table(kept(table), path, row_group_size=1100)
    return fl.evaluate(path, **REQUEST).to_dict()["values"]


def kept(table):
    """The rows that are left after those with a number below 500 were deleted."""
    return table.filter(pc.greater_equal(table["row"], 500))


def values(log, **options):
    return fl.evaluate(log, **{**REQUEST, **options}).to_dict()["values"]


def by_slice(found):
    return sorted(found, key=lambda value: (value["metric"], str(value["slice"])))


# Delta Lake


@pytest.fixture
def delta():
    return pytest.importorskip("deltalake")


def write_delta(delta, table, path, **options):
    for first in (0, 1000, 2000):
        delta.write_deltalake(path, table.slice(first, 1000), mode="append", **options)
    return delta.DeltaTable(path)


def with_deletion_vector(path, deleted):
    """Delete rows of the only file of a table by a vector, as Spark does; deltalake itself rewrites the file."""
    (added,) = [
        entry["add"]
        for line in Path(path, "_delta_log", "00000000000000000000.json").read_text().splitlines()
        if "add" in (entry := json.loads(line))
    ]
    vector = roaring_bitmap(deleted)
    inline = {"storageType": "i", "pathOrInlineDv": base85(vector), "sizeInBytes": len(vector)}
    actions = [
        {"remove": {"path": added["path"], "deletionTimestamp": 1, "dataChange": True, "partitionValues": {}}},
        {"add": {**added, "deletionVector": {**inline, "cardinality": len(deleted)}}},
    ]
    Path(path, "_delta_log", "00000000000000000001.json").write_text("\n".join(map(json.dumps, actions)) + "\n")


def roaring_bitmap(rows):
    """The portable format of 64 bits that Delta has: a magic number, and one array of 16 bits for all rows."""
    low = np.array(rows, dtype="<u2").tobytes()
    bitmap = np.array([12346, 1], "<u4").tobytes() + np.array([0, len(rows) - 1], "<u2").tobytes()
    bitmap += np.array([16], "<u4").tobytes() + low
    return np.array([1681511377], "<u4").tobytes() + np.array([1], "<u8").tobytes() + bytes(4) + bitmap


def base85(data):
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    data += bytes(-len(data) % 4)
    text = ""
    for first in range(0, len(data), 4):
        number = int.from_bytes(data[first : first + 4], "big")
        text += "".join(alphabet[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text


@pytest.mark.parametrize("partition_by", [None, ["country"]])
def test_a_delta_table_gives_the_numbers_of_its_rows(delta, partition_by, table, expected, tmp_path, capsys):
    path = str(tmp_path / "table")
    write_delta(delta, table, path, partition_by=partition_by).delete("row < 500")
    # Files of the versions before are still there.
    assert len(list(Path(path).rglob("*.parquet"))) > len(delta.DeltaTable(path).file_uris())
    for log in (path, Path(path), delta.DeltaTable(path), f"file://{path}", [path]):
        assert by_slice(values(log)) == by_slice(expected)
    assert main(["eval", path, *OPTIONS, "--format", "json"]) == 0
    assert by_slice(json.loads(capsys.readouterr().out)["values"]) == by_slice(expected)


def test_a_delta_table_is_read_at_the_version_that_the_object_has(delta, table, expected, tmp_path):
    path = str(tmp_path / "table")
    write_delta(delta, table, path).delete("row < 500")
    before = delta.DeltaTable(path, version=2)
    assert values(before) == values(table)
    before.load_as_version(3)
    assert values(before) == expected


def test_a_delta_table_without_deletion_vectors_is_its_parquet_files(delta, table, tmp_path):
    path = str(tmp_path / "table")
    write_delta(delta, table, path, partition_by=["country"]).delete("row < 500")
    source = open_source(path, ReadOptions())
    columns = ["score", "country", "row"]
    summary = source.summary(columns, ReadOptions())
    assert summary.rows == 2500
    assert summary.files == len(delta.DeltaTable(path).file_uris())
    origins = {task.origin for task in source.tasks(columns, ReadOptions())}
    assert all(os.path.exists(origin) and origin.startswith(path) for origin in origins)
    assert {stamp.path for stamp in source.inputs(columns)} == set(map(os.path.realpath, origins))
    # Only the columns of the request are read.
    batches = [batch for task in source.tasks(["row"], ReadOptions()) for batch in task.read()]
    assert {tuple(batch.record_batch.schema.names) for batch in batches} == {("row",)}


def test_of_a_scan_of_a_delta_table_only_what_is_read_is_asked_for(delta, table, tmp_path, monkeypatch):
    path = str(tmp_path / "table")
    delta.write_deltalake(path, table, configuration={"delta.enableDeletionVectors": "true"})
    with_deletion_vector(path, range(500))
    asked = []
    scan = delta.DeltaTable.scan
    monkeypatch.setattr(delta.DeltaTable, "scan", lambda self, columns: asked.append(columns) or scan(self, columns))
    values(path)
    assert asked == [["click", "score", "country"]]


def test_rows_that_a_vector_deletes_are_left_out(delta, table, tmp_path):
    path = str(tmp_path / "table")
    delta.write_deltalake(path, table, configuration={"delta.enableDeletionVectors": "true"})
    assert values(path) == values(table)
    with_deletion_vector(path, range(500))
    found = open_source(path, ReadOptions())
    rows = [
        number
        for task in found.tasks(["row"], ReadOptions())
        for batch in task.read()
        for number in batch.record_batch.column("row").to_pylist()
    ]
    assert sorted(rows) == list(range(500, 3000))
    assert values(path) == values(kept(table))
    assert found.inputs(["row"]) is None
    with pytest.raises(UsageError, match="verifies no checksums"):
        open_source(path, ReadOptions()).tasks(["row"], ReadOptions(verify_checksums=True))


def test_files_that_are_older_than_a_column_have_nulls_in_it(delta, table, tmp_path):
    path = str(tmp_path / "table")
    delta.write_deltalake(path, table.slice(0, 1000).drop_columns(["score"]))
    delta.write_deltalake(path, table.slice(1000), mode="append", schema_mode="merge")
    assert values(path) == values(table.slice(1000))
    assert fl.evaluate(path, **REQUEST).to_dict()["rows"]["read"] == 3000
    with pytest.raises(SchemaError, match=r"no column 'scores'\. Did you mean 'score'"):
        fl.evaluate(path, **{**REQUEST, "logit": "scores"})


def test_renamed_columns_are_known_by_their_names(delta, table, tmp_path):
    path = Path(tmp_path / "table")
    delta.write_deltalake(str(path), table.rename_columns(["click", "physical", "country", "row"]))
    log = path / "_delta_log" / "00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"].update(minReaderVersion=2, minWriterVersion=5)
            action["protocol"].pop("readerFeatures", None)
            action["protocol"].pop("writerFeatures", None)
        if "metaData" in action:
            schema = json.loads(action["metaData"]["schemaString"])
            for number, field in enumerate(schema["fields"], 1):
                field["metadata"] = {
                    "delta.columnMapping.id": number,
                    "delta.columnMapping.physicalName": field["name"],
                }
                field["name"] = {"physical": "score"}.get(field["name"], field["name"])
            action["metaData"]["schemaString"] = json.dumps(schema)
            action["metaData"]["configuration"] = {
                "delta.columnMapping.mode": "name",
                "delta.columnMapping.maxColumnId": "4",
            }
    log.write_text("\n".join(map(json.dumps, actions)) + "\n")
    assert values(str(path)) == values(table)


def test_partition_keys_have_the_types_of_the_table(delta, tmp_path):
    table = pa.table(
        {
            "click": [1, 0, 1, 0],
            "score": [0.5, 0.25, -1.0, 2.0],
            "text": ["01", "2", None, "2"],
            "number": pa.array([1, -2, None, 7], pa.int16()),
            "day": [datetime.date(2026, 3, 1), datetime.date(2026, 3, 2), None, datetime.date(1969, 1, 1)],
            "flag": [True, False, None, True],
        }
    )
    for keys in (["text"], ["number", "day"], ["flag"]):
        path = str(tmp_path / "-".join(keys))
        delta.write_deltalake(path, table, partition_by=keys)
        assert open_source(path, ReadOptions()).summary(["score", *keys], ReadOptions()).rows == 4
        assert by_slice(values(path, by=keys)) == by_slice(values(table, by=keys))
    where = {"where": "day >= '2026-03-02'", "by": None}
    assert values(str(tmp_path / "number-day"), **where) == values(table, **where)


def test_keys_of_other_types_are_read_by_the_library(delta, tmp_path):
    moments = pa.array([0, 10**15], pa.timestamp("us", "UTC"))
    table = pa.table({"click": [1, 0], "score": [0.5, 0.25], "at": moments})
    delta.write_deltalake(str(tmp_path / "table"), table, partition_by=["at"])
    assert by_slice(values(str(tmp_path / "table"), by="at")) == by_slice(values(table, by="at"))


def test_an_empty_delta_table_has_columns_and_no_rows(delta, table, tmp_path):
    delta.write_deltalake(str(tmp_path / "table"), table.slice(0, 0))
    assert fl.evaluate(str(tmp_path / "table"), **REQUEST).to_dict()["rows"]["read"] == 0


def test_a_delta_table_is_scored_to_one_file(delta, table, tmp_path):
    path = str(tmp_path / "table")
    write_delta(delta, table, path).delete("row < 500")
    fl.score(path, tmp_path / "out.parquet", label="click", logit="score", loss="log_loss", keep=["row"])
    scored = pq.read_table(tmp_path / "out.parquet").sort_by("row")
    fl.score(kept(table), tmp_path / "b.parquet", label="click", logit="score", loss="log_loss", keep=["row"])
    assert scored.equals(pq.read_table(tmp_path / "b.parquet"))


def test_a_bad_file_of_a_delta_table_is_named_and_can_be_skipped(delta, table, tmp_path):
    path = str(tmp_path / "table")
    file = write_delta(delta, table, path).file_uris()[1]
    Path(file).write_bytes(b"nothing")
    with pytest.raises(ReadError, match=os.path.basename(file)):
        fl.evaluate(path, **REQUEST)
    assert fl.evaluate(path, **REQUEST, on_bad_file="skip").to_dict()["rows"]["read"] == 2000


@pytest.mark.parametrize("folder", ["a b", "ü", "a+b", "k=v"])
def test_a_folder_of_any_name_holds_a_delta_table(delta, table, tmp_path, folder):
    path = tmp_path / folder / "table"
    delta.write_deltalake(str(path), table, partition_by=["country"])
    assert open_source(path, ReadOptions()).summary(["row", "country"], ReadOptions()).rows == 3000
    assert by_slice(values(path)) == by_slice(values(table))
    assert values(path, executor="processes") == values(path)


@pytest.mark.parametrize("output", ["new.csv", "_delta_log/00000000000000000000.json"])
def test_an_output_is_no_file_of_a_table(delta, table, tmp_path, output, capsys):
    path = tmp_path / "table"
    delta.write_deltalake(str(path), table)
    before = (path / "_delta_log/00000000000000000000.json").read_bytes()
    assert main(["eval", str(path), *OPTIONS, "-o", str(path / output)]) == 2
    assert "lies in the table" in capsys.readouterr().err
    assert (path / "_delta_log/00000000000000000000.json").read_bytes() == before
    # Beside it, a file is replaced.
    for _ in range(2):
        assert main(["eval", str(path), *OPTIONS, "-o", str(tmp_path / "result.json")]) == 0


@pytest.mark.parametrize(("format", "library"), [("Delta Lake", "deltalake"), ("Iceberg", "pyiceberg")])
def test_a_library_that_is_not_here_is_named(format, library, tmp_path, monkeypatch):
    marker = {"deltalake": "_delta_log/0.json", "pyiceberg": "metadata/1.metadata.json"}[library]
    (tmp_path / marker).parent.mkdir(parents=True)
    (tmp_path / marker).write_text("{}")
    importing = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] == library:
            raise ImportError(name)
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    extra = {"deltalake": "delta", "pyiceberg": "iceberg"}[library]
    with pytest.raises(UsageError, match=rf"an? {format} table, .* pip install 'fastloss\[{extra}\]'"):
        open_source(str(tmp_path), ReadOptions())


def test_what_only_looks_like_a_table_is_a_read_error(tmp_path, capsys):
    for library, marker in (("deltalake", "_delta_log/0.json"), ("pyiceberg", "metadata/1.metadata.json")):
        pytest.importorskip(library)
        folder = tmp_path / library
        (folder / marker).parent.mkdir(parents=True)
        (folder / marker).write_text("{}")
        assert main(["eval", str(folder), *OPTIONS]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert "cannot open the" in err
        assert len(err.splitlines()) == 1


# Iceberg


@pytest.fixture
def catalog(tmp_path):
    pytest.importorskip("pyiceberg")
    sql = pytest.importorskip("pyiceberg.catalog.sql")
    found = sql.SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
    found.create_namespace("logs")
    yield found
    found.engine.dispose()


def write_iceberg(catalog, table, **options):
    made = catalog.create_table("logs.clicks", schema=table.schema, **options)
    for first in (0, 1000, 2000):
        made.append(table.slice(first, 1000))
    return made


def delete_by_position(made, rows):
    """Delete rows of a data file by a file of positions, as Spark and Flink do; pyiceberg itself rewrites the file."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    target = made.inspect.files()["file_path"].to_pylist()[0]
    path = f"{made.location()}/data/deletes.parquet"
    field = {"file_path": b"2147483546", "pos": b"2147483545"}
    schema = pa.schema(
        [
            pa.field("file_path", pa.string(), False, {b"PARQUET:field_id": field["file_path"]}),
            pa.field("pos", pa.int64(), False, {b"PARQUET:field_id": field["pos"]}),
        ]
    )
    deletes = pa.table({"file_path": [target] * len(rows), "pos": list(rows)}, schema=schema)
    pq.write_table(deletes, path.removeprefix("file://"))
    size = os.path.getsize(path.removeprefix("file://"))
    file = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(rows),
        file_size_in_bytes=size,
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds={},
        upper_bounds={},
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
    file.spec_id = made.metadata.default_spec_id
    with made.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    return pq.read_table(target.removeprefix("file://"))


def test_an_iceberg_table_gives_the_numbers_of_its_rows(catalog, table, expected, capsys):
    made = write_iceberg(catalog, table)
    made.delete("row < 500")
    metadata = made.metadata_location
    for log in (made, made.scan(), metadata, metadata.removeprefix("file://")):
        assert values(log) == expected
    assert values(made.scan(row_filter="row >= 1000")) == values(table.slice(1000))
    assert values(made.scan(snapshot_id=made.history()[2].snapshot_id)) == values(table)
    assert main(["eval", metadata.removeprefix("file://"), *OPTIONS, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == expected


def test_rows_that_positions_delete_are_left_out(catalog, table):
    made = write_iceberg(catalog, table)
    before = delete_by_position(made, range(0, 400, 2))
    gone = set(before["row"].to_pylist()[:400:2])
    source = open_source(made, ReadOptions())
    rows = {
        number
        for task in source.tasks(["row"], ReadOptions())
        for batch in task.read()
        for number in batch.record_batch.column("row").to_pylist()
    }
    assert rows == set(range(3000)) - gone
    assert values(made) == values(table.filter(pc.invert(pc.is_in(table["row"], pa.array(sorted(gone))))))


def test_of_an_iceberg_table_only_what_is_read_is_scanned(catalog, table, monkeypatch):
    made = write_iceberg(catalog, table)
    asked = []
    scan = type(made.scan())
    select = scan.select
    monkeypatch.setattr(scan, "select", lambda self, *names: asked.append(names) or select(self, *names))
    values(made)
    assert asked == [("click", "score", "country")]


def test_a_folder_with_several_files_of_metadata_is_read_by_its_hint_alone(catalog, table, expected):
    made = write_iceberg(catalog, table)
    made.delete("row < 500")
    folder = Path(made.location().removeprefix("file://"))
    with pytest.raises(UsageError, match=r"5 files of metadata, and only its catalog knows which is current; name"):
        open_source(folder, ReadOptions())
    current = Path(made.metadata_location.removeprefix("file://"))
    (folder / "metadata" / "v7.metadata.json").write_bytes(current.read_bytes())
    for hint in ("7", "7\n", "v7.metadata.json"):
        (folder / "metadata" / "version-hint.text").write_text(hint)
        assert values(folder) == expected
    for hint in ("8", "../v7", ""):
        (folder / "metadata" / "version-hint.text").write_text(hint)
        with pytest.raises(UsageError, match="only its catalog knows"):
            open_source(folder, ReadOptions())


def test_columns_that_were_added_later_are_null_in_older_files(catalog, table):
    from pyiceberg.types import DoubleType

    made = catalog.create_table("logs.grown", schema=table.schema.remove(1))
    made.append(table.slice(0, 1000).drop_columns(["score"]))
    with made.update_schema() as update:
        update.add_column("score", DoubleType())
    made.append(table.slice(1000).select(["click", "country", "row", "score"]))
    assert values(made) == values(table.slice(1000))


# Either


def test_a_table_of_polars_is_the_same_log(delta, table, expected, tmp_path):
    pl.from_arrow(table).write_delta(str(tmp_path / "table"))
    delta.DeltaTable(str(tmp_path / "table")).delete("row < 500")
    assert values(str(tmp_path / "table")) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert values(pl.scan_delta(str(tmp_path / "table"))) == expected
