"""Rigid alignment of points to a surface: point-to-plane ICP (Chen and Medioni 1992)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from ..geometry import Rigid
from ..label import Solid

_REACHES_M = (0.01, 0.005, 0.0025)
_MAX_STEPS = 60
_STILL = 1e-9
_FLAT = 1e-7


def align(points: Float[np.ndarray, "points 3"], surface: Solid) -> Rigid:
    """`surface_from_points`: the small rigid motion that brings the points onto the surface.

    Three rounds use pairs closer than 10, 5 and 2.5 mm, each until it stands still. Motions that the surface does not
    resist (a ball's rotation) are left at zero. The result is as good as the start: no search for far-off poses.
    """
    corners = surface.vertices[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    rotation, translation = np.eye(3), np.zeros(3)
    for reach in _REACHES_M:
        for _ in range(_MAX_STEPS):
            at = points @ rotation.T + translation
            distance, face, place = surface.closest(at)
            near = distance < reach
            if near.sum() < 6:
                break
            turn, shift, size = _step(at[near], place[near], normals[face[near]])
            rotation, translation = turn @ rotation, turn @ translation + shift
            if size < _STILL:
                break
    return Rigid(rotation=torch.from_numpy(rotation), translation=torch.from_numpy(translation))


def _step(points, targets, normals):
    """Gauss-Newton step of sum(n . (R p + t - q))^2, about the points' centre and scaled to their size."""
    centre = points.mean(axis=0)
    arms = points - centre
    radius = float(np.sqrt((arms**2).sum(axis=1).mean()))
    jacobian = np.concatenate([np.cross(arms, normals) / radius, normals], axis=1)
    residual = np.einsum("ij,ij->i", normals, targets - points)
    hessian = jacobian.T @ jacobian
    values, vectors = np.linalg.eigh(hessian)
    resisted = values > _FLAT * values[-1]
    step = (vectors[:, resisted] / values[resisted]) @ (vectors[:, resisted].T @ (jacobian.T @ residual))
    turn = Rotation.from_rotvec(step[:3] / radius).as_matrix()
    return turn, centre + step[3:] - turn @ centre, float(np.linalg.norm(step))
