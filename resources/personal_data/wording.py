"""What the words around it tell, in Polish, German, French and English.

A name after a title, an introduction, a greeting, or before a number or an address that was found; an address
with a street and its number, or a postcode; a date of birth with its month in words; mail with its signs in
words. A name that stands alone in a sentence is not found: that takes a model with named entities
(`detector.py`).
"""

from collections.abc import Iterator

import regex

from resources.personal_data.findings import Finding
from resources.personal_data.identifiers import LIKELY

PERSON, ADDRESS, MAIL, BIRTH = "PERSON", "ADDRESS", "EMAIL_ADDRESS", "DATE_OF_BIRTH"
NAME_BEFORE = 100
"""How far before a finding a name may begin, in characters."""

_TITLES = (
    r"Mr|Mrs|Ms|Miss|Mx|Sir|Dame|Dr|Prof|Professor|Madam"
    r"|[Pp]an|[Pp]ani|[Pp]ana|[Pp]anu|[Pp]anem|[Pp]anią|[Pp]aństw[oa]|mgr|inż|dr|prof"
    r"|Herr|Herrn|Frau|Fräulein"
    r"|M|MM|Mme|Mlle|Mmes|[Mm]onsieur|[Mm]adame|[Mm]ademoiselle|[Mm]aître|[Dd]octeur"
)
_INTRODUCTIONS = (
    r"my name is|i am called|name is|nazywam się|mam na imię|ich heiße|ich heisse|mein name ist"
    r"|je m['’]appelle|mon nom est|se nomme"
)
_BEINGS = (
    r"i am|i['’]m|this is|speaking,|jestem|tu mówi|z tej strony|ich bin|hier ist|hier spricht|je suis|ici"
)
_LABELS = (
    r"(?:first|last|full|family|given|maiden)?[ _]?name|surname|forename|signed"
    r"|imi[ęe](?: i nazwisko)?|nazwisko(?: rodowe)?|podpisano"
    r"|vorname|nachname|familienname|geburtsname|unterzeichnet|nom(?: de famille| complet)?|prénom"
)
_ROLES = (
    r"applicants?|customer|client|patient|employee|tenant|claimant|borrower|pracowni(?:k|ca)"
    r"|klient(?:ka|a|ki|em|ką)?|pacjent(?:ka|a|ki)?|wnioskodawc(?:a|y|zyni)|kredytobiorc(?:a|y)"
    r"|kund(?:e|in)|patientin|antragsteller(?:in)?|mieter(?:in)?|mitarbeiter(?:in)?"
    r"|cliente?|patiente|salariée?|demandeu(?:r|se)|emprunteu(?:r|se)|locataire"
)
_CLOSINGS = (
    r"(?:kind |best |warm )?regards|yours(?: sincerely| faithfully| truly)?|sincerely|cheers"
    r"|z poważaniem|pozdrawiam|z wyrazami szacunku|hochachtungsvoll"
    r"|(?:mit )?freundlichen? grüßen?|(?:viele|liebe) grüße"
    r"|cordialement|bien à vous|salutations distinguées|meilleures salutations"
)
_GREETINGS = r"dear|hello|hi|drogi|droga|cześć|witaj|lieber?|hallo|cher|chère|bonjour"
_NO_NAMES = frozenset(
    """Sir Madam Team All Customer Client Support Service Everyone Damen Herren Państwo Pan Pani Herr Frau
    Monsieur Madame Messieurs Mesdames Mr Mrs Ms Dr Prof Kunde Kundin Klient Bonjour""".split()  # noqa: SIM905
)

_NOT_WITHIN_A_WORD = r"(?<!\p{L})"
_SPACE = r"[ \t]{1,2}"
_WORD = r"\p{Lu}(?:\p{Ll}[\p{L}'’]{0,30}|['’]\p{Lu}\p{Ll}\p{L}{0,30}|\.)(?:-\p{Lu}\p{L}{1,30})?"
_CAPITALS = r"\p{Lu}{2,30}(?:-\p{Lu}{2,30})?"
_PARTICLES = r"(?:(?:von|van|vom|zu|zur|der|den|de|du|des|da|di|la|le|el|al|bin|af|of|d['’])\s?){0,2}"
_FURTHER = rf"(?:{_SPACE}{_PARTICLES}{_WORD})"
_IN_CAPITALS = rf"{_CAPITALS}(?:{_SPACE}{_PARTICLES}{_CAPITALS}){{0,3}}"
_NAME = rf"({_PARTICLES}(?:{_IN_CAPITALS}(?!\p{{L}})|{_WORD}(?:{_FURTHER}|{_SPACE}{_CAPITALS}){{0,3}}))"
_FULL_NAME = rf"({_WORD}{_FURTHER}{{1,3}})"
_END = r"(?=[ \t]?[,.;!?\n]|\s(?:and|i|und|et)\s|\s*$)"

_PERSONS = tuple(
    regex.compile(_NOT_WITHIN_A_WORD + pattern)
    for pattern in (
        rf"(?:(?:{_TITLES})\.?{_SPACE}){{1,3}}{_NAME}",
        rf"[pP]\.{_SPACE}{_NAME}",
        rf"(?i:{_INTRODUCTIONS}){_SPACE}{_NAME}",
        rf"(?i:{_BEINGS}){_SPACE}{_FULL_NAME}{_END}",
        rf"(?i:{_LABELS})[\"']?[ \t]?[:=][ \t]{{0,2}}[\"']?{_NAME}",
        rf"(?i:{_ROLES})[ \t]?:?{_SPACE}{_FULL_NAME}",
        rf"(?i:{_CLOSINGS})[,.!]?\s{{1,4}}{_NAME}",
        rf"(?i:{_GREETINGS}){_SPACE}{_NAME}[ \t]?[,!]",
    )
)

_HOUSE = r"\d{1,4}(?:[ \t]?[A-Za-z])?(?:[ \t]?[/-][ \t]?\d{1,4}[A-Za-z]?)?(?![\p{L}\d])"
_PLACE = rf"{_WORD}(?:[ \t-](?:{_WORD}|[IVX]{{1,4}}|i[ \t]{_WORD})){{0,3}}"
_CITY_WORD = r"\p{Lu}[\p{L}'’.-]{0,39}\p{L}"
_CITY = rf"{_CITY_WORD}(?:[ \t]{_CITY_WORD}){{0,2}}"
_THEN = r"[ \t]?[,;\n]?[ \t\n]{0,2}"
_POLISH_CITY = rf"\d{{2}}-\d{{3}}{_SPACE}{_CITY}"
_FIVE_FIGURES_CITY = rf"(?:[DF]-)?\d{{5}}{_SPACE}(?!EUR|Euro){_CITY}"
_UK_POSTCODE = r"(?:GIR ?0AA|[A-PR-UWYZ][A-HK-Y]?\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{2})"

_POLISH_WAYS = (
    r"(?:(?i:ul|al|pl|os)\.[ \t]?|(?i:ulic[aąyę]|alei|aleja|alejach|plac|placu|osiedl[eau])[ \t])"
    r"(?:\d{1,2}[ \t])?"
)
_FLAT = r"(?:[ \t]?(?:/|m\.?|lok\.?)[ \t]?\d{1,4})?"
_GERMAN_WAYS = (
    r"(?:\p{Lu}[\p{L}-]{0,40}(?:(?i:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer)|chaussee)"
    r"|\p{Lu}\p{L}{1,20}[ -](?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Ring|Damm|Ufer))"
)
_FRENCH_WAYS = (
    r"(?i:rue|avenue|av\.|boulevard|bd\.?|place|chemin|impasse|allée|quai|route|cours|square|passage|cité|villa)"
    r"[ \t](?:(?:de|du|des|la|le|les|à|aux)[ \t]|[ld]['’]){0,3}"
)
_FRENCH_PLACE = rf"{_WORD}(?:[ \t-](?:(?:de|du|des|la|le|et)[ \t-]){{0,2}}{_WORD}){{0,3}}"
_A_FLAT = r"(?:Flat|Studio|Unit|Apartment)[ \t]\w{1,4}"
_FLAT_IN = rf"(?:{_A_FLAT},?[ \t])?"
_ENGLISH_WAYS = (
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Close|Drive|Dr|Way|Court|Ct|Crescent|Gardens|Grove|Hill|Place|Row"
    r"|Square|Terrace|Mews|Park|Walk|Boulevard|Blvd|View|Rise|Green)(?!\p{L})"
)

_ADDRESSES = tuple(
    regex.compile(rf"(?<![\p{{L}}\d])({pattern})")
    for pattern in (
        rf"{_POLISH_WAYS}{_PLACE}[ \t]\d{{1,4}}(?:[A-Za-z](?!\p{{L}}))?{_FLAT}(?:{_THEN}{_POLISH_CITY})?",
        rf"(?<!-){_POLISH_CITY}",
        rf"{_GERMAN_WAYS}[ \t]{_HOUSE}(?:{_THEN}{_FIVE_FIGURES_CITY})?",
        rf"\p{{Lu}}[\p{{L}}-]{{1,30}}(?:[ \t][\p{{L}}-]{{2,30}}){{0,3}}[ \t]"
        rf"{_HOUSE}{_THEN}{_FIVE_FIGURES_CITY}",
        rf"\d{{1,4}}(?:[ \t]?(?:bis|ter|quater))?,?[ \t]{_FRENCH_WAYS}{_FRENCH_PLACE}"
        rf"(?:{_THEN}{_FIVE_FIGURES_CITY})?",
        rf"{_FRENCH_WAYS}{_FRENCH_PLACE}{_THEN}{_FIVE_FIGURES_CITY}",
        rf"(?<=[,\n][ \t]?){_FIVE_FIGURES_CITY}",
        rf"{_FLAT_IN}{_HOUSE}[ \t]{_PLACE}[ \t]{_ENGLISH_WAYS}"
        rf"(?:{_THEN}{_CITY})?(?:{_THEN}{_UK_POSTCODE})?",
        rf"(?:{_FLAT_IN}{_HOUSE}|{_A_FLAT},?)[ \t]{_PLACE}(?:{_THEN}{_CITY}){{1,2}}{_THEN}{_UK_POSTCODE}",
        rf"{_UK_POSTCODE}(?![\p{{L}}\d])",
    )
)


_MONTHS = (
    r"january|february|march|april|may|june|july|august|september|october|november|december"
    r"|stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|września|października|listopada|grudnia"
    r"|januar|februar|märz|mai|juni|juli|oktober|dezember"
    r"|janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre"
)
_BORN = r"born|birth|dob|urodz\p{L}*|ur\.|geboren|geburt\p{L}*|geb\.|née?|naissance"
_DAY = r"\d{1,2}(?:st|nd|rd|th|er|\.)?[ \t](?i:of )?"
_BIRTHS = regex.compile(
    rf"(?<!\p{{L}})(?i:{_BORN})[^\n\d]{{0,25}}((?:{_DAY})?(?i:{_MONTHS})(?:[ \t]\d{{1,2}},)?[ \t]\d{{4}})"
)

_MAIL_NAME, _MAIL_PART = r"(?<![\p{L}\d._+-])[\p{L}\d._+-]{2,40}", r"[\p{L}\d-]{2,40}"
_OPEN, _CLOSE = r" ?[(\[{] ?", r" ?[)\]}] ?"
_SIGNS = (("at", "dot"), ("małpa", "kropka"), ("arobase", "point"), ("ät", "punkt"), ("at", "punkt"))
_MAILS = tuple(
    (
        dot,
        regex.compile(
            rf"({_MAIL_NAME}(?:{_OPEN}(?i:{at}|@){_CLOSE}{_MAIL_PART}"
            rf"(?:(?:\.|{_OPEN}(?i:{dot}|\.){_CLOSE}| (?i:{dot}) ){_MAIL_PART}){{1,3}}"
            rf"| (?i:{at}) {_MAIL_PART}(?: (?i:{dot}) {_MAIL_PART}){{1,3}}))"
        ),
    )
    for at, dot in _SIGNS
)
_IN_BRACKETS = regex.compile(r"[(\[{] ?(?i:@|[a-zäł]{2,7}) ?[)\]}]")

_BETWEEN = (
    r"pesel|nip|tel|telefon|phone|mobile?|nr|number|passport|paszport|dow[oó]d|e-?mail|id|iban|konto|account"
    r"|ur|urodz\p{L}*|born|geb|geboren|née?|le|am|w|in|on|dnia|zam|zamieszk\p{L}*|wohnhaft|living|of|at|demeurant|au"
)
_BEFORE_A_FINDING = regex.compile(
    rf"{_NOT_WITHIN_A_WORD}{_FULL_NAME}[ \t]?[,;(<\n–-][ \t\n]{{0,2}}"
    rf"(?:(?i:{_BETWEEN})[.:]?[ \t]{{1,2}}){{0,3}}$"
)
_BEGIN_NO_NAME = frozenset(
    """The This That My Your Our His Her Their Please Der Die Das Dem Den Ein Eine Mein Meine Ihr Ihre Unser
    Unsere In Am Im Bitte Le La Les Un Une Mon Ma Mes Votre Notre Vos Nos Mój Moja Moje Nasz Nasza Wasz
    Proszę""".split()  # noqa: SIM905
)


_POLISH_SERIES = regex.compile(
    r"(?<!\p{L})(?i:seri[aię])[ \t:]{1,2}(\p{Lu}{2,3}[ \t,]{1,2}(?i:nr|numer)[.:]?[ \t]{0,2}\d{6,7})(?!\d)"
)


def name_before(text: str, start: int) -> Finding | None:
    """The name right before something that was found: `Jan Kowalski, PESEL 44…`, `Anna Nowak <anna@…`."""
    begin = max(start - NAME_BEFORE, 0)
    found = _BEFORE_A_FINDING.search(text[begin:start])
    if found is None or not (_NO_NAMES | _BEGIN_NO_NAME).isdisjoint(found[1].split()):
        return None
    return Finding(begin + found.start(1), begin + found.end(1), PERSON, LIKELY, found[1])


def persons_and_addresses(text: str, words: str) -> Iterator[Finding]:
    """In a plain text; `words` is the same text folded."""
    if any(map(text.__contains__, "0123456789")):
        yield from _with_figures(text)
    bracketed = _IN_BRACKETS.search(text)
    for dot, pattern in _MAILS:
        for found in pattern.finditer(text) if bracketed or dot in words else ():
            yield Finding(found.start(1), found.end(1), MAIL, LIKELY, found[1])
    for pattern in _PERSONS:
        for found in pattern.finditer(text):
            if not _NO_NAMES.issuperset(found[1].split()):
                yield Finding(found.start(1), found.end(1), PERSON, LIKELY, found[1])


def _with_figures(text: str) -> Iterator[Finding]:
    for found in _POLISH_SERIES.finditer(text):
        yield Finding(found.start(1), found.end(1), "PL_ID_CARD", LIKELY, found[1])
    for found in _BIRTHS.finditer(text):
        yield Finding(found.start(1), found.end(1), BIRTH, LIKELY, found[1])
    for pattern in _ADDRESSES:
        for found in pattern.finditer(text):
            yield Finding(found.start(1), found.end(1), ADDRESS, LIKELY, found[1])
