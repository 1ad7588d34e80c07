"""The libraries that decode Parquet: one module each, and one line here.

The modules are loaded when they are asked for, so that their names are known without them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, cast

from fastloss.errors import UsageError

if TYPE_CHECKING:
    from fastloss.columns.base import Batch
    from fastloss.sources.base import ReadOptions
    from fastloss.sources.parquet.footers import PlannedFile, RowGroup
    from fastloss.sources.parquet.partitions import Selection

# The word that a user says, and the module. The first is the default.
DECODERS: Mapping[str, str] = {
    "pyarrow": "fastloss.sources.parquet.pyarrow_decoder",
    "polars": "fastloss.sources.parquet.polars_decoder",
}


class Decoder(Protocol):
    """The members of a decoder's module.

    Attributes
    ----------
    READS_STORES : bool
        Whether it reads from stores, through `LogFile.filesystem`.
    READS_PIECES : bool
        Whether it keeps to ``ReadOptions.task_bytes`` where a row group is larger. Where it does not, such a row group
        is read by pyarrow.
    READS_FIELDS : bool
        Whether it reads a field of a struct without the others. Where it does not, a file of which fields are selected
        is read by pyarrow.
    VERIFIES_CHECKSUMS : bool
        Whether it can verify the checksums of pages.
    """

    READS_STORES: bool
    READS_PIECES: bool
    READS_FIELDS: bool
    VERIFIES_CHECKSUMS: bool

    def read(
        self, file: PlannedFile, row_group: RowGroup, selection: Selection, options: ReadOptions
    ) -> Iterator[Batch]:
        """Yield the selected columns of a row group, partition keys among them, in batches of ``batch_rows`` or fewer.

        The caller turns what this raises into a ReadError that names the file, and counts the rows. A batch refers to
        no row, list element or dictionary entry that is not there, whatever the file says.
        """


def check_reader(name: str) -> None:
    """Raise a UsageError if no decoder has this name."""
    if name not in DECODERS:
        raise UsageError(f"reader is {name!r}; allowed are {' and '.join(map(repr, DECODERS))}.")


def decoder_of(name: str) -> Decoder:
    """Return the decoder of this name."""
    return cast("Decoder", importlib.import_module(DECODERS[name]))
