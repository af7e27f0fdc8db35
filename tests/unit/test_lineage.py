"""The walks over the edges, against a plain walk over the same graph in memory."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.catalog import images, lineage
from factory.catalog.database import Catalog
from factory.compliance import graph
from factory.digest import Digest, of_bytes, packed
from factory.errors import CatalogError

Edges = list[tuple[int, int]]
"""(child, parent): a parent has the lower number, so there is no cycle."""

EDGES = st.lists(st.tuples(st.integers(1, 14), st.integers(0, 13)), max_size=30).map(
    lambda pairs: sorted({(max(pair), min(pair)) for pair in pairs if pair[0] != pair[1]})
)


def digest(number: int) -> Digest:
    return of_bytes(f"image {number}".encode())


def day(number: int) -> str:
    return f"2026-01-{number + 1:02}T00:00:00.000Z"


@contextmanager
def catalog_of(edges: Edges, revoked: tuple[int, ...] = ()) -> Iterator[Catalog]:
    """A catalog of images 0 to 14, number n recorded on the day n, with row id n + 1."""
    with tempfile.TemporaryDirectory() as folder, Catalog.open(Path(folder) / "catalog.db") as catalog:
        with catalog.writing() as database:
            for number in range(15):
                values = [number + 1, packed(digest(number)), f"image{number}", day(number)]
                columns = "id, digest, kind, name, arch, recorded_at"
                database.conn.execute(f"INSERT INTO images ({columns}) VALUES (?, ?, 'image', ?, 'amd64', ?)", values)
            for child, parent in edges:
                database.conn.execute("INSERT INTO edges VALUES (?, ?)", [child + 1, parent + 1])
            for number in revoked:
                columns = "id, digest, predicate_type, subject, made_at, signers, envelope, indexed_at"
                sql = f"INSERT INTO attestations ({columns}) VALUES (?, ?, 't', 's', ?, '[]', x'', ?)"
                database.conn.execute(sql, [number + 1, digest(100 + number), day(0), day(0)])
                sql = (
                    "INSERT INTO revocations (source, digest, name, reason, at, made_at, attestation)"
                    " VALUES (1, ?, ?, 'r', ?, ?, ?)"
                )
                row = [packed(digest(number)), f"image{number}", day(number), day(number), number + 1]
                database.conn.execute(sql, row)
        yield catalog


def walked(start: int, beside: Mapping[int, set[int]]) -> dict[int, int]:
    """Everything that can be reached, with the fewest steps to it."""
    found, waiting = {start: 0}, deque([start])
    while waiting:
        here = waiting.popleft()
        for other in beside.get(here, ()):
            if other not in found:
                found[other] = found[here] + 1
                waiting.append(other)
    del found[start]
    return found


def sides(edges: Edges) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """Child -> parents, parent -> children."""
    above: dict[int, set[int]] = {}
    below: dict[int, set[int]] = {}
    for child, parent in edges:
        above.setdefault(child, set()).add(parent)
        below.setdefault(parent, set()).add(child)
    return above, below


@given(EDGES)
@settings(max_examples=40, deadline=None)
def test_walks_find_what_a_plain_walk_finds(edges: Edges) -> None:
    above, below = sides(edges)
    with catalog_of(edges) as catalog:
        for number in (0, 7, 14):
            up = lineage.ancestors(catalog, number + 1)
            down = list(lineage.descendants(catalog, number + 1))
            assert {one.image.id - 1: one.depth for one in up} == walked(number, above)
            assert {one.image.id - 1: one.depth for one in down} == walked(number, below)
            assert [one.depth for one in down] == sorted(one.depth for one in down)
            assert lineage.count_descendants(catalog, number + 1) == len(down)
            assert [one.image.digest for one in up] == [digest(one.image.id - 1) for one in up]
            early = {relative: steps for relative, steps in walked(number, below).items() if relative <= 9}
            seen = {one.image.id - 1 for one in lineage.descendants(catalog, number + 1, as_of=day(9))}
            assert seen == set(early)  # a parent is recorded before its children
        every = lineage.edges_among(catalog, range(1, 16))
        assert sorted((child - 1, parent - 1) for parent, child in every) == edges


@given(EDGES, st.sets(st.integers(0, 14), max_size=4))
@settings(max_examples=40, deadline=None)
def test_an_image_is_revoked_by_the_nearest_of_its_line(edges: Edges, revoked: set[int]) -> None:
    above, _ = sides(edges)
    with catalog_of(edges, tuple(revoked)) as catalog:
        found = lineage.withdrawn(catalog, range(1, 16), day(20))
        for number in range(15):
            line = {number: 0, **walked(number, above)}
            steps = [line[one] for one in revoked if one in line]
            said = found.get(number + 1)
            assert (said is None) == (not steps)
            if said is not None:
                names = {f"image{one}" for one in revoked if line.get(one) == min(steps)}
                assert said.name in names
        early = lineage.withdrawn(catalog, range(1, 16), day(5))
        assert {said.name for said in early.values()} <= {f"image{one}" for one in revoked if one <= 5}


def test_a_cycle_is_refused_on_insert() -> None:
    with catalog_of([(1, 0), (2, 1)]) as catalog:
        for child, parent in ((0, 2), (0, 1), (1, 1)):
            with pytest.raises(CatalogError, match="descend from itself"), catalog.writing() as database:
                database.conn.execute("INSERT INTO edges VALUES (?, ?)", [child + 1, parent + 1])
        assert len(lineage.ancestors(catalog, 3)) == 2


def test_graph_around_an_image_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LIMIT", 5)
    with catalog_of([(1, 0), *((number, 1) for number in range(2, 12))], (0,)) as catalog:
        image = next(one.image for one in lineage.descendants(catalog, 1, limit=1))
        drawn = graph.around(catalog, image)
        assert [node.digest for node in drawn.nodes] == [digest(number) for number in range(5)]
        assert drawn.left_out == 7
        assert {node.revoked for node in drawn.nodes} == {"r"}
        assert [node.is_focus for node in drawn.nodes].count(True) == 1
        assert (digest(1), digest(4)) in drawn.edges
        assert graph.around(catalog, image, below=False).left_out == 0


def test_page_after_page_gives_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PAGE", 4)
    with catalog_of([]) as catalog:
        found = [one.image.id for one in images.listed(catalog, images.Wanted())]
        assert found == list(range(15, 0, -1))
        assert len(list(images.listed(catalog, images.Wanted(), limit=6))) == 6
        assert [one.image.id for one in images.listed(catalog, images.Wanted(as_of=day(3)))] == [4, 3, 2, 1]
