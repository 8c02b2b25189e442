"""The one door to GDAL: its process-wide configuration, and datasets that live in memory alone.

Importing this module configures GDAL, not the service: GDAL takes these options from the environment alone, and
`GDAL_SKIP` only before its drivers register, that is before anything in the process first opens a dataset.
"""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Iterator

# Every driver of GDAL 3.12 but GTiff, PNG, JPEG, JP2OpenJPEG and MEM. A test tells when a new GDAL brings another.
_OTHER_DRIVERS = (
    "AAIGrid,ACE2,ADRG,AIG,AVCBin,AVCE00,AirSAR,BAG,BIGGIF,BMP,BSB,BT,BYN,CALS,CEOS,COASP,COG,COSAR,CPG,"
    "CTG,DAAS,DERIVED,DIMAP,DOQ1,DOQ2,DTED,ECRGTOC,EEDA,EEDAI,EHdr,EIR,ENVI,ERS,ESAT,ESRIC,ESRIJSON,FAST,"
    "GDALG,GFF,GIF,GNMDatabase,GNMFile,GPKG,GRASSASCIIGrid,GRIB,GS7BG,GSAG,GSBG,GSC,GTI,GTX,GXF,GenBin,"
    "GeoJSON,GeoJSONSeq,HDF5,HDF5Image,HF2,HFA,HTTP,ILWIS,IRIS,ISCE,ISG,ISIS2,ISIS3,JAXAPALSAR,JDEM,"
    "KMLSUPEROVERLAY,KRO,L1B,LAN,LCP,LIBERTIFF,LOSLAS,Leveller,MAP,MBTiles,MFF,MFF2,MRF,MSGN,MVT,"
    "MiraMonRaster,NDF,NGSGEOID,NITF,NOAA_B,NSIDCbin,NTv2,NWT_GRC,NWT_GRD,OSM,PAux,PCIDSK,PCRaster,PDF,"
    "PDS,PDS4,PLMOSAIC,PNM,PRF,RCM,RIK,RMF,ROI_PAC,RPFTOC,RRASTER,RS2,RST,S102,S104,S111,SAFE,SAGA,"
    "SAR_CEOS,SENTINEL2,SIGDEM,SNAP_TIFF,SNODAS,SQLite,SRP,SRTMHGT,STACIT,STACTA,TGA,TIL,TSX,Terragen,"
    "TopoJSON,USGSDEM,VICAR,VRT,WCS,WEBP,WMS,WMTS,XYZ,ZMap,Zarr,netCDF,ESRI Shapefile"
)

# Set over whatever the process inherits: an environment made for another tool must not open what is closed here.
_SAFE = {
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_DRIVER_PATH": "disable",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    "GDAL_SKIP": _OTHER_DRIVERS,
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "PROJ_NETWORK": "OFF",
}
# An operator may set these: megabytes of block cache, and threads within one decode (decodes already run side by side).
_SENSIBLE = {"GDAL_CACHEMAX": "64", "GDAL_NUM_THREADS": "1"}

os.environ.update(_SAFE)
for _name, _value in _SENSIBLE.items():
    os.environ.setdefault(_name, _value)

_UNPLACED = ("ignore", None, NotGeoreferencedWarning, None, 0)


class _Thread(threading.local):
    """Holds one rasterio environment for each thread: entering one for each image costs a fifth of a small decode."""

    def __init__(self) -> None:
        self.environment = rasterio.Env.from_defaults()
        self.environment.__enter__()


_thread = _Thread()


def prepare_thread() -> None:
    """Make this thread ready for rasterio.

    A plain picture is no surprise here, so its warning is silenced, and for good: `catch_warnings` would restore the
    filters of other threads at the wrong moment.
    """
    _ = _thread.environment
    if _UNPLACED not in warnings.filters:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)


@contextmanager
def opened(content: bytes, driver: str) -> Iterator[Any]:
    """Open bytes with one driver and nothing but these bytes; yields a rasterio `DatasetReader`.

    Only the full resolution is opened. Read whole bands, never at a reduced size. Band descriptions are not seen
    through this view: see `band_descriptions`.
    """
    prepare_thread()
    with (
        MemoryFile(content) as memory,
        memory.open(driver=[driver], OVERVIEW_LEVEL="NONE") as dataset,
    ):
        yield dataset


def band_descriptions(content: bytes) -> tuple[str, ...]:
    """Read a GeoTIFF's band descriptions, `""` where there is none.

    Only for a file that was found, through `opened`, to refer to no other file.
    """
    prepare_thread()
    with MemoryFile(content) as memory, memory.open(driver=["GTiff"], GEOREF_SOURCES="NONE") as dataset:
        return tuple(text or "" for text in dataset.descriptions)


@contextmanager
def created(driver: str, **profile: Any) -> Iterator[tuple[Any, MemoryFile]]:
    """Create a dataset in memory; yields it with its file, whose bytes are complete once the dataset is closed."""
    prepare_thread()
    with MemoryFile() as memory, memory.open(driver=driver, **profile) as dataset:
        yield dataset, memory
