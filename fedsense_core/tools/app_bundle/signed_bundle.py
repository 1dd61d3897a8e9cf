"""The signed bundle that a coordinator's runs start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedsense_core.tools.app_bundle.bundle import Bundle, BundleError
from fedsense_core.tools.app_bundle.signatures import Signatures, file_beside, read_signatures


@dataclass(frozen=True)
class SignedBundle:
    """A bundle and the signatures beside it."""

    bundle: Bundle
    signatures: Signatures


def read_agreed(folder: Path) -> SignedBundle | None:
    """Read the signed bundle in ``folder``, where a coordinator keeps the app in use; None where
    there is no bundle.

    Raises BundleError where there are several, or where it is not signed.
    """
    paths = sorted(folder.glob("*.fab"))
    if not paths:
        return None
    if len(paths) > 1:
        raise BundleError(
            f"{folder} holds {len(paths)} bundles ({', '.join(path.name for path in paths)}), but one is the app in "
            "use: take the others out"
        )
    bundle, beside = Bundle.read(paths[0]), file_beside(paths[0])
    signatures = read_signatures(beside)
    signatures.check_bundle(bundle, str(beside))
    return SignedBundle(bundle, signatures)
