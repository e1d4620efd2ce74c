"""This installation's audit log, from its settings."""

from llm_assets.identifiers_file import further_identifiers
from llm_assets.installation.settings import Settings
from resources.audit.personal_text import Pseudonymizer
from resources.audit.places import AuditPlaces
from resources.audit.sealing import Sealer


def audit_places(settings: Settings) -> AuditPlaces:
    """Where it lies."""
    return AuditPlaces(folder=settings.audit, subject_keys=settings.audit_keys)


def sealer_of(settings: Settings) -> Sealer:
    """What writes it; several may, in turns."""
    places = audit_places(settings)
    pseudonymize = Pseudonymizer(settings.audit_ner, lambda: further_identifiers(settings))
    return Sealer(places, settings.keys, pseudonymize)
