"""Get the tests of libraries from the package index, with all that they need. The versions are fixed.

The tests of most libraries are only in their source distribution. The libraries themselves, and what their tests need,
are installed into one folder, which is used only for these tests. Git ignores both.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FOLDER = ROOT / ".library-tests"

#: The libraries whose tests run, and then what these tests need. All are named, so that nothing else is installed.
PACKAGES = (
    "structlog==26.1.0", "loguru==0.7.2", "freezegun==1.5.5", "responses==0.26.3", "requests-mock==1.12.1",
    "pytest-mock==3.17.0", "tenacity==9.2.1",
    "certifi==2026.10.19.post1", "charset-normalizer==3.5.3", "colorama==0.4.6", "fixtures==4.3.2", "idna==3.20",
    "markdown-it-py==4.3.0",
    "MarkupSafe==3.0.4", "mdurl==0.1.2", "pbr==7.1.3", "pretend==1.0.9", "purl==1.6", "pygments==2.21.0",
    "pytest-httpserver==1.2.0", "python-dateutil==4.0.0", "PyYAML==6.0.4", "requests==2.34.2",
    "requests-futures==1.1.0", "rich==15.0.0", "simplejson==4.3.0", "six==1.17.0", "testtools==2.9.1",
    "time-machine==3.6.0", "tomli-w==1.2.0", "urllib3==2.8.0", "werkzeug==3.1.9",
)  # fmt: skip
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")


def installed() -> Path:
    """Return the folder with all `PACKAGES`. Install them first if needed."""
    known = hashlib.sha256("\n".join((sys.version, *PACKAGES)).encode()).hexdigest()[:12]
    folder = _FOLDER / f"packages-{known}"
    if not folder.exists():
        _FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_FOLDER) as part:
            _call([*_PIP, "install", "--no-deps", "--target", f"{part}/packages", *PACKAGES])
            os.rename(f"{part}/packages", folder)
    return folder


def source(requirement: str) -> Path:
    """Return the folder with the source distribution of `requirement`, such as "structlog==26.1.0"."""
    name, _, _ = requirement.partition("==")
    folder = _FOLDER / requirement
    if not folder.exists():
        _FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_FOLDER) as part:
            _call([*_PIP, "download", "--no-deps", "--no-binary", name, "--dest", part, requirement])
            (archive,) = Path(part).glob("*.tar.gz")
            with tarfile.open(archive) as opened:
                opened.extractall(f"{part}/source", filter="data")
            (unpacked,) = Path(part, "source").iterdir()
            os.rename(unpacked, folder)
    return folder


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
