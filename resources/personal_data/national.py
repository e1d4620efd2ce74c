"""The national identifiers of Poland, Germany, France and the United Kingdom, account and card numbers.

Checksums are python-stdnum's, Presidio's where it alone has one. Where a number has none, or a weak one that
every eleventh number of an order would pass, a form that only it has (with its hyphens, say) or a word near
it must tell. Others are added by a file (docs/reference/personal-data.md).
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from stdnum import luhn, numdb
from stdnum.de import idnr, stnr
from stdnum.de import vat as german_vat
from stdnum.fr import nif, nir, siren, siret, tva
from stdnum.gb import nhs, upn, utr
from stdnum.gb import vat as british_vat
from stdnum.iso7064 import mod_97_10
from stdnum.pl import nip, pesel, regon

from resources.personal_data.findings import Finding
from resources.personal_data.identifiers import SEPARATOR, SURE, Check, Identifier

PASSPORT = ("passport", "paszport", "reisepass", "passeport", "pass-nr", "passnummer", "passnr")
BORN = (
    "born",
    "birth",
    "dob",
    "d.o.b",
    "urodz",
    "ur.",
    "geboren",
    "geburt",
    "geb.",
    "naissance",
    "nee le",
    "ne le",
)
ICAO_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPAN = re.compile(r"(\d+)!")  # in the IBAN registry's `8!n16!n`
_IBAN = re.compile(
    rf"(?<![^\W_])(?=([A-Za-z]{{2}}(?:{SEPARATOR}{{0,2}}[0-9]){{2}}(?:{SEPARATOR}{{0,2}}[0-9A-Za-z]){{11,30}}))"
)


def icao(value: str) -> bool:
    """The last character checks the others, as in a passport's machine-readable zone (ICAO 9303-3, 4.9)."""
    weighed = (ICAO_DIGITS.index(each) * (7, 3, 1)[at % 3] for at, each in enumerate(value[:-1]))
    return value[-1].isdigit() and sum(weighed) % 10 == int(value[-1])


def polish_identity_card(value: str) -> bool:
    """Three letters, and the first digit checks the rest (weights 7, 3, 1)."""
    return icao(value[:3] + value[4:] + value[3])


def british_insurance(value: str) -> bool:
    """Prefixes that are never given out.

    https://www.gov.uk/hmrc-internal-manuals/national-insurance-manual/nim39110
    """
    prefix = value[:2]
    allowed = not set(prefix) & set("DFIQUV") and prefix[1] != "O"
    return allowed and prefix not in {"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"} and value[-1] in "ABCD"


def german_document(value: str) -> bool:
    """Nine digits and letters that are neither vowels nor look like a digit; a tenth checks them."""
    number = value[:9]
    if set(number) & set("ABDEIOQSU") or not any(map(str.isdigit, number)):
        return False
    return len(value) == len(number) or icao(value)


def british_driver(value: str) -> bool:
    """Five of the surname (filled with 9), decade, month (51 to 62 of a woman), day, year, initials."""
    surname = re.fullmatch(r"[A-Z]+9*", value[:5])
    return bool(surname) and int(value[6:8]) % 50 in range(1, 13) and 1 <= int(value[8:10]) <= 31


def polish_account(value: str) -> bool:
    return mod_97_10.is_valid(f"{value[2:]}PL{value[:2]}")


def _of_presidio(recognizer: str) -> Check:
    """The checksum of one of its recognizers."""
    return lambda value: bool(_made(recognizer).validate_result(value))


@cache
def _made(recognizer: str) -> Any:
    from presidio_analyzer import predefined_recognizers

    return getattr(predefined_recognizers, recognizer)()


class Iban:
    """As long as its country says, so no form of a fixed length: found by itself."""

    kind, country, name = "IBAN_CODE", "all", "account number (IBAN) of every country in its registry"

    def find(self, text: str, words: str) -> Iterator[Finding]:
        for match in _IBAN.finditer(text):
            value = re.sub(SEPARATOR, "", match[1]).upper()[: _length(match[1][:2].upper())]
            if len(value) > 4 and mod_97_10.is_valid(value[4:] + value[:4]):
                yield Finding(match.start(), _end(text, match.start(), len(value)), self.kind, SURE, value)


CARD = Identifier(
    kind="CREDIT_CARD",
    country="all",
    name="payment card",
    sure=(
        *(f"{first}###############" for first in "23456"),
        *(f"{first}############" for first in ("30", "36", "38", "39")),
        *(f"{first}#############" for first in ("34", "37")),
        *(
            "2131###########",
            "1800###########",
            "4############",
            "4##################",
            "6##################",
        ),
    ),
    forms=("5###########", "6###########", "5#################", "6#################"),
    words=("card", "karta", "karty", "karte", "kart", "carte", "maestro"),
    check=luhn.is_valid,
)
BIRTH = Identifier(
    kind="DATE_OF_BIRTH",
    country="all",
    name="date of birth, in figures",
    forms=("##-##-####", "####-##-##", "#-##-####", "##-#-####", "#-#-####"),
    words=BORN,
)
POLAND = (
    Identifier(
        kind="PL_PESEL",
        country="Poland",
        name="PESEL",
        sure=("###########",),
        forms=("###########",),
        called=("pesel",),
        check=pesel.is_valid,
    ),
    Identifier(
        kind="PL_NIP",
        country="Poland",
        name="NIP (tax number)",
        sure=("###-###-##-##", "###-##-##-###", "PL##########", "PL-###-###-##-##"),
        forms=("##########",),
        called=("nip",),
        words=("podatk", "tax", "vat", "tin"),
        check=lambda value: nip.is_valid(value.removeprefix("PL")),
    ),
    Identifier(
        kind="PL_REGON",
        country="Poland",
        name="REGON (of sole traders)",
        forms=("#########", "##############"),
        called=("regon",),
        check=regon.is_valid,
    ),
    Identifier(
        kind="PL_ID_CARD",
        country="Poland",
        name="identity card",
        sure=("@@@######",),
        forms=("@@@######",),
        called=("dowód", "dowodu", "dowodem", "nr dowodu", "identity card", "id card"),
        check=polish_identity_card,
    ),
    Identifier(kind="PL_PASSPORT", country="Poland", name="passport", forms=("@@#######",), words=PASSPORT),
    Identifier(
        kind="PL_ACCOUNT",
        country="Poland",
        name="account number without PL",
        sure=("##########################",),
        check=polish_account,
    ),
)
GERMANY = (
    Identifier(
        kind="DE_TAX_ID",
        country="Germany",
        name="Steuer-ID",
        sure=("###########",),
        forms=("###########",),
        called=("steuer-id", "steuerid", "steueridentifikation", "steuerliche id", "idnr", "tin"),
        check=idnr.is_valid,
    ),
    Identifier(
        kind="DE_TAX_NUMBER",
        country="Germany",
        name="Steuernummer",
        forms=("##########", "###########", "#############"),
        called=("steuernummer", "steuernr", "steuer-nr", "st.-nr", "st.nr", "stnr"),
        words=("finanzamt",),
        check=stnr.is_valid,
    ),
    Identifier(
        kind="DE_VAT",
        country="Germany",
        name="USt-IdNr. (of sole traders)",
        sure=("DE#########", "DE-###-###-###"),
        check=german_vat.is_valid,
    ),
    Identifier(
        kind="DE_SOCIAL_SECURITY",
        country="Germany",
        name="Sozialversicherungsnummer",
        sure=("########@###", "##-######-@-###", "##-##-##-##-@-###"),
        forms=("########@###",),
        called=("sozialversicherung", "rentenversicherung", "sv-nummer", "svnr"),
        check=_of_presidio("DeSocialSecurityRecognizer"),
    ),
    Identifier(
        kind="DE_HEALTH_INSURANCE",
        country="Germany",
        name="Krankenversichertennummer",
        sure=("@#########",),
        forms=("@#########",),
        called=("versichertennummer", "krankenversicherung", "kvnr", "gesundheitskarte"),
        words=("versichert", "krankenkasse"),
        check=_of_presidio("DeHealthInsuranceRecognizer"),
    ),
    Identifier(
        kind="DE_ID_CARD",
        country="Germany",
        name="Personalausweis and Reisepass",
        sure=("@********#",),
        forms=("@********", "@********#"),
        words=(
            "ausweis",
            "reisepass",
            "pass-nr",
            "passnummer",
            "perso",
            "identity card",
            "passport",
            "id card",
        ),
        check=german_document,
    ),
    Identifier(
        kind="DE_DRIVING_LICENCE",
        country="Germany",
        name="Führerschein",
        forms=("@*##*******",),
        words=("führerschein", "fahrerlaubnis", "driving licence"),
    ),
)
FRANCE = (
    Identifier(
        kind="FR_NIR",
        country="France",
        name="NIR (sécurité sociale)",
        sure=(
            "###############",
            "#####2A########",
            "#####2B########",
            "#-##-##-2A-###-###-##",
            "#-##-##-2B-###-###-##",
        ),
        forms=("###############", "#############"),
        called=("sécurité sociale", "numéro de sécu", "n° sécu", "nir"),
        check=lambda value: len(value) == 13 or nir.is_valid(value),  # the key may be left out
    ),
    Identifier(
        kind="FR_NIF",
        country="France",
        name="numéro fiscal",
        sure=("#############",),
        forms=("#############",),
        called=("numéro fiscal", "n° fiscal", "no fiscal", "référence fiscale", "spi"),
        check=nif.is_valid,
    ),
    Identifier(
        kind="FR_SIREN",
        country="France",
        name="SIREN (of sole traders)",
        forms=("#########",),
        called=("siren",),
        words=("siret", "rcs", "entreprise"),
        check=siren.is_valid,
    ),
    Identifier(
        kind="FR_SIRET",
        country="France",
        name="SIRET (of sole traders)",
        sure=("###-###-###-#####",),
        forms=("##############",),
        called=("siret",),
        words=("siren", "entreprise", "établissement"),
        check=siret.is_valid,
    ),
    Identifier(
        kind="FR_VAT",
        country="France",
        name="numéro de TVA (of sole traders)",
        sure=("FR**#########", "FR-**-###-###-###", "FR**-###-###-###"),
        check=tva.is_valid,
    ),
    Identifier(
        kind="FR_PASSPORT",
        country="France",
        name="passport",
        sure=("##@@#####",),
        forms=("##@@#####",),
        words=PASSPORT,
    ),
    Identifier(
        kind="FR_ID_CARD",
        country="France",
        name="carte nationale d'identité, permis de conduire",
        forms=("############", "*********"),
        words=(
            "cni",
            "carte d'identité",
            "carte nationale",
            "pièce d'identité",
            "permis",
            "identity card",
            "id card",
        ),
        check=lambda value: any(map(str.isdigit, value)),
    ),
)
UNITED_KINGDOM = (
    Identifier(
        kind="UK_NINO",
        country="United Kingdom",
        name="National Insurance number",
        sure=("@@######@", "@@-##-##-##-@"),
        forms=("@@######@",),
        called=("national insurance", "ni number", "ni no", "nino"),
        check=british_insurance,
    ),
    Identifier(
        kind="UK_NHS",
        country="United Kingdom",
        name="NHS number",
        sure=("###-###-####",),
        forms=("##########",),
        called=("nhs",),
        words=("patient", "health"),
        check=nhs.is_valid,
    ),
    Identifier(
        kind="UK_UTR",
        country="United Kingdom",
        name="Unique Taxpayer Reference",
        forms=("##########",),
        called=("utr", "unique taxpayer"),
        words=("tax", "hmrc", "self assessment"),
        check=utr.is_valid,
    ),
    Identifier(
        kind="UK_PASSPORT", country="United Kingdom", name="passport", forms=("#########",), words=PASSPORT
    ),
    Identifier(
        kind="UK_DRIVING_LICENCE",
        country="United Kingdom",
        name="driving licence",
        sure=("*****######@**@@", "*****-######-@**@@"),
        check=british_driver,
    ),
    Identifier(
        kind="UK_UPN",
        country="United Kingdom",
        name="Unique Pupil Number",
        sure=("@###########*",),
        check=upn.is_valid,
    ),
    Identifier(
        kind="UK_VAT",
        country="United Kingdom",
        name="VAT number (of sole traders)",
        sure=("GB#########", "GB-###-####-##", "GB-###-###-###"),
        check=british_vat.is_valid,
    ),
    Identifier(
        kind="UK_ACCOUNT",
        country="United Kingdom",
        name="sort code and account number",
        forms=("##-##-##-########", "########", "##-##-##"),
        words=("sort code", "account number", "account no", "acc no"),
    ),
)
IDENTIFIERS: tuple[Iban | Identifier, ...] = (
    Iban(),
    CARD,
    BIRTH,
    *POLAND,
    *GERMANY,
    *FRANCE,
    *UNITED_KINGDOM,
)


@cache
def _length(country: str) -> int:
    """Of a country's IBAN; 0: it has none."""
    parts = numdb.get("iban").info(country)
    structure = parts[0][1].get("bban", "") if parts else ""
    spans = [int(span) for span in _SPAN.findall(structure)]
    return 4 + sum(spans) if spans else 0


def _end(text: str, start: int, characters: int) -> int:
    """Where so many characters that are no separators end."""
    at = start
    while characters:
        characters -= text[at].isalnum()
        at += 1
    return at
