"""Names of institutions, as a site file may have them."""

from __future__ import annotations

from fedsense_core.data.sites.site_file import SITE_NAME
from fedsense_core.tools.deployment.documents import DeploymentError


def check_name(name: str) -> str:
    """Return a name. Raises DeploymentError for one that no site file can have."""
    if not SITE_NAME.fullmatch(name):
        raise DeploymentError(
            f"{name!r} is no name of an institution: 1 to 64 letters, digits, dots, underscores and hyphens, with a "
            "letter or digit at both ends, as in its site file"
        )
    return name
