"""Features of photographs and their matches, by COLMAP."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float, Int

from ..errors import CaptureError

_SEED = 0


@contextmanager
def quiet_colmap() -> Iterator[None]:
    """COLMAP's own log only says what this package says itself; what it warns of is checked here."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 3
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def n_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def extract_features(database: Path, root: Path, names: Sequence[str], *, longest_side: int, max_features: int) -> None:
    """SIFT features of the photographs `names` (paths relative to `root`) into COLMAP's `database`.

    Photographs longer than `longest_side` px are made smaller first; pixels are those of the full size. Images that
    the database has already are not done again.

    Raises:
        CaptureError: a photograph that COLMAP cannot read.
    """
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = longest_side
    options.num_threads = n_threads()
    options.use_gpu = False
    options.sift.max_num_features = max_features
    options.sift.first_octave = 0  # the doubled image gives many more features, of half the accuracy, for 3 x the time
    with quiet_colmap():
        pycolmap.set_random_seed(_SEED)
        pycolmap.extract_features(
            database,
            root,
            image_names=list(names),
            camera_mode=pycolmap.CameraMode.PER_IMAGE,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
    missing = sorted(set(names) - set(read_keypoints(database)))
    if missing:
        raise CaptureError(f"{root / missing[0]}: no features could be extracted; check that the photograph opens")


def read_keypoints(database: Path) -> dict[str, Float[np.ndarray, "keypoints 2"]]:
    """Image name -> pixels of its features (pixel centres at +0.5)."""
    with _opened(database) as db:
        return {
            i.name: np.asarray(db.read_keypoints(i.image_id))[:, :2].astype(np.float64) for i in db.read_all_images()
        }


def match_features(
    database: Path, pairs: Sequence[tuple[str, str]], pairs_file: Path
) -> dict[tuple[str, str], Int[np.ndarray, "matches 2"]]:
    """Mutual nearest features of the named image pairs that pass the ratio test; no geometry is asked yet."""
    pairs_file.write_text("".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = n_threads()
    options.use_gpu = False
    options.skip_geometric_verification = True
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = pairs_file
    with quiet_colmap():
        pycolmap.set_random_seed(_SEED)
        pycolmap.match_image_pairs(
            database, matching_options=options, pairing_options=pairing, device=pycolmap.Device.cpu
        )
    with _opened(database) as db:
        ids = {i.name: i.image_id for i in db.read_all_images()}
        return {(a, b): np.asarray(db.read_matches(ids[a], ids[b])).astype(np.int64) for a, b in pairs}


@contextmanager
def _opened(database: Path) -> Iterator[pycolmap.Database]:
    db = pycolmap.Database.open(database)
    try:
        yield db
    finally:
        db.close()
