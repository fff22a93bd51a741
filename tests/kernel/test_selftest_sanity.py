"""Parity with tools/testing/selftests/mm/pagemap_ioctl.c, cases 1 to 35: arguments, limits and walk_end.

Written from a description of what each case states; the number in an id is the one that the selftest prints.
"""

from __future__ import annotations

import ctypes
import random

import numpy as np
import pytest

from _lib.kernel.area import ALL, TAKE, WRITTEN, Area, Lab
from _lib.support import PAGE_SIZE
from dirtytrack.errors import KernelError, UnsupportedError
from dirtytrack.kernel.pagemap import Category, ScanFlags, scan
from dirtytrack.kernel.support import HoleReporting, hole_reporting

WP = ScanFlags.WP_MATCHING


@pytest.fixture
def clean(lab: Lab) -> Area:
    """A thousand armed pages."""
    area = lab.armed(1000)
    area.arm()
    return area


def test_01_a_range_of_no_pages_holds_none(clean: Area) -> None:
    """Case 1: scanning an empty range is no error and yields nothing."""
    assert clean.part(0, 0).take().regions == []


def test_02_a_null_vector_with_room_is_refused(clean: Area) -> None:
    """Case 2: a NULL vec with vec_len above 0 is EINVAL."""
    with pytest.raises(KernelError, match="vec is NULL"):
        clean.take(vec=0, vec_len=1)


@pytest.mark.parametrize("vec", [bytearray(24), None], ids=["case 3: vec", "case 4: NULL"])
def test_03_04_a_vector_without_room_is_allowed(clean: Area, vec: bytearray | None) -> None:
    """Cases 3 and 4: vec_len 0 protects and reports nothing; refused where it may crash the kernel."""
    if hole_reporting() is HoleReporting.BLIND:
        with pytest.raises(UnsupportedError, match="without a vector"):
            clean.take(vec=vec, vec_len=0)
    else:
        assert clean.take(vec=vec, vec_len=0).regions == []


@pytest.mark.parametrize("flags", [(1 << 64) - 1, TAKE | 0xFF], ids=["case 5: all", "case 6: 0xff"])
def test_05_06_unknown_flags_are_refused(clean: Area, flags: int) -> None:
    """Cases 5 and 6: a flag that the kernel does not know is EINVAL."""
    with pytest.raises(KernelError, match="flags has the unknown bits"):
        clean.get(flags=flags)


def test_07_empty_masks_match_everything(clean: Area) -> None:
    """Case 7: with no mask every page of the range matches, as one region without categories."""
    result = clean.get(0, returned=0)
    assert clean.runs(result) == [(0, 1000)]
    assert result.regions[0].categories == Category(0)


def test_08_an_empty_return_mask_is_legal(clean: Area) -> None:
    """Case 8: nothing to return is no error; nothing is written here."""
    assert clean.get(WRITTEN, anyof=WRITTEN, returned=0).regions == []


def test_09_an_unknown_return_category_is_refused(clean: Area) -> None:
    """Case 9: a return_mask bit that no kernel knows is EINVAL."""
    with pytest.raises(KernelError, match="The masks have the unknown bits"):
        clean.get(returned=0x1000)


def test_10_an_unknown_category_is_refused(clean: Area) -> None:
    """Case 10: a category_mask bit that no kernel knows is EINVAL, and nothing is protected."""
    clean.touch(3)
    with pytest.raises(KernelError, match="The masks have the unknown bits"):
        clean.take(0xFFF)
    assert clean.written() == [(3, 4)]


def test_11_every_category_may_be_inverted(clean: Area) -> None:
    """Case 11: inverting all categories is no error; inverted bits outside of the masks have no effect."""
    clean.touch(3)
    result = clean.get(0, flags=WP, inverted=ALL, returned=0)
    assert clean.runs(result) == [(0, 1000)]


def test_12_a_vector_smaller_than_the_range_suffices(clean: Area) -> None:
    """Case 12: 500 entries for 1000 clean pages: nothing is reported."""
    assert clean.take(vec_len=500).regions == []


def test_13_every_second_page_is_a_region(clean: Area) -> None:
    """Case 13: 500 separate written pages are 500 regions."""
    clean.touch(*range(0, 1000, 2))
    assert clean.runs(clean.get(vec_len=1000)) == [(page, page + 1) for page in range(0, 1000, 2)]


def test_14_max_pages_leaves_the_rest_for_later(clean: Area) -> None:
    """Case 14: what max_pages and vec_len cut off is reported by the next calls, each page once."""
    clean.touch(*range(0, 1000, 2))
    first = clean.take(vec_len=1000, max_pages=498)
    peeked = clean.get(vec_len=2)
    rest = clean.take(vec_len=1000)
    assert len(peeked.regions) == 2
    assert peeked.regions == rest.regions
    assert len(first.regions) + len(rest.regions) == 500


def test_15_max_pages_stops_before_one_more(clean: Area) -> None:
    """Case 15: of 501 written pages, 500 come with max_pages 500, and the last one with the next call."""
    clean.touch(*range(0, 1000, 2), 999)
    assert len(clean.take(vec_len=1000, max_pages=500).regions) == 500
    assert clean.runs(clean.take(vec_len=1000)) == [(999, 1000)]


def test_16_taking_the_middle_leaves_two_regions(clean: Area) -> None:
    """Case 16: pages 1 and 2 of all written ones are taken; page 0 and pages 3 to 999 remain."""
    clean.write()
    middle = clean.part(1, 3)
    assert clean.runs(middle.take(vec_len=1, max_pages=2)) == [(1, 3)]
    assert clean.runs(clean.get()) == [(0, 1), (3, 1000)]


def test_17_arming_one_mapping_leaves_another(lab: Lab) -> None:
    """Case 17: of two written mappings only the one that is armed becomes clean."""
    first, second = lab.armed(1000), lab.armed(1000)
    first.write()
    second.write()
    first.arm()
    assert second.runs(second.get(vec_len=1)) == [(0, 1000)]
    assert first.written() == []


def test_18_repeated_calls_share_out_the_pages(lab: Lab) -> None:
    """Case 18: three calls of at most 210 pages take 525 written pages between them."""
    area = lab.armed(1050)
    area.touch(*range(0, 1050, 2))
    found = [len(area.take(vec_len=1050, max_pages=210).regions) for _ in range(3)]
    assert found == [210, 210, 105]


@pytest.mark.slow
def test_19_a_small_vector_finds_all_of_random_writes(lab: Lab) -> None:
    """Case 19: 100 rounds of random writes to 10000 pages come back exactly, 50 regions a call."""
    area = lab.armed(10000)
    raw = (ctypes.c_ubyte * (area.pages * PAGE_SIZE)).from_address(area.address)
    memory = np.ctypeslib.as_array(raw).reshape(area.pages, PAGE_SIZE)
    chance = random.Random(19)
    for _ in range(100):
        pages = sorted(set(chance.choices(range(area.pages), k=area.pages // 2)))
        memory[pages, 0] += 1
        found: list[int] = []
        position = area.address
        while position < area.stop:
            result = scan(
                position, area.stop, flags=TAKE, category_mask=WRITTEN, return_mask=WRITTEN, vec_len=50
            )
            assert len(result.regions) <= 50
            found += (page for run in area.runs(result) for page in range(*run))
            position = result.walk_end
        assert found == pages


ALL_WRITTEN = [
    # id, pages in the range, vec_len, max_pages, flags; regions and walk_end (in pages) expected
    pytest.param(0, 1000, 0, 0, (0, 0), id="case 20: empty range"),
    pytest.param(0, 1000, 0, WP, (0, 0), id="case 21: empty range, protect"),
    pytest.param(1000, 1000, 0, 0, (1, 1000), id="case 23: large vec"),
    pytest.param(1000, 1, 0, 0, (1, 1000), id="case 24: vec of one"),
    pytest.param(1000, 1, 1000, 0, (1, 1000), id="case 25: vec of one, all pages"),
    pytest.param(1000, 1000, 500, 0, (1, 500), id="case 26: half of the pages"),
    pytest.param(1000, 1000, 1, 0, (1, 1), id="case 27: one page"),
    pytest.param(1000, 1000, (1 << 64) - 1, 0, (1, 1000), id="case 28: the largest max_pages"),
]


@pytest.mark.parametrize(("pages", "room", "limit", "flags", "expected"), ALL_WRITTEN)
def test_20_to_28_walk_end_where_all_is_written(
    clean: Area, pages: int, room: int, limit: int, flags: int, expected: tuple[int, int]
) -> None:
    """Cases 20 to 28: walk_end is the range's end, or the first page that max_pages left out."""
    clean.write()
    result = clean.part(0, pages).get(vec_len=room, max_pages=limit, flags=flags)
    assert (len(result.regions), (result.walk_end - clean.address) // PAGE_SIZE) == expected


def test_22_walk_end_of_an_empty_range_without_room(clean: Area) -> None:
    """Case 22: an empty range and an empty vector end where they begin."""
    result = clean.part(0, 0).get(vec_len=0)
    assert (result.regions, result.walk_end) == ([], clean.address)


EVERY_SECOND = [
    pytest.param(1000, 0, (500, 1000), id="case 29: large vec"),
    pytest.param(1, 0, (1, 2), id="case 30: vec of one"),
    pytest.param(1, 1000, (1, 2), id="case 31: vec of one, all pages"),
    pytest.param(500, 1000, (500, 1000), id="case 32: vec just large enough"),
    pytest.param(1000, 1000, (500, 1000), id="case 33: large vec, all pages"),
    pytest.param(1000, 500, (500, 1000), id="case 34: max_pages just large enough"),
    pytest.param(1000, 1, (1, 2), id="case 35: one page"),
]


@pytest.mark.parametrize(("room", "limit", "expected"), EVERY_SECOND)
def test_29_to_35_walk_end_where_every_second_is_written(
    clean: Area, room: int, limit: int, expected: tuple[int, int]
) -> None:
    """Cases 29 to 35: walk_end is the first written page left out, not the end of the last region."""
    clean.touch(*range(0, 1000, 2))
    result = clean.get(vec_len=room, max_pages=limit)
    assert (len(result.regions), (result.walk_end - clean.address) // PAGE_SIZE) == expected
