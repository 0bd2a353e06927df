"""From rough poses to settled ones: triangulate anew with the rig built in, adjust, drop what does not fit, repeat."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float, Float32, Int, UInt8

from ..capture.headers import opened_image
from .adjust import Prior, adjust
from .checks import inverted
from .features import n_threads, quiet_colmap
from .photo_files import Photo, PhotoSet
from .projection import BY_FACTOR, INTRINSICS, N_POSE, N_SENSOR, Observations, RigState, residuals
from .sharpen import sharpen
from .structure import Structure
from .tracks import fitting, renumbered

_ROUNDS_PX = (8.0, 3.0, 1.5)
_LEAST_ANGLE_DEG = 1.5
_SIGMA_PX = 0.5
_PATCH_SIGMA_PX = 0.15
_ENOUGH_OBSERVATIONS = 300
_SHORTEST = 3
LEAST_OBSERVATIONS = 20
# What lenses are like, where the photographs cannot tell: aspect, principal point (share of the longer side), k1 k2
# p1 p2. All views from around one axis, with a narrow lens, tell the principal point hardly, and k2, p1, p2 not at all.
# Features alone, in free motion, would rather bend the lens than the scene: there it is held tighter.
_ASPECT, _CENTRE, _K1, _K2, _P = 1e-3, 0.01, 0.2, 0.1, 1e-3
_CENTRE_IN_FREE_MOTION, _K2_IN_FREE_MOTION, _P_IN_FREE_MOTION = 0.001, 0.02, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Adjusted poses, lenses and points of the photographs that could be settled.

    `intrinsics` are fx fy cx cy k1 k2 p1 p2 by sensor (pixel centres at +0.5). `tracks` are rows (point, view): which
    of `names` sees which point, and `track_xy` where.
    """

    names: tuple[str, ...]
    cam_from_world: Float[np.ndarray, "views 4 4"]
    intrinsics: dict[str, Float[np.ndarray, "8"]]
    points: Float[np.ndarray, "points 3"]
    rgb: UInt8[np.ndarray, "points 3"]
    error_px: Float32[np.ndarray, "points"]
    tracks: Int[np.ndarray, "observations 2"]
    track_xy: Float32[np.ndarray, "observations 2"]
    mean_error_px: float
    unsupported: tuple[str, ...]


def settled(
    photos: PhotoSet, structure: Structure, model: pycolmap.Reconstruction, database: Path, *, seed: int
) -> Settled:
    """Adjust the views that agree; with a rig, also those that did not but whose place the rig tells.

    Twice: triangulate all matches with the poses as they are, adjust robustly, drop observations that are off; then
    once more with the patches around the points aligned between photographs. A rig's sensors keep one place each.
    Distortion is k1 k2 p1 p2; what the photographs cannot tell of the lenses stays near the usual. Photographs with
    fewer than 20 observations in the end are `unsupported` and left out.
    """
    own_database = database.with_suffix(".settled.db")
    poses = _poses_by_name(photos, structure)
    views = [p for p in photos.photos if p.name in poses]
    places = _Places.of(photos, structure, views, poses, model)
    for _ in range(2):
        shutil.copyfile(database, own_database)
        work = _triangulated(photos, places, views, own_database, seed)
        places, seen, points = _adjusted(places, work, views)
    places, seen, points = _sharpened(places, seen, points, views)
    off_px = np.linalg.norm(residuals(places.state(points), seen) * seen.sigma[:, None], axis=1)
    return _collected(places, views, seen, points, off_px)


def _poses_by_name(photos: PhotoSet, structure: Structure) -> dict[str, np.ndarray]:
    """Where every photograph starts that is to be settled."""
    rig = structure.rig
    if rig is None:
        return {structure.names[i]: structure.cam_from_world[i] for i in np.nonzero(structure.agrees)[0]}
    poses = {}
    for p in photos.photos:
        sensor, frame = photos.sensors.index(p.sensor), photos.stops.index(p.stop)
        pose = rig.cam_from_rig[sensor] @ rig.rig_from_world[frame]
        if not np.isnan(pose).any() and p.stop in structure.frame_names:
            poses[p.name] = pose
    return poses


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where sensors and frames are: ``cam_from_world = cam_from_rig[sensor_of] @ rig_from_world[frame_of]`` by view.

    Without a rig every view is its own frame and sensors are at the rig's origin. `intrinsics` as in `RigState`.
    """

    sensors: tuple[str, ...]
    cam_from_rig: Float[np.ndarray, "sensors 4 4"]
    rig_from_world: Float[np.ndarray, "frames 4 4"]
    intrinsics: Float[np.ndarray, "sensors intrinsics"]
    sizes: Int[np.ndarray, "sensors 2"]
    sensor_of: Int[np.ndarray, "views"]
    frame_of: Int[np.ndarray, "views"]
    is_rig: bool
    is_free: bool
    reach: float

    @staticmethod
    def of(
        photos: PhotoSet,
        structure: Structure,
        views: list[Photo],
        poses: dict[str, np.ndarray],
        model: pycolmap.Reconstruction,
    ) -> _Places:
        sensors = tuple(dict.fromkeys(p.sensor for p in views))
        lens = {i.name: i.camera for i in model.images.values()}
        by_sensor = {s: next(p for p in views if p.sensor == s and p.name in lens) for s in sensors}
        intrinsics = np.stack([_named_intrinsics(lens[by_sensor[s].name]) for s in sensors])
        frames = list(dict.fromkeys(p.stop if structure.rig else p.name for p in views))
        cam_from_rig, rig_from_world = (
            np.tile(np.eye(4), (len(sensors), 1, 1)),
            np.stack([poses[p.name] for p in views]),
        )
        if structure.rig is not None:
            cam_from_rig = structure.rig.cam_from_rig[[photos.sensors.index(s) for s in sensors]]
            rig_from_world = structure.rig.rig_from_world[[photos.stops.index(f) for f in frames]]
        return _Places(
            sensors=sensors,
            cam_from_rig=cam_from_rig,
            rig_from_world=rig_from_world,
            intrinsics=intrinsics,
            sizes=np.array([by_sensor[s].size for s in sensors]),
            sensor_of=np.array([sensors.index(p.sensor) for p in views]),
            frame_of=np.array([frames.index(p.stop if structure.rig else p.name) for p in views]),
            is_rig=structure.rig is not None,
            is_free=structure.rig is None and structure.turntable is None,
            reach=structure.reach,
        )

    @property
    def cam_from_world(self) -> Float[np.ndarray, "views 4 4"]:
        return self.cam_from_rig[self.sensor_of] @ self.rig_from_world[self.frame_of]

    def state(self, points: np.ndarray) -> RigState:
        return RigState(
            sensor_rotation=self.cam_from_rig[:, :3, :3],
            sensor_center=inverted(self.cam_from_rig)[:, :3, 3],
            intrinsics=self.intrinsics,
            stop_rotation=self.rig_from_world[:, :3, :3],
            stop_translation=self.rig_from_world[:, :3, 3],
            points=points,
        )

    def moved_to(self, state: RigState) -> _Places:
        cam_from_rig, rig_from_world = np.zeros_like(self.cam_from_rig), np.zeros_like(self.rig_from_world)
        cam_from_rig[:, :3, :3], cam_from_rig[:, 3, 3] = state.sensor_rotation, 1
        cam_from_rig[:, :3, 3] = -np.einsum("sij,sj->si", state.sensor_rotation, state.sensor_center)
        rig_from_world[:, :3, :3], rig_from_world[:, 3, 3] = state.stop_rotation, 1
        rig_from_world[:, :3, 3] = state.stop_translation
        return replace(self, cam_from_rig=cam_from_rig, rig_from_world=rig_from_world, intrinsics=state.intrinsics)

    def prior(self, state: RigState) -> Prior:
        """What holds the lenses near the usual, and the gauge: one sensor, one frame, and the distance to another."""
        mean = {"aspect": 1.0, "cx": self.sizes[:, 0] / 2, "cy": self.sizes[:, 1] / 2, "k1": 0.0, "k2": 0.0, "p1": 0.0}
        centre, k2, p = (
            (_CENTRE_IN_FREE_MOTION, _K2_IN_FREE_MOTION, _P_IN_FREE_MOTION) if self.is_free else (_CENTRE, _K2, _P)
        )
        sigma = {"f": np.inf, "aspect": _ASPECT, "k1": _K1, "k2": k2, "p1": p, "p2": p}
        sigma["cx"] = sigma["cy"] = centre * self.sizes.max(axis=1)
        mean_intrinsics = state.intrinsics.copy()
        sensors = np.zeros((len(self.sensors), N_SENSOR))
        for i, name in enumerate(INTRINSICS):
            mean_intrinsics[:, i] = mean.get(name, mean_intrinsics[:, i] if name in BY_FACTOR else 0.0)
            sensors[:, N_POSE + i] = sigma.get(name, 0.0)
        if self.is_rig:
            sensors[:, :N_POSE] = np.inf
            sensors[int(np.argmin(np.abs(self.cam_from_rig - np.eye(4)).max(axis=(1, 2)))), :N_POSE] = 0.0
        stops = np.full((len(self.rig_from_world), 6), np.inf)
        centres = inverted(self.rig_from_world)[:, :3, 3]
        stops[0] = 0.0
        stops[int(np.linalg.norm(centres - centres[0], axis=1).argmax()), 3:] = 0.01 * self.reach
        return Prior(mean=replace(state, intrinsics=mean_intrinsics), sensors=sensors, stops=stops)


def _named_intrinsics(camera: pycolmap.Camera) -> Float[np.ndarray, "intrinsics"]:
    """Mapping's f cx cy k as `RigState` has them."""
    f, cx, cy, k = camera.params
    known = {"f": f, "cx": cx, "cy": cy, "k1": k} | dict.fromkeys(BY_FACTOR[1:], 1.0)
    return np.array([known.get(name, 0.0) for name in INTRINSICS])


def _triangulated(
    photos: PhotoSet, places: _Places, views: list[Photo], database: Path, seed: int
) -> pycolmap.Reconstruction:
    """All matches triangulated with the places as they are; `database` is changed."""
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = options.mapper.num_threads = n_threads()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.extract_colors = False
    options.ba_global_max_refinements = 1
    options.ba_global_max_num_iterations = 5
    options.triangulation.ignore_two_view_tracks = True
    out = database.with_suffix(".triangulated")
    out.mkdir(exist_ok=True)
    with quiet_colmap():
        start = _posed_model(places, views, database)
        work = pycolmap.triangulate_points(start, database, photos.root, out, clear_points=True, options=options)
    _thin(work)
    return work


def _posed_model(places: _Places, views: list[Photo], database: Path) -> pycolmap.Reconstruction:
    """A model without points, every view its own frame: triangulation needs no rig."""
    index = {p.name: i for i, p in enumerate(views)}
    with pycolmap.Database.open(database) as db:
        for image in db.read_all_images():
            if image.name in index:
                db.update_camera(_opencv_camera(places, places.sensor_of[index[image.name]], image.camera_id))
        cache = pycolmap.DatabaseCache.create(db, pycolmap.DatabaseCacheOptions())
    out = pycolmap.Reconstruction()
    out.load(cache)
    poses = places.cam_from_world
    for image in list(out.images.values()):
        if image.name in index:
            out.frames[image.frame_id].rig_from_world = pycolmap.Rigid3d(poses[index[image.name], :3])
            out.register_frame(image.frame_id)
    return out


def _opencv_camera(places: _Places, sensor: int, camera_id: int) -> pycolmap.Camera:
    f, aspect, *rest = places.intrinsics[sensor]
    return pycolmap.Camera(
        camera_id=camera_id,
        model=pycolmap.CameraModelId.OPENCV,
        width=int(places.sizes[sensor, 0]),
        height=int(places.sizes[sensor, 1]),
        params=[f, f * aspect, *rest[:6]],
    )


def _thin(work: pycolmap.Reconstruction) -> None:
    """Keep the points that most photographs see, as many as give each its share: more cost time and tell no more."""
    counts = dict.fromkeys(work.images, 0)
    for point_id, point in sorted(work.points3D.items(), key=lambda item: (-item[1].track.length(), item[0])):
        seen_in = {element.image_id for element in point.track.elements}
        if all(counts[i] >= _ENOUGH_OBSERVATIONS for i in seen_in):
            work.delete_point3D(point_id)
        else:
            for i in seen_in:
                counts[i] += 1


def _adjusted(
    places: _Places, work: pycolmap.Reconstruction, views: list[Photo]
) -> tuple[_Places, Observations, np.ndarray]:
    """Moved places, the observations that fit them, and their points."""
    index = {p.name: i for i, p in enumerate(views)}
    view_of = {i.image_id: index[i.name] for i in work.images.values() if i.name in index}
    points = np.array([p.xyz for p in work.points3D.values()]).reshape(-1, 3)
    rows = [
        (i, view_of[e.image_id], *work.images[e.image_id].points2D[e.point2D_idx].xy)
        for i, p in enumerate(work.points3D.values())
        for e in p.track.elements
    ]
    table = np.array(rows).reshape(-1, 4)
    point, view = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    seen = Observations(
        sensor=places.sensor_of[view],
        stop=places.frame_of[view],
        point=point,
        pixel=table[:, 2:],
        sigma=np.full(len(view), _SIGMA_PX),
        reading=np.full(len(view), np.nan),
        slope=np.full((len(view), 2), np.nan),
    )
    state = places.state(points)
    for limit_px in _ROUNDS_PX:
        keep = fitting(state, seen, within_px=limit_px, least_angle_deg=_LEAST_ANGLE_DEG, shortest=_SHORTEST)
        seen = seen[keep]
        compact, renamed = renumbered(state, seen)
        state = adjust(compact, renamed, places.prior(compact), n_steps=15).state
        seen = renamed
    return places.moved_to(state), seen, state.points


def _sharpened(
    places: _Places, seen: Observations, points: np.ndarray, views: list[Photo]
) -> tuple[_Places, Observations, np.ndarray]:
    """Adjusted once more, to patches aligned between photographs; left at the features where too few align."""
    path_of = {(s, f): p.path for s, f, p in zip(places.sensor_of, places.frame_of, views, strict=True)}

    def read_grey(sensor: int, stop: int) -> Float32[np.ndarray, "v u"]:
        with opened_image(path_of[sensor, stop], "photograph") as image:
            return np.asarray(image.convert("L"), dtype=np.float32)

    state = places.state(points)
    pixel, aligned = sharpen(state, seen, read_grey)
    sharp = replace(seen, pixel=pixel, sigma=np.full(len(seen), _PATCH_SIGMA_PX))[aligned]
    keep = fitting(state, sharp, within_px=_ROUNDS_PX[-1], least_angle_deg=_LEAST_ANGLE_DEG, shortest=_SHORTEST)
    n_now, n_before = (np.unique(s.sensor * len(views) + s.stop, return_counts=True)[1] for s in (sharp[keep], seen))
    if len(n_now) < len(n_before) or n_now.min() < 2 * LEAST_OBSERVATIONS:
        return places, seen, points
    state, sharp = renumbered(state, sharp[keep])
    state = adjust(state, sharp, places.prior(state), n_steps=15).state
    return places.moved_to(state), sharp, state.points


def _collected(
    places: _Places, views: list[Photo], seen: Observations, points: np.ndarray, off_px: np.ndarray
) -> Settled:
    view_at = {(s, f): i for i, (s, f) in enumerate(zip(places.sensor_of, places.frame_of, strict=True))}
    view = np.array([view_at[s, f] for s, f in zip(seen.sensor, seen.stop, strict=True)], dtype=np.int64)
    enough = np.bincount(view, minlength=len(views)) >= LEAST_OBSERVATIONS
    new_index = np.cumsum(enough) - 1
    kept = enough[view]
    count = np.maximum(np.bincount(seen.point, minlength=len(points)), 1)
    error = np.bincount(seen.point, off_px, minlength=len(points)) / count
    f, aspect = places.intrinsics[:, 0], places.intrinsics[:, 1]
    eight = np.concatenate([f[:, None], (f * aspect)[:, None], places.intrinsics[:, 2:8]], axis=1)
    return Settled(
        names=tuple(p.name for p, ok in zip(views, enough, strict=True) if ok),
        cam_from_world=places.cam_from_world[enough],
        intrinsics=dict(zip(places.sensors, eight, strict=True)),
        points=points,
        rgb=_colors(views, view, seen, len(points)),
        error_px=error.astype(np.float32),
        tracks=np.stack([seen.point[kept], new_index[view[kept]]], axis=1),
        track_xy=seen.pixel[kept].astype(np.float32),
        mean_error_px=float(off_px.mean()),
        unsupported=tuple(p.name for p, ok in zip(views, enough, strict=True) if not ok),
    )


def _colors(views: list[Photo], view: np.ndarray, seen: Observations, n_points: int) -> UInt8[np.ndarray, "points 3"]:
    """The colour of every point in the first photograph that shows it."""
    first = np.unique(seen.point, return_index=True)[1]
    rgb = np.zeros((n_points, 3), dtype=np.uint8)
    for i in np.unique(view[first]):
        with opened_image(views[i].path, "photograph") as image:
            pixels = np.asarray(image.convert("RGB"))
        own = first[view[first] == i]
        u = np.clip(seen.pixel[own, 0].astype(int), 0, pixels.shape[1] - 1)
        v = np.clip(seen.pixel[own, 1].astype(int), 0, pixels.shape[0] - 1)
        rgb[seen.point[own]] = pixels[v, u]
    return rgb
