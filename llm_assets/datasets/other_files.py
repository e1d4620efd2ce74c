"""What lies in a landing zone beside the files that are read: data in a form that is not read is a mistake
with the way to convert it, whatever else might be meant as data is remarked, documents are left alone.
"""

from collections.abc import Set
from pathlib import Path

from llm_assets.datasets.landing_zone import DOCUMENT, HUB_FOLDER, SUFFIXES, LandingZone
from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.remarks import Remark, Remarks, left_out

SHEET = "is a spreadsheet; save each of its sheets as CSV (UTF-8) and put that here"
DOCUMENT_FILE = "is a document; put its text into rows: a line of a .txt for stage pt, columns of a CSV else"
PACKED = "is packed; unpack it and put the files inside here"
ARROW = "is Arrow; write Parquet: datasets.Dataset.from_file('{name}').to_parquet('{stem}.parquet')"
PANDAS = "write CSV: pandas.{read}.to_csv('{stem}.csv', index=False)"
PICKLE = "can run code when it is loaded; write its rows as JSON Lines (.jsonl)"
DATABASE = "is a database; export its table as CSV (.csv)"
LINES = "is JSON Lines under another name; call it {stem}.jsonl"

REMEDIES = {
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), SHEET),
    **dict.fromkeys(
        (".docx", ".doc", ".odt", ".rtf", ".pdf", ".pptx", ".html", ".htm", ".epub"), DOCUMENT_FILE
    ),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz"), PACKED),
    ".arrow": ARROW,
    ".feather": f"is Feather; {PANDAS}".replace("{read}", "read_feather('{name}')"),
    ".orc": f"is ORC; {PANDAS}".replace("{read}", "read_orc('{name}')"),
    ".xml": f"is XML; {PANDAS}".replace("{read}", "read_xml('{name}')"),
    **dict.fromkeys(
        (".tsv", ".tab"),
        f"has tabs between its columns; {PANDAS}".replace("{read}", "read_csv('{name}', sep='\\t')"),
    ),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth", ".bin"), PICKLE),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".sql", ".duckdb"), DATABASE),
    **dict.fromkeys((".ndjson", ".jsonlines", ".jl"), LINES),
}
OTHER_SPLITS = ("test", "val", "valid", "validation", "dev", "eval")


def files_of_stage(zone: LandingZone, stage: str, remarks: Remarks) -> list[Path]:
    """The files that are read where no `dataset_info.json` names them: right here, or in `data/`."""
    here = [path for path in zone.data_files(zone.path) if _is_read(path, stage)]
    if here:
        for path in here:
            if _split(path) in OTHER_SPLITS:
                said = "is learned from like any other file; rows are held out by the platform itself"
                remarks.add(path, None, [Remark("note", said)])
        return here
    found = [path for path in zone.data_files(zone.path / HUB_FOLDER) if _is_read(path, stage)]
    train = [path for path in found if _split(path) not in OTHER_SPLITS]
    for path in set(found) - set(train):
        remarks.add(
            path, None, [left_out("is not learned from: by its name it is no part of the split train")]
        )
    return train


def remedy(path: Path) -> str | None:
    """How to convert a file of data that is not read; None if it is read, or is no data."""
    said = REMEDIES.get(path.suffix.lower())
    if said is None:
        return None
    return said.replace("{name}", path.name).replace("{stem}", path.stem)


def look_around(
    zone: LandingZone, taken: Set[Path], stage: str, mistakes: Mistakes, remarks: Remarks
) -> None:
    """Says of every file and folder of the landing zone that is not `taken` that it is not read."""
    hub_folder = zone.path / HUB_FOLDER
    for folder in (zone.path, hub_folder) if _used(hub_folder, taken) or not taken else (zone.path,):
        for entry in zone.entries(folder):
            path = entry.path
            if path in taken or path.name.startswith(".") or DOCUMENT.match(path.name):
                continue
            if entry.is_folder:
                if not _used(path, taken) and _holds_data(zone, path):
                    said = (
                        "the files in this folder are not read; move them up, or name it in dataset_info.json"
                    )
                    remarks.add(path, None, [left_out(said)])
            elif (how := remedy(path)) is not None:
                mistakes.add(path, None, "", f"{how}, or take it away")
            elif not path.name.lower().endswith(SUFFIXES):
                remarks.add(path, None, [left_out("is not read: it is no file of a dataset")])
            elif path.suffix.lower() == ".txt":
                remarks.add(
                    path, None, [left_out(f"is not read: text files are for stage pt, this one is {stage}")]
                )


def _is_read(path: Path, stage: str) -> bool:
    return stage == "pt" or path.suffix.lower() != ".txt"


def _split(path: Path) -> str:
    """`test` of `test.csv` and `test-00000-of-00001.parquet`."""
    return path.stem.lower().replace("_", "-").partition("-")[0]


def _used(folder: Path, taken: Set[Path]) -> bool:
    return any(path.parent == folder for path in taken)


def _holds_data(zone: LandingZone, folder: Path) -> bool:
    """Anywhere below it."""
    return bool(zone.data_files(folder)) or any(
        zone.data_files(entry.path) for entry in zone.walk(folder) if entry.is_folder
    )
