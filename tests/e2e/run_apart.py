"""`llm-assets` whose work orders run on a node apart: `python -m tests.e2e.run_apart NODE run support_bot …`.

The one thing that is another is the compute of the profile.
"""

import sys
from dataclasses import replace
from pathlib import Path

from llm_assets.installation import profiles
from llm_assets.installation.settings import Settings
from tests.conftest import ROOT
from tests.contract.compute.stand_in_engine import make_package
from tests.contract.compute.unshared import UnsharedCompute

of_the_installation = profiles.profile_of


def apart(settings: Settings, node: Path) -> profiles.Profile:
    profile = of_the_installation(settings)
    compute = UnsharedCompute(
        store=profile.store,
        node=node,
        engines=settings.engines,
        image=node / "image",
        hidden=(ROOT, settings.root),
    )
    return replace(profile, compute=compute)


if __name__ == "__main__":
    node = Path(sys.argv.pop(1))
    make_package(node / "image")
    profiles.profile_of = lambda settings: apart(settings, node)

    from llm_assets.cli.main import main

    main()
