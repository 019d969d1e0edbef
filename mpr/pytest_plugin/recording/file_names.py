"""Makes the file names of recordings from node ids of tests.

The names are short and have only ASCII letters, digits and the characters `_.=[]-`, because some file systems and
artifact stores of CI services refuse other names.

Covers: the name of a recording, and creating a file of this name that no other attempt of the test uses.
Does not cover: asking a marker or a hook for a name that the user has chosen (`recorder.py`).
"""

from __future__ import annotations

import re

from mpr.pytest_plugin.recording import system
from mpr.pytest_plugin.recording.system import System

# The largest size in bytes of a name without its digest, and of a whole path. Some systems refuse paths of 260 bytes
# and more.
_STEM_BYTES = 100
_PATH_BYTES = 240
_DIGEST_CHARACTERS = 8
# All other characters are replaced, because artifact stores refuse them or shells give them a meaning.
_REFUSED = re.compile(r"[^A-Za-z0-9_.=\[\]-]+")
# `--dist loadgroup` of pytest-xdist adds the name of a group to the node id, after an @. If a bracket follows the @,
# the @ belongs to a parameter of the test, and not to a group.
_GROUP = re.compile(r"@[^\]\[]*$")


def without_group(nodeid: str) -> str:
    """Return `nodeid` without the group name (`@group`) that `--dist loadgroup` of pytest-xdist adds to node ids."""
    head, bracket, tail = nodeid.rpartition("]")
    if bracket:
        return head + bracket + _GROUP.sub("", tail)
    path, colons, name = nodeid.rpartition("::")
    return path + colons + _GROUP.sub("", name)


def stem(nodeid: str, folder: str = "") -> str:
    """Return a file name without suffix for the recording of the test `nodeid` in `folder`.

    The name ends with a digest of the node id, because node ids may differ only in characters that are replaced. The
    part before the digest has at most 100 characters. It has fewer (but at least 8) if `folder` is a long path, because
    some systems refuse long paths.
    """
    nodeid = without_group(nodeid)
    digest = System.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    # 24 bytes are for the rest of the path: a slash, a dash, the longest suffix (`-retry99.rrd`), and the name of a
    # worker.
    left = _PATH_BYTES - len(folder.encode("utf-8", "surrogateescape")) - len(digest) - 24
    return f"{clean(nodeid)[: max(8, min(_STEM_BYTES, left))]}-{digest}"


def clean(name: str) -> str:
    """Return `name` with only ASCII letters, digits and the characters `_.=[]-`.

    Letters lose their accents, and other characters outside ASCII are removed. Adjacent ASCII characters that are not
    allowed become one dash. Dashes and dots at both ends are removed. If nothing is left, return "test".
    """
    ascii_name = System.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return _REFUSED.sub("-", ascii_name).strip("-.") or "test"


def reserve(folder: str, name: str, first_attempt: int = 0) -> tuple[str, int]:
    """Create an empty file in `folder` for an attempt of a test. Return the name of the file and the attempt.

    The name is `<name>.rrd` for attempt 0, `<name>-retry1.rrd` for attempt 1, and so on. The attempt is
    `first_attempt`, or the next one whose file does not exist. A file may exist because another worker has run the test
    before, or because two tests have the same name. Raises `OSError` if no file can be created.
    """
    attempt = first_attempt
    while True:
        file = f"{name}-retry{attempt}.rrd" if attempt else f"{name}.rrd"
        try:
            system.create(f"{folder}/{file}")
        except FileExistsError:
            attempt += 1
        else:
            return file, attempt
