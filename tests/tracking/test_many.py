"""Many regions side by side: scanned together, and still each with its own pages and its own losses."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from _lib.raw import Raw, is_free, taken, unmap, unregister_behind_the_back
from _lib.support import PAGE_SIZE
from dirtytrack import Region, RegionLostError, Session

_PAGES = 64
_SEEDS = range(8)


@pytest.fixture
def heap() -> Iterator[Raw]:
    """One mapping for all regions."""
    with Raw(_PAGES) as memory:
        yield memory


def pages_of(region: Region, heap: Raw) -> set[int]:
    """The heap's pages that a region has a byte on."""
    first = region.address - heap.start
    return set(range(first // PAGE_SIZE, (first + region.nbytes - 1) // PAGE_SIZE + 1))


def expected(region: Region, heap: Raw, written: set[int]) -> set[int]:
    """Which of the region's own pages were written."""
    own = pages_of(region, heap)
    return {page - min(own) for page in own & written}


def some_pages(draw: random.Random) -> set[int]:
    """Few pages, most of them with a neighbour."""
    first = [draw.randrange(_PAGES - 1) for _ in range(6)]
    return {page for one in first for page in range(one, one + draw.choice((1, 2)))}


def adjoining(draw: random.Random, unit: int) -> list[tuple[int, int]]:
    """All of the heap, cut at random multiples of a unit: offsets and lengths, in no order."""
    places = range(unit, _PAGES * PAGE_SIZE, unit)
    cuts = [0, *sorted(draw.sample(places, 20)), _PAGES * PAGE_SIZE]
    pieces = [(start, stop - start) for start, stop in itertools.pairwise(cuts)]
    draw.shuffle(pieces)
    return pieces


def apart(draw: random.Random, unit: int) -> list[tuple[int, int]]:
    """Some of those: others adjoin a gap."""
    return adjoining(draw, unit)[:13]


def overlapping(draw: random.Random, unit: int) -> list[tuple[int, int]]:
    """Any pieces, also within each other, and some twice."""
    starts = [draw.randrange(_PAGES * PAGE_SIZE // unit - 1) * unit for _ in range(12)]
    pieces = [(start, draw.choice((unit, 3 * unit, _PAGES * PAGE_SIZE))) for start in starts]
    return [(start, min(length, _PAGES * PAGE_SIZE - start)) for start, length in (*pieces, *pieces[:3])]


LAYOUTS = [adjoining, apart, overlapping]
Layout = Callable[[random.Random, int], list[tuple[int, int]]]


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("unit", [PAGE_SIZE, 512], ids=["pages", "bytes"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_region_has_its_own_pages(
    session: Session, heap: Raw, layout: Layout, unit: int, seed: int
) -> None:
    """Whatever is asked for, in whatever order: exactly what was written, for every cursor, once."""
    draw = random.Random(seed)
    regions = [session.track((heap.start + at, nbytes)) for at, nbytes in layout(draw, unit)]
    with session.cursor("second") as second:
        since: dict[object, dict[Region, set[int]]] = {
            cursor: {region: set() for region in regions} for cursor in (session, second)
        }
        for _ in range(12):
            heap.write(*(written := some_pages(draw)))
            for pending in since.values():
                for region in regions:
                    pending[region] |= expected(region, heap, written)
            consumer = draw.choice((session, second))
            asked = draw.choice(([], draw.sample(regions, draw.randint(1, len(regions)))))
            verb = draw.choice(("collect", "peek", "reset"))
            epoch = getattr(consumer, verb)(*asked)
            looked_at = asked or regions
            if epoch is not None:
                found = {region: set(pages) for region, pages in epoch.items()}
                assert found == {region: since[consumer][region] for region in looked_at}
                if asked:
                    assert list(epoch) == asked
            if verb != "peek":
                since[consumer].update({region: set() for region in looked_at})


@pytest.mark.parametrize("seed", _SEEDS)
def test_narrowed_regions_in_any_order(session: Session, heap: Raw, seed: int) -> None:
    """Slices of regions that adjoin: what was not asked for stays pending."""
    draw = random.Random(seed)
    regions = [session.track((heap.start + at, n)) for at, n in adjoining(draw, PAGE_SIZE)]
    written = some_pages(draw)
    heap.write(*written)
    large = [region for region in regions if len(pages_of(region, heap)) > 1]
    first = session.collect(*(region[:PAGE_SIZE] for region in large))
    assert {region: set(pages) for region, pages in first.items()} == {
        region: expected(region, heap, written) & {0} for region in large
    }
    rest = session.collect(*draw.sample(regions, len(regions)))
    for region in regions:
        assert set(rest[region]) == expected(region, heap, written) - set(first.get(region, ()))


def _unmap(heap: Raw, page: int, undo: ExitStack) -> None:
    heap.unmap(page, page + 1)


def _replace(heap: Raw, page: int, undo: ExitStack) -> None:
    heap.map_over(page, page + 1)


def _unregister(heap: Raw, page: int, undo: ExitStack) -> None:
    unregister_behind_the_back(*heap.at(page))


def _move(heap: Raw, page: int, undo: ExitStack) -> None:
    undo.callback(unmap, heap.move_away(page, page + 1), 1)


def _take(heap: Raw, page: int, undo: ExitStack) -> None:
    heap.map_over(page, page + 1)
    undo.enter_context(taken(*heap.at(page)))


def _take_and_arm(heap: Raw, page: int, undo: ExitStack) -> None:
    heap.map_over(page, page + 1)
    heap.write(page)
    undo.enter_context(taken(*heap.at(page))).write_protect(*heap.at(page))


@pytest.mark.registration
@pytest.mark.parametrize("place", [0, 7, 15], ids=["first", "middle", "last"])
@pytest.mark.parametrize("lose", [_unmap, _replace, _unregister, _move, _take, _take_and_arm])
@pytest.mark.parametrize("verb", ["collect", "peek", "reset"])
@pytest.mark.parametrize("pages", [4, 3, 1], ids=["adjoining", "apart", "single"])
def test_one_of_many_is_lost(
    session: Session,
    heap: Raw,
    pages: int,
    lose: Callable[[Raw, int, ExitStack], None],
    place: int,
    verb: str,
) -> None:
    """It alone is lost, by its own addresses, and its neighbours' writes come when it is untracked."""
    regions = [session.track(heap.piece(4 * i, 4 * i + pages), name=str(i)) for i in range(16)]
    lost = 4 * place + pages // 2
    with ExitStack() as undo:
        heap.write(0, 28, 60)
        lose(heap, lost, undo)
        for _ in range(2):
            with pytest.raises(RegionLostError) as caught:
                getattr(session, verb)()
            (loss,) = caught.value.losses
            assert (loss.region, loss.ranges) == (regions[place], (heap.at(lost),))
            assert [region for region in regions if region.lost] == [regions[place]]
        session.untrack(regions.pop(place))
        epoch = session.collect()
        for region in regions:
            assert expected(region, heap, {0, 28, 60}) <= set(epoch[region])
        heap.write((4 * place + 4) % _PAGES)
        assert session.collect().pages == 1


@pytest.mark.registration
@pytest.mark.parametrize("populated", [False, True], ids=["untouched", "written"])
def test_what_lies_between_is_left_alone(session: Session, heap: Raw, populated: bool) -> None:
    """Pages of nobody stay unarmed, and those of another session keep what was written for it."""
    regions = [session.track(heap.piece(i, i + 1)) for i in range(0, _PAGES, 4)]
    with Session() as beside:
        between = [beside.track(heap.piece(i + 2, i + 3)) for i in range(0, _PAGES, 4)]
        if populated:
            heap.write(*range(_PAGES))
            session.reset()
            beside.reset()
        for verb in (session.collect, session.peek, session.reset):
            heap.write(4, 6, 7, 9, 14)
            epoch = verb()
            if epoch is not None:
                assert [region for region in regions if epoch[region]] == [regions[1]]
                assert epoch.pages == 1
        epoch = beside.collect()
        assert [region for region in between if epoch[region]] == [between[1], between[3]]
    assert all(is_free(*heap.at(page)) for page in range(_PAGES) if page % 4)


@pytest.mark.registration
def test_every_session_that_had_a_page_is_told(heap: Raw) -> None:
    """However many had it one after another, closed ones among them; who has other pages loses nothing."""
    with ExitStack() as open_:
        beside = open_.enter_context(Session())
        healthy = beside.track(heap.piece(10, 20))
        earlier: list[tuple[Session, Region]] = []
        for number in range(6):
            session = open_.enter_context(Session())
            region = session.track(heap.piece(0, 10))
            heap.write(3)
            assert set(session.collect()[region]) == {3}
            assert all(one.lost for _, one in earlier)
            heap.map_over(0, 10)
            if number % 3 == 0:
                session.close()
            else:
                earlier.append((session, region))
        heap.write(12)
        assert set(beside.collect()[healthy]) == {2}
