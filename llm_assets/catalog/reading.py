"""Goes through a catalog's folder file by file and collects the mistakes."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from llm_assets.catalog import base_models as base_models_
from llm_assets.catalog import models as models_
from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.experiments import Experiment, read_recipe
from llm_assets.catalog.files import Entry, problems_of
from llm_assets.catalog.limits import BaseLimits, recipe_beyond, serving_beyond
from llm_assets.catalog.mistakes import Mistake, Place, Problem, did_you_mean, dotted, one_of
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.names import check_experiment_name, check_model_name, check_tenant_name
from llm_assets.catalog.opening import Listed, listed, open_file
from llm_assets.catalog.recipes import check_arguments
from llm_assets.catalog.sources import with_absolute_path
from llm_assets.catalog.tenants import ISSUER_PLACES, TenantEntry, issuer_conflicts, unfit_models
from llm_assets.catalog.yaml_files import Document, YamlError, read_yaml
from resources.beneath import NotFollowedError

SUFFIX = ".yaml"
LINKED = "a symbolic link, and none is followed where tenants write"
NO_LINK = "put the file or folder itself there"

AnyEntry = TypeVar("AnyEntry", bound=Entry)


class Reading:
    """One pass over a catalog. A name whose file is wrong still counts as known, so that it is said once."""

    def __init__(self, folder: Path) -> None:
        self.mistakes: list[Mistake] = []
        self._folder = folder
        self._known: dict[str, list[str]] = {}

    def base_models(self) -> dict[str, BaseModelEntry]:
        read: dict[str, BaseModelEntry] = {}
        for name, document, file in self._documents("base_models", check_model_name, required=True):
            entry = self._entry(BaseModelEntry, name, document, file)
            if entry is not None:
                source = with_absolute_path(entry.source, self._folder)
                read[name] = entry.model_copy(update={"source": source})
                self._add(base_models_.contradictions(read[name]), document, file)
        return read

    def models(self, base_models: Mapping[str, BaseModelEntry]) -> dict[str, ModelEntry]:
        read: dict[str, ModelEntry] = {}
        for name, document, file in self._documents("models", check_model_name, required=True):
            entry = self._entry(ModelEntry, name, document, file)
            base_name = document.value.get("base_model")
            if isinstance(base_name, str):
                self._add(self._unknown("base_models", base_name, ("base_model",)), document, file)
            base = base_models.get(str(base_name))
            recipe = self._recipe(document, file, base.template if base else None)
            if entry is not None:
                read[name] = entry.model_copy(update={"recipe": recipe})
                self._add(models_.contradictions(read[name]), document, file)
                if base is not None:
                    limits = BaseLimits.declared(base)
                    self._add(serving_beyond(read[name], limits), document, file)
                    beyond = recipe_beyond(recipe, read[name], limits)
                    within = (replace(each, place=("recipe", *each.place)) for each in beyond)
                    self._add(within, document, file)
        return read

    def _recipe(self, document: Document, file: str, template: str | None) -> dict[str, object]:
        """The recipe of a model's file; looked through even where other fields are wrong."""
        written = document.value.get("recipe")
        if not isinstance(written, dict):
            return {}
        split = document.value.get("dataset")
        held_out = not isinstance(split, dict) or split.get("held_out_fraction") != 0
        checked = check_arguments(written, template=template, held_out=held_out)
        refused = [
            Problem(place=(key,), problem=f"not the recipe's to set: {reason}", valid="leave it out")
            for key, reason in checked.platforms.items()
        ]
        within = [
            Problem(place=("recipe", *each.place), problem=each.problem, valid=each.valid)
            for each in (*checked.problems, *refused)
        ]
        self._add(within, document, file)
        return checked.arguments

    def tenants(
        self, models: Mapping[str, ModelEntry], only: Container[str] | None = None
    ) -> dict[str, TenantEntry]:
        """The tenants, or only those of that name.

        Whose issuer is whose is judged where all are read: a part of them says nothing of the others.
        """
        read: dict[str, TenantEntry] = {}
        lines: dict[tuple[str, Place], int] = {}
        for name, document, file in self._documents("tenants", check_tenant_name, required=True, only=only):
            entry = self._entry(TenantEntry, name, document, file)
            if entry is not None:
                read[name] = entry
                if entry.jwt:
                    lines |= {(name, place): document.line(place) for place in ISSUER_PLACES}
                self._add(unfit_models(entry, models), document, file)
            written = document.value.get("models")
            names: list[Any] = written if isinstance(written, list) else []
            for index, model in enumerate(names):
                if isinstance(model, str):
                    self._add(self._unknown("models", model, ("models", index)), document, file)
                    self._add(_twice(names[:index], model, ("models", index)), document, file)
        said = {name: entry.jwt for name, entry in read.items()} if only is None else {}
        for name, each in issuer_conflicts(said, {}).items():
            field, line = dotted(each.place), lines[name, each.place]
            self._say(f"tenants/{name}{SUFFIX}", line, field, each.problem, each.valid)
        return read

    def experiments(
        self,
        models: Mapping[str, ModelEntry],
        base_models: Mapping[str, BaseModelEntry],
        tenants: Mapping[str, TenantEntry],
    ) -> dict[str, Experiment]:
        read: dict[str, Experiment] = {}
        for tenant, model in self._lines("experiments", tenants):
            folder = f"experiments/{tenant}/{model}"
            entry = models.get(model)
            base = base_models.get(entry.base_model) if entry else None
            for name, document, file in self._documents(folder, check_experiment_name):
                recipe, problems = read_recipe(document.value, file, model=entry, base=base)
                self._add(problems, document, file)
                read[f"{tenant}/{model}/{name}"] = Experiment(
                    tenant=tenant, model=model, name=name, recipe=recipe
                )
        return read

    def landing_zones(self, tenants: Mapping[str, TenantEntry]) -> None:
        for _ in self._lines("datasets", tenants):
            pass

    def _lines(self, folder: str, tenants: Mapping[str, TenantEntry]) -> Iterator[tuple[str, str]]:
        """The `<tenant>/<model>/` folders of a folder; those that belong to nobody are mistakes."""
        for tenant in self._subfolders(folder, "<tenant>/<model>/"):
            if self._mistaken_name("tenants", tenant, f"{folder}/{tenant}"):
                continue
            for model in self._subfolders(f"{folder}/{tenant}", "<model>/"):
                place = f"{folder}/{tenant}/{model}"
                if self._mistaken_name("models", model, place):
                    continue
                if tenant in tenants and model not in tenants[tenant].models:
                    problem = f"{tenant} does not use the model {model}"
                    self._say(place, None, "", problem, f"list it in tenants/{tenant}{SUFFIX}")
                    continue
                yield tenant, model

    def _subfolders(self, folder: str, expected: str) -> list[str]:
        names = []
        for entry in self._listed(folder, required=False):
            if entry.is_folder:
                names.append(entry.name)
            else:
                self._say(
                    f"{folder}/{entry.name}", None, "", "a file where folders belong", f"{folder}/{expected}"
                )
        return names

    def _mistaken_name(self, kind: str, name: str, place: str) -> bool:
        problems = list(self._unknown(kind, name, ()))
        for problem in problems:
            self._say(place, None, "", problem.problem, problem.valid)
        return bool(problems)

    def _unknown(self, kind: str, name: str, place: tuple[str | int, ...]) -> Iterator[Problem]:
        known = self._known[kind]
        if name not in known:
            noun = kind.replace("_", " ").removesuffix("s")
            valid = did_you_mean(name, known, otherwise=f"{one_of(known)} (the files in {kind}/)")
            yield Problem(place=place, problem=f"unknown {noun} {name!r}", valid=valid)

    def _documents(
        self,
        folder: str,
        check_name: Callable[[str], str],
        *,
        required: bool = False,
        only: Container[str] | None = None,
    ) -> Iterator[tuple[str, Document, str]]:
        files = list(self._files(folder, check_name, required=required))
        self._known[folder] = [name for name, _ in files]
        for name, file in files:
            document = self._document(file) if only is None or name in only else None
            if document is not None:
                yield name, document, file

    def _entry(self, entry: type[AnyEntry], name: str, document: Document, file: str) -> AnyEntry | None:
        if "name" in document.value:
            problem = Problem(place=("name",), problem="the file's name is the name", valid="leave it out")
            self._add([problem], document, file)
        try:
            return entry.model_validate({**document.value, "name": name})
        except ValidationError as error:
            self._add(problems_of(error, entry), document, file)
            return None

    def _files(
        self, folder: str, check_name: Callable[[str], str], *, required: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Name and path (below the catalog's folder) of each YAML file; anything else is a mistake."""
        for entry in self._listed(folder, required=required):
            file = f"{folder}/{entry.name}"
            name = entry.name.removesuffix(SUFFIX)
            if entry.is_folder or name == entry.name:
                self._say(file, None, "", "not a YAML file of the catalog", f"{folder}/<name>{SUFFIX}")
                continue
            try:
                yield check_name(name), file
            except ValueError as error:
                problem, _, valid = str(error).partition("; ")
                self._say(file, None, "", problem, f"call the file {valid}")

    def _listed(self, folder: str, *, required: bool) -> list[Listed]:
        """What lies in a folder, in name order, without hidden files, backups and READMEs."""
        try:
            found = listed(self._folder, folder)
        except NotFollowedError as error:
            self._say_not_followed(error)
            return []
        except FileNotFoundError:
            if required:
                self._say(
                    folder, None, "", "there is no such folder", "it may be empty, but it has to be there"
                )
            return []
        except OSError as error:
            self._say(folder, None, "", f"cannot be listed: {error.strerror}", "a folder that can be read")
            return []
        seen = [
            each
            for each in found
            if not each.name.startswith((".", "README")) and not each.name.endswith("~")
        ]
        for each in seen:
            if each.is_link:
                self._say(f"{folder}/{each.name}", None, "", LINKED, NO_LINK)
        return [each for each in seen if not each.is_link]

    def _say_not_followed(self, error: NotFollowedError) -> None:
        place = error.path.relative_to(self._folder).as_posix()
        self._say(place, None, "", error.problem, NO_LINK)

    def _document(self, file: str) -> Document | None:
        try:
            with open_file(self._folder, file) as opened:
                document = read_yaml(opened)
        except YamlError as error:
            self._say(file, error.line, error.field, error.problem, error.valid)
            return None
        except NotFollowedError as error:
            self._say_not_followed(error)
            return None
        except OSError as error:
            self._say(file, None, "", f"cannot be read: {error.strerror}", "a file that can be read")
            return None
        for problem in document.problems:
            self._say(file, problem.line, problem.field, problem.problem, problem.valid)
        return document

    def _add(self, problems: Iterable[Problem], document: Document, file: str) -> None:
        for each in problems:
            self._say(file, document.line(each.place), dotted(each.place), each.problem, each.valid)

    def _say(self, file: str, line: int | None, field: str, problem: str, valid: str) -> None:
        place = f"{self._folder.name}/{file}"
        self.mistakes.append(Mistake(file=place, line=line, field=field, problem=problem, valid=valid))


def _twice(before: list[Any], name: str, place: tuple[str | int, ...]) -> list[Problem]:
    return [Problem(place=place, problem=f"{name} comes twice", valid="keep one")] if name in before else []
