"""Poses of photographs from nothing: SIFT, pairs, global mapping, growing. pycolmap does the work.

Only SIFT and explicit pairs are used (other extractors and matchers can end the process), every nested seed is set,
and the number of threads is fixed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float
from PIL import Image as PILImage

from ..capture.headers import opened_image
from ..errors import CalibrationError
from .backdrop import sharing_pairs, standing_still
from .checks import epipolar_distances
from .features import n_threads, quiet_colmap
from .photo_files import PhotoSet

EXHAUSTIVE_UP_TO = 120
_NEIGHBOURS = 8
_LANDMARKS = 24
_LEAST_INLIERS = 20
_STRONG_INLIERS = 50
_CONTRADICTED_SHARE = 0.3
_FOCAL_RATIOS = (0.4, 2.5)
_EPIPOLAR_PX = 4.0
_LARGE_PX = 1000
_TRACKS_PER_VIEW = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingConfig:
    """How features are found. `n_features` is per photograph before double orientations."""

    n_features: int = 2048
    features_in_masks_only: bool = False
    object_is_black: bool = False
    seed: int = 0


def find_features(photos: PhotoSet, database: Path, config: MatchingConfig) -> list[str]:
    """A fresh database with one camera per sensor and the SIFT features that move; lines on what was dropped.

    Focal lengths come from EXIF; without, 1.2 times the longer side is where mapping starts. EXIF orientation is not
    applied: the pixels are taken as stored.
    """
    database.unlink(missing_ok=True)
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = n_threads()
    options.use_gpu = False
    options.sift.max_num_features = config.n_features
    with quiet_colmap():
        for sensor in photos.sensors:
            own = [p for p in photos.photos if p.sensor == sensor]
            # The doubled image gives more features, of less accuracy, for three times the time: small pictures need it.
            options.sift.first_octave = 0 if max(own[0].size) >= _LARGE_PX else -1
            pycolmap.extract_features(
                database,
                photos.root,
                image_names=[p.name for p in own],
                camera_mode=pycolmap.CameraMode.SINGLE,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
        return _keep_moving(photos, database, config)


def _keep_moving(photos: PhotoSet, database: Path, config: MatchingConfig) -> list[str]:
    lines = []
    with pycolmap.Database.open(database) as db:
        ids = {i.name: i.image_id for i in db.read_all_images()}
        _require_features(photos, ids)
        keypoints = {p.name: db.read_keypoints(ids[p.name]) for p in photos.photos}
        descriptors = {p.name: db.read_descriptors(ids[p.name]).data for p in photos.photos}
        keep = {name: np.ones(len(k), dtype=bool) for name, k in keypoints.items()}
        for camera in dict.fromkeys(p.camera for p in photos.photos):
            own = [p.name for p in photos.photos if p.camera == camera]
            still = standing_still([keypoints[n] for n in own], [descriptors[n] for n in own])
            for name, mask in zip(own, still, strict=True):
                keep[name] &= ~mask
            share = np.concatenate(still).mean()
            if share > 0.02:
                where = f"camera {camera}" if camera else "the camera"
                lines.append(f"{share:.0%} of the features of {where} stand still (backdrop) and were dropped")
        if config.features_in_masks_only:
            for p in photos.photos:
                if p.mask_path is not None:
                    keep[p.name] &= _inside(p.mask_path, keypoints[p.name][:, :2], p.object_is_black)
        db.clear_keypoints()
        db.clear_descriptors()
        with pycolmap.DatabaseTransaction(db):
            for name, mask in keep.items():
                db.write_keypoints(ids[name], np.ascontiguousarray(keypoints[name][mask]))
                data = np.ascontiguousarray(descriptors[name][mask])
                kind = pycolmap.FeatureExtractorType.SIFT
                db.write_descriptors(ids[name], pycolmap.FeatureDescriptors(type=kind, data=data))
    return lines


def _require_features(photos: PhotoSet, ids: dict[str, int]) -> None:
    missing = [p.name for p in photos.photos if p.name not in ids]
    if missing:
        raise CalibrationError(f"{photos.root / missing[0]}: could not be read for features; convert it to JPEG or PNG")


def _inside(path: Path, xy: np.ndarray, object_is_black: bool) -> np.ndarray:
    grey = read_grey(path)
    u = np.clip(xy[:, 0].astype(int), 0, grey.shape[1] - 1)
    v = np.clip(xy[:, 1].astype(int), 0, grey.shape[0] - 1)
    return (grey[v, u] < 128) == object_is_black


def read_grey(path: Path, downscale: int = 1) -> np.ndarray:
    """A mask's grey values [v, u], made smaller by averaging."""
    with opened_image(path, "mask") as image:
        grey: PILImage.Image = image.convert("L")
        return np.asarray(grey.reduce(downscale) if downscale > 1 else grey)


def match_features(photos: PhotoSet, database: Path, config: MatchingConfig) -> int:
    """Match and verify the pairs worth it; returns how many were matched.

    Up to 120 photographs all pairs are candidates; beyond, each photograph's eight neighbours on either side, those of
    the same stop and two dozen landmark photographs (the number of pairs grows linearly). Of these, pairs go ahead
    whose largest features agree.
    """
    names = [p.name for p in photos.photos]
    with quiet_colmap(), pycolmap.Database.open(database) as db:
        ids = {i.name: i.image_id for i in db.read_all_images()}
        keypoints = [db.read_keypoints(ids[n]) for n in names]
        descriptors = [db.read_descriptors(ids[n]).data for n in names]
    pairs = sharing_pairs(keypoints, descriptors, candidate_pairs(photos))
    listed = database.with_suffix(".pairs.txt")
    listed.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in pairs), encoding="utf-8")
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = n_threads()
    matching.use_gpu = False
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = listed
    with quiet_colmap():
        pycolmap.match_image_pairs(
            database,
            matching_options=matching,
            pairing_options=pairing,
            verification_options=_verification(config.seed),
            device=pycolmap.Device.cpu,
        )
    return len(pairs)


def candidate_pairs(photos: PhotoSet) -> list[tuple[int, int]]:
    """Indices into `photos.photos`, the smaller first; see `match_features`."""
    n = len(photos.photos)
    if n <= EXHAUSTIVE_UP_TO:
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    pairs = set()
    landmarks = np.unique(np.linspace(0, n - 1, _LANDMARKS).astype(int)).tolist()
    by_camera: dict[str, list[int]] = {}
    by_stop: dict[str, list[int]] = {}
    for i, p in enumerate(photos.photos):
        by_camera.setdefault(p.camera, []).append(i)
        if photos.is_rig:
            by_stop.setdefault(p.stop, []).append(i)
    for own in by_camera.values():
        for k, i in enumerate(own):
            pairs |= {(i, own[(k + d) % len(own)]) for d in range(1, _NEIGHBOURS + 1)}
    for together in by_stop.values():
        pairs |= {(i, j) for i in together for j in together}
    pairs |= {(i, j) for i in range(n) for j in landmarks}
    return sorted({(min(i, j), max(i, j)) for i, j in pairs if i != j})


def _verification(seed: int) -> pycolmap.TwoViewGeometryOptions:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    options.ransac.num_threads = 1
    options.min_num_inliers = _LEAST_INLIERS
    return options


def guess_focal_lengths(database: Path, seed: int) -> None:
    """Replace guessed focal lengths by what fundamental matrices say, where that is believable."""
    options = pycolmap.ViewGraphCalibrationOptions()
    options.random_seed = seed
    options.min_focal_length_ratio, options.max_focal_length_ratio = _FOCAL_RATIOS
    with quiet_colmap():
        pycolmap.calibrate_view_graph(database, options)


def map_globally(
    photos: PhotoSet, database: Path, out: Path, config: MatchingConfig, seed: int
) -> pycolmap.Reconstruction | None:
    """The largest model of global mapping, or None."""
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = n_threads()
    options.random_seed = seed
    options.min_num_matches = _LEAST_INLIERS
    mapper = options.mapper
    mapper.num_threads = n_threads()
    mapper.track_required_tracks_per_view = _TRACKS_PER_VIEW
    mapper.bundle_adjustment.ceres.solver_options.num_threads = n_threads()
    mapper.bundle_adjustment.ceres.use_gpu = mapper.global_positioning.use_gpu = False
    for nested in (mapper, mapper.global_positioning, mapper.rotation_averaging, mapper.retriangulation):
        nested.random_seed = seed
    with quiet_colmap():
        return _largest(pycolmap.global_mapping(database, photos.root, _fresh(out), options))


def map_incrementally(
    photos: PhotoSet,
    database: Path,
    out: Path,
    config: MatchingConfig,
    start: pycolmap.Reconstruction | None = None,
) -> pycolmap.Reconstruction | None:
    """The largest model of incremental mapping, grown from the posed images of `start` where it is given."""
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = options.mapper.num_threads = n_threads()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = config.seed
    options.min_num_matches = _LEAST_INLIERS
    options.multiple_models = start is None
    options.extract_colors = False
    _fresh(out)
    given = ""
    if start is not None:
        given = out.with_name(f"{out.name}_start")
        _fresh(given)
        start.write(given)
    with quiet_colmap():
        return _largest(pycolmap.incremental_mapping(database, photos.root, out, options, input_path=given))


def without(model: pycolmap.Reconstruction, names: set[str]) -> pycolmap.Reconstruction:
    """A copy in which the named images have no pose."""
    copied = pycolmap.Reconstruction(model)
    for image in list(copied.images.values()):
        if image.name in names and image.has_pose:
            copied.deregister_frame(image.frame_id)
    return copied


def posed(model: pycolmap.Reconstruction) -> dict[str, Float[np.ndarray, "4 4"]]:
    """cam_from_world of the posed images by name."""
    poses = {}
    for image in model.images.values():
        if image.has_pose:
            poses[image.name] = np.eye(4)
            poses[image.name][:3] = image.cam_from_world().matrix()
    return poses


@dataclass(frozen=True, slots=True, kw_only=True)
class Epipolar:
    """How well poses explain the verified matches.

    `shares` is by posed image. `contradicted` are those pairs with 50 matches and more of which the poses explain less
    than 30 %: chance makes many small pairs of look-alike places, hardly a large one.
    """

    shares: dict[str, float]
    n_explained: int
    contradicted: tuple[tuple[str, str], ...]


def epipolar_support(model: pycolmap.Reconstruction, database: Path) -> Epipolar:
    """Verified matches that lie within 4 px of the poses' own epipolar lines.

    Verification looks at two images at a time, so these matches know nothing of the poses.
    """
    images = {i.image_id: i for i in model.images.values() if i.has_pose}
    poses = posed(model)
    good, total = dict.fromkeys(images, 0), dict.fromkeys(images, 0)
    contradicted = []
    with quiet_colmap(), pycolmap.Database.open(database) as db:
        xy = {i: image.camera.cam_from_img(db.read_keypoints(i)[:, :2].astype(float)) for i, image in images.items()}
        for pair_id, geometry in zip(*db.read_two_view_geometries(), strict=True):
            first, second = pycolmap.pair_id_to_image_pair(pair_id)
            matches = geometry.inlier_matches
            if first not in images or second not in images or len(matches) < _LEAST_INLIERS:
                continue
            motion = poses[images[second].name] @ np.linalg.inv(poses[images[first].name])
            focal = (images[first].camera.mean_focal_length() + images[second].camera.mean_focal_length()) / 2
            off = epipolar_distances(motion, xy[first][matches[:, 0]], xy[second][matches[:, 1]]) * focal
            n_good = int(np.count_nonzero(off < _EPIPOLAR_PX))
            if len(matches) >= _STRONG_INLIERS and n_good < _CONTRADICTED_SHARE * len(matches):
                contradicted.append((images[first].name, images[second].name))
            for i in (first, second):
                good[i] += n_good
                total[i] += len(matches)
    shares = {images[i].name: good[i] / total[i] if total[i] else 0.0 for i in images}
    return Epipolar(shares=shares, n_explained=sum(good.values()) // 2, contradicted=tuple(contradicted))


def _largest(models: dict[int, pycolmap.Reconstruction]) -> pycolmap.Reconstruction | None:
    return max(models.values(), key=lambda m: m.num_reg_images(), default=None)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
