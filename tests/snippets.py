"""Run the snippets of README.md and docs/ as a reader would run them.

Every `python` and `sh` block runs in a folder of its own. A `text` block right after it is its output, stdout and
stderr together; `...` in it stands for any text. Otherwise:

- `<!-- not run: the reason -->` before a block: the block does not run.
- `<!-- needs: ray, torch -->` before a block: it is skipped if one of these cannot be imported.
- `title="worker.py"` after the language: the block is a file in the folders of the blocks that follow on the page. One
  of them runs or imports it.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>not run|needs): (?P<what>.+?) -->\n+)?"
    r"^```(?P<language>python|sh)(?P<info>[^\n]*)\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """A block of a page that is run.

    Attributes
    ----------
    place:
        Its page and line, as in a traceback.
    language:
        'python' or 'sh'.
    output:
        The output that the page shows; None if it shows none.
    needs:
        Modules that must be importable.
    files:
        The blocks with a title that stand before it on the page.
    """

    place: str
    language: str
    code: str
    output: str | None
    needs: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Return the modules in `needs` that cannot be imported here."""
        found = []
        for name in self.needs:
            try:
                importlib.import_module(name)
            except ImportError:
                found.append(name)
        return found

    def run(self, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run it in `folder`. If the page shows its output, stderr goes to stdout."""
        for name, code in self.files.items():
            (folder / name).write_text(code)
        if self.language == "python":
            (folder / "script.py").write_text(self.code)
            command = [sys.executable, "script.py"]
        else:
            command = ["sh", "-e", "-c", self.code]
        return subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self.output is None else subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
            # The snippet finds the `python` and `mpr` of the tests. Unbuffered, lines of both streams keep their order.
            env={
                **os.environ,
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "PYTHONUNBUFFERED": "1",
            },
        )

    def prints(self, output: str) -> bool:
        """Return whether `output` is the one that the page shows."""
        pattern = ".*?".join(map(re.escape, (self.output or "").split("...")))
        return re.fullmatch(pattern, output, re.DOTALL) is not None


def snippets_of(page: str, name: str) -> Iterator[Snippet]:
    """Yield all snippets of a page that run. Raise `ValueError` for a file that none of them uses."""
    files: dict[str, str] = {}
    unused: set[str] = set()
    for block in _BLOCK.finditer(page):
        if block["how"] == "not run":
            continue
        title = _TITLE.search(block["info"])
        unused -= {each for each in unused if re.search(rf"\b{re.escape(Path(each).stem)}\b", block["code"])}
        if title is not None:
            files = {**files, title["title"]: block["code"]}
            unused.add(title["title"])
            continue
        yield Snippet(
            place=f"{name}:{page.count(chr(10), 0, block.start('code'))}",
            language=block["language"],
            code=block["code"],
            output=block["output"],
            needs=tuple(re.split(r",\s*", block["what"])) if block["how"] == "needs" else (),
            files=files,
        )
    if unused:
        raise ValueError(f"{name}: nothing on the page runs or imports {', '.join(sorted(unused))}")


def all_snippets() -> list[Snippet]:
    """Return the snippets of all pages."""
    return [snippet for page in PAGES for snippet in snippets_of(page.read_text(), page.relative_to(ROOT).as_posix())]
