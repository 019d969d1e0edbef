"""Names the recordings of a data set: the file of each task, and the id of its recording.

If two tasks would have the same name, the beginning of its digest is added to the name of each. It makes no difference
which task comes first. If a call is repeated with the same arguments, `-r1`, `-r2` and so on are added to the names.

Covers: names, ids, and tasks that would have the same name.
Does not cover: the form of a name (`template.py`), renaming files (`sinks/directory.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from mpr.datasets import digest as digests
from mpr.datasets.template import NameTemplate
from mpr.errors import ConfigError
from mpr.rrd.segment import TaskCall, TaskInfo

_DIGEST_CHARACTERS = 8
# The width of a number if the number of tasks is not known.
_WIDTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A task of a data set, in any of its attempts.

    Attributes
    ----------
    call:
        The description of the task.
    digest:
        The digest of the call and of the version. If the call has none, a text that no other task of the recording has.
    key:
        A text that is equal for two tasks if they would have the same name (without digests).
    repetition:
        How many earlier tasks had the same digest.
    same_name:
        How many earlier tasks had the same digest and the same key.
    """

    call: TaskCall
    digest: str
    key: str
    repetition: int
    same_name: int


class EpisodeNames:
    """Gives each task its name and the id of its recording. Any thread and any signal handler may call the methods.

    Parameters
    ----------
    template:
        The template of the names.
    application_id:
        The application id of the recordings. Tasks of another application get other recording ids.
    taken:
        A name that no task gets.
    version:
        A part of each digest; "" for none.
    one_file:
        True if all attempts of a task have one name and one recording id.
    earlier:
        The lines of the manifest (see `manifest.py`) for the recordings of earlier runs. Their tasks keep their names.
    """

    def __init__(
        self,
        template: NameTemplate,
        application_id: str,
        taken: str,
        *,
        version: str = "",
        one_file: bool = False,
        earlier: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._template = template
        self._application_id = application_id
        # Each change is one atomic call (`setdefault`, `add`, `next`), so there is no lock.
        self._serials = itertools.count()
        self._claims: dict[str, set[str]] = {}
        self._repetitions: dict[str, Iterator[int]] = {}
        self._same_names: dict[tuple[str, str], Iterator[int]] = {}
        self._episodes: WeakKeyDictionary[TaskCall | TaskInfo, Episode] = WeakKeyDictionary()
        # The names in use, in lower case, because some file systems do not distinguish the cases.
        self._names: dict[str, tuple[str, int, int]] = {taken: ("", 0, 0)}
        self._version = version
        self._one_file = one_file
        # The names of tasks of earlier runs, by digest and repetition.
        self._earlier: dict[tuple[str, int], str] = {}
        for line in earlier:
            digest, repetition, key = line.get("digest"), line.get("repetition"), line.get("key")
            if isinstance(digest, str) and isinstance(repetition, int):
                self._earlier[digest, repetition] = line["path"]
                self._names[line["path"].lower()] = digest, repetition, 0
                if isinstance(key, str):
                    self._claims.setdefault(key, set()).add(digest)

    def expect(self, calls: Sequence[TaskCall]) -> None:
        """Note the tasks `calls`, which will run. Raises `ConfigError` if one of them cannot have a name."""
        if "digest" in self._template.fields:
            for call in calls:
                check_digest(call, "the name has {digest}")
        keys = [self._key(call) for call in calls]
        for call, key in zip(calls, keys, strict=True):
            self._episodes[call] = self._claim(call, key)

    def episode(self, task: TaskInfo) -> Episode:
        """Return the episode of `task`. If `expect` has not got the call of `task`, makes a new episode.

        Raises `ConfigError` if a new episode cannot have a name.
        """
        owner: TaskCall | TaskInfo = task.call or task
        found = self._episodes.get(owner)
        if found is None:
            call = task.call or TaskCall({}, task.name, index=task.index)
            found = self._episodes[owner] = self._claim(call, self._key(call))
        return found

    def is_contested(self, key: str) -> bool:
        """Return True if tasks with different digests have the key `key`."""
        return len(self._claims.get(key, ())) > 1

    def name(self, task: TaskInfo) -> str:
        """Return the name of the file of `task`: a relative path with `/`. No other task has the same name.

        If `one_file` is False, other attempts at the task have other names.
        """
        episode = self.episode(task)
        is_contested = self.is_contested(episode.key)
        earlier = self._earlier.get((episode.digest, episode.repetition))
        found = earlier if earlier and not is_contested else self._filled(task, episode, with_digest=is_contested)
        owner = episode.digest, episode.repetition, self._attempt(task)
        if self._names.setdefault(found.lower(), owner) == owner:
            return found
        # The keys differ, but the names do not. For example, two pools of one recording have a task 0 each.
        for count in itertools.count(1):
            found = self._filled(task, episode, count, with_digest=bool(episode.call.digest))
            if self._names.setdefault(found.lower(), owner) == owner:
                break
        return found

    def contested_name(self, task: TaskInfo) -> str:
        """Return the name of `task` with the beginning of its digest.

        If another task wants the name that `name` returned for `task`, the file gets the name with the digest instead.
        """
        return self._filled(task, self.episode(task), with_digest=True)

    def recording_id(self, task: TaskInfo) -> str:
        """Return the recording id of `task`, 32 hexadecimal digits.

        If the call of `task` has a digest, the id is the same in every run that makes the same calls.
        """
        episode = self.episode(task)
        return digests.combined(self._application_id, episode.digest, str(episode.repetition), str(self._attempt(task)))

    def episode_of(self, call: TaskCall) -> Episode:
        """Return the episode of `call`, which `expect` has got."""
        return self._episodes[call]

    def _attempt(self, task: TaskInfo) -> int:
        return 0 if self._one_file else task.attempt

    def _claim(self, call: TaskCall, key: str) -> Episode:
        digest = call.digest or digests.combined("no digest", str(next(self._serials)))
        if self._version:
            digest = digests.combined(self._version, digest)
        self._claims.setdefault(key, set()).add(digest)
        return Episode(
            call=call,
            digest=digest,
            key=key,
            repetition=next(self._repetitions.setdefault(digest, itertools.count())),
            same_name=next(self._same_names.setdefault((key, digest), itertools.count())),
        )

    def _key(self, call: TaskCall) -> str:
        """Return the key of the episode of `call` (see `Episode`). Raises `ConfigError` as `expect` does."""
        fields = self._template.fields
        self._template.check_fields(call.arguments, call.function)
        values: dict[str, Any] = {**call.arguments, "name": call.function, "task": 0, "attempt": 1, "worker": 1}
        values |= {"index": call.index or 0, "digest": call.digest or ""}
        filled = self._template.filled(values.__getitem__, call.digest or "").lower()
        is_unique = "task" in fields or ("index" in fields and call.index is None)
        return f"{filled} {next(self._serials)}" if is_unique else filled

    def _filled(self, task: TaskInfo, episode: Episode, count: int = 1, *, with_digest: bool) -> str:
        """Return the name of `task`. If `with_digest` is True, the name has the beginning of the digest.

        If `count` is above 1, the name also has `count`.
        """
        call = episode.call
        values: dict[str, Any] = {
            **call.arguments,
            "name": task.name,
            "task": _Padded(task.number, None),
            "index": _Padded(task.index, call.length),
            "attempt": task.attempt,
            "worker": task.worker,
            "digest": episode.digest,
        }
        suffix = f"-{episode.digest[:_DIGEST_CHARACTERS]}" if with_digest else ""
        if episode.same_name:
            suffix += f"-r{episode.same_name}"
        if self._attempt(task) > 1 and "attempt" not in self._template.fields:
            suffix += f"-{task.attempt}"
        if count > 1:
            suffix += f"-{count}"
        return self._template.filled(values.__getitem__, episode.digest, suffix)


class _Padded(int):
    """A number that is written with leading zeros, unless the template has a format for it.

    Its width is the width of `length - 1`; if `length` is None, six digits.
    """

    _width: int

    def __new__(cls, value: int, length: int | None) -> _Padded:
        found = super().__new__(cls, value)
        found._width = _WIDTH if length is None else len(str(max(0, length - 1)))
        return found

    def __str__(self) -> str:
        return f"{int(self):0{self._width}d}"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)


def check_digest(call: TaskCall, reason: str) -> None:
    """Raise `ConfigError` if the call has no digest. `reason` says why it needs one."""
    if not call.digest:
        raise ConfigError(
            f"a task of {call.function} cannot run, because {reason}, and {call.obstacle or 'it has no digest'}. Give "
            "the class a method __mpr_digest__ that returns a value which identifies the object, or pass another value"
        )
