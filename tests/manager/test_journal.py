"""The journal's files: kept entries survive any crash in their order, and belong to one process at a time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.manager import journal as journals
from litellm_budget_plugin.manager import journal_file as journal_files
from litellm_budget_plugin.manager.journal import Journal, deliver_dead_letters
from litellm_budget_plugin.manager.journal_file import DEAD_LETTERS, Entry, JournalFile
from tests.stores.desk import charge_of
from tests.stores.processes import Child

PLACE = "redis://host/0"


def _holds(file: JournalFile) -> list[str | None]:
    return [None if entry is None else entry.command.hold for _, entry in file.next(1_000)]


def _claimed(directory: Path, place: str = PLACE) -> Journal:
    journal = Journal(str(directory), place)
    journal.claim()
    return journal


def _files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.exists() else []


def test_what_was_kept_comes_back_in_its_order(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), PLACE)
    assert _files(tmp_path / "j") == []
    journal.keep([charge_of("a"), Release("b", "p")])
    journal.keep([charge_of("c")])
    assert journal.waiting == 3
    journal.close()
    again = _claimed(tmp_path / "j")
    file = again.first()
    assert file is not None and _holds(file) == ["a", "b", "c"]
    [(_, entry), *_] = file.next(1)
    # A charge counts on the day on which it was made, not on the day of its delivery.
    assert entry is not None and isinstance(entry.command, Settle) and entry.command.at == entry.at
    again.close()


EARLIER = (
    b'5683f1be {"at":1774734000000000,"command":{"type":"Settle","hold":"a","project":"p","subjects":[["user","alice"]],'
    b'"models":["gpt-4o"],"cost":9,"model":"gpt-4o","input_tokens":5,"output_tokens":6,"calls":1,'
    b'"defaults":[["user","none",1000,"","usd",0]],"parent":null,"aliases":["response"],"unless":null,"thresholds":[],'
    b'"at":1774734000000000,"rolls":[],"now":null}}\n'
)
"""A line that an earlier version wrote."""


@pytest.mark.parametrize(("checksum", "thresholds"), [(b"5683f1be", b"[]"), (b"529330a3", b"[800000,1000000]")])
def test_what_an_earlier_version_has_kept_is_delivered(tmp_path: Path, checksum: bytes, thresholds: bytes) -> None:
    line = EARLIER.replace(b"5683f1be", checksum).replace(b'"thresholds":[]', b'"thresholds":' + thresholds)
    journal = Journal(str(tmp_path / "j"), PLACE)
    journal.keep([charge_of("b")])
    [path] = (tmp_path / "j").iterdir()
    journal.close()
    path.write_bytes(line)
    file = _claimed(tmp_path / "j").first()
    assert file is not None
    [(_, entry)] = file.next(10)
    assert entry == Entry(1774734000000000, Settle(
        "a", "p", (Subject("user", "alice"),), ("gpt-4o",), 9, "gpt-4o", 5, 6,
        defaults=(Default("user", "none", 1000),), aliases=("response",), at=1774734000000000,
    ))  # fmt: skip


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), PLACE)
    journal.keep([charge_of("a")])
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "j").iterdir()] == [0o600]
    journal.close()


def test_a_file_that_was_delivered_is_removed(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), PLACE)
    journal.keep([charge_of("a"), charge_of("b")])
    file = journal.first()
    assert file is not None
    file.passed([line for line, _ in file.next(1)])
    assert _holds(file) == ["b"] and journal.waiting == 1
    file.passed([line for line, _ in file.next(1)])
    assert journal.first() is None and _files(tmp_path) == []
    journal.keep([charge_of("c")])
    assert journal.waiting == 1 and len(_files(tmp_path)) == 1
    journal.close()


def test_a_journal_of_another_store_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), PLACE)
    journal.keep([charge_of("a")])
    journal.close()
    other = _claimed(tmp_path, "redis://host/1")
    assert other.first() is None and len(_files(tmp_path)) == 1


def test_a_living_process_keeps_its_file_and_a_dead_one_s_is_taken_over(tmp_path: Path) -> None:
    def live(line: Child) -> None:
        Journal(str(tmp_path), PLACE).keep([charge_of("a")])
        line.tell()
        line.wait()

    child = Child(live)
    child.wait()
    assert _claimed(tmp_path).first() is None
    os.kill(child.pid, signal.SIGKILL)
    child.result()
    journal = _claimed(tmp_path)
    file = journal.first()
    assert file is not None and _holds(file) == ["a"]
    # Only one process can claim it.
    assert _claimed(tmp_path).first() is None
    journal.close()


def test_a_forked_child_lets_go_of_its_parent_s_file(tmp_path: Path) -> None:
    """Otherwise a worker that outlives its parent would keep other processes from delivering the parent's charges."""
    journal = Journal(str(tmp_path), PLACE)
    journal.keep([charge_of("a")])

    def worker(line: Child) -> None:
        journal.close()
        line.tell()
        line.wait()

    child = Child(worker)
    child.wait()
    assert _claimed(tmp_path).first() is None, "the parent's lock went with the child's"
    journal.close()
    adopted = _claimed(tmp_path)
    assert adopted.first() is not None
    adopted.close()
    child.tell()
    child.result()


@pytest.mark.parametrize("cut", [1, 9, 30, -1])
def test_an_entry_that_was_never_finished_does_not_count(tmp_path: Path, cut: int) -> None:
    journal = Journal(str(tmp_path), PLACE)
    journal.keep([charge_of("a"), charge_of("b")])
    journal.close()
    [path] = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:cut])
    file = JournalFile.claim(str(path))
    assert file is not None and _holds(file) == ["a", None]
    assert file.waiting == 1
    file.release()


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b'"cost":10', b'"cost":90'),
        lambda line: b"garbage\n",
        lambda line: b"\n",
        lambda line: b"\xff" + line,
    ],
)
def test_a_damaged_entry_is_seen(tmp_path: Path, damage: object) -> None:
    journal = Journal(str(tmp_path), PLACE)
    journal.keep([charge_of("a"), charge_of("b"), charge_of("c")])
    journal.close()
    [path] = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage(lines[1]) + lines[2])  # type: ignore[operator]
    file = JournalFile.claim(str(path))
    assert file is not None and _holds(file) == ["a", None, "c"]
    file.release()


def test_a_write_that_fails_keeps_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that becomes full in the middle of an entry must not damage the next entry."""
    journal = Journal(str(tmp_path), PLACE)
    journal.keep([charge_of("a")])

    def full(descriptor: int, data: bytes) -> int:
        written: int = write(descriptor, data[:20])
        monkeypatch.setattr(journals.os, "write", fail)
        return written

    def fail(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    write = os.write
    monkeypatch.setattr(journals.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        journal.keep([charge_of("b")])
    monkeypatch.setattr(journals.os, "write", write)
    assert journal.waiting == 1
    journal.keep([charge_of("c")])
    file = journal.first()
    assert file is not None and _holds(file) == ["a", "c"]
    journal.close()


def test_everything_kept_survives_death_in_mid_write(tmp_path: Path) -> None:
    """A process is killed while it writes. Every entry that it reported as kept is whole, and there once."""
    for round_ in range(20):
        directory = tmp_path / str(round_)

        kept_read, kept_write = os.pipe()

        def work(line: Child, directory: Path = directory, kept_write: int = kept_write) -> None:
            journal, number = Journal(str(directory), PLACE), 0
            while True:
                journal.keep([charge_of(f"h{number}-{part}") for part in range(5)])
                os.write(kept_write, f"{number}\n".encode())
                number += 1
                if number == 2:
                    line.tell()

        child = Child(work)
        os.close(kept_write)
        child.wait()
        for _ in range(round_ * 3_000):
            pass
        os.kill(child.pid, signal.SIGKILL)
        child.result()
        with open(kept_read) as said:
            acknowledged = [int(line) for line in said.read().splitlines()]
        journal = _claimed(directory)
        file = journal.first()
        assert file is not None
        found = [hold for hold in _holds(file) if hold is not None]
        expected = [f"h{number}-{part}" for number in acknowledged for part in range(5)]
        assert found[: len(expected)] == expected and len(found) == len(set(found)) <= len(expected) + 5
        journal.close()


def test_an_empty_file_of_a_process_that_died_at_once_is_cleared_away(tmp_path: Path) -> None:
    JournalFile.create(str(tmp_path), journals.store_digest(PLACE)).release()
    assert _claimed(tmp_path).first() is None and _files(tmp_path) == []


def test_entries_set_aside_are_whole_lines(tmp_path: Path) -> None:
    file = JournalFile.create(str(tmp_path), "d")
    file.append([Entry(1, charge_of("a"))])
    [(line, _)] = file.next(1)
    path = file.add_dead_letters([line, b"torn"])
    assert Path(path).read_bytes() == line + b"torn\n"
    file.remove()
    assert [name.endswith(DEAD_LETTERS) for name in _files(tmp_path)] == [True]


def test_a_file_that_its_owner_has_just_removed_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner removes it between its opening and its locking. No process would ever find entries that are written to it later."""
    owner = JournalFile.create(str(tmp_path), "d")
    lock = journal_files.lock

    def removed_meanwhile(descriptor: int) -> bool:
        owner.remove()
        return lock(descriptor)

    monkeypatch.setattr(journal_files, "lock", removed_meanwhile)
    assert JournalFile.claim(owner.path) is None


def test_what_is_set_aside_during_a_delivery_stays(tmp_path: Path) -> None:
    """A service may add to the file after it is read and before the delivered entries are taken out."""
    journal = Journal(str(tmp_path), "store")
    journal.keep([charge_of("first"), charge_of("later")])
    file = journal.first()
    assert file is not None
    first, later = (line for line, _ in file.next(2))
    path = file.add_dead_letters([first, b"damaged\n"])

    def send(commands: list[Settle | Release]) -> None:
        assert [command.hold for command in commands] == ["first"]
        file.add_dead_letters([later])

    assert deliver_dead_letters(path, send) == 1
    assert Path(path).read_bytes() == b"damaged\n" + later
    assert Path(path).stat().st_mode & 0o777 == 0o600
    journal.close()


def test_two_deliveries_of_one_file_at_once(tmp_path: Path) -> None:
    """The delivery that ends last finds its entries already taken out, and takes out nothing else."""
    journal = Journal(str(tmp_path), "store")
    journal.keep([charge_of("first"), charge_of("later")])
    file = journal.first()
    assert file is not None
    first, later = (line for line, _ in file.next(2))
    path = file.add_dead_letters([first])

    def deliver_too(_: list[Settle | Release]) -> None:
        deliver_dead_letters(path, lambda _: None)

    assert deliver_dead_letters(path, deliver_too) == 1
    assert not Path(path).exists()

    def deliver_too_and_add(_: list[Settle | Release]) -> None:
        deliver_dead_letters(path, lambda _: None)
        file.add_dead_letters([later])

    file.add_dead_letters([first])
    deliver_dead_letters(path, deliver_too_and_add)
    assert Path(path).read_bytes() == later
    journal.close()


def test_half_an_entry_that_cannot_be_taken_back_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(tmp_path), PLACE)
    journal.keep([charge_of("a")])
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:20])
        raise OSError(5, "Input/output error")

    def stuck(descriptor: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(journals.os, "write", half)
        broken.setattr(journals.os, "ftruncate", stuck)
        with pytest.raises(OSError, match="Input/output"):
            journal.keep([charge_of("b")])
    journal.keep([charge_of("c")])
    journal.close()
    again = _claimed(tmp_path)
    assert sorted(hold for file in again._files for hold in _holds(file) if hold) == ["a", "c"]
    again.close()


def test_a_file_that_cannot_be_made_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(journals.os, "rename", fail)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="Read-only"):
            Journal(str(tmp_path), PLACE).keep([charge_of("a")])
    assert len(os.listdir("/proc/self/fd")) == before
