"""Stores: a log in S3 or on a web server gives the numbers of the local one, through faults that pass."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

import fastloss as fl
from fastloss.budget import ExecutionOptions
from fastloss.cli import main
from fastloss.errors import ReadError, StoreError, UsageError
from fastloss.sources import ReadOptions, listing, open_source
from fastloss.sources.stores import retries, store, web
from fastloss.sources.stores.options import FAMILIES, options_of
from fastloss.sources.stores.store import Store, Stores
from tests.servers import files_handler, relay_handler, serving

REQUEST = {"label": "click", "logit": "score", "metrics": ["log_loss"], "by": ["country", "day"]}
COMMAND = ["--label", "click", "--logit", "score", "-m", "log_loss", "--by", "country", "--no-progress"]
SECRET = "s3cr3t/with+signs"


def log_table(n_rows=20_000, seed=3):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "click": pa.array(rng.integers(0, 2, n_rows), pa.int8()),
            "score": pa.array(rng.normal(size=n_rows), mask=rng.random(n_rows) < 0.1),
            "country": pa.array(rng.choice(["DE", "FR", "US"], n_rows)),
            "unread": pa.array(rng.normal(size=n_rows)),
            "user": pa.array([f"user-{i}" for i in rng.integers(0, 10**9, n_rows)]),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A local log of two days, of which one has several row groups."""
    folder = tmp_path_factory.mktemp("stores") / "log"
    for day in (1, 2):
        (folder / f"day={day}").mkdir(parents=True)
        options = {"row_group_size": 7_000 * day, "compression": "none", "write_page_checksum": True}
        pq.write_table(log_table(seed=day), folder / f"day={day}" / "part.parquet", **options)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return numbers(fl.evaluate(folder, **REQUEST, on_bad_row="drop"))


def numbers(result):
    """What a result says of the log's rows."""
    content = result.to_dict()
    for dropped in content["rows"]["dropped"]:
        dropped["first"] = dropped["first"].partition("day=")[2]
    return {name: content[name] for name in ("rows", "values", "slices") if name in content}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(retries, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retries, "_LONGEST_WAIT_S", 0.01)


@pytest.fixture(scope="module")
def moto():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="module")
def bucket(moto, folder):
    """The same log in a bucket."""
    target = fs.S3FileSystem(
        access_key="key",
        secret_key="secret",
        endpoint_override=f"http://127.0.0.1:{moto}",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    target.create_dir("bucket")
    for path in folder.rglob("*.parquet"):
        put(target, f"bucket/log/{path.relative_to(folder)}", path.read_bytes())
    put(target, "bucket/log/_tmp/hidden.parquet", b"nothing")
    return target


def put(target, path, content):
    with target.open_output_stream(path) as file:
        file.write(content)


@pytest.fixture
def s3(moto, bucket):
    """A server with S3's interface behind a gate of faults."""
    with serving(relay_handler(moto)) as server:
        server.options = {
            "endpoint_url": server.url,
            "region": "us-east-1",
            "aws_access_key_id": "key",
            "secret_key": SECRET,
        }
        yield server


@pytest.fixture
def site(folder):
    """The same log on a web server."""
    files = {f"/log/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.parquet")}
    with serving(files_handler(files)) as server:
        server.files = files
        server.options = None
        server.log = [server.url + path for path in sorted(files)]
        yield server


@pytest.fixture(params=["s3", "http"])
def remote(request):
    """A log in a store: the server, with what names the log and its options."""
    if request.param == "http":
        return request.getfixturevalue("site")
    server = request.getfixturevalue("s3")
    server.log = ["s3://bucket/log"]
    return server


def evaluate(server, **more):
    return fl.evaluate(server.log, **{**REQUEST, "on_bad_row": "drop", "storage_options": server.options, **more})


# The same numbers


@pytest.mark.parametrize("how", [{}, {"threads": 1}, {"verify_checksums": True}])
def test_a_log_in_a_store_gives_the_numbers_of_the_local_one(remote, expected, how):
    assert numbers(evaluate(remote, **how)) == expected


def test_row_groups_of_a_store_are_read_in_pieces_too(remote, folder):
    rows = {}
    for log, options in ((folder, None), (remote.log, remote.options)):
        for task_bytes in (1, 128 << 20):
            how = ReadOptions(task_bytes=task_bytes, batch_rows=500, storage_options=options)
            tasks = open_source(log, how).tasks(["user", "day", "score"], how)
            batches = [batch.record_batch for task in tasks for batch in task.read()]
            rows[options is None, task_bytes] = pa.Table.from_batches(batches).to_pydict()
    assert all(found == rows[True, 1] for found in rows.values())


def test_processes_read_a_store_too(remote, expected):
    assert numbers(evaluate(remote, executor="processes", threads=2)) == expected


def test_a_bucket_is_named_by_folder_glob_file_and_list(s3, expected, tmp_path):
    (tmp_path / "files.txt").write_text("s3://bucket/log/day=2\ns3://bucket/log/day=1\n")
    for log in (
        "s3://bucket/log/",
        "s3://bucket/log/*/*.parquet",
        "s3://bucket/log/day=*",
        ["s3://bucket/log/day=2/part.parquet", "s3a://bucket/log/day=1"],
        f"@{tmp_path / 'files.txt'}",
    ):
        s3.log = log
        # Which bad row is the first depends on the order in which files are named.
        assert numbers(evaluate(s3))["values"] == expected["values"]
    with pytest.raises(UsageError, match=r"there is no file or folder 's3://bucket/none'"):
        fl.evaluate("s3://bucket/none", **REQUEST, storage_options=s3.options)
    with pytest.raises(UsageError, match=r"no file matches 's3://bucket/log/\*\.csv'"):
        fl.evaluate("s3://bucket/log/*.csv", **REQUEST, storage_options=s3.options)
    with pytest.raises(ReadError, match=r"there is no 's3://empty'"):
        fl.evaluate("s3://empty/*.parquet", **REQUEST, storage_options=s3.options)


def test_a_url_may_hold_the_options_of_its_store(s3, expected):
    query = f"endpoint_override=127.0.0.1:{s3.port}&scheme=http&region=us-east-1"
    s3.log, s3.options = f"s3://key:{SECRET.replace('/', '%2F')}@bucket/log?{query}", None
    assert numbers(evaluate(s3)) == expected


@pytest.mark.parametrize("command", ["eval", "plan"])
def test_the_command_line_reads_stores(remote, command, capsys):
    options = [f"--storage-option={key}={value}" for key, value in (remote.options or {}).items()]
    assert main([command, *remote.log, *COMMAND, *options, "--on-bad-row", "drop", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "40000" in json.dumps(found).replace(",", "")


def test_scores_of_a_store_are_those_of_the_local_log(remote, folder, tmp_path):
    options = {"label": "click", "logit": "score", "loss": "log_loss", "on_bad_row": "drop", "keep": "user"}
    fl.score(folder, tmp_path / "local", **options)
    for _ in range(2):
        again = fl.score(remote.log, tmp_path / "remote", **options, storage_options=remote.options)
    assert len(again.files["complete"]) == 2
    for day in (1, 2):
        name = f"day={day}/part.parquet"
        found = next(path for path in (tmp_path / "remote").rglob("*.parquet") if f"day={day}" in str(path))
        assert pq.read_table(found).equals(pq.read_table(tmp_path / "local" / name))


@pytest.mark.parametrize("where", ["s3", "http"])
@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_ipc_is_read_from_stores_too(where, kind, folder, request, bucket):
    options = {"label": "click", "logit": "score", "metrics": ["log_loss"], "on_bad_row": "drop", "by": "country"}
    path = folder / "day=1" / "part.parquet"
    table = pq.read_table(path, partitioning=None)
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3000)
    content = sink.getvalue().to_pybytes()
    server = request.getfixturevalue("s3" if where == "s3" else "site")
    if where == "s3":
        put(bucket, "bucket/log.arrow", content)
        server.log = "s3://bucket/log.arrow"
    else:
        server.files["/log.arrow"] = content
        server.log = f"{server.url}/log.arrow?key={SECRET}"
    server.fault = lambda number, method, path: 503 if 7 * number % 10 < 3 and method == "GET" else None
    found = fl.evaluate(server.log, **options, storage_options=server.options)
    assert found.to_dict()["values"] == fl.evaluate(path, **options).to_dict()["values"]
    assert server.stopped[503]


def test_only_the_columns_that_are_read_are_fetched(site, expected):
    fetched = []
    content = site.files["/log/day=2/part.parquet"]
    chunks = pq.read_metadata(pa.BufferReader(content))
    unread = [chunks.row_group(0).column(i) for i in (3, 4)]
    spans = [(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size) for chunk in unread]
    numbers(evaluate(site))
    for headers in site.headers_seen:
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        if first:
            fetched.append((int(first), int(last)))
    assert fetched
    # Nothing of a column of 14,000 numbers, but for the end of the file, which has the footer.
    first, n_bytes = spans[0]
    assert n_bytes > 100_000
    assert not any(a < first + n_bytes // 2 and b > first + n_bytes // 4 for a, b in fetched)


def test_long_columns_are_fetched_in_parts(remote, expected, monkeypatch):
    monkeypatch.setattr(store, "_PART_BYTES", 1000)
    assert numbers(evaluate(remote)) == expected
    assert remote.n_requests > 200


# Faults that pass


@pytest.mark.parametrize("fault", [503, 500, 429, 502, 504, "reset", "cut"])
def test_faults_that_pass_change_no_number(remote, expected, fault):
    assert numbers(evaluate(remote)) == expected
    sound = remote.n_requests
    remote.reset()
    remote.fault = lambda number, method, path: fault if 7 * number % 10 < 4 and method == "GET" else None
    assert numbers(evaluate(remote)) == expected
    stopped = remote.stopped[fault]
    assert stopped > 5
    if remote.options is None:
        # Each request that failed was made once more.
        assert remote.n_requests == sound + stopped
    else:
        # To say what lies under a name takes S3 two requests, which are made once more together.
        assert sound <= remote.n_requests - stopped <= sound + stopped


def test_a_server_that_is_silent_is_asked_again(remote, expected):
    options = {**(remote.options or {}), "request_timeout": 1}
    remote.fault = lambda number, method, path: "silence" if number in (2, 5) else None
    assert numbers(evaluate(remote, storage_options=options)) == expected
    assert remote.stopped["silence"] == 2


def test_a_slow_server_is_waited_for(site, expected):
    class Slow(files_handler(site.files)):
        def reply(self, status, headers, body=b"", length=None):
            super().reply(status, headers, b"", len(body))
            for first in range(0, len(body), 20_000):
                self.wfile.write(body[first : first + 20_000])
                self.wfile.flush()
                self.server.released.wait(0.005)

    with serving(Slow) as slow:
        slow.options, slow.log = None, [slow.url + path for path in sorted(site.files)]
        assert numbers(evaluate(slow)) == expected
        assert not slow.stopped


@pytest.mark.parametrize("stage", ["listing", "reading"])
def test_the_deadline_ends_in_one_line(remote, stage, capsys):
    evaluate(remote)
    first_of_rows = {"listing": 0, "reading": remote.n_requests - 1}[stage]
    remote.reset()
    remote.fault = lambda number, method, path: 503 if number > first_of_rows else None
    with pytest.raises(
        StoreError, match=r"gives no answer \(tried for 0\.3 s\): .*; try later, or raise retry_seconds"
    ):
        evaluate(remote, retry_seconds=0.3, on_bad_file="skip")
    assert remote.stopped[503] > 2
    options = [f"--storage-option={key}={value}" for key, value in (remote.options or {}).items()]
    remote.reset()
    command = ["eval", *remote.log, *COMMAND, *options, "--on-bad-row", "drop", "--retry-seconds", "0.3"]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "--retry-seconds" in captured.err


def test_without_retries_there_is_one_attempt(remote):
    remote.fault = lambda number, method, path: 503
    with pytest.raises(StoreError, match=r"tried once"):
        evaluate(remote, retry_seconds=0, threads=1)
    # A web log of two files is planned from the first, whose footer is read before the others'.
    assert remote.n_requests == 1


def test_a_server_that_is_not_there_says_so(tmp_path):
    with serving(files_handler({})) as server:
        url = server.url
    with pytest.raises(StoreError, match=rf"'{url}/a.parquet' gives no answer .*Connection refused"):
        fl.evaluate(f"{url}/a.parquet", **REQUEST, retry_seconds=0.05)
    options = {"endpoint_url": url, "region": "x", "anonymous": True}
    with pytest.raises(StoreError, match=r"'s3://bucket/a.parquet' gives no answer"):
        fl.evaluate("s3://bucket/a.parquet", **REQUEST, retry_seconds=0.05, storage_options=options)


# What is never tried again


def test_a_refusal_is_not_tried_again(remote, capsys):
    for status in (403, 401):
        remote.reset()
        remote.fault = lambda number, method, path, status=status: status
        with pytest.raises(StoreError, match=r"access to '(s3|http)://.*' is refused: .*check the credentials"):
            evaluate(remote, on_bad_file="skip")
        assert remote.n_requests == 1


def test_a_file_that_is_missing_is_not_asked_for_again(site):
    site.log = f"{site.url}/log/none.parquet"
    with pytest.raises(ReadError, match=rf"there is no '{site.log}' \(HTTP status 404 Not Found\)"):
        evaluate(site)
    assert site.n_requests == 1


def damaged(content, kind):
    if kind == "no Parquet":
        return b"<html>" + content[6:]
    if kind == "cut off":
        return content[: len(content) // 2]
    if kind == "empty":
        return b""
    middle = pq.read_metadata(pa.BufferReader(content)).row_group(0).column(1).data_page_offset + 200
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("kind", ["no Parquet", "cut off", "empty", "a page"])
@pytest.mark.parametrize("where", ["s3", "http"])
def test_damage_is_not_tried_again(where, kind, folder, request, bucket, tmp_path):
    sound = (folder / "day=1" / "part.parquet").read_bytes()
    content = damaged(sound, kind)
    options = {"label": "click", "logit": "score", "metrics": ["log_loss"], "on_bad_row": "drop", "threads": 1}
    counts = {}
    (tmp_path / "local.parquet").write_bytes(content)
    with pytest.raises(ReadError) as local:
        fl.evaluate(tmp_path / "local.parquet", **options, verify_checksums=True)
    for name, stored in (("sound", sound), ("damaged", content)):
        if where == "s3":
            server = request.getfixturevalue("s3")
            put(bucket, f"bucket/{name}.parquet", stored)
            log = f"s3://bucket/{name}.parquet"
        else:
            server = request.getfixturevalue("site")
            server.files[f"/{name}.parquet"] = stored
            log = f"{server.url}/{name}.parquet"
        server.reset()
        more = {"verify_checksums": True, "storage_options": server.options}
        if name == "sound":
            fl.evaluate(log, **options, **more)
        else:
            with pytest.raises(ReadError) as remote:
                fl.evaluate(log, **options, **more)
            assert str(remote.value).replace(log, str(tmp_path / "local.parquet")) == str(local.value)
        counts[name] = server.n_requests
    assert counts["damaged"] <= counts["sound"]


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changes_while_it_is_read_is_an_error(folder, tags):
    old = (folder / "day=1" / "part.parquet").read_bytes()
    new = bytearray(old)
    new[1000:1100] = bytes(100)
    if not tags:
        new += b"longer"
    files = {"/a.parquet": old}
    with serving(files_handler(files, tags=tags)) as server:
        log = f"{server.url}/a.parquet"
        fl.evaluate(log, label="click", logit="score", on_bad_row="drop", threads=1)
        n_requests = server.n_requests
        assert n_requests > 6
        # By the second request the log is planned, as it is then.
        for change_at in range(3, n_requests + 1, 2):
            files["/a.parquet"] = old
            server.reset()

            def change(number, method, path, change_at=change_at):
                if number == change_at:
                    files["/a.parquet"] = bytes(new)

            server.fault = change
            with pytest.raises(ReadError, match=r"a\.parquet' changed .* read a complete log"):
                fl.evaluate(log, label="click", logit="score", on_bad_row="drop", threads=1)
            assert server.n_requests == change_at


def test_an_object_that_changes_while_it_is_read_is_an_error(s3, bucket, folder):
    old = (folder / "day=1" / "part.parquet").read_bytes()
    new = bytearray(old)
    new[1000:1100] = bytes(100)
    put(bucket, "bucket/changing.parquet", old)
    s3.log = "s3://bucket/changing.parquet"
    request = {"label": "click", "logit": "score", "on_bad_row": "drop", "threads": 1}
    fl.evaluate(s3.log, **request, storage_options=s3.options)
    paths_asked = s3.n_requests
    heads = []
    s3.reset()
    s3.fault = lambda number, method, path: heads.append(number) if method == "HEAD" else None
    fl.evaluate(s3.log, **request, storage_options=s3.options)
    # Its last word is asked for after the last byte.
    assert heads[-1] == paths_asked == s3.n_requests
    for change_at in (heads[-1], heads[-1] - 1, heads[-3]):
        put(bucket, "bucket/changing.parquet", old)
        s3.reset()

        def change(number, method, path, change_at=change_at):
            if number == change_at:
                put(bucket, "bucket/changing.parquet", bytes(new))

        s3.fault = change
        with pytest.raises(ReadError, match=r"'s3://bucket/changing\.parquet' changed .* read a complete log"):
            fl.evaluate(s3.log, **request, storage_options=s3.options)


def test_a_server_without_ranges_is_refused(site, capsys):
    with serving(files_handler(site.files, ranges=False)) as server:
        log = f"{server.url}/log/day=1/part.parquet"
        with pytest.raises(
            UsageError, match=r"does not give parts of a file \(no range requests\); download the file"
        ):
            fl.evaluate(log, **REQUEST)
        assert server.n_requests == 1
        assert main(["eval", log, *COMMAND]) == 2
        assert capsys.readouterr().err.count("\n") == 1


# Interrupts


@pytest.mark.parametrize("fault", [503, "silence"])
@pytest.mark.parametrize("stage", ["listing", "reading"])
def test_an_interrupt_ends_the_waiting(remote, fault, stage):
    evaluate(remote, threads=1)
    first_of_rows = {"listing": 1, "reading": remote.n_requests - 1}[stage]
    remote.reset()
    remote.fault = lambda number, method, path: fault if number > first_of_rows else None
    options = [f"--storage-option={key}={value}" for key, value in (remote.options or {}).items()]
    command = [sys.executable, "-m", "fastloss", "eval", *remote.log, *COMMAND, *options, "--on-bad-row", "drop"]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}"}
    process = subprocess.Popen(
        [*command, "--threads", "1", "--retry-seconds", "100000"],
        env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not remote.stopped[fault] and process.poll() is None:
        remote.released.wait(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "fastloss: interrupted\n")


# Options


@pytest.mark.parametrize(
    ("log", "options", "message"),
    [
        ("s3://b/a.parquet", {"regoin": "x"}, r"storage_options has 'regoin'; allowed are for s3://: access_key, "),
        ("s3://b/a.parquet", {"bearer_token": SECRET, "region": "x"}, r"storage_options has 'bearer_token'; allowed "),
        ("s3://b/a.parquet", {"anon": SECRET}, r"a value for 'anon' that is none of those allowed: true, false"),
        ("s3://b/a.parquet", {"request_timeout": SECRET}, r"'request_timeout' that is no number of seconds above 0"),
        ("s3://b/a.parquet", {"access_key": "a", "key": SECRET}, r"'access_key' and 'key', which are the same"),
        ("s3://b/a.parquet", {"secret_key": 7}, r"storage_options has a int for 'secret_key'; allowed: a text"),
        ("s3://b/a.parquet", SECRET, r"storage_options is a str; allowed: a mapping"),
        ("s3://b/a.parquet", {1: SECRET}, r"storage_options is a dict; allowed: a mapping of names"),
        ("s3://b/a.parquet?acces=x", {}, r"the URL 's3://b/a.parquet' has the option 'acces'"),
        ("s3:///a.parquet", {}, r"the URL 's3:///a.parquet' has no bucket"),
        (f"s3://key:{SECRET.replace('/', '')}@b*/a.parquet", {}, r"the URL 's3://b\*/a.parquet' has a wildcard in "),
        ("az://box/a.parquet", {"account_key": SECRET}, r"the URL 'az://box/a.parquet' names no account"),
        ("http://x/*.parquet", {}, r"the URL 'http://x/\*.parquet' names no single file"),
        ("http://x/folder/?sig=abc", {}, r"the URL 'http://x/folder/' names no single file"),
        (["http://x/a?id=1", "http://x/a?id=2"], {}, r"two files are called 'http://x/a', and differ only in what"),
        ("local.parquet", {"region": "x"}, r"storage_options has 'region', and no part of the log is a URL"),
        (pa.table({"x": [1.0]}), {"region": "x"}, r"storage_options has 'region', and no part of the log is a URL"),
        (f"hdfs2://a:{SECRET.replace('/', '')}@x/y", {}, r"the URL 'hdfs2://x/y' cannot be read: .*; use s3://, "),
    ],
)  # fmt: skip
def test_options_that_are_not_as_they_must_be_are_refused(log, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"x": [1.0]}), "local.parquet")
    with pytest.raises(UsageError, match=message) as refusal:
        open_source(log, ReadOptions(storage_options=options, retry_seconds=0))
    assert "\n" not in str(refusal.value)
    assert SECRET not in str(refusal.value)
    assert SECRET.replace("/", "") not in str(refusal.value)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "60", True])
def test_retry_seconds_are_a_number(seconds):
    with pytest.raises(UsageError, match=r"retry_seconds is .*; allowed: seconds from 0"):
        fl.evaluate(pa.table({"x": [1.0]}), **REQUEST, retry_seconds=seconds)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([SECRET], "a --storage-option has no '='; write KEY=VALUE"),
        (["=" + SECRET], "a --storage-option has no '='; write KEY=VALUE"),
        (["region=a", "region=b"], "--storage-option gives 'region' twice"),
        (["region" + SECRET + "=b"], "--storage-option has 'region"),
    ],
)
def test_the_command_line_takes_keys_and_values(given, message, capsys):
    options = [word for text in given for word in ("--storage-option", text)]
    assert main(["eval", "s3://b/a.parquet", *COMMAND, *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_words_of_other_libraries_mean_the_same():
    spelled = [
        {"access_key": "a", "secret_key": "b", "session_token": "c", "endpoint_override": "d", "anonymous": "false"},
        {"aws_access_key_id": "a", "aws_secret_access_key": "b", "aws_session_token": "c", "aws_endpoint_url": "d",
         "aws_skip_signature": False},
        {"key": "a", "secret": "b", "token": "c", "endpoint_url": "d", "anon": "no"},
    ]  # fmt: skip
    first, *others = (options_of("s3", given).values for given in spelled)
    assert all(other == first for other in others)
    assert len(first) == 5


@pytest.mark.parametrize(
    ("url", "options", "made", "path"),
    [
        ("gs://box/a/b.parquet", {"anon": "true"}, {"anonymous": True}, "box/a/b.parquet"),
        ("gs://anonymous@box/a?scheme=http", {}, {"anonymous": True, "scheme": "http"}, "box/a"),
        ("gcs://box/a", {"endpoint_url": "http://x:1"}, {"endpoint_override": "x:1", "scheme": "http"}, "box/a"),
        ("az://box/a/*.parquet", {"account_name": "me"}, {"account_name": "me"}, "box/a/*.parquet"),
        ("abfs://box@me.dfs.core.windows.net/a", {"sas_token": "x"}, {"account_name": "me"}, "box/a"),
        ("abfss://me.blob.core.windows.net/box/a", {}, {"account_name": "me"}, "box/a"),
        ("s3://box/a=1%202/b", {"region": "x"}, {"region": "x"}, "box/a=1%202/b"),
        ("s3://box/a", {"aws_endpoint": "https://x/"}, {"scheme": "https", "endpoint_override": "x"}, "box/a"),
        ("s3://box/a", {}, {"region": "of box"}, "box/a"),
    ],
)  # fmt: skip
def test_a_url_and_options_make_a_file_system(url, options, made, path, monkeypatch):
    calls = []
    for name in ("S3FileSystem", "GcsFileSystem", "AzureFileSystem"):
        monkeypatch.setattr(fs, name, lambda **given: calls.append(given) or fs.LocalFileSystem())
    monkeypatch.setattr(fs, "resolve_s3_region", lambda bucket: f"of {bucket}")
    for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(variable, raising=False)
    store._native_of.cache_clear()
    found, where = Stores(options, 7).locate(url)
    store._native_of.cache_clear()
    assert where == path
    (given,) = calls
    assert made.items() <= given.items()
    assert found.url_of(path) == url.partition("?")[0].replace("anonymous@", "")
    waits = {"gs": "retry_time_limit", "s3": "retry_strategy"}.get(FAMILIES[url.partition(":")[0]])
    assert set(given) - set(made) <= {waits, "connect_timeout", "request_timeout", *options}


def test_a_file_of_google_is_handed_to_arrow_as_it_is(folder, expected, monkeypatch):
    # The library waits by itself: what it opens is no file of Python.
    made = fs.SubTreeFileSystem(str(folder.parent), fs.LocalFileSystem())
    monkeypatch.setattr(fs, "GcsFileSystem", lambda **given: made)
    store._native_of.cache_clear()
    result = fl.evaluate("gs://log", **REQUEST, on_bad_row="drop", storage_options={"anon": True})
    found, path = Stores({}).locate("gs://log/day=1/part.parquet")
    with found.open_input_file(path) as file:
        assert isinstance(file, pa.NativeFile)
    store._native_of.cache_clear()
    assert numbers(result) == expected


def test_a_password_in_a_url_is_sent_and_a_redirection_does_not_get_it(site):
    class Elsewhere(files_handler({})):
        def answer(self, *, cut=False):
            self.reply(302, {"Location": site.url + self.path})

    with serving(Elsewhere) as first:
        fl.evaluate(
            f"http://me:{SECRET.replace('/', '%2F')}@127.0.0.1:{first.port}/log/day=1/part.parquet?sig=1",
            **REQUEST,
            on_bad_row="drop",
        )
        assert all(headers["Authorization"].startswith("Basic ") for headers in first.headers_seen)
    assert site.headers_seen
    assert not any("Authorization" in headers for headers in site.headers_seen)


def test_a_token_is_sent(site):
    site.options = {"bearer_token": SECRET}
    evaluate(site)
    assert {headers["Authorization"] for headers in site.headers_seen} == {f"Bearer {SECRET}"}


def test_a_redirection_leads_to_no_other_scheme():
    class Elsewhere(files_handler({})):
        def answer(self, *, cut=False):
            self.reply(302, {"Location": "file:///etc/passwd"})

    with serving(Elsewhere) as server, pytest.raises(ReadError, match=r"cannot read 'http://.*302"):
        fl.evaluate(f"{server.url}/a.parquet", **REQUEST)


# Secrets


def test_secrets_are_neither_shown_nor_stored(s3, tmp_path, capsys):
    state = tmp_path / "state"
    s3.log = "s3://bucket/log"
    result = evaluate(s3, state=state)
    options = [f"--storage-option={key}={value}" for key, value in s3.options.items()]
    for command in (["plan"], ["plan", "--format", "json"], ["eval", "--format", "json"]):
        assert main([*command, s3.log, *COMMAND, *options, "--on-bad-row", "drop"]) == 0
    shown = [capsys.readouterr().out, str(result), json.dumps(result.to_dict()), state.read_bytes().decode("latin1")]
    plan = fl.make_plan(s3.log, **REQUEST, storage_options=s3.options)
    other = fl.make_plan(s3.log, **REQUEST, storage_options={**s3.options, "secret_key": "another"}, retry_seconds=1)
    assert plan.fingerprint == other.fingerprint
    (file, *_) = listing.list_files([s3.log], Stores(s3.options))
    shown += [repr(plan), repr(plan.execution), repr(plan.read_options), repr(plan.read_options.stores), repr(file)]
    shown += [repr(ExecutionOptions(storage_options=s3.options)), repr(options_of("s3", s3.options))]
    s3.fault = lambda number, method, path: 403
    with pytest.raises(StoreError) as refusal:
        evaluate(s3)
    shown.append(str(refusal.value))
    assert not any(SECRET in text or SECRET.replace("/", "%2F") in text for text in shown)


def test_a_secret_in_a_message_of_a_store_is_left_out():
    class Talkative:
        type_name = "s3"

        def get_file_info(self, wanted):
            raise OSError(f"the key {SECRET} is\nwrong")

    made = Store(Talkative(), retries.Retries(0), "s3://", secrets=(SECRET,))
    with pytest.raises(OSError, match=r"^the key … is wrong$") as failure:
        made.get_file_info("a")
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__


def test_what_follows_the_path_of_a_url_is_not_kept(site, tmp_path):
    site.log = [f"{url}?X-Amz-Signature={SECRET}&id=7" for url in site.log]
    result = evaluate(site, state=tmp_path / "state")
    assert SECRET not in json.dumps(result.to_dict()) + (tmp_path / "state").read_bytes().decode("latin1")
    (file, *_) = listing.list_files(site.log)
    assert file.origin == site.log[0].partition("?")[0]
    assert file.keys == (("day", "1"),)


# Parts


def test_a_store_is_sent_to_another_process_whole(s3, site):
    for log, options in (("s3://bucket/log", s3.options), (site.log, None)):
        file, *_ = listing.list_files([log] if isinstance(log, str) else log, Stores(options or {}))
        sent = pickle.loads(pickle.dumps(file))
        assert sent == file or sent.origin == file.origin
        with sent.filesystem.open_input_file(sent.path) as opened:
            assert opened.read(4) == b"PAR1"
            assert opened.seek(-4, os.SEEK_END) == opened.size() - 4
            assert opened.read() == b"PAR1"
            assert opened.read(10) == b""
            opened.fetch_ahead([(0, 4), (10, 20), (opened.size() - 8, 100)])
            opened.seek(0)
            assert bytes(opened.read(4)) == b"PAR1"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("When listing objects: AWS Error SLOW_DOWN during ListObjectsV2 operation: x", "passing"),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body.", "passing"),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56, Failure when receiving", "passing"),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 6, Could not resolve", "other"),
        ("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body.", "other"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: No response body.", "elsewhere"),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "denied"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: none", "missing"),
        ("GetProperties for 'https://503.x' failed. Azure Error: [BlobNotFound] 404 The blob", "missing"),
        ("GetProperties failed. Azure Error: [ServerBusy] 503 The server is busy", "passing"),
        ("google::cloud::Status(UNAVAILABLE: Retry policy exhausted in GetObjectMetadata)", "passing"),
        ("google::cloud::Status(PERMISSION_DENIED: Permanent error)", "denied"),
        ("Couldn't deserialize thrift: 503 500", "other"),
    ],
)
def test_messages_of_pyarrow_are_understood(text, kind):
    assert retries.kind_of(OSError(text)) == kind


def test_the_end_of_a_file_is_asked_for_once(site):
    with web.WebFiles(options_of("http", {})).open_input_file(site.log[0]) as file:
        content = site.files["/log/day=1/part.parquet"]
        assert file.size() == len(content)
        assert file.read_at(8, len(content) - 8) == content[-8:]
        assert site.n_requests == 1
        assert file.read_at(8, 100) == content[100:108]
        assert site.n_requests == 2
