"""One solid without cavities, decided brick by brick: parts within each, joined through the faces between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import MeshError
from .bricks import SIDE, Brick, Bricks, Index


def keep_one_solid(bricks: Bricks, name: str) -> Bricks:
    """All solids but the one of most nodes become outside, then all cavities become inside.

    Nodes are connected through cells' edges along the axes.

    Raises:
        MeshError: nothing is inside.
    """
    solids = _Parts.of(bricks, inside=True)
    if not len(solids.sizes):
        raise MeshError(f"{name}: the fitted sdf is nowhere negative, so there is no solid; look at masks and depth")
    bricks = solids.flipped(bricks, kept=int(solids.sizes.argmax()))
    rooms = _Parts.of(bricks, inside=False)
    return rooms.flipped(bricks, kept=int(rooms.part_of[0]))  # the first node is outside


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Connected parts of the inside, or of the outside.

    Each brick numbers its own pieces from `firsts` on; `part_of` says which part each piece belongs to, `sizes` how
    many nodes each part has.
    """

    inside: bool
    firsts: dict[Index, int]
    part_of: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(bricks: Bricks, *, inside: bool) -> _Parts:
        firsts: dict[Index, int] = {}
        sizes: list[np.ndarray] = [np.zeros(0, np.int64)]
        pairs: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
        lasts: dict[tuple[Index, int], np.ndarray] = {}  # the pieces in last planes that still wait for a neighbour
        n_pieces = 0
        for x, y, z in np.ndindex(*bricks.signs.shape):
            index = (x, y, z)
            pieces, own = _pieces(bricks, index, inside)
            if len(own):
                firsts[index] = n_pieces
                pieces = np.where(pieces > 0, pieces + n_pieces, 0)
                sizes.append(own)
                n_pieces += len(own)
            for axis, before in enumerate([(x - 1, y, z), (x, y - 1, z), (x, y, z - 1)]):
                other = lasts.pop((before, axis), None)
                if not len(own):
                    continue
                lasts[index, axis] = pieces if pieces.ndim == 0 else pieces.take(-1, axis).copy()
                if other is not None:
                    pairs.append(_pairs(other, pieces if pieces.ndim == 0 else pieces.take(0, axis)))
        part_of, counts = _joined(n_pieces, np.concatenate(pairs) - 1, np.concatenate(sizes))
        return _Parts(inside=inside, firsts=firsts, part_of=part_of, sizes=counts)

    def flipped(self, bricks: Bricks, kept: int) -> Bricks:
        """All parts but one on the other side of the surface."""
        if len(self.sizes) == 1:
            return bricks
        signs, mixed = bricks.signs.copy(), dict(bricks.mixed)
        for index, first in self.firsts.items():
            if index not in mixed:
                if self.part_of[first] != kept:
                    signs[index] = 1 if self.inside else -1
                continue
            pieces, own = _pieces(bricks, index, self.inside)
            goes = np.concatenate([[False], self.part_of[first : first + len(own)] != kept])
            if goes.any():
                mixed[index] = mixed[index].with_sign(goes[pieces], not self.inside)
        return replace(bricks, signs=signs, mixed=mixed)


def _pieces(bricks: Bricks, index: Index, inside: bool) -> tuple[np.ndarray, np.ndarray]:
    """A brick's connected pieces, numbered from 1 (one number for a whole brick), and how many nodes each has."""
    brick = bricks.mixed.get(index)
    if brick is None:
        matches = bool(bricks.signs[index] < 0) == inside
        return np.array(int(matches)), np.array([SIDE**3] if matches else [], np.int64)
    pieces, count = _labelled(brick, inside)
    return pieces, np.bincount(pieces.ravel(), minlength=count + 1)[1:]


def _labelled(brick: Brick, inside: bool) -> tuple[np.ndarray, int]:
    bits = np.unpackbits(brick.inside, axis=2)
    pieces = np.empty(bits.shape, np.int32)
    return pieces, int(label(bits if inside else 1 - bits, output=pieces))  # pyright: ignore[reportArgumentType]


def _pairs(last: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Which pieces touch across a face; 0 is none."""
    last, first = np.broadcast_arrays(last, first)
    touching = (last > 0) & (first > 0)
    keys = np.unique((last[touching].astype(np.int64) << 32) + first[touching])
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)


def _joined(n_pieces: int, pairs: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if n_pieces == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n_pieces, n_pieces))
    count, part_of = connected_components(graph, directed=False)
    return part_of, np.bincount(part_of, weights=sizes, minlength=count).astype(np.int64)
