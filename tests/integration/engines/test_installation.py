"""An engine's environment is whole or not there; real uv, tiny wheels, no network."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resources.engines.installation import STAMP, EngineError, engine_python, engine_status
from tests.integration.engines.sites import Site


def site_packages(site: Site, engine: str) -> Path:
    return next((site.engines / engine / "lib").glob("python3.*")) / "site-packages"


def test_an_installed_engine_starts_and_knows_its_versions(site: Site) -> None:
    _, status = site.install()
    assert status["installed"]
    assert status["current"]
    assert status["device"] == "cpu"
    assert status["versions"] == {
        "dagster_pipes": "1.0",
        "gguf": "1.0",
        "llamafactory": "1.0",
        "torch": "2.13.0+cpu",
        "torchaudio": "2.11.0",
    }
    subprocess.run([engine_python(site.engines, "train"), "-c", "import llamafactory"], check=True)


def test_a_second_installation_does_nothing(site: Site) -> None:
    _, first = site.install()
    phases, second = site.install()
    assert phases == []
    assert second == first


def test_what_a_start_imports_is_compiled_even_where_python_is_told_to_write_none(site: Site) -> None:
    site.install()
    assert _compiled(site_packages(site, "train")) == {"tuner", "gguf", "dagster_pipes", "llamafactory"}


def test_an_image_has_every_module_compiled(site: Site) -> None:
    command = [sys.executable, "-m", "resources.engines.builds", "train", "cpu", str(site.root / "image")]
    subprocess.run(command, cwd=site.root, env=site.environ, check=True)
    packages = next((site.root / "image" / "lib").glob("python3.*")) / "site-packages"
    assert _compiled(packages) >= {"tuner", "gguf", "dagster_pipes", "llamafactory", "torchaudio"}


def _compiled(packages: Path) -> set[str]:
    """The modules with bytecode; a package goes by its own name."""
    found = {path.relative_to(packages) for path in packages.rglob("__pycache__/*.pyc")}
    stems = {(path.parent.parent.name, path.name.partition(".")[0]) for path in found}
    return {folder if stem == "__init__" else stem for folder, stem in stems}


def test_an_engine_looks_for_garbage_rarely(site: Site) -> None:
    site.install()
    code = "import gc; print(gc.get_threshold()[0])"
    command: list[str | Path] = [engine_python(site.engines, "train"), "-c", code]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) > 10_000


def test_torchaudio_loses_its_cuda_libraries_on_a_cpu(site: Site) -> None:
    site.install()
    audio = site_packages(site, "train") / "torchaudio"
    assert (audio / "__init__.py").exists()
    assert list((audio / "lib").iterdir()) == []


def test_vllm_finds_its_own_version_and_with_it_the_cpu(site: Site) -> None:
    _, status = site.install("serve")
    assert status["versions"]["vllm"] == "0.32.0+cpu"  # type: ignore[index]
    said = subprocess.run([site.engines / "serve" / "bin" / "vllm"], capture_output=True, text=True)
    assert said.stdout == "0.32.0+cpu\n"


def test_killed_at_any_phase_the_next_installation_finishes_and_leaves_one_environment(site: Site) -> None:
    for phase in ("making", "looking", "installed", "checking"):
        process = site.start()
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith(phase))
        process.kill()
        process.communicate()
        assert not (site.engines / "train").exists()
    _, status = site.install()
    assert status["installed"]
    assert len(site.environments()) == 1


def test_interrupted_it_removes_what_it_had_begun(site: Site) -> None:
    process = site.start()
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("checking"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert site.environments() == []


def test_of_two_at_once_one_builds_and_the_other_waits(site: Site) -> None:
    processes = [site.start(), site.start()]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert sorted("checking that it starts" in lines for lines in outputs) == [False, True]
    assert outputs[0][-1] == outputs[1][-1]
    assert len(site.environments()) == 1


def test_a_new_lock_replaces_the_environment(site: Site) -> None:
    site.install()
    old = site.environments()
    site.train(llamafactory="2.0")
    _, status = site.install()
    assert status["versions"]["llamafactory"] == "2.0"  # type: ignore[index]
    assert len(site.environments()) == 1
    assert site.environments() != old


def test_a_replaced_environment_stays_while_a_process_runs_in_it(site: Site) -> None:
    site.install()
    old = site.environments()[0]
    running = subprocess.Popen([engine_python(site.engines, "train"), "-c", "input()"], stdin=subprocess.PIPE)
    site.train(llamafactory="2.0")
    site.install()
    assert old in site.environments()
    running.communicate(b"\n")
    site.train(llamafactory="3.0")
    site.install()
    assert len(site.environments()) == 1


def test_a_failed_replacement_leaves_the_old_environment_in_use(site: Site) -> None:
    _, before = site.install()
    site.train(llamafactory="2.0", tuner="raise ImportError('operator torchvision::nms does not exist')")
    assert "operator torchvision::nms does not exist" in site.failure()
    assert (site.engines / "train").resolve() == Path(str(before["folder"]))
    assert len(site.environments()) == 1


def test_a_file_that_was_not_locked_is_refused_and_named(site: Site) -> None:
    lock = site.root / "images" / "train" / "cpu.lock.txt"
    lines = lock.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("gguf"))
    lines[place + 1] = f"    --hash=sha256:{'0' * 64}"
    lock.write_text("\n".join(lines) + "\n")
    said = site.failure()
    assert "The train engine (cpu) cannot be installed" in said
    assert "gguf" in said
    assert "The package index does not have the files that were locked" in said
    assert site.environments() == []


def test_without_cpu_torch_the_setting_to_use_is_named(site: Site) -> None:
    (site.wheels / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    assert "Set LLM_ASSETS_TORCH_INDEX" in site.failure()


def test_the_password_of_an_index_is_not_told(site: Site) -> None:
    del site.environ["PIP_NO_INDEX"]
    site.environ |= {
        "PIP_INDEX_URL": "http://reader:s3cret@127.0.0.1:1/simple",
        "LLM_ASSETS_TORCH_INDEX": "",
        "UV_HTTP_RETRIES": "0",
    }
    (site.wheels / "gguf-1.0-py3-none-any.whl").unlink()
    said = site.failure()
    assert "127.0.0.1:1/simple" in said
    assert "s3cret" not in said


def test_an_environment_made_by_hand_is_not_touched(site: Site) -> None:
    (site.engines / "train").mkdir(parents=True)
    assert "was not made by llm-assets: move it away" in site.failure()


def test_what_is_not_installed_says_how_to_install_it(tmp_path: Path) -> None:
    status = engine_status(tmp_path, "serve")
    assert not status.installed
    assert status.remedy == "llm-assets engines install serve"
    with pytest.raises(EngineError, match=r"not installed in .*: llm-assets engines install serve"):
        engine_python(tmp_path, "serve")


def test_an_environment_of_an_older_lock_is_told_from_a_current_one(site: Site) -> None:
    site.install()
    stamp = site.engines / "train" / STAMP
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "lock_digest": "0" * 64}))
    status = engine_status(site.engines, "train")
    assert (status.installed, status.current) == (True, False)
    assert status.remedy == "llm-assets engines install train"


def test_a_full_disk_is_called_that_and_given_back(site: Site, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", small], capture_output=True
        ).returncode
    ):
        pytest.skip("only root can mount a small disk")
    site.train(tuner="#" * 1_000_000)
    try:
        site.engines = small
        assert "No disk left" in site.failure()
        assert site.environments() == []
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_the_images_builder_says_how_it_is_called(site: Site) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "resources.engines.builds", "train", "tpu", "x"],
        cwd=site.root,
        env=site.environ,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 1
    assert said.stderr == "usage: python -m resources.engines.builds train|serve cpu|cuda FOLDER\n"
