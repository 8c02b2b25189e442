"""Encoded images in a tensor: what a request may say of them, and how they are decoded within bounds."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ml_inference.contract.options import PredictOptions
from ml_inference.contract.scaling import parse_scaling
from ml_inference.errors import ContractMismatch, DeadlineExceeded, InvalidRequest, TooLarge, Undecodable
from ml_inference.imagery import decode
from ml_inference.protocol.tensors import quoted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ml_inference.contract.raster import Raster
    from ml_inference.protocol.datatypes import Buffer
    from ml_inference.protocol.tensors import Parameters
    from ml_inference.services import Services

type Decode = Callable[[Sequence[Buffer], int | None], Awaitable[Sequence[Raster]]]
"""Encoded images, and how many bands the request names, to rasters; off the event loop."""

LONGEST_OPTION: Final = 4096


def image_options(parameters: Parameters) -> PredictOptions:
    """`bands` and `scaling` of a request, as the query of an image request has them.

    Raises:
        InvalidRequest: one that is not legal.
    """
    told: dict[str, Any] = {}
    if "bands" in parameters:
        told["bands"] = _bands(_text("bands", parameters["bands"]))
    if "scaling" in parameters:
        told["scaling"] = parse_scaling(_text("scaling", parameters["scaling"]))
    return PredictOptions(**told)


def decoder(services: Services, deadline: float) -> Decode:
    """What decodes the images of one request.

    Args:
        services: its pool does the work.
        deadline: `time.monotonic()` seconds.
    """
    limits = services.limits

    async def decode_all(images: Sequence[Buffer], named: int | None) -> list[Raster]:
        """Decode one after the other: all of them together may have as many pixels as one image."""
        rasters: list[Raster] = []
        pixels = 0
        for number, data in enumerate(images, 1):
            raster = await _decode(services, data, number, deadline, named)
            rasters.append(raster)
            pixels += raster.height * raster.width
            if pixels > limits.max_pixels:
                raise TooLarge(
                    f"the images of one request have more than {limits.max_pixels} pixels together (MAX_PIXELS)"
                )
        return rasters

    return decode_all


async def _decode(
    services: Services, data: Buffer, number: int, deadline: float, named: int | None
) -> Raster:
    content = data if isinstance(data, bytes | memoryview) else bytes(data)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            work = partial(decode, content, services.limits, named=named)
            return await asyncio.get_running_loop().run_in_executor(services.pool, work)
    except TimeoutError:
        raise DeadlineExceeded("the request's time passed while its images were decoded") from None
    except (Undecodable, InvalidRequest) as error:
        raise ContractMismatch(
            f"image {number} of the request: {error}",
            field="inputs.image",
            expected="a GeoTIFF, JPEG 2000, PNG, JPEG or .npy file",
            got=f"{len(content)} bytes",
        ) from error


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_OPTION:
        raise InvalidRequest(f"the parameter {name} is no text of at most {LONGEST_OPTION} characters")
    return value


def _bands(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise InvalidRequest(
            f"bands is {quoted(text)}: expected the names of the file's bands in their order, each once"
        )
    return names
