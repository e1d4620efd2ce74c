"""The graph follows the catalog: a real code server is reloaded over a real webserver's GraphQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.followed_catalog import FollowedCatalog
from llm_assets.installation.settings import Settings
from llm_assets.loaded_locations import LoadedLocations
from tests.catalogs import Made, model
from tests.servers.code_locations import Webserver, webserver
from tests.servers.ports import free_port

MODELS = "{ assetNodes { groupName } }"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Made(
        base_models=("tiny",), models={"support_bot": model("tiny")}, tenants={"team-a": ("support_bot",)}
    )
    return made.write(tmp_path_factory.mktemp("catalogs") / "catalog")


@pytest.fixture(scope="module")
def server(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    with webserver(tmp_path_factory.mktemp("dagster"), {"catalog": catalog}, reloaded=True) as running:
        yield running


def shown(server: Webserver) -> set[str]:
    """The models that the UI has."""
    return {node["groupName"] for node in server.ask(MODELS)["assetNodes"]} - {"base_models", "gateway"}


def test_a_new_model_is_in_the_ui_once_its_file_rests_and_a_mistaken_one_changes_nothing(
    server: Webserver, catalog: Path
) -> None:
    said: list[str] = []
    settings = Settings(root=catalog.parent, catalog=catalog)
    followed = FollowedCatalog(settings=settings, locations=server.locations, say=said.append)
    followed.begin(load_catalog(catalog))
    assert shown(server) == {"support_bot"}

    def looks(count: int) -> list[str]:
        said.clear()
        for _ in range(count):
            followed.look()
        return said

    assert looks(3) == []
    written = (catalog / "models" / "support_bot.yaml").read_text()
    new = catalog / "models" / "faq_bot.yaml"
    new.write_text(written)
    assert looks(1) == [], "it may still be being written"
    assert looks(3) == ["The code location was reloaded (new: model faq_bot)."]
    assert shown(server) == {"faq_bot", "support_bot"}

    tenant = catalog / "tenants" / "team-a.yaml"
    good = tenant.read_text()
    tenant.write_text("owner: nobody\n")
    (catalog / "models" / "third.yaml").write_text(written)
    [mistaken] = looks(4)
    assert "the UI keeps the models that it has. `llm-assets check` lists them." in mistaken
    assert shown(server) == {"faq_bot", "support_bot"}
    tenant.write_text(good)
    assert looks(4) == ["The code location was reloaded (new: model third)."]

    new.unlink()
    assert looks(3) == ["The code location was reloaded (gone: model faq_bot)."]
    assert shown(server) == {"support_bot", "third"}


def test_a_ui_that_ran_before_is_reloaded_once_and_one_that_does_not_answer_is_tried_again(
    server: Webserver, catalog: Path
) -> None:
    said: list[str] = []
    followed = FollowedCatalog(
        settings=Settings(root=catalog.parent, catalog=catalog),
        locations=LoadedLocations(address=f"http://127.0.0.1:{free_port()}", headers={}),
        say=said.append,
    )
    followed.begin(None)
    for _ in range(3):
        followed.look()
    assert len(said) == 2
    assert all("was not reloaded" in each and "It is tried again." in each for each in said)
    followed.locations = server.locations
    said.clear()
    for _ in range(4):
        followed.look()
    assert said == ["The code location was reloaded."]
