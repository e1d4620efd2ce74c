"""A catalog in Git: which files are there, when they follow, and what is said where they cannot."""

import os
import subprocess
from pathlib import Path

import pytest

from llm_assets.folder_stamps import files_of_experiments, stamps
from llm_assets.installation.files import SettingsError
from llm_assets.installation.settings import CATALOG, Settings
from llm_assets.sensors.current_catalog import current_catalog
from resources.git.checkouts import GitError, GitFolder

EXPERIMENT = "catalog/experiments/team-a/bot/first.yaml"


class Repository:
    """A bare repository, and a clone of it where people work."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.clone = folder / "catalog.git", folder / "clone"
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), cwd=folder)
        self.git("clone", "--quiet", str(self.bare), str(self.clone), cwd=folder)
        self.git("checkout", "--quiet", "-b", "main")
        self.url = f"file://{self.bare}"

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        who = {"GIT_CONFIG_GLOBAL": "/dev/null"}
        who |= {
            f"GIT_{kind}_{what}": "a@b.c" for kind in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        done = subprocess.run(
            ["git", *arguments], cwd=cwd or self.clone, env=os.environ | who, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    def commit(self, **files: str) -> str:
        """Writes files, by their paths, and pushes them; gives the commit."""
        for name, text in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=change")
        self.git("push", "--quiet", "origin", "HEAD")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path)
    repository.commit(**{EXPERIMENT: "a: 1\n", "catalog/tenants/team-a.yaml": "x", "elsewhere": ""})
    return repository


def folder_of(repository: Repository, place: Path, ref: str = "@main") -> GitFolder:
    return GitFolder.at(f"git+{repository.url}{ref}#catalog", place)


def test_the_files_are_those_of_the_ref_and_follow_it(repository: Repository, tmp_path: Path) -> None:
    here = folder_of(repository, tmp_path / "place")
    assert here.follow() is None
    assert (here.path / "experiments/team-a/bot/first.yaml").read_text() == "a: 1\n"
    repository.commit(**{EXPERIMENT: "a: 2\n"})
    assert here.follow(every_s=3600) is None
    assert (here.path / "experiments/team-a/bot/first.yaml").read_text() == "a: 1\n", "it was looked just now"
    assert here.follow() is None
    assert (here.path / "experiments/team-a/bot/first.yaml").read_text() == "a: 2\n"


def test_only_a_changed_file_has_another_stamp_and_two_machines_agree(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit(**{"catalog/experiments/team-b/bot/other.yaml": "b: 1\n"})
    here, there = folder_of(repository, tmp_path / "here"), folder_of(repository, tmp_path / "there")
    here.follow()
    before = stamps(here.path / "experiments", files_of_experiments)
    repository.commit(**{EXPERIMENT: "a: 2\n"})  # as long as before
    here.follow()
    there.follow()
    after = stamps(here.path / "experiments", files_of_experiments)
    assert after["team-b/bot"] == before["team-b/bot"]
    assert after["team-a/bot"] != before["team-a/bot"]
    assert stamps(there.path / "experiments", files_of_experiments) == after


@pytest.mark.parametrize("kind", ["tag", "commit", "head"])
def test_a_tag_a_commit_and_the_default_branch_are_refs(
    repository: Repository, tmp_path: Path, kind: str
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("tag", "--annotate", "--message=x", "v1")
    repository.git("push", "--quiet", "origin", "v1")
    ref = {"tag": "@v1", "commit": f"@{commit}", "head": ""}[kind]
    here = folder_of(repository, tmp_path / "place", ref)
    here.follow()
    assert (tmp_path / "place" / "current").readlink() == Path(commit)


def test_what_was_fetched_stays_where_the_repository_cannot_be_read(
    repository: Repository, tmp_path: Path
) -> None:
    here = folder_of(repository, tmp_path / "place")
    here.follow()
    repository.bare.rename(tmp_path / "away")
    assert "What was fetched before stays." in str(here.follow())
    assert (here.path / "tenants").is_dir()
    with pytest.raises(GitError, match=r"catalog\.git cannot be read: git says"):
        folder_of(repository, tmp_path / "new").follow()


def test_a_ref_or_a_folder_that_is_not_there_is_named(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(GitError, match="has no branch or tag 'mian'"):
        folder_of(repository, tmp_path / "place", "@mian").follow()
    with pytest.raises(GitError, match="has no folder 'katalog' at main"):
        GitFolder.at(f"git+{repository.url}@main#katalog", tmp_path / "place").follow()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("git+https://me:hunter2@host/x.git", "an address without a password"),
        ("git+ext::sh -c x", "an address of Git"),
        ("git+https://host/x.git@--upload-pack=x", "an address of Git"),
        ("git+https://host/x.git#../..", "an address of Git"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(
    tmp_path: Path, address: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Settings(root=tmp_path, catalog=address)
    assert "hunter2" not in str(refused.value)


def test_the_sensors_follow_a_catalog_in_git(repository: Repository, tmp_path: Path) -> None:
    repository.commit(**{EXPERIMENT: "", "catalog/tenants/team-a.yaml": "owner: a@example.com\nmodels: []\n"})
    repository.git("rm", "--quiet", EXPERIMENT)
    for kind in ("models", "base_models"):
        repository.commit(**{f"catalog/{kind}/.keep": ""})
    settings = Settings(root=tmp_path, catalog=f"git+{repository.url}@main#catalog")
    assert current_catalog(settings).tenants.keys() == {"team-a"}
    assert settings.experiments == settings.home / CATALOG / "current" / "catalog" / "experiments"
    repository.commit(**{"catalog/tenants/team-b.yaml": "owner: b@example.com\nmodels: []\n"})
    os.utime(settings.home / CATALOG / ".looked", (0, 0))
    assert current_catalog(settings).tenants.keys() == {"team-a", "team-b"}
