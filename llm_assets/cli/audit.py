"""`llm-assets audit`: what was asked of the models, and is it still what was written down then."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llm_assets.audit_log import audit_places, sealer_of
from llm_assets.catalog.loading import load_catalog
from llm_assets.cli.options import FAILED, AsJson, UsageError, tenant_names
from llm_assets.cli.output import output
from llm_assets.installation.settings import Settings, find_settings
from llm_assets.operator import operator
from resources.audit.anchors import Anchors
from resources.audit.backups import CheckedBackup, check_backup
from resources.audit.exporting import export
from resources.audit.fields import ASKED, LONGEST, fits
from resources.audit.places import AuditPlaces
from resources.audit.sealing import Sealer
from resources.audit.searching import Query, opened, search
from resources.audit.statements import Signing
from resources.audit.subject_keys import SubjectKeys
from resources.audit.verifying import Verdict, known_tenants, verify_tenant
from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.opening import open_object_store

app = typer.Typer(
    help="The audit log: verify, search, export, erase, check a backup.",
    no_args_is_help=True,
    add_completion=False,
)

Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Whose log.", autocompletion=tenant_names)]
AnyTenant = Annotated[
    str | None,
    typer.Option("--tenant", "-t", help="Whose log; all if left out.", autocompletion=tenant_names),
]
By = Annotated[str | None, typer.Option("--by", help="For whom; kept in the log beside the OS user.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, kept in the log. Needed for texts and erasures.")]
Moment = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC, such as 2026-11-22.")
]
Subject = Annotated[str | None, typer.Option("--subject", help="A person, as the application named him.")]
Text = Annotated[bool, typer.Option("--text", help="Open what is encrypted; needs --reason.")]


@app.command("verify")
def verify(tenant: AnyTenant = None, as_json: AsJson = False) -> None:
    """Reads every record, signature and proof, and names what was altered. Exit code 1 if anything was.

    Also where the heads in the store cannot be read: then nobody knows whether all of the log is there.

    Example: `llm-assets audit verify --tenant team-a`
    """
    settings = find_settings()
    places, signing = audit_places(settings), Signing(settings.keys)
    anchors = _anchors(settings)
    known = known_tenants(places, anchors)
    if tenant:
        _require_known(tenant, known)
    verdicts = [verify_tenant(places, name, signing, anchors) for name in ([tenant] if tenant else known)]
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        _show(verdicts)
    if anchors is None or any(verdict.faults for verdict in verdicts):
        raise typer.Exit(FAILED)


def _anchors(settings: Settings) -> Anchors | None:
    """The heads in the store; None, and a word about it, where it does not answer."""
    try:
        anchors = Anchors(objects=open_object_store(settings.audit_store_url))
        anchors.tenants()
        return anchors
    except ObjectStoreError as error:
        said = f"Not compared with the heads in the store: {error}"
        Console(stderr=True, soft_wrap=True).print(said, style="yellow", markup=False)
        return None


def _show(verdicts: list[Verdict]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not verdicts:
        console.print("There is no audit log yet: nothing was asked through the gateway.")
    for verdict in verdicts:
        deleted = f", {verdict.deleted_segments} deleted when due" if verdict.deleted_segments else ""
        state = f"{len(verdict.faults)} faults" if verdict.faults else "as sealed"
        segments = f"{verdict.records} records in {verdict.segments} segments{deleted}"
        console.print(f"{verdict.tenant}: {segments}: {state}", markup=False)
        for fault in verdict.faults:
            place = f"{fault.segment}, line {fault.line}" if fault.line else fault.segment
            console.print(f"  {place}: {fault.problem}", style="red", markup=False)


@app.command("search")
def search_command(
    tenant: Tenant,
    since: Moment = None,
    until: Moment = None,
    model: Annotated[str | None, typer.Option("--model", help="A model that was asked.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The id of an API key.")] = None,
    subject: Subject = None,
    request: Annotated[str | None, typer.Option("--request", help="A request id.")] = None,
    status: Annotated[int | None, typer.Option("--status", help="The HTTP status of the answer.")] = None,
    text: Text = False,
    by: By = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Finds records. That it was done, by whom and why, is recorded too.

    Example: `llm-assets audit search --tenant team-a --since 2026-11-22 --status 403`
    """
    query = Query(
        tenant=tenant,
        since=_epoch(since),
        until=_epoch(until),
        model=model,
        key=key,
        subject=subject,
        request=request,
        status=status,
    )
    with _access(tenant, "search", query, text=text, by=by, reason=reason) as (sealer, _):
        found = _found(sealer, query, text=text)
        if as_json:
            for record in found:
                typer.echo(json.dumps(record, ensure_ascii=False))
        else:
            _table(list(found), text=text)


@app.command("export")
def export_command(
    tenant: Tenant,
    to: Annotated[Path, typer.Option("--to", help="A new folder, or a new .zip.")],
    text: Text = False,
    by: By = None,
    reason: Reason = "",
) -> None:
    """Writes a tenant's whole log with signatures, public keys and how to verify them without this platform.

    Example: `llm-assets audit export --tenant team-a --to audit-team-a.zip`
    """
    query = Query(tenant=tenant)
    with _access(tenant, "export", query, text=text, by=by, reason=reason) as (sealer, who):
        readable = _found(sealer, query, text=True) if text else ()
        export(sealer.places, tenant, sealer.signing, to, by=who, opened=readable)
    typer.echo(f"Exported to {to}; `python3 verify.py` in it checks it.")


@app.command("erase")
def erase(
    tenant: Tenant,
    subject: Annotated[str, typer.Option("--subject", help="A person, as the application named him.")],
    reason: Reason = "",
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Destroys the key of a person: what the log keeps of him cannot be read again, and still verifies.

    Example: `llm-assets audit erase --tenant team-a --subject jan@example.com --reason "request of 22 Nov"`
    """
    if not reason:
        raise UsageError("An erasure needs a --reason: it is kept in the log, without the person's name.")
    settings = find_settings()
    entry = load_catalog(settings.catalog).tenants.get(tenant)
    if entry and entry.legal_hold:
        raise UsageError(
            f"{tenant} is under legal hold (legal_hold in catalog/tenants/{tenant}.yaml): nobody is erased."
        )
    _require_log(audit_places(settings), tenant)
    if not yes and not typer.confirm(f"Make everything that is kept of this person in {tenant} unreadable?"):
        raise typer.Exit(FAILED)
    with closing(sealer_of(settings)) as sealer:
        erased = sealer.erase(tenant, subject, by=operator(by), reason=reason[:LONGEST])
    if not erased:
        typer.echo(f"{tenant} has no key of such a person: never seen, or erased before.")
        raise typer.Exit(FAILED)
    typer.echo("Erased. The records stay, and verify; nobody can read who it was or what was said.")


@app.command("check-backup")
def check_backup_command(
    folder: Annotated[Path, typer.Argument(help="A state folder as it was backed up, unpacked or mounted.")],
    subject_keys: Annotated[
        Path | None, typer.Option(help="The keys of data subjects, if they were backed up apart.")
    ] = None,
    signing_keys: Annotated[
        Path | None, typer.Option(help="The trusted public keys, if they were backed up apart.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Says whether a backup of the log and of its keys could be restored. Writes nothing and shows no text.

    Example: `llm-assets audit check-backup /mnt/restored --subject-keys /mnt/subject-keys`
    """
    places = AuditPlaces(folder=folder / "audit", subject_keys=subject_keys)
    checked = list(check_backup(places, Signing(signing_keys or folder / "keys")))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in checked], indent=2))
    else:
        _show_checked(checked)
    if any(each.faults for each in checked):
        raise typer.Exit(FAILED)


def _show_checked(checked: list[CheckedBackup]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for each in checked:
        state = f"{len(each.faults)} faults" if each.faults else "could be restored"
        opened_parts = f"{each.opened} personal parts open, {each.erased} were erased"
        console.print(f"{each.tenant}: {each.records} records, {opened_parts}: {state}", markup=False)
        for fault in each.faults:
            console.print(f"  {fault}", style="red", markup=False)


@contextmanager
def _access(
    tenant: str, command: str, query: Query, *, text: bool, by: str | None, reason: str
) -> Iterator[tuple[Sealer, str]]:
    """Records the access before anything is shown, with whom it was about as a pseudonym."""
    if text and not reason:
        raise UsageError("Texts are opened for a --reason alone: it is kept in the log.")
    who = operator(by)
    with closing(sealer_of(find_settings())) as sealer:
        _require_log(sealer.places, tenant)
        sealer.record_event(
            tenant,
            "access",
            command=command,
            by=who,
            reason=reason[:LONGEST],
            text=text,
            asked=_asked(sealer, query),
        )
        yield sealer, who


def _asked(sealer: Sealer, query: Query) -> dict[str, object]:
    """The filters, without the name of a person."""
    asked = {name: value for name, value in asdict(query).items() if value is not None and name != "tenant"}
    for name in ("model", "key", "request"):
        if name in asked and not fits(ASKED, name, asked[name]):
            asked[name] = "unknown"
    if query.subject:
        keys = SubjectKeys(sealer.places.keys(query.tenant))
        keys.begin()
        person = keys.find(query.subject)
        asked["subject"] = person.pseudonym if person else "unknown"
    return asked


def _found(sealer: Sealer, query: Query, *, text: bool) -> Iterator[dict[str, object]]:
    keys = SubjectKeys(sealer.places.keys(query.tenant))
    keys.begin()
    for record in search(sealer.places, sealer.index, query):
        yield opened(record, keys) if text else record


def _table(records: list[dict[str, object]], *, text: bool) -> None:
    console = output()
    table = Table(box=None, pad_edge=False)
    for column in ("when", "what", "id", "model", "status", "tokens", "who"):
        table.add_column(column, no_wrap=column in ("status", "tokens"), overflow="fold")
    for each in records:
        what = each.get("event") or each.get("outcome") or each["kind"]
        tokens = f"{each.get('prompt_tokens') or 0}+{each.get('completion_tokens') or 0}"
        when = each.get("started_at") or each.get("ended_at") or each.get("at") or each["sealed_at"]
        model, status = str(each.get("model") or ""), str(each.get("status") or "")
        who, tokens = str(each.get("by") or each.get("key") or ""), tokens if model else ""
        table.add_row(
            str(when),
            str(what),
            str(each["id"]),
            str(model),
            status,
            tokens if each.get("model") else "",
            who,
        )
    console.print(table)
    if text:
        for each in records:
            console.print(f"{each['id']}: {each.get('personal', '')}", markup=False, soft_wrap=True)
    console.print(f"{len(records)} records.", highlight=False)


def _require_log(places: AuditPlaces, tenant: str) -> None:
    _require_known(tenant, places.tenants())


def _require_known(tenant: str, known: list[str]) -> None:
    if tenant not in known:
        raise UsageError(
            f"There is no audit log of {tenant!r}; there are those of: {', '.join(known) or 'none yet'}."
        )


def _epoch(moment: datetime | None) -> float | None:
    return moment.replace(tzinfo=UTC).timestamp() if moment else None
