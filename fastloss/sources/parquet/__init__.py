"""Parquet logs, one task for each row group.

A log's footers are read once, for its plan: what is kept of each is a few numbers for a row group, so that a log of
ten thousand files plans in little memory. A task then opens its file anew, reads one row group and closes it: no file
stays open between tasks, and the last few footers are kept so that neighbouring tasks do not parse theirs again.

A row group whose decoded size is within ``ReadOptions.task_bytes`` is decoded whole, the fastest way; a larger one is
decoded piece by piece through a buffered stream, by pyarrow whichever reader is asked for, so that neither its
stored nor its decoded columns are ever held whole. (A single data page cannot be split: writers keep pages near one
megabyte.) Files are read, not mapped: mapped pages would count as this process's memory.

What a footer says is a claim. Negative or contradictory numbers are refused; a promise of too many rows leads to
pieces, which take memory only for rows that are there; a row group that delivers other than the promised rows is an
error.

A ``key=value`` folder in a path is a partition key, a column at the end of the schema: int64 if every file's value is
an integer, else string. Where a file also has a column of that name, selecting it is an error: pyarrow, Polars, DuckDB
and Spark take the path's value silently, and the file may hold others.

`footers` plans a file and opens it, `partitions` makes columns of a path's keys, `decoders` lists the libraries that
decode, one module each, and `source` is the log.
"""
