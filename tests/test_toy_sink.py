"""A sink is one file: this one has a sink of its own, which nothing in mpr knows, and which works as the others do."""

from __future__ import annotations

import ast
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.rrd import framing
from mpr.rrd.segment import Segment
from mpr.sinks.base import OpenContext, Sink, Writer
from tests import support, tasks

_SOURCES = Path(mpr.__file__).parent


@dataclass(frozen=True, kw_only=True)
class ToySink(Sink):
    """A file with a line of JSON for each segment: its task, how many chunks, how many bytes."""

    path: Path

    def _places(self) -> tuple[str, ...]:
        return (str(self.path.resolve()),)

    def open(self, context: OpenContext) -> ToyWriter:
        return ToyWriter(self.path, context.recording_id)


class ToyWriter(Writer):
    def __init__(self, path: Path, recording_id: str) -> None:
        self._path = path
        self._file = path.open("w")
        self._write(recording=recording_id)

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def paths(self) -> list[Path]:
        return [self._path]

    def open(self, preamble: bytes) -> None:
        self._write(preamble=len(framing.frames_of(preamble)))

    def accept(self, segment: Segment, *, published: bool) -> None:
        if segment.telemetry or not published:
            return
        if self._path.with_name("full").exists():
            raise mpr.SinkError(28, f"cannot write {self._path}: No space left on device")
        chunks = [frame for frame in segment.frames if frame.kind == framing.ARROW_MSG]
        payloads = [segment.source.read(frame.payload, frame.size) for frame in chunks]
        self._write(chunks=len(chunks), bytes=sum(map(len, payloads)))

    def close(self) -> None:
        self._write(closed=True)
        self._file.close()

    def abort(self) -> None:
        self._write(closed=False)
        self._file.close()

    def _write(self, **values: Any) -> None:
        print(json.dumps(values), file=self._file, flush=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sink_that_mpr_does_not_know_gets_every_row(start_method: Any, tmp_path: Path) -> None:
    toy, path = tmp_path / "toy.jsonl", tmp_path / "run.rrd"
    sinks = [ToySink(path=toy), path]
    with mpr.Pool("app", 2, sinks=sinks, recording_id="mine", start_method=start_method) as pool:
        assert pool.recording.paths == [toy, path]
        for number in range(5):
            pool.apply(tasks.log_number, (number,))
            # The rows of a result are in this sink too when the result is there.
            assert sum(line.get("chunks", 0) for line in _lines(toy)) == number + 1
        pool.map(tasks.log_number, range(5, 40), chunksize=1)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(40))
    lines = _lines(toy)
    assert lines[0] == {"recording": "mine"}
    assert lines[1]["preamble"] >= 2
    assert lines[-1] == {"closed": True}
    assert sum(line.get("chunks", 0) for line in lines) == sum(
        str(chunk.entity_path) == "/n" for chunk in support.chunks(path)
    )


def test_a_sink_that_mpr_does_not_know_fails_as_the_others_do(tmp_path: Path) -> None:
    toy, path = tmp_path / "toy.jsonl", tmp_path / "run.rrd"
    pool = mpr.Pool("app", 1, sinks=[ToySink(path=toy), path])
    pool.map(tasks.log_number, range(3))
    (tmp_path / "full").touch()
    with pytest.raises(mpr.SinkError, match=r"cannot write .*toy\.jsonl: No space left"):
        pool.apply(tasks.log_number, (3,))
    pool.close()
    with pytest.raises(mpr.SinkError, match=r"toy\.jsonl"):
        pool.join()
    assert _lines(toy)[-1] == {"closed": False}
    support.check_file(path)
    assert support.numbers(path) == Counter(range(4))


def test_a_sink_says_what_it_cannot_do(tmp_path: Path) -> None:
    toy = ToySink(path=tmp_path / "toy.jsonl")
    with pytest.raises(mpr.ConfigError, match="a ToySink is neither"):
        mpr.Pool("app", 1, sinks=toy, route="direct")
    with pytest.raises(mpr.ConfigError, match=r"two sinks would use .*toy\.jsonl"):
        mpr.Pool("app", 1, sinks=[toy, toy])
    pytest.importorskip("rerun_notebook")
    with mpr.SharedRecording("app", sinks=toy) as recording, pytest.raises(mpr.SinkError, match="nothing to show"):
        recording.notebook_show()


def _names(node: ast.expr) -> set[str]:
    """The names within the second argument of `isinstance`, or within the pattern of a `case`."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def _kinds_asked_for(path: Path) -> set[str]:
    """The classes that a module asks objects for: by `isinstance`, `issubclass`, `type(...) is` or `match`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name("isinstance" | "issubclass"), args=[_, kinds]):
                found |= _names(kinds)
            case ast.MatchClass(cls=kind):
                found |= _names(kind)
            case ast.Compare(left=ast.Call(func=ast.Name("type")), comparators=kinds):
                found |= {name for kind in kinds for name in _names(kind)}
    return found


def test_no_module_asks_for_the_kind_of_a_sink() -> None:
    modules = [path for path in _SOURCES.rglob("*.py") if path.relative_to(_SOURCES).parts[0] not in ("sinks", "live")]
    asked = {(path.name, kind) for path in modules for kind in _kinds_asked_for(path)}
    assert ("aggregator.py", "Hello") in asked
    ours = {
        node.name
        for path in (_SOURCES / "sinks").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert {"FileSink", "StreamWriter", "LiveSink"} <= ours
    assert set() == {(file, kind) for file, kind in asked if kind.endswith("Sink") or kind in ours}
