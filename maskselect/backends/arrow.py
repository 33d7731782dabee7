"""pyarrow, imported when one of its names is used, so that modules that use parquet import without it."""

from typing import TYPE_CHECKING

from maskselect.backends.optional import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa = lazy("pyarrow", "data")
    pq = lazy("pyarrow.parquet", "data")

__all__ = ["pa", "pq"]
