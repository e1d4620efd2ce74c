"""This installation's audit log, from its settings."""

from llm_assets.identifiers_file import further_identifiers
from llm_assets.settings import Settings
from resources.audit.personal_text import Pseudonymizer
from resources.audit.places import AuditPlaces
from resources.audit.sealing import Sealer


def sealer_of(settings: Settings) -> Sealer:
    """What writes it; several may, in turns."""
    places = AuditPlaces(folder=settings.audit)
    pseudonymize = Pseudonymizer(settings.audit_ner, lambda: further_identifiers(settings))
    return Sealer(places, settings.keys, pseudonymize)
