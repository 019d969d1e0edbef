"""Rows go to every sink. One that fails is given up, and the first error is the one that counts."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import mpr
from mpr.aggregator.fanout import Fanout
from mpr.rrd import framing
from mpr.rrd.segment import MessageBytes, Segment
from tests import producers, support


def _segment(fanout: Fanout, number: int) -> Segment:
    stream = producers.whole(number)
    frames = [each for each in framing.frames_of(stream) if each.kind != framing.END]
    return Segment(fanout.new_outbox(), MessageBytes(0, stream), frames)


def test_sinks_that_fail_one_after_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.rrd", "two.rrd", "three.rrd")]
    writers = [producers.new_file(path) for path in paths]
    fanout = Fanout(writers, None, producers.encode_notes, producers.NoObserver(), producers.STORE)
    reported: list[mpr.SinkError] = []
    fanout.watch_failures(reported.append)
    assert fanout.write(_segment(fanout, 1)) == 1
    os.truncate(paths[1], 20)
    fanout.write(_segment(fanout, 2))
    os.truncate(paths[0], 20)
    fanout.write(_segment(fanout, 3))
    assert [str(error).count("two.rrd") for error in reported] == [1, 0]
    assert fanout.failure is reported[0]
    assert fanout.writers == [writers[2]]
    # The files that have failed are closed, so that their paths can be used again.
    for path in paths[:2]:
        producers.new_file(path).abort()
    writers[2].close()
    support.check_file(paths[2])
    assert support.numbers(paths[2]) == Counter([1, 2, 3])
    assert fanout.accepted_chunks == 3
