"""The spool's files, through any crash: what was fsynced is read back, whole and in order."""

import json
import logging
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zaaz_client import (
    OffsetOutOfRange,
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    SpoolOfAnotherWriter,
    spooled_events,
)
from zaaz_client.spool.blocks import encode_block
from zaaz_client.spool.files import Directory
from zaaz_client.spool.log import SpoolLog
from zaaz_client.spool.segments import Segment
from zaaz_client.wire import encode_event

from .peer import event

WRITER = "w"
MIB = 1024 * 1024

steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(st.just("acknowledge"), st.integers(0, 6)),
        st.tuples(st.just("close"), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 400)),
        st.tuples(st.just("skip"), st.integers(1, 3)),
    ),
    max_size=25,
)


def opened(path: Path, max_bytes: int = 16 * MIB) -> SpoolLog:
    return SpoolLog(path, WRITER, max_bytes)


def chunk(index: int, size: int = 0) -> bytes:
    made = event(index)
    made.labels["note"] = "x" * size
    return encode_event(made)


def read_all(log: SpoolLog, start: int) -> list[bytes]:
    events: list[bytes] = []
    while log.end is not None and start + len(events) < log.end:
        events += log.read(start + len(events))
    return events


class Twin:
    """A log with small segments, beside the plainest account of what it should hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = self._open()
        self.log.meet(0)
        self.events: list[bytes] = []
        """All there ever were; those of offsets that were skipped are empty."""
        self.acknowledged = 0

    def _open(self) -> SpoolLog:
        log = opened(self.path)
        log._segment_bytes = 500
        return log

    def append(self, count: int) -> None:
        made = [chunk(len(self.events) + index) for index in range(count)]
        self.log.append(len(self.events), made, self.acknowledged)
        self.events += made

    def acknowledge(self, count: int) -> None:
        self.acknowledged = min(self.acknowledged + count, len(self.events))
        self.log.release(self.acknowledged)

    def skip(self, count: int) -> None:
        """Events were delivered from memory: all before the next one is acknowledged."""
        self.events += [b""] * count
        self.acknowledged = len(self.events)
        self.append(1)

    def close(self, _: int) -> None:
        self.log.close(self.acknowledged)
        self._go_on()

    def crash(self, torn: int) -> None:
        """kill -9 while a block was being written."""
        self.log._directory.close()  # the kernel does it
        files = sorted(self.path.glob("*.log"))
        if files:
            block = _block(self.path, len(self.events))
            with files[-1].open("ab") as file:
                file.write(block[: min(torn, len(block) - 1)])
        self._go_on()

    def _go_on(self) -> None:
        self.log = self._open()
        assert self.log.meet(self.acknowledged) == 0

    def check(self) -> None:
        log = self.log
        if log.end is None:
            assert self.acknowledged == len(self.events)
            return
        assert log.first is not None
        assert log.first <= self.acknowledged or log.first == log.end
        assert log.end == len(self.events)
        assert read_all(log, self.acknowledged) == self.events[self.acknowledged :]
        if log.first < log.end:  # from anywhere in a block
            assert read_all(log, log.end - 1) == self.events[-1:]
        assert log.used_bytes == sum(path.stat().st_size for path in self.path.glob("*.log"))


def _block(path: Path, position: int) -> bytes:
    """What would come next."""
    return encode_block(position, [chunk(position), chunk(position + 1)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@given(actions=steps)
@settings(max_examples=60, deadline=None)
def test_nothing_fsynced_is_lost_or_moved(actions: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as path:
        twin = Twin(Path(path))
        for name, argument in actions:
            getattr(twin, name)(argument)
            twin.check()
        twin.log.close()


def three_blocks(place: Path) -> tuple[Path, list[list[bytes]], list[int]]:
    """A segment of three blocks; their events, and where each begins in the file."""
    log = opened(place)
    log.meet(0)
    blocks = [[chunk(0), chunk(1)], [chunk(2)], [chunk(3), chunk(4), chunk(5)]]
    begins = []
    for block in blocks:
        begins.append(log.used_bytes)
        log.append(log.end or 0, block, 0)
    log._directory.close()
    (file,) = place.glob("*.log")
    return file, blocks, begins


def test_cut_anywhere_it_holds_the_blocks_that_are_whole(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, blocks, begins = three_blocks(place)
    whole = file.read_bytes()
    ends = [*begins[1:], len(whole)]
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        caplog.clear()
        log = opened(place)
        held = sum(end <= size for end in ends)
        assert read_all(log, 0) == [one for block in blocks[:held] for one in block]
        assert file.stat().st_size == log.used_bytes == [0, *ends][held]
        assert bool(caplog.records) == (size not in (0, *ends)), size
        log.append(log.end or 0, [b"next"], 0)
        assert read_all(log, log.end or 0) == []
        log._directory.close()


def test_bytes_of_the_last_write_may_arrive_in_any_order(place: Path) -> None:
    file, blocks, begins = three_blocks(place)
    whole = file.read_bytes()
    chance = random.Random(1)
    for _ in range(100):
        torn = bytearray(whole)
        for byte in chance.sample(range(begins[2], len(whole)), chance.randint(1, 40)):
            torn[byte] ^= chance.randint(1, 255)
        file.write_bytes(torn)
        log = opened(place)
        assert read_all(log, 0) == blocks[0] + blocks[1]
        log._directory.close()


def test_damage_before_what_was_written_later_is_named(place: Path) -> None:
    file, blocks, begins = three_blocks(place)
    whole = file.read_bytes()
    for byte in range(begins[2]):
        damaged = bytearray(whole)
        damaged[byte] ^= 1
        file.write_bytes(damaged)
        begin = max(begin for begin in begins if begin <= byte)
        with pytest.raises(SpoolDamaged, match=rf"{file.name} is damaged at byte {begin}$"):
            opened(place)
    assert [e.usage_key for e in spooled_events(place, skip_damaged=True)] == [
        "key-0", "key-1", "key-3", "key-4", "key-5",
    ]  # fmt: skip
    with pytest.raises(SpoolDamaged):
        list(spooled_events(place))
    file.write_bytes(whole)
    assert len(list(spooled_events(place))) == sum(map(len, blocks))


def test_damage_in_an_older_file_is_found_when_it_is_read(place: Path) -> None:
    log = opened(place)
    log._segment_bytes = 100
    log.meet(0)
    for index in range(9):
        log.append(index, [chunk(index)], 0)
    log._directory.close()
    files = sorted(place.glob("*.log"))
    middle = files[len(files) // 2]
    whole = middle.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"?", b"", b"?" + whole):
        middle.write_bytes(damaged)
        log = opened(place)
        with pytest.raises(SpoolDamaged, match=middle.name):
            read_all(log, 0)
        log._directory.close()
    middle.unlink()
    log = opened(place)
    with pytest.raises(SpoolDamaged):
        read_all(log, 0)
    log._directory.close()


def test_a_directory_is_one_streams_and_one_writers(place: Path) -> None:
    log = opened(place)
    with pytest.raises(SpoolInUse, match=str(place)):
        opened(place)
    with pytest.raises(SpoolInUse):
        list(spooled_events(place))
    log.close()
    with pytest.raises(SpoolOfAnotherWriter, match="'w', not of 'v'"):
        SpoolLog(place, "v", MIB)
    opened(place).close()
    assert place.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("note", "raised"),
    [
        ("", SpoolDamaged),
        ("[]", SpoolDamaged),
        ('{"format": 1}', SpoolDamaged),
        ('{"format": 1, "writer_id": "w", "shift": "3"}', SpoolDamaged),
        ('{"format": 2}', SpoolError),
    ],
)
def test_a_note_that_is_none_is_told(place: Path, note: str, raised: type[SpoolError]) -> None:
    opened(place).close()
    (place / "spool.json").write_text(note)
    with pytest.raises(raised):
        opened(place)
    (place / "spool.json").write_text(json.dumps({"format": 1, "writer_id": "w"}))
    opened(place).close()


def test_events_without_their_note_are_nobodys(place: Path) -> None:
    three_blocks(place)
    (place / "spool.json").unlink()
    with pytest.raises(SpoolDamaged, match="missing"):
        opened(place)


@pytest.mark.parametrize("trouble", ["file", "nowhere"])
def test_a_directory_that_cannot_be_is_told(tmp_path: Path, trouble: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        opened(tmp_path / "file" / ("below" * (trouble == "nowhere")))


# Where the server stands


@pytest.fixture
def used(place: Path) -> Iterator[SpoolLog]:
    """Events 10 to 15, and nobody has said what became of them."""
    log = opened(place)
    log.meet(10)
    log.append(10, [chunk(index) for index in range(10, 16)], 10)
    log.close()
    log = opened(place)
    yield log
    log.close()


@pytest.mark.parametrize("stands", [10, 12, 16])
def test_it_goes_on_where_the_server_stands(used: SpoolLog, stands: int) -> None:
    assert used.meet(stands) == 0
    assert read_all(used, stands) == [chunk(index) for index in range(stands, 16)]


def test_a_server_that_has_more_gets_all_again_under_new_offsets(
    used: SpoolLog, place: Path
) -> None:
    assert used.meet(500) == 6
    assert (used.first, used.end) == (500, 506)
    events = [chunk(index) for index in range(10, 16)]
    assert read_all(used, 500) == events
    used.append(506, [chunk(99)], 500)
    used.close(502)
    again = opened(place)
    assert again.meet(502) == 0
    assert read_all(again, 502) == [*events[2:], chunk(99)]
    again.close()


def test_a_server_that_has_less_than_is_kept_is_refused(used: SpoolLog) -> None:
    with pytest.raises(OffsetOutOfRange, match="another writer_id"):
        used.meet(9)
    assert read_all(used, 10) == [chunk(index) for index in range(10, 16)]


def test_an_empty_spool_goes_anywhere_but_back(used: SpoolLog, place: Path) -> None:
    used.meet(16)
    used.close(16)
    again = opened(place)
    assert (again.first, again.end, again.used_bytes) == (16, 16, 0)
    with pytest.raises(OffsetOutOfRange):
        again.meet(15)
    assert again.meet(40) == 0
    again.append(40, [b"next"], 40)
    assert read_all(again, 40) == [b"next"]
    again.close()


@pytest.mark.parametrize("restarts", [0, 2])
def test_events_taken_before_the_server_was_heard_of_are_never_taken_for_sent(
    used: SpoolLog, place: Path, restarts: int
) -> None:
    """The server has six more of this writer than this spool, which comes out of a backup."""
    used.begin_alone()
    used.append(16, [chunk(index) for index in range(100, 110)], 10)
    used.close()
    log = opened(place)
    for _ in range(restarts):
        log.begin_alone()
        log.append(log.end or 0, [chunk(110)], 10)
        log.close()
        log = opened(place)
    assert log.meet(22) == 16 + restarts
    assert read_all(log, 22)[:16] == [chunk(i) for i in (*range(10, 16), *range(100, 110))]
    log.close()
    log = opened(place)
    assert log.meet(25) == 0
    log.close()


# Space


def test_it_takes_no_more_than_its_bytes_until_some_are_acknowledged(place: Path) -> None:
    log = opened(place, MIB)
    log.meet(0)
    big = [chunk(index, 60_000) for index in range(50)]
    taken = 0

    def fill() -> None:
        nonlocal taken
        while True:
            log.append(taken, [big[taken]], 0)
            taken += 1

    with pytest.raises(SpoolFull, match="max_bytes is 1,048,576"):
        fill()
    assert MIB - 70_000 < log.used_bytes <= MIB
    assert sum(path.stat().st_size for path in place.glob("*.log")) <= MIB
    assert log.releasable_at is not None
    assert log.releasable_at <= taken // 2
    log.release(log.releasable_at)
    log.append(taken, [big[taken]], log.releasable_at)
    assert read_all(log, 10) == big[10 : taken + 1]
    log.append(taken + 1, [b"x" * 900_000], taken + 1)  # what is acknowledged makes room by itself
    assert read_all(log, taken + 1) == [b"x" * 900_000]
    log.close(taken + 2)
    assert sum(path.stat().st_size for path in place.glob("*.log")) == 0


def test_a_failed_fsync_takes_back_what_was_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(place)
    log.meet(0)
    log.append(0, [chunk(0)], 0)
    real = os.fsync

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(SpoolFull, match="Input/output error"):
        log.append(1, [chunk(1), chunk(2)], 0)
    image = place.with_name("image")
    shutil.copytree(place, image)
    monkeypatch.setattr(os, "fsync", real)
    assert len(list(spooled_events(image))) == 1
    log.append(1, [chunk(7)], 0)
    assert read_all(log, 0) == [chunk(0), chunk(7)]
    log.close()


def test_a_file_whose_name_was_not_made_durable_leaves_no_gap(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(place)
    log.meet(0)
    real = Directory.sync

    def broken(_: Directory) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Directory, "sync", broken)
    with pytest.raises(SpoolFull):
        log.append(0, [chunk(0)], 0)
    with pytest.raises(SpoolFull):  # meanwhile events were delivered from memory
        log.append(5, [chunk(5)], 5)
    monkeypatch.setattr(Directory, "sync", real)
    log.append(7, [chunk(7)], 7)
    log._directory.close()
    log = opened(place)
    assert log.meet(7) == 0
    assert (log.first, read_all(log, 7)) == (7, [chunk(7)])
    log.close()


def test_torn_bytes_are_told_once(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, _, begins = three_blocks(place)
    os.truncate(file, begins[2] + 5)
    with caplog.at_level(logging.WARNING, "zaaz_client"):
        opened(place).close()
        opened(place).close()
    (record,) = caplog.records
    assert f"{file}: cut 5 bytes" in record.getMessage()
    assert f"at byte {begins[2]}" in record.getMessage()


def test_what_another_process_has_inherited_does_not_stay_locked(place: Path) -> None:
    log = opened(place)
    lock = log._directory._lock
    assert lock is not None
    inherited = os.dup(lock)  # as after a fork
    log.close()
    opened(place).close()
    os.close(inherited)


def test_space_comes_back_although_no_file_can_be_made(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(place, MIB)
    log.meet(0)
    for offset in range(6):
        log.append(offset, [b"x" * 150_000], 0)
    used = log.used_bytes

    def full(_: Segment) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "create", full)
        with pytest.raises(OSError, match="No space"):
            log.release(6)
    assert log.used_bytes < used / 2
    log.close(6)


def test_a_disk_without_room_for_the_note_is_told(
    used: SpoolLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Directory, "keep", full)
    with pytest.raises(SpoolError, match="No space left"):
        used.begin_alone()
