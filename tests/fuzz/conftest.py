"""Random inputs: a few seconds of them in `make test`, as many as the night has room for in `make fuzz`."""

from hypothesis import HealthCheck, settings

EXAMPLES = 2_000
"""Of each test in one round of `make fuzz`; rounds follow one another, each with another seed."""

# Registered where pytest reads it before it starts: `--hypothesis-profile` names it.
settings.register_profile(
    "fuzz", max_examples=EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)
