"""Each layout is read back as its consumer does; labels must then match the closed form of an unsymmetric box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image as PillowImage

from neuralrecon.capture import Capture, Frame, Image, Sensor, SensorKind
from neuralrecon.errors import ConfigError, MeshError
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.label import (
    LabelConfig,
    Layout,
    OccupancyLabels,
    Sight,
    Solid,
    Truth,
    View,
    write_deep_sdf,
    write_if_net,
    write_labels,
    write_occupancy_networks,
    write_shape_completion,
)

SIZE, CENTRE = np.array([0.1, 0.2, 0.3]), np.array([0.02, -0.03, 0.15])
N = 2001  # no multiple of eight: packed bits end in the middle of a byte


def box() -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=SIZE)
    mesh.apply_translation(CENTRE)
    return mesh


def inside_box(points_in_world: np.ndarray) -> np.ndarray:
    return (np.abs(points_in_world - CENTRE) < SIZE / 2).all(axis=1)


def check_inside(occupancies: np.ndarray, points_in_world: np.ndarray) -> None:
    """float16 has points exactly on the box's top and bottom, which belong to neither side."""
    off = np.abs(np.abs(points_in_world - CENTRE) - SIZE / 2).min(axis=1) > 1e-9
    np.testing.assert_array_equal(occupancies[off], inside_box(points_in_world)[off])


def from_above() -> View:
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    camera = Camera(width=160, height=128, fx=200.0, fy=200.0, cx=80.0, cy=64.0)
    centre = torch.tensor([0.02, -0.03, 0.9], dtype=torch.float64)
    return View(camera=camera, cam_from_world=Rigid(rotation=rotation, translation=-(rotation @ centre)))


@pytest.fixture
def truth() -> Truth:
    return Truth(solid=Solid.of(box()), sight=Sight(views=[from_above()], table_z_m=0.0))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def in_metres(arrays, points: np.ndarray) -> np.ndarray:
    return points.astype(np.float64) * arrays["scale"] + arrays["loc"]


def check_observed(points_in_world: np.ndarray, observed: np.ndarray) -> None:
    """From above one sees what is above the box's top, and nothing in the box or below the table."""
    assert observed.dtype == bool
    column = (np.abs(points_in_world[:, :2] - CENTRE[:2]) < SIZE[:2] / 4).all(axis=1)
    above, deep = points_in_world[:, 2] > 0.3, points_in_world[:, 2] < 0.297
    low_enough = points_in_world[:, 2] < 0.6
    assert observed[column & above & low_enough].all()
    assert not observed[column & deep].any()
    assert not observed[points_in_world[:, 2] < -0.003].any()


def read_occupancy_networks(path, unpackbits: bool):
    """PointsField of Occupancy Networks and ConvONet, with transforms."""
    arrays = np.load(path)
    points = arrays["points"]
    if points.dtype == np.float16:  # to break symmetry
        points = points.astype(np.float32) + 1e-4 * np.random.default_rng(0).normal(size=points.shape)
    occupancies = arrays["occupancies"]
    if unpackbits:
        occupancies = np.unpackbits(occupancies)[: len(points)]
    loc, scale = arrays["loc"].astype(np.float32), arrays["scale"].astype(np.float32)
    return points.astype(np.float32), occupancies.astype(np.float32), loc, scale


def test_occupancy_networks_points(truth, tmp_path):
    write_occupancy_networks(truth, tmp_path, n_points=N, half_precision=False, rng=rng())
    points, occupancies, loc, scale = read_occupancy_networks(tmp_path / "points.npz", unpackbits=True)
    assert points.shape == (N, 3)
    assert set(np.unique(occupancies)) == {0.0, 1.0}
    assert np.abs(points).max() <= 0.55
    np.testing.assert_allclose(np.abs(points).max(axis=0), 0.55, atol=0.005)
    np.testing.assert_allclose([*loc, scale], [*CENTRE, 0.3], atol=1e-7)
    with np.load(tmp_path / "points.npz") as arrays:
        in_world = in_metres(arrays, arrays["points"])
        np.testing.assert_array_equal(occupancies == 1, inside_box(in_world))
        check_observed(in_world, arrays["observed"])


def test_half_precision_points_are_labelled_as_rounded(truth, tmp_path):
    write_occupancy_networks(truth, tmp_path, n_points=100_000, half_precision=True, rng=rng())
    with np.load(tmp_path / "points.npz") as arrays:
        assert arrays["points"].dtype == np.float16
        occupancies = np.unpackbits(arrays["occupancies"])[:100_000] == 1
        check_inside(occupancies, in_metres(arrays, arrays["points"]))
    drawn = rng().uniform(-0.55, 0.55, (100_000, 3))
    assert (inside_box(drawn * 0.3 + CENTRE) != occupancies).any()  # the canary: rounding does matter


def test_occupancy_networks_pointcloud(truth, tmp_path):
    write_occupancy_networks(truth, tmp_path, n_points=N, half_precision=False, rng=rng())
    with np.load(tmp_path / "pointcloud.npz") as arrays:
        points, normals = arrays["points"].astype(np.float32), arrays["normals"].astype(np.float32)
        offset = (in_metres(arrays, points) - CENTRE) / (SIZE / 2)
    axis = np.abs(normals).argmax(axis=1)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    # On the face that the normal names, and on its outer side.
    np.testing.assert_allclose(np.take_along_axis(offset, axis[:, None], 1)[:, 0], np.sign(normals).sum(1), atol=1e-5)
    assert np.abs(offset).max() < 1 + 1e-5


def test_if_net(truth, tmp_path):
    write_if_net(truth, tmp_path, n_points=N, rng=rng())
    spread = {}
    for sigma in [0.1, 0.01]:  # the loader formats the numbers of its configuration
        arrays = np.load(f"{tmp_path}/boundary_{sigma}_samples.npz")
        points = np.array(arrays["points"], dtype=np.float32)
        coords = np.array(arrays["grid_coords"], dtype=np.float32)
        occupancies = np.array(arrays["occupancies"], dtype=np.float32)
        assert arrays["occupancies"].shape == (N,)  # not packed: the loader picks by index
        # grid_sample addresses a grid [x, y, z] by (z, y, x) in [-1, 1].
        np.testing.assert_array_equal(coords[:, 0], 2 * points[:, 2])
        np.testing.assert_array_equal(coords[:, 1], 2 * points[:, 1])
        np.testing.assert_array_equal(coords[:, 2], 2 * points[:, 0])
        in_world = in_metres(arrays, points)
        np.testing.assert_array_equal(occupancies == 1, inside_box(in_world))
        assert not np.array_equal(occupancies == 1, inside_box(in_metres(arrays, points[:, ::-1])))
        check_observed(in_world, arrays["observed"])
        q = np.abs(in_world - CENTRE) - SIZE / 2
        distance = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
        spread[sigma] = np.sqrt((distance**2).mean()) / 0.3
    assert spread[0.01] == pytest.approx(0.01, rel=0.06)
    assert 0.05 < spread[0.1] < 0.1


def test_deep_sdf(truth, tmp_path):
    names = {"data_set": "neuralrecon", "category": "boxes", "name": "box"}
    write_deep_sdf(truth, tmp_path, **names, n_points=N, rng=rng())
    arrays = np.load(tmp_path / "SdfSamples" / "neuralrecon" / "boxes" / "box.npz")
    pos, neg = torch.from_numpy(arrays["pos"]), torch.from_numpy(arrays["neg"])
    assert pos.dtype == neg.dtype == torch.float32
    assert len(pos) + len(neg) == N
    assert bool((pos[:, 3] > 0).all())
    assert bool((neg[:, 3] <= 0).all())
    # Its evaluation goes back to metres by the normalisation's two numbers.
    normalisation = np.load(tmp_path / "NormalizationParameters" / "neuralrecon" / "boxes" / "box.npz")
    rows = np.concatenate([pos.numpy(), neg.numpy()])
    in_world = rows[:, :3] / normalisation["scale"] - normalisation["offset"]
    np.testing.assert_allclose(in_world, in_metres(arrays, rows[:, :3]), atol=1e-6)
    q = np.abs(in_world - CENTRE) - SIZE / 2
    sdf = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
    np.testing.assert_allclose(rows[:, 3] / normalisation["scale"], sdf, atol=1e-6)
    vertices = (box().vertices + normalisation["offset"]) * normalisation["scale"]
    assert np.linalg.norm(vertices, axis=1).max() == pytest.approx(1 / 1.03)
    check_observed(in_metres(arrays, arrays["pos"][:, :3]), arrays["observed_pos"])
    assert len(arrays["observed_neg"]) == len(neg)


def test_shape_completion(truth, tmp_path):
    write_shape_completion(truth, tmp_path, n_points=N, rng=rng())
    stems = ["uniform_random", "surface_random", *(f"uniform_sphere_{i}" for i in range(6))]
    extents = {}
    for stem in stems:
        arrays = np.load(tmp_path / "samples" / f"{stem}.npz")
        points, occupancies = arrays["points"], np.unpackbits(arrays["occupancies"]).astype(bool)
        assert points.dtype == np.float16
        assert len(points) == len(occupancies) == 2008  # the loader does not cut the last byte's padding off
        in_world = in_metres(arrays, points)
        check_inside(occupancies, in_world)
        check_observed(in_world, arrays["observed"])
        extents[stem] = np.linalg.norm(points.astype(np.float64), axis=1).max()
    radii = [extents[f"uniform_sphere_{i}"] for i in range(6)]
    np.testing.assert_allclose(radii, [1, 2, 5, 10, 20, 50], rtol=2e-3)
    surface = np.load(tmp_path / "samples" / "surface.npz")
    offset = np.abs(in_metres(surface, surface["points"]) - CENTRE) / (SIZE / 2)
    # float16 in the unit cube: 2.4e-4 at most, a sixth of the shortest half side.
    np.testing.assert_allclose(offset.max(axis=1), 1, atol=2e-3)
    assert surface["normals"].shape == (2008, 3)


def test_without_views_no_observed_key(tmp_path):
    write_if_net(Truth(solid=Solid.of(box())), tmp_path, n_points=10, rng=rng())
    with np.load(tmp_path / "boundary_0.1_samples.npz") as arrays:
        assert set(arrays.files) == {"points", "grid_coords", "occupancies", "loc", "scale"}


@pytest.fixture
def capture(tmp_path) -> Capture:
    """One photograph's camera and one depth map, both from above; the box's top is 0.6 m away."""
    view, root = from_above(), tmp_path / "capture"
    root.mkdir()
    u, v = np.meshgrid(np.arange(160) + 0.5, np.arange(128) + 0.5)
    top = (np.abs(u - 80) / 200 * 0.6 < 0.05) & (np.abs(v - 64) / 200 * 0.6 < 0.1)
    PillowImage.fromarray(np.where(top, 600, 900).astype(np.uint16)).save(root / "depth_0.png")
    sensors = tuple(
        Sensor(
            name=kind.value,
            kind=kind,
            camera=view.camera,
            sensor_from_rig=view.cam_from_world,
            metres_per_unit=1e-3 if kind == SensorKind.depth else None,
        )
        for kind in SensorKind
    )
    images = (
        Image(sensor="color", frame="0", path=root / "color_0.jpg"),
        Image(sensor="depth", frame="0", path=root / "depth_0.png"),
    )
    frame = Frame(name="0", rig_from_world=Rigid.identity())
    return Capture(name="box", root=root, layout="test", sensors=sensors, frames=(frame,), images=images)


def test_the_stage_writes_everything(capture, tmp_path):
    config = LabelConfig(n_points=500, n_points_deep_sdf=500, category="boxes")
    summary = write_labels(box(), tmp_path / "labels", config, name="box", capture=capture, seed=3)
    files = {str(p.relative_to(tmp_path / "labels")) for p in (tmp_path / "labels").rglob("*") if p.is_file()}
    spheres = {f"shape_completion/boxes/box/samples/uniform_sphere_{i}.npz" for i in range(6)}
    assert files == spheres | {
        "labels.npz",
        "occupancy_networks/boxes/box/points.npz",
        "occupancy_networks/boxes/box/pointcloud.npz",
        "if_net/boxes/box/boundary_0.1_samples.npz",
        "if_net/boxes/box/boundary_0.01_samples.npz",
        "deep_sdf/SdfSamples/neuralrecon/boxes/box.npz",
        "deep_sdf/NormalizationParameters/neuralrecon/boxes/box.npz",
        "shape_completion/boxes/box/samples/surface.npz",
        "shape_completion/boxes/box/samples/uniform_random.npz",
        "shape_completion/boxes/box/samples/surface_random.npz",
        "partial/depth_0.npz",
    }
    assert (summary.n_files, summary.n_partial_clouds) == (len(files), 1)
    labels = OccupancyLabels.load(tmp_path / "labels" / "labels.npz")
    np.testing.assert_array_equal(labels.occupancy, inside_box(labels.points_in_world.astype(np.float64)))
    assert labels.observed is not None
    check_observed(labels.points_in_world, labels.observed)
    assert summary.observed_share == labels.observed[:500].mean()
    assert summary.occupied_share == labels.occupancy[:500].mean()
    with np.load(tmp_path / "labels" / "partial" / "depth_0.npz") as cloud:
        np.testing.assert_allclose(cloud["cleaned"][:, 2], 0.3, atol=1e-6)
        assert len(cloud["cleaned"]) > 1000


def test_the_stage_repeats_itself_bit_for_bit(tmp_path):
    config = LabelConfig(n_points=64, n_points_deep_sdf=64)
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_labels(box(), tmp_path / folder, config, name="box", seed=seed)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.npz")]
    assert len(files) == 16
    for file in files:
        first, again, other = (dict(np.load(tmp_path / folder / file)) for folder in "abc")
        for key in first:
            np.testing.assert_array_equal(first[key], again[key])
        assert file.parts[1:2] == ("NormalizationParameters",) or any(
            not np.array_equal(first[key], other[key]) for key in first
        )


def test_one_layout_alone_and_an_open_mesh(tmp_path):
    config = LabelConfig(n_points=8, layouts=[Layout.if_net])
    write_labels(box(), tmp_path / "one", config, name="box")
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["if_net", "labels.npz"]
    mesh = box()
    mesh.update_faces(np.arange(12) > 0)
    with pytest.raises(MeshError, match="closed"):
        write_labels(mesh, tmp_path / "none", config, name="box")
    assert not (tmp_path / "none").exists()


def test_settings_that_make_no_labels():
    with pytest.raises(ConfigError, match="counts must be 1 or more"):
        LabelConfig(n_points=0)
    with pytest.raises(ConfigError, match="lengths positive"):
        LabelConfig(sigma_m=-0.001)
