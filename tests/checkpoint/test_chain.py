"""A directory of files: which checkpoints it holds, which files fit, and reading while others write."""

from __future__ import annotations

import gc
import json
import os
import resource
from pathlib import Path

import pytest

from _lib.checkpoint import forge
from _lib.checkpoint.forge import BASE, BLOCK, DELTA, RAW, ZSTD, Run
from _lib.checkpoint.places import flip, names_in
from _lib.support import in_child
from dirtytrack import ChainError, ClosedError
from dirtytrack.checkpoint.chain import Chain
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.memory import MemoryStore

pytestmark = pytest.mark.anywhere

NBYTES = 300 * BLOCK + 17


def _states(count=4):
    # The content of two regions, some blocks more of it with each state, and one that becomes zeros again.
    weights, small = bytearray(NBYTES), bytearray(b"small")
    states = []
    for number in range(1, count + 1):
        for at in (0, number, 100 + number, 270, 300):
            block = bytes([number, at % 256]) * (BLOCK // 2)
            weights[at * BLOCK : (at + 1) * BLOCK] = block[: NBYTES - at * BLOCK]
        weights[(number - 1) * BLOCK : number * BLOCK] = bytes(BLOCK)
        small[number % 5] = number
        states.append({"weights": bytes(weights), "small": bytes(small)})
    return states


STATES = _states()


@pytest.fixture
def files():
    return forge.history(STATES)


@pytest.fixture
def directory(place, files):
    """The chain, in a directory or in memory."""
    return forge.write(place, files)


@pytest.fixture
def on_disk(tmp_path, files):
    return forge.write(tmp_path / "chain", files)


def _numbers(chain):
    return [checkpoint.number for checkpoint in chain]


def _reasons(chain):
    return {int(problem.file[:10]): problem.reason for problem in chain.problems}


def _check(chain, states):
    # The chain has these states and no others, bit for bit. By number.
    assert _numbers(chain) == list(states)
    for number, state in states.items():
        for name, data in state.items():
            assert chain.read(name, at=number) == data


@pytest.mark.parametrize("encoding", [RAW, ZSTD])
@pytest.mark.parametrize("linear", [False, True])
def test_every_checkpoint_is_read(place, encoding, linear):
    """Every region at every checkpoint, as the states were; nothing is wrong."""
    directory = forge.write(
        place, forge.history(STATES, encoding=encoding, linear=linear and encoding == RAW)
    )
    (directory / "lock").write_bytes(b"")
    (directory / ".0123456789abcdef.tmp").write_bytes(b"left")
    (directory / "notes.txt").write_bytes(b"mine")
    with Chain(directory) as chain:
        _check(chain, dict(enumerate(STATES, 1)))
        assert chain.problems == chain.verify() == ()


def test_a_chain_says_what_it_holds(directory, files):
    """Each checkpoint with all that its file says, found by number and by identifier."""
    with Chain(directory) as chain:
        assert (chain.path, chain.id, len(chain)) == (Path(str(directory)), forge.CHAIN.hex(), 4)
        assert tuple(chain) == chain.checkpoints
        assert chain.newest is chain[4] is chain[forge.checkpoint_id(4).hex()]
        for checkpoint, file in zip(chain, files, strict=True):
            described = file.description()
            assert (checkpoint.number, checkpoint.id) == (file.number, file.checkpoint.hex())
            assert checkpoint.parent == (file.parent.hex() if file.number > 1 else None)
            assert checkpoint.kind == ("base" if file.number == 1 else "delta")
            assert (checkpoint.created, checkpoint.meta) == (described["created"], described["meta"])
            assert (checkpoint.statistics, checkpoint.consistency) == (described["statistics"], "proven")
            assert checkpoint.consistent
            assert checkpoint.nbytes == len((directory / file.name).read_bytes())
            assert checkpoint.files == tuple(other.name for other in files[: file.number])
            assert [(region.name, region.nbytes) for region in checkpoint.regions] == [
                ("weights", NBYTES),
                ("small", 5),
            ]
        assert repr(chain) == f"<dirtytrack.checkpoint.Chain in {directory}: 4 checkpoints, newest 4>"


@pytest.mark.parametrize(
    ("word", "consistent"), [("proven", True), ("paused", True), ("stopped", True), ("unproven", False)]
)
def test_consistency_is_told(place, word, consistent):
    """As the file has it."""
    (file,) = forge.history(STATES[:1])
    file.more = {"consistency": word}
    with Chain(forge.write(place, [file])) as chain:
        assert (chain.newest.consistency, chain.newest.consistent) == (word, consistent)


def test_slices_are_read(directory):
    """Any bytes of a region, at any checkpoint."""
    with Chain(directory) as chain:
        for start, stop in [(0, 1), (BLOCK - 1, BLOCK + 1), (5, NBYTES - 5), (NBYTES - 1, NBYTES), (7, 7)]:
            for number, state in enumerate(STATES, 1):
                assert chain.read("weights", start, stop, at=number) == state["weights"][start:stop]
        assert chain.read("weights", BLOCK) == STATES[-1]["weights"][BLOCK:]
        assert chain.read("small", stop=2) == STATES[-1]["small"][:2]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 6), (6, None)])
def test_a_slice_lies_within_the_region(directory, start, stop):
    """Else it is a ValueError that says how long that is."""
    with (
        Chain(directory) as chain,
        pytest.raises(ValueError, match="not within the 5 bytes of region 'small'"),
    ):
        chain.read("small", start, stop)


@pytest.mark.parametrize("at", [0, 5, -1, "", "4", "4" * 32])
def test_an_checkpoint_that_is_not_there(directory, at):
    """The error says which are."""
    with (
        Chain(directory) as chain,
        pytest.raises(ChainError, match=r"no complete checkpoint .*; it has 1, 2, 3, 4"),
    ):
        chain[at]


@pytest.mark.parametrize("at", [True, 1.0, None, b"4"])
def test_what_names_no_checkpoint(directory, at):
    """Is a TypeError."""
    with Chain(directory) as chain, pytest.raises(TypeError, match="by its number or its identifier"):
        chain[at]


def test_a_region_that_is_not_there(directory):
    """The error says which are."""
    with (
        Chain(directory) as chain,
        pytest.raises(ChainError, match=r"no region 'bias'. It has weights, small"),
    ):
        chain.read("bias")


def test_without_a_chain_there_is_an_error(tmp_path):
    """Of the kind that says what is there instead."""
    with pytest.raises(FileNotFoundError) as missing:
        Chain(tmp_path / "no")
    assert str(missing.value.filename) == str(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Chain(tmp_path / "file")
    with pytest.raises(ChainError, match="holds no checkpoint"):
        Chain(tmp_path)
    with pytest.raises(TypeError):
        Chain(7)


def test_a_chain_without_an_intact_checkpoint_is_open_all_the_same(directory, files):
    """So that one can ask what is wrong; the newest is an error that says so too."""
    flip(directory / files[0].name, 0)
    with Chain(directory) as chain:
        assert (len(chain), chain.checkpoints) == (0, ())
        assert list(_reasons(chain)) == [1, 2, 3, 4]
        with pytest.raises(ChainError, match=r"no complete checkpoint.*1\.base: it is no checkpoint file"):
            chain.newest  # noqa: B018
        with pytest.raises(ChainError, match=r"no complete checkpoint 1; it has none. .*no checkpoint file"):
            chain[1]
        assert repr(chain).endswith(f"{directory}: 0 checkpoints, 4 problems>")
    for file in files[1:]:
        (directory / file.name).unlink()
    with Chain(directory) as chain:
        assert chain.id is None


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_what_stands_on_a_missing_file_is_no_checkpoint(directory, files, lost):
    """It and all after it, each with its reason; what came before is read."""
    (directory / files[lost - 1].name).unlink()
    with Chain(directory) as chain:
        _check(chain, dict(enumerate(STATES[: lost - 1], 1)))
        reasons = _reasons(chain)
        assert list(reasons) == list(range(lost + 1, 5))
        if lost < 4:
            assert (
                reasons.pop(lost + 1)
                == f"its parent, checkpoint {files[lost - 1].checkpoint.hex()}, is damaged or not there"
            )
        for number, reason in reasons.items():
            assert reason == f"its parent {files[number - 2].name} can't be used"


def test_a_base_made_later_makes_the_shorter_way(directory, files):
    """Of two files for a checkpoint the base counts, and what stood on its parents needs them no more."""
    base = forge.base_of(files[2], STATES[2])
    base.write(directory)
    with Chain(directory) as chain:
        _check(chain, dict(enumerate(STATES, 1)))
        assert [checkpoint.files[0] for checkpoint in chain] == [
            files[0].name,
            files[0].name,
            base.name,
            base.name,
        ]
        assert [checkpoint.kind for checkpoint in chain] == ["base", "delta", "base", "delta"]
    for file in files[:2]:
        (directory / file.name).unlink()
    with Chain(directory) as chain:  # the delta of the base's checkpoint is left over, and no problem
        _check(chain, {3: STATES[2], 4: STATES[3]})
        assert chain.problems == ()


def test_one_of_two_files_for_an_checkpoint_may_be_damaged(directory, files):
    """Then the other is used, as soon as that is found; both are needed for nothing."""
    base = forge.base_of(files[2], STATES[2])
    (offset,) = (entry[4] for entry in base.payload()[1] if entry[2] == 101)
    flip(base.write(directory), offset)
    with Chain(directory) as chain:
        assert chain[4].files == (base.name, files[3].name)
        assert chain.problems == ()
        assert chain.read("weights", at=4) == STATES[3]["weights"]
        assert chain[4].files == tuple(file.name for file in files)
        assert [problem.file for problem in chain.problems] == [base.name]
        _check(chain, dict(enumerate(STATES, 1)))
    with Chain(directory) as chain:
        assert [problem.file for problem in chain.verify()] == [base.name]


def test_branches_stand_side_by_side(directory, files):
    """Two checkpoints with one parent; the newest is that with the greatest number."""
    branch = forge.File(5, [Run(1, 0, b"other")], files[0].regions, DELTA, forge.checkpoint_id(2))
    branch.write(directory)
    with Chain(directory) as chain:
        _check(chain, {**dict(enumerate(STATES, 1)), 5: {**STATES[1], "small": b"other"}})
        assert chain.newest.number == 5
        assert chain.newest.parent == chain[2].id


def test_a_delta_has_the_table_of_its_base(tmp_path):
    """Wherever the base has its regions."""
    files = forge.history(STATES, linear=True)
    forge.write(tmp_path, files)
    with Chain(tmp_path) as chain:
        assert [region.linear for region in chain[1].regions] == [65536, 65536 * 20]
        for checkpoint in chain.checkpoints[1:]:
            assert checkpoint.regions == tuple(region.at(None) for region in chain[1].regions)
        assert chain.region("small", at=4) == chain[4].regions[1]
        _check(chain, dict(enumerate(STATES, 1)))


def test_a_delta_names_the_table_of_its_parent(directory, files):
    """With another one it does not fit."""
    files[3].more = {"table": "5" * 32}
    files[3].write(directory)
    with Chain(directory) as chain:
        assert _numbers(chain) == [1, 2, 3]
        assert "table of regions differs" in _reasons(chain)[4]


MISFITS = {
    "another length": ({"nbytes": 6}, True),
    "another dtype": ({"dtype": "<i1", "shape": [5]}, True),
    "another name": ({"name": "other"}, True),
    "another page size": ({"page_size": 65536}, False),
}


@pytest.mark.parametrize(("change", "is_refused"), MISFITS.values(), ids=MISFITS)
def test_bases_of_one_checkpoint_have_the_same_regions(directory, files, change, is_refused):
    """But for the page size."""
    base = forge.base_of(files[2], STATES[2])
    base.write(directory)
    base.regions, base.runs = [base.regions[0], {**base.regions[1], **change}], []
    base.file = b"\xffanother"
    base.write(directory)
    with Chain(directory) as chain:
        assert len(chain) == 4
        assert [problem.file for problem in chain.problems] == [base.name] * is_refused


def test_numbers_grow_from_parent_to_child(directory, files):
    """A file that stands on a later one, one with its number, or itself is no checkpoint; nor is a base."""
    later = forge.File(5, [], files[0].regions, DELTA, forge.checkpoint_id(9))
    above = forge.File(9, [], files[0].regions, DELTA, forge.checkpoint_id(5))
    itself = forge.File(6, [], files[0].regions, DELTA, forge.checkpoint_id(6))
    base = forge.File(3, [], files[0].regions, BASE, forge.checkpoint_id(4), b"another state 3".ljust(16))
    same = forge.File(
        4, [], files[0].regions, DELTA, forge.checkpoint_id(4), b"another state 4 ", file=b"sameeight"[:8]
    )
    same.checkpoint = same.checkpoint.ljust(16)
    for file in (later, above, itself, same, base):
        file.write(directory)
    with Chain(directory) as chain:
        assert _numbers(chain) == [1, 2, 3, 4]
        reasons = {problem.file: problem.reason for problem in chain.problems}
        for file, parent in ((later, above), (same, files[3]), (base, files[3])):
            assert reasons[file.name] == f"its number is not greater than that of its parent {parent.name}"
        assert reasons[itself.name] == "its header holds impossible values"
        assert _reasons(chain)[9] == f"its parent {later.name} can't be used"


@pytest.mark.parametrize(
    "change",
    [
        {"number": 5},
        {"parent": forge.checkpoint_id(1)},
        {"kind": BASE, "regions": [forge.region("a", 1)], "file": b"\xffanother"},
        {"more": {"table": "5" * 32}},
    ],
    ids=[*"nprt"],
)
def test_files_for_one_checkpoint_agree(directory, files, change):
    """One that claims the checkpoint of another and differs from it is no way to it, and disturbs nobody."""
    forge.base_of(files[2], STATES[2]).write(directory)
    as_it_is = {"number": 3, "runs": [], "regions": files[2].regions, "parent": files[2].parent}
    claimant = forge.File(
        **{**as_it_is, "kind": DELTA, "file": b"claimant", **change}, checkpoint=files[2].checkpoint
    )
    claimant.write(directory)
    with Chain(directory) as chain:
        _check(chain, dict(enumerate(STATES, 1)))
        assert [problem.file for problem in chain.problems] == [claimant.name]
        assert "claims to be the same state as" in chain.problems[0].reason


def test_two_chains_in_a_directory_are_an_error(directory, files):
    """Which one is meant is not guessed; the error names files of both."""
    foreign = forge.File(1, [], files[0].regions, chain=b"another chain   ", file=b"foreign!")
    foreign.write(directory)
    with pytest.raises(ChainError, match=r"files of several chains.*Move the foreign ones away") as caught:
        Chain(directory)
    assert foreign.name in str(caught.value)
    assert files[0].name in str(caught.value)


def test_two_continuations_of_a_chain_are_an_error(directory, files):
    """Two different checkpoints with one number: copies of a chain, both gone on with, in one directory."""
    other = forge.File(
        4, [], files[0].regions, DELTA, forge.checkpoint_id(3), b"another state 4!", file=b"continue"
    )
    other.write(directory)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(
        ChainError, match=f"two different checkpoints 4, .*{other.name}.*Move the files of one away"
    ):
        Chain(directory)
    assert os.listdir("/proc/self/fd") == before


def test_files_removed_later_stay_readable(directory):
    """The chain holds them open; it does not see what comes after it."""
    with Chain(directory) as chain:
        for path in [*directory.iterdir()]:
            path.unlink()
        _check(chain, dict(enumerate(STATES, 1)))
        assert chain.verify() == ()


def _after_listing(monkeypatch, act):
    # Each listing of a store is what this makes of it.
    for kind in (Directory, MemoryStore):
        monkeypatch.setattr(kind, "names", lambda store, names=kind.names: act(names(store)))


def _compact_after(directory, files, monkeypatch, listings):
    # A compaction to checkpoint 3, just after so many listings of the directory.
    seen = []

    def list_and_compact(names):
        seen.append(names)
        if len(seen) == listings:
            forge.base_of(files[2], STATES[2]).write(directory)
            for file in files[:3]:
                (directory / file.name).unlink()
        return names

    _after_listing(monkeypatch, list_and_compact)
    return seen


def test_files_that_vanish_on_the_way_are_no_problem(directory, files, monkeypatch):
    """A compaction between the listing and the opening: what replaced them is found by another listing."""
    listings = _compact_after(directory, files, monkeypatch, 1)
    with Chain(directory) as chain:
        _check(chain, {3: STATES[2], 4: STATES[3]})
        assert chain.problems == ()
    assert len(listings) == 3


def test_what_two_compactions_took_away_is_no_problem(directory, files, monkeypatch):
    """One while files are opened, another before the next listing: what lies between stands on nothing."""
    bases = [forge.base_of(files[place], STATES[place]) for place in (1, 3)]
    seen = []

    def list_between_compactions(names):
        if not seen:
            bases[0].write(directory)
            for file in files[:2]:
                (directory / file.name).unlink()
        elif len(seen) == 1:
            bases[1].write(directory)
            for file in (bases[0], *files[2:]):
                (directory / file.name).unlink()
            names = names_in(directory)
        seen.append(names)
        return names

    _after_listing(monkeypatch, list_between_compactions)
    with Chain(directory) as chain:
        _check(chain, {4: STATES[3]})
        assert chain.problems == ()


def test_what_appears_on_the_way_goes_with_the_rest(directory, files, monkeypatch):
    """A compaction after the files were opened: they are still there, and so is the new one."""
    _compact_after(directory, files, monkeypatch, 2)
    with Chain(directory) as chain:
        _check(chain, dict(enumerate(STATES, 1)))


def test_a_directory_that_never_rests(directory, monkeypatch):
    """Something new with each listing: in the end what was opened has to do."""
    number = iter(range(1, 1000))
    _after_listing(monkeypatch, lambda names: [*names, f"{next(number):010}-ffffffffffffffff.delta"])
    with Chain(directory) as chain:
        assert len(chain) == 4
    assert next(number) < 200


def _with_limit(soft, hard, path, function, others=0):
    def run():
        for _ in range(others):
            os.open(os.devnull, os.O_RDONLY)
        room = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (room + soft, room + hard))
        return function(path)

    return in_child(run).check()


def _open(path):
    with Chain(path) as chain:
        return chain.read("small"), resource.getrlimit(resource.RLIMIT_NOFILE)


def test_a_chain_of_many_files_is_opened(on_disk):
    """The soft limit of descriptors is raised to the hard one."""
    small, (soft, hard) = _with_limit(2, 40, on_disk, _open)
    assert small == STATES[-1]["small"]
    assert soft == hard


@pytest.mark.parametrize("left", range(2, 7))
@pytest.mark.parametrize("others", [0, 40])
def test_a_chain_of_too_many_files_is_read(on_disk, left, others):
    """Two descriptors are enough: one for the directory, and one for a file at a time.

    Where the program has more of its own, half of the limit is more than what is left.
    """
    small, _ = _with_limit(1, left, on_disk, _open, others)
    assert small == STATES[-1]["small"]


def test_verify_finds_what_opening_does_not(directory, files):
    """Damaged contents; the file is not used any more, and what stands on it neither."""
    offset = files[1].payload()[1][0][4]
    flip(directory / files[1].name, offset)
    with Chain(directory) as chain:
        assert (len(chain), chain.problems) == (4, ())
        problems = chain.verify()
        assert problems == chain.problems
        assert _reasons(chain)[2] == f"the segment at {offset} is damaged: the checksum does not fit"
        assert list(_reasons(chain)) == [2, 3, 4]
        assert str(problems[0]) == f"{files[1].name}: {problems[0].reason}"
        assert problems[0].number == 2
        _check(chain, {1: STATES[0]})


def test_verify_finds_what_only_a_mapping_would_show(tmp_path):
    """Bytes of a linear region that no entry names, wherever they are."""
    nbytes = 600 * BLOCK + 100
    rows = [forge.region("a", nbytes, linear=65536), forge.region("b", 3 * BLOCK, linear=65536 * 40)]
    runs = [
        Run(0, 1, b"x" * BLOCK, forge.IN_PLACE),
        Run(0, 2, 5),
        Run(0, 300, b"y" * 4 * BLOCK, forge.IN_PLACE),
    ]
    path = forge.File(1, runs, rows).write(tmp_path)
    whole = path.read_bytes()
    with Chain(tmp_path) as chain:
        assert chain.verify() == ()
    for at, found in (
        (0, True),
        (BLOCK, True),
        (3 * BLOCK, False),
        (299 * BLOCK, True),
        (nbytes - 1, True),
        (nbytes, False),
        (65536 * 39 + 2 * BLOCK, True),
    ):
        data = bytearray(whole)
        data[65536 + at] ^= 1
        path.write_bytes(data)
        with Chain(tmp_path) as chain:
            assert len(chain.verify()) == found, at


def test_verify_tells_how_far_it_is(directory, files):
    """In bytes of the files, growing, up to all of them."""
    told = []
    with Chain(directory) as chain:
        chain.verify(lambda done, total: told.append((done, total)))
    total = sum(len((directory / file.name).read_bytes()) for file in files)
    assert {of for _, of in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == total
    assert len(told) > len(files)


def test_damage_met_by_reading_is_an_error(directory, files):
    """It names the file, which is not used any more; nobody gets another checkpoint's bytes for it."""
    flip(directory / files[3].name, files[3].payload()[1][0][4])
    with Chain(directory) as chain:
        assert (
            chain.read("weights", 100 * BLOCK, 101 * BLOCK) == STATES[3]["weights"][100 * BLOCK : 101 * BLOCK]
        )
        with pytest.raises(
            ChainError, match=f"checkpoint 4 can't be read: {directory / files[3].name}: the segment at"
        ):
            chain.read("weights")
        _check(chain, dict(enumerate(STATES[:3], 1)))
        assert list(_reasons(chain)) == [4]


def test_a_closed_chain(directory):
    """Still says what it held, reads no more, and may be closed again."""
    with Chain(directory) as chain:
        pass
    chain.close()
    assert _numbers(chain) == [1, 2, 3, 4]
    assert repr(chain).endswith(", closed>")
    for use in (lambda: chain.read("small"), chain.verify, chain.__enter__):
        with pytest.raises(ClosedError, match="open another one"):
            use()


def test_a_chain_that_nobody_closed_warns(directory):
    """And closes its files."""
    before = os.listdir("/proc/self/fd")
    chain = Chain(directory)
    with pytest.warns(ResourceWarning, match="Chain in .* was never closed"):
        del chain
        gc.collect()
    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_may_not_be_read_costs_what_stands_on_it(on_disk, monkeypatch):
    """It is a problem of that file, as if it were damaged."""
    real, victims = os.open, []

    def refuse(path, *arguments, **keywords):
        if str(path).endswith(".delta"):
            victims.append(path)
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    with Chain(on_disk) as chain:
        assert {problem.file for problem in chain.problems} == set(victims)
        assert {problem.reason for problem in chain.problems} == {"it may not be read: Permission denied"}
        assert [checkpoint.kind for checkpoint in chain] == ["base"]


def test_checkpoints_are_small_things(tmp_path):
    """A long chain is no deep recursion, and its checkpoints hold no list of all files each."""
    count = 3000
    regions = [forge.region("small", 5)]
    files = [forge.File(1, [Run(0, 0, b"small")], regions)]
    files += [forge.File(at, [], regions, DELTA, forge.checkpoint_id(at - 1)) for at in range(2, count + 1)]
    with Chain(forge.write(tmp_path / "long", files)) as chain:
        assert len(chain.newest.files) == count
        assert chain.read("small") == b"small"
        assert json.dumps(repr(chain.newest))


def test_what_is_known_to_be_zeros(directory):
    """Of any bytes, at any checkpoint, and nothing is read for it: only what no run holds."""
    with Chain(directory) as chain:
        assert chain.is_zero("weights", 10 * BLOCK, 90 * BLOCK)
        assert chain.is_zero("weights", 7 * BLOCK + 5, 8 * BLOCK + 5)
        assert not chain.is_zero("weights", 100 * BLOCK, 102 * BLOCK)
        assert not chain.is_zero("weights")
        assert chain.is_zero("weights", 3, 3)
        assert chain.is_zero("weights", 3 * BLOCK, 4 * BLOCK, at=4)
        assert not chain.is_zero("weights", 3 * BLOCK, 4 * BLOCK, at=3)
        for start in range(0, NBYTES, BLOCK):
            stop = min(start + BLOCK, NBYTES)
            assert chain.is_zero("weights", start, stop) <= (not any(STATES[3]["weights"][start:stop]))
        with pytest.raises(ValueError, match="not within"):
            chain.is_zero("small", 0, 6)


def test_a_region_is_found_by_name(directory):
    """With its length and elements, at any checkpoint."""
    with Chain(directory) as chain:
        for at in (None, 1, forge.checkpoint_id(2).hex()):
            layout = chain.region("weights", at=at)
            assert (layout.name, layout.nbytes, layout.dtype) == ("weights", NBYTES, None)
        with pytest.raises(ChainError, match="no region 'bias'"):
            chain.region("bias")
        with pytest.raises(ChainError, match="no complete checkpoint 9"):
            chain.region("weights", at=9)


def test_what_the_chain_takes_on_the_disk(directory, files):
    """By file, also those that can't be used or are not complete, and not what is nobody's."""
    (directory / "notes.txt").write_bytes(b"mine")
    (directory / files[3].name).write_bytes(b"damaged")
    with Chain(directory) as chain:
        usage = chain.disk_usage()
        assert usage.keys() == {file.name for file in files}
        assert usage[files[0].name] >= BLOCK


def test_a_checkpoint_that_can_be_given_back_is_in_the_chain(directory, files):
    """As long as no file of it has turned out damaged."""
    flip(directory / files[2].name, files[2].payload()[1][0][4])
    with Chain(directory) as chain:
        checkpoints = chain.checkpoints
        assert all(one in chain for one in checkpoints)
        chain.verify()
        assert [one in chain for one in checkpoints] == [True, True, False, False]
        assert 1 not in chain
