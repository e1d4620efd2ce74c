"""How a worker ends on a full disk."""

from pathlib import Path

from llm_assets.workers.reporting import make_room
from tests.unit.workers.test_checkpoints import save


def test_room_is_made_for_the_cause_of_a_full_disk_and_what_is_whole_stays(tmp_path: Path) -> None:
    folder, output = tmp_path / "checkpoints", tmp_path / "output"
    whole, _ = save(folder, 1), save(folder, 2, sealed=False)
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    output.mkdir()
    order = {"scratch_folder": str(folder), "output_folder": str(output)}
    make_room(order)
    assert list(folder.iterdir()) == [whole]
    assert not output.exists()
    make_room({"scratch_folder": str(tmp_path / "none"), "output_folder": str(output)})
