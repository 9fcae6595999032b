"""The tags of a model version that hold digests: one tag `hone.digests`, or a tag for each in versions made before.

Only tags that are searched for, or compared on their own, are separate tags (`hone.register_key`, `hone.rows_digest`,
`hone.files_sha256`): MLflow shows all tags on a version's page, and its first lines are for people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

PREFIX = "hone."
SWEPT = "hone.sweep_values"  # JSON of the values that a sweep chose, by field
DIGESTS = "hone.digests"
_SEPARATE = ("hone.rows_digest", "hone.files_sha256")
_DIGEST = re.compile(r"hone\.\w+_(digest|sha256)")


def fold_digests(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags with all digests in one, `hone.digests`, as JSON: `{"data_digest": ...}`; folded tags stay so."""
    digests, separate = _read_digests(tags), {}
    for name, value in tags.items():
        if _DIGEST.fullmatch(name) and name not in _SEPARATE:
            digests[name.removeprefix(PREFIX)] = value
        elif name != DIGESTS:
            separate[name] = value
    return separate | ({DIGESTS: json.dumps(digests, indent=1)} if digests else {})


def unfold_digests(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags with each digest as a tag of its own, as all versions had them before."""
    separate = {name: value for name, value in tags.items() if name != DIGESTS}
    return {f"{PREFIX}{name}": value for name, value in _read_digests(tags).items()} | separate


def _read_digests(tags: Mapping[str, str]) -> dict[str, str]:
    """The digests in the tag `hone.digests`; none if a person edited it into something else."""
    try:
        digests = json.loads(tags.get(DIGESTS) or "{}")
    except ValueError:
        return {}
    return {name: str(value) for name, value in digests.items()} if isinstance(digests, dict) else {}
