"""The models' own routes: which there are, what each promises, what a refused one says."""

from __future__ import annotations

import pytest
from rasterio.io import MemoryFile
from web.tiles import tile

from ml_inference.errors import ModelNotFound
from ml_inference.web.handling import RESERVED, checked_name

pytestmark = pytest.mark.anyio

SAMPLES = {"bright-targets", "landcover-share", "ndvi", "spectral-landcover"}


async def test_the_list_knows_every_model_before_any_is_loaded(client):
    models = (await client.get("/models")).json()["models"]
    assert {each["name"] for each in models} == SAMPLES | {"slow", "broken"}
    assert {each["state"] for each in models} == {"known"}


async def test_the_list_tells_what_became_of_each(client):
    for name in ("ndvi", "broken", "slow"):
        await client.get(f"/models/{name}")
    await client.get("/models/slow/versions/1")
    models = (await client.get("/models")).json()["models"]
    told = {(each["name"], each["version"]): each for each in models}
    assert (told["ndvi", "1"]["state"], told["ndvi", "1"]["task"]) == ("ready", "regression")
    assert (told["broken", None]["state"], bool(told["broken", None]["reason"])) == ("refused", True)
    assert {version for name, version in told if name == "slow"} == {"1", "2"}


async def test_a_card_tells_inputs_classes_preprocessing_and_device(client):
    card = (await client.get("/models/spectral-landcover")).json()
    assert (card["name"], card["state"], card["task"]) == (
        "spectral-landcover",
        "ready",
        "semantic-segmentation",
    )
    assert [band["name"] for band in card["card"]["inputs"][0]["bands"]] == ["B02", "B03", "B04", "B08"]
    assert card["card"]["inputs"][0]["scaling"] == [[{"type": "scale", "value": 10000.0}]]
    assert len(card["card"]["outputs"][0]["classes"]) == 5
    assert card["device"]["device"] == "cpu"
    assert [each["name"] for each in card["legend"]] == [
        each["name"] for each in card["card"]["outputs"][0]["classes"]
    ]


async def test_the_legend_has_the_colours_that_the_geotiff_has(client):
    legend = (await client.get("/models/spectral-landcover")).json()["legend"]
    answer = await client.post("/spectral-landcover", content=tile()[1])
    with MemoryFile(answer.content) as memory, memory.open() as dataset:
        table = dataset.colormap(1)
    for each in legend:
        assert each["color"] == "#{:02x}{:02x}{:02x}".format(*table[each["value"]][:3])


async def test_a_version_has_its_own_card(client):
    for version in ("1", "2"):
        assert (await client.get(f"/models/slow/versions/{version}")).json()["version"] == version
        assert (await client.get(f"/models/slow?version={version}")).json()["version"] == version
    assert (await client.get("/models/slow")).json()["version"] == "2"


async def test_a_model_that_cannot_be_served_answers_with_its_problems(client):
    answer = await client.get("/models/broken")
    assert answer.status_code == 200
    told = answer.json()
    assert told["state"] == "refused"
    assert told["problems"][0].keys() == {"pointer", "message"}


async def test_the_stac_item_comes_in_a_list_as_published(client):
    items = (await client.get("/ndvi")).json()
    assert [item["id"] for item in items] == ["ndvi"]
    assert items[0]["properties"]["mlm:name"] == "ndvi"
    assert (await client.get("/slow?version=1")).json()[0]["id"] == "slow"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/nope", 404),
        ("/models/nope/versions/1", 404),
        ("/models/slow/versions/9", 404),
        ("/models/slow/versions/..%2F2", 404),
        ("/models/..%2Fslow", 404),
        ("/models/%00", 404),
        ("/models/" + "x" * 10_000, 404),
        ("/nope", 404),
        ("/..%2Fslow", 404),
        ("/models/", 404),
        ("/models?limit=3", 400),
        ("/models/slow?versoin=1", 400),
        ("/models/slow/versions/1?version=2", 400),
        ("/slow?version=1&version=2", 400),
        ("/broken", 500),
    ],
)
async def test_a_bad_address_gets_its_status_in_the_one_shape(client, path, status):
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert len(answer.content) < 4000


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_reserved_words_name_no_model(word):
    for spelling in (word, word.upper()):
        with pytest.raises(ModelNotFound, match="reserved"):
            checked_name(spelling)


async def test_reserved_words_cover_the_first_word_of_every_own_path(client):
    paths = client._transport.app.openapi()["paths"]
    own = {path.split("/")[1] for path in paths} - {"", "{model}"}
    assert own <= RESERVED


async def test_head_works_wherever_get_does(client):
    for path in ("/", "/models", "/models/ndvi", "/ndvi", "/health/live", "/docs", "/openapi.json"):
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["Content-Length"] == str(len(got.content))


async def test_a_method_that_a_path_does_not_take_is_405_with_those_it_does(client):
    for path, allowed in [
        ("/ndvi", {"GET", "POST", "HEAD"}),
        ("/models", {"GET", "POST", "HEAD"}),
        ("/models/ndvi/predict", {"POST"}),
    ]:
        answer = await client.delete(path)
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) == allowed
