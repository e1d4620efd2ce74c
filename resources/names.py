"""How tenants, models and versions may be called where a name becomes a path, an address or a served name."""

import re

TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # a DNS label
MODEL = re.compile(r"[a-z][a-z0-9_]{0,62}")  # models and base models
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
