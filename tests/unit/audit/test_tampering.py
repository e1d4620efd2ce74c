"""One table of tampering, walked by both verifiers: neither misses anything."""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from resources.audit.anchors import Anchors
from resources.audit.chain import SegmentLimits
from resources.audit.exporting import export
from resources.audit.outside_verifier import MANIFEST, Export, digests_in
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.publishing import Publisher
from resources.audit.retention import DAY_S, Keeping, delete_due
from resources.audit.run_time import Moment
from resources.audit.searching import Query, opened, search
from resources.audit.segments import lines_in, record_in, segments_in
from resources.audit.statements import Signing
from resources.audit.subject_keys import SubjectKeys
from resources.audit.verifying import known_tenants, verify_tenant
from resources.object_stores.disk import DiskStore
from tests.unit.audit.conftest import Log, MakeLog
from tests.unit.audit.tampering import (
    AS_A_WHOLE,
    EARLIER,
    FOREIGN_KEYS,
    OF_EXPORTS,
    OTHER_TENANT,
    TABLE,
    Tamper,
    sign_anew,
)
from tests.unit.audit.tampering import Log as Tampered

TENANT = "team-a"
BYTES, MANY_BYTES = 25, 1_000


@dataclass(frozen=True, kw_only=True)
class Made:
    """A log with proofs, closed segments and an open one, the store that has its heads, and its export."""

    home: Path
    beside: Path
    export: Path
    key: str

    @property
    def places(self) -> AuditPlaces:
        return AuditPlaces(folder=self.home / "audit")

    @property
    def signing(self) -> Signing:
        return Signing(self.home / "keys")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("tampering")
    log = Log(root / "home", limits=SegmentLimits(records=4))
    for _ in range(5):
        log.fill(2)
    assert (
        delete_due(
            log.sealer, TENANT, Keeping(days=183), Moment(at=time.time() + 200 * DAY_S, ran_s=200 * DAY_S)
        )
        == 2
    )
    for _ in range(4):
        log.fill(2, risk_class="high", input="please look at my case", output="done")
    log.fill(3, "team-b")
    beside, folder = root / "beside", log.places.log(TENANT)
    log.fill(1)
    shutil.copytree(folder, beside / EARLIER)
    for _ in range(2):
        log.fill(1)
    shutil.copytree(log.places.log("team-b"), beside / OTHER_TENANT)
    Publisher(log.places, DiskStore(root / "home" / "store"), log.sealer.signing).publish()
    keys = SubjectKeys(log.places.keys(TENANT))
    keys.begin()
    texts = [opened(each, keys) for each in search(log.places, log.sealer.index, Query(tenant=TENANT))]
    export(log.places, TENANT, log.sealer.signing, root / "export", by="auditor", opened=texts)
    log.close()
    names = [path.name for path in folder.iterdir()]
    assert [
        sum(name.endswith(end) for name in names) for end in (".deleted.json", ".seal.json", ".jsonl")
    ] == [
        2,
        3,
        4,
    ]
    Signing(beside / FOREIGN_KEYS).own_key_id()
    return Made(
        home=root / "home", beside=beside, export=root / "export", key=log.sealer.signing.own_key_id()
    )


def inside(made: Made, tmp_path: Path, tamper: Tamper | None, *, store: bool = False) -> list[str]:
    """What `llm-assets audit verify` finds in a copy of the installation."""
    home = shutil.copytree(made.home, tmp_path / "home")
    places, anchors = AuditPlaces(folder=home / "audit"), Anchors(objects=DiskStore(home / "store"))
    if tamper:
        tamper(Tampered(places.log(TENANT), made.beside))
    assert TENANT in known_tenants(places, anchors if store else None)
    verdict = verify_tenant(places, TENANT, Signing(home / "keys"), anchors if store else None)
    return [fault.problem for fault in verdict.faults]


def outside(
    made: Made, tmp_path: Path, tamper: Callable[[Path], object] | None, *, signed: bool, trust: bool = True
) -> list[str]:
    """What an export's verifier finds in a copy. `signed`: its owner exported it after the tampering."""
    folder = shutil.copytree(made.export, tmp_path / "export")
    if tamper:
        tamper(folder)
    if signed:
        stated = json.loads(json.loads((folder / MANIFEST).read_bytes())["statement"])
        stated |= {"files": digests_in(folder)}
        (folder / MANIFEST).write_bytes(made.signing.signed(stated))
    found = Export(folder, frozenset([made.key] if trust else []))
    found.verify()
    return [fault.problem for fault in found.faults]


def test_what_nobody_touched_has_no_fault(made: Made, tmp_path: Path) -> None:
    assert inside(made, tmp_path, None, store=True) == []
    assert outside(made, tmp_path, None, signed=False) == []


@pytest.mark.parametrize("name", TABLE)
def test_both_verifiers_find_it_in_the_log_itself(made: Made, tmp_path: Path, name: str) -> None:
    """Without the store and, in the export, under a manifest that fits: the chain alone tells."""
    assert inside(made, tmp_path, TABLE[name])
    assert outside(
        made, tmp_path, lambda folder: TABLE[name](Tampered(folder / "log", made.beside)), signed=True
    )


NOTHING_LOST = {
    *("a record is added", "records are added", "a record is added with the signature of another batch"),
    *("no record is added", "an empty line is added to the open segment"),
    *("an older head is put back", "a file is added"),
}
"""What is taken back by the next writer, or a head that later batches prove to be old."""


@pytest.mark.parametrize("name", [*TABLE, *AS_A_WHOLE])
def test_whatever_was_done_sealing_goes_on_and_it_stays_visible(
    made: Made, make_log: MakeLog, tmp_path: Path, name: str
) -> None:
    """A collector begins on it, more is sealed, and segments are closed over it."""
    home = shutil.copytree(made.home, tmp_path / "home")
    places, store = AuditPlaces(folder=home / "audit"), DiskStore(home / "store")
    sealed = {record["id"] for record in records_in(places)}
    {**TABLE, **AS_A_WHOLE}[name](Tampered(places.log(TENANT), made.beside))
    left = {record["id"] for record in records_in(places)}
    log = make_log(home, limits=SegmentLimits(records=4))
    if name in (*AS_A_WHOLE, "everything is removed"):
        Publisher(places, store, log.sealer.signing).publish()
    ids = [id for _ in range(7) for id in log.fill(1)]
    log.begin()
    ids += log.fill(2)
    if name in NOTHING_LOST - {"a file is added"}:
        assert log.faults() == ()
        assert sealed | set(ids) == {record["id"] for record in records_in(places)}
        return
    assert log.faults(), "it is found without the store, for ever"
    assert (sealed & left) | set(ids) <= {record["id"] for record in records_in(places)}


def records_in(places: AuditPlaces) -> list[dict]:
    """What can still be read."""
    found = []
    for segment in segments_in(places.log(TENANT)):
        for line in lines_in(segment.path):
            with suppress(AuditError, KeyError):
                found.append({"id": record_in(line)["id"]})
    return found


@pytest.mark.parametrize("name", AS_A_WHOLE)
def test_both_verifiers_find_it_by_what_lies_elsewhere(made: Made, tmp_path: Path, name: str) -> None:
    assert inside(made, tmp_path, AS_A_WHOLE[name], store=True)
    assert outside(
        made, tmp_path, lambda folder: AS_A_WHOLE[name](Tampered(folder / "log", made.beside)), signed=False
    )


@pytest.mark.parametrize("name", OF_EXPORTS)
def test_the_outside_verifier_finds_it_in_an_export(made: Made, tmp_path: Path, name: str) -> None:
    assert outside(made, tmp_path, OF_EXPORTS[name], signed=False)


def test_a_whole_export_signed_anew_is_found_by_the_key_that_the_owner_told(
    made: Made, tmp_path: Path
) -> None:
    """Without --key the ids are there to compare; so the program says."""

    def forge(folder: Path) -> None:
        foreign, log = Signing(made.beside / FOREIGN_KEYS), Tampered(folder / "log", made.beside)
        for path in (folder / "keys").iterdir():
            path.unlink()
        (public,) = foreign.keys.glob("*.pub")
        shutil.copyfile(public, folder / "keys" / public.name)
        for path in [*log.seals, *log.parts(".deleted.json"), log.folder / "head.json"]:
            sign_anew(log, path)
        stated = json.loads(json.loads((folder / MANIFEST).read_bytes())["statement"])
        (folder / MANIFEST).write_bytes(foreign.signed(stated | {"files": digests_in(folder)}))

    (tmp_path / "trusting").mkdir()
    assert outside(made, tmp_path, forge, signed=False)
    assert outside(made, tmp_path / "trusting", forge, signed=False, trust=False) == []


def flipped(folder: Path, chance: random.Random) -> str:
    """One byte of one file becomes another."""
    path = chance.choice(sorted(path for path in folder.iterdir() if path.stat().st_size))
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    content[at] ^= chance.randrange(1, 256)
    path.write_bytes(content)
    return f"{path.name}: byte {at}"


@pytest.mark.parametrize("count", [BYTES, pytest.param(MANY_BYTES, marks=pytest.mark.long)])
def test_any_byte_that_is_changed_anywhere_is_found_by_both(made: Made, tmp_path: Path, count: int) -> None:
    chance, missed = random.Random(20261130), []
    places = AuditPlaces(folder=tmp_path / "home" / "audit")
    shutil.copytree(made.places.folder, places.folder)
    exported = shutil.copytree(made.export, tmp_path / "export")
    for _ in range(count):
        folder = places.log(TENANT)
        shutil.rmtree(folder)
        shutil.copytree(made.places.log(TENANT), folder)
        said = flipped(folder, chance)
        if not verify_tenant(places, TENANT, made.signing).faults:
            missed.append(said)
        shutil.rmtree(exported / "log")
        shutil.copytree(folder, exported / "log")
        found = Export(exported, frozenset([made.key]))
        found.verify()
        if not found.faults:
            missed.append(f"{said} of the export")
    assert missed == []


def test_the_program_that_an_export_brings_along_says_what_is_wrong_and_where(
    made: Made, tmp_path: Path
) -> None:
    folder = shutil.copytree(made.export, tmp_path / "export")

    def verified(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-I", "-S", "verify.py", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    code, said = verified()
    assert code == 0
    assert made.key in said
    assert "Compare the ids above" in said
    assert verified("--key", made.key)[0] == 0
    code, said = verified("--key", "0" * 64)
    assert code == 1
    assert "which --key does not name" in said
    TABLE["a record is edited"](Tampered(folder / "log", made.beside))
    code, said = verified("--key", made.key)
    assert code == 1
    assert "line 1: edited: its hash does not fit its content" in said


def test_without_openssl_the_program_says_so(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made.export, tmp_path / "export")
    command = [sys.executable, "-I", "-S", "verify.py"]
    done = subprocess.run(
        command, cwd=folder, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "`openssl` is not installed" in done.stderr
