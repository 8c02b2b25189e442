"""EOTDL's catalogue of a model, one STAC item per row of a Parquet file, back into plain JSON.

A table has one type per column: keys that a row lacks come back as nulls, whole numbers may be floats, times are datetimes.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from ml_inference.errors import CardInvalid, ConfigurationInvalid
from ml_inference.sources.assets import choose_model_asset

if TYPE_CHECKING:
    from pathlib import Path

MAX_CATALOG_BYTES = 64 << 20
_MAX_ROWS = 10_000
_TOP_LEVEL = ("type", "stac_version", "stac_extensions", "id", "bbox", "links", "assets", "collection")


def read_catalog(path: Path, asset_key: str | None = None) -> dict[str, Any]:
    """Give the one item that describes a model: with `mlm:` fields and an ONNX asset; its geometry stays away.

    Raises:
        CardInvalid: the file cannot be read, or none of its items is such a one, or several are.
    """
    items = [
        item for item in map(_item, _rows(path)) if any(k.startswith("mlm:") for k in item["properties"])
    ]
    if not items:
        _invalid("its catalogue on EOTDL has no item with MLM fields, so nothing says what goes in and out")
    if len(items) == 1:
        return items[0]
    servable = [item for item in items if _has_model(item, asset_key)]
    if len(servable) != 1:
        ids = ", ".join(f"`{str(item.get('id'))[:40]}`" for item in (servable or items)[:10])
        _invalid(
            f"its catalogue on EOTDL has {len(items)} MLM items, and not just one names an ONNX model ({ids})"
        )
    return servable[0]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - 170 MB that only this reader needs
        from pyarrow import parquet  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationInvalid(
            "`eotdl:` needs more packages: pip install 'ml-inference-processor[eotdl]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
            if file.metadata.num_rows > _MAX_ROWS or sum(groups) > MAX_CATALOG_BYTES:
                _invalid(f"its catalogue on EOTDL is too large ({file.metadata.num_rows} items)")
            columns = [name for name in file.schema_arrow.names if name != "geometry"]
            rows: list[dict[str, Any]] = file.read(columns=columns, use_threads=False).to_pylist()
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise CardInvalid(
            "its catalogue on EOTDL is not a Parquet file that can be read", (("", str(error)[:200]),)
        ) from error
    return rows


def _item(row: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in _plain(row).items() if value is not None}
    item = {key: plain.pop(key) for key in _TOP_LEVEL if key in plain}
    assets = item.get("assets")
    if isinstance(assets, dict):
        item["assets"] = {key: asset for key, asset in assets.items() if asset}
    return item | {"geometry": None, "properties": plain}


def _plain(value: Any) -> Any:
    """Turn a value of Arrow into one of JSON; keys that hold nothing go, places in lists stay."""
    if isinstance(value, dict):
        return {str(k): p for k, v in value.items() if (p := _plain(v)) is not None}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str | int | float) else None


def _has_model(item: dict[str, Any], asset_key: str | None) -> bool:
    try:
        choose_model_asset(item, asset_key)
    except CardInvalid:
        return False
    return True


def _invalid(problem: str) -> NoReturn:
    raise CardInvalid(problem, (("", problem),))
