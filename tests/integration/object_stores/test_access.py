"""Opening a store, and being refused by one: the errors that a person acts on, and no secret in them."""

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from resources.object_stores.artifactory import ArtifactoryStore
from resources.object_stores.gcs import GcsStore
from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.opening import FORMS, open_object_store
from resources.object_stores.retries import Retries
from tests.integration.object_stores.conftest import PLACE, Servers
from tests.servers.artifactory_stand_in import READER, TOKEN


@pytest.mark.parametrize("url", ["", "models", "/srv/models", "ftp://host/a", "hf://org/name", "gs:/bucket"])
def test_an_unknown_form_is_answered_with_the_valid_ones(url: str) -> None:
    with pytest.raises(ObjectStoreError) as raised:
        open_object_store(url)
    assert all(form in str(raised.value) for form in FORMS)


@pytest.mark.parametrize(
    "url",
    ["artifactory+https://me:secret@host/artifactory/repo", "s3://key:secret@bucket", "gs://secret@bucket"],
)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ObjectStoreError, match="holds no credentials") as raised:
        open_object_store(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["gs://", "s3://", "artifactory+https://host/repository/folder"])
def test_a_url_without_a_place_says_what_is_missing(url: str) -> None:
    with pytest.raises(ObjectStoreError, match="names no"):
        open_object_store(url)


@pytest.mark.parametrize(
    ("library", "url", "extra"), [("google.cloud.storage", "gs://b", "gcs"), ("boto3", "s3://b", "s3")]
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(library: str, url: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"  # what an import finds where it is not installed
        f"from resources.object_stores.opening import open_object_store; open_object_store({url!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'llm-assets[{extra}]'" in done.stderr.splitlines()[-1]


def test_a_disk_needs_no_library_of_a_cloud() -> None:
    code = (
        "import sys; from resources.object_stores.opening import open_object_store\n"
        "open_object_store('file:/tmp/a'); open_object_store('artifactory+http://h/artifactory/r')\n"
        "print([name for name in ('boto3', 'google.cloud.storage', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_google_without_credentials_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # do not look for a metadata server
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(ObjectStoreError, match="gcloud auth application-default login"):
        open_object_store("gs://bucket")


def test_s3_without_credentials_says_how_to_give_them(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = servers("s3").enter(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ObjectStoreError, match="Set AWS_ACCESS_KEY_ID"):
        list(open_object_store(url).list(""))


def test_a_client_that_is_there_already_is_used(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    url = servers("gcs").enter(monkeypatch)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    client = Client(
        project="any",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": servers("gcs").address},
    )
    store = GcsStore(url, client=client)
    assert store.create("a", b"1")
    assert store.read("a") == b"1"
    del store
    assert client.bucket(PLACE).exists()
    client.close()


@pytest.mark.parametrize("kind", ["gcs", "s3", "artifactory"])
def test_a_missing_bucket_is_an_error_and_not_an_empty_store(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    url = servers(kind).enter(monkeypatch).replace(PLACE, "no-such-place")
    store = open_object_store(url)
    with pytest.raises(ObjectStoreError, match=r"no-such-place|NoSuchBucket"):
        list(store.list(""))
    with pytest.raises(ObjectStoreError):
        store.folders("")


def test_a_wrong_token_is_refused_at_once_and_shown_nowhere(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = servers("artifactory").enter(monkeypatch)
    monkeypatch.setenv("ARTIFACTORY_TOKEN", "a-wrong-secret")
    started = time.monotonic()
    store = open_object_store(url)
    with pytest.raises(ObjectStoreError, match=r"HTTP 401.*Look at the token in ARTIFACTORY_TOKEN") as raised:
        list(store.list(""))
    assert time.monotonic() - started < 5
    assert "a-wrong-secret" not in f"{raised.value!r} {raised.value.__cause__!r} {store.url} {caplog.text}"


def test_a_token_that_may_only_read_is_told_which_permission_it_lacks(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = servers("artifactory").enter(monkeypatch)
    store = ArtifactoryStore(url, token=READER)
    assert list(store.list("")) == []
    with pytest.raises(ObjectStoreError, match=r"could not write 'a'.*HTTP 403.*Deploy"):
        store.write("a", b"1")


def test_an_untrusted_certificate_is_told_at_once(tls_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    store = open_object_store(f"artifactory+{tls_address}/artifactory/repository")
    with pytest.raises(ObjectStoreError, match="SSL_CERT_FILE"):
        store.read("a")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", tls_address)
    with pytest.raises(ObjectStoreError, match="SSL_CERT_FILE"):
        list(open_object_store("gs://bucket").list(""))
    monkeypatch.setenv("AWS_ENDPOINT_URL", tls_address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(ObjectStoreError, match="SSL_CERT_FILE"):
        list(open_object_store("s3://bucket").list(""))
    assert time.monotonic() - started < 10


def test_retries_without_an_end_are_refused() -> None:
    with pytest.raises(ValueError, match="silence_s"):
        Retries(silence_s=0)


def test_another_writers_claim_is_waited_for_and_a_killed_ones_is_not(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = servers("artifactory").enter(monkeypatch)
    store = ArtifactoryStore(url)
    claim = ".unfinished-claims/manifest.json/0"  # smaller than any other
    address = f"{url.removeprefix('artifactory+')}/{claim}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    httpx.put(address, content=b"", headers=headers | {"X-Stand-In-Age-S": "121"}).raise_for_status()
    assert store.create("manifest.json", b"1")
    other = address.replace("manifest.json", "other.json")
    httpx.put(other, content=b"", headers=headers).raise_for_status()
    with ThreadPoolExecutor(1) as thread:
        creating = thread.submit(store.create, "other.json", b"2")
        with pytest.raises(TimeoutError):
            creating.result(timeout=0.5)
        httpx.delete(other, headers=headers).raise_for_status()
        assert creating.result(timeout=10)
