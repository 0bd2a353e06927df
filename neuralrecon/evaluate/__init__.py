"""Meshes, views and labels against the truth."""

from .depth import depth_residual_mm as depth_residual_mm
from .image import ImageReport as ImageReport
from .image import evaluate_image as evaluate_image
from .image import psnr_db as psnr_db
from .image import silhouette_iou as silhouette_iou
from .image import ssim as ssim
from .labels import LabelAgreement as LabelAgreement
from .labels import compare_labels as compare_labels
from .mesh import Closedness as Closedness
from .mesh import EvaluateConfig as EvaluateConfig
from .mesh import MeshReport as MeshReport
from .mesh import SurfaceScores as SurfaceScores
from .mesh import closedness as closedness
from .mesh import evaluate_mesh as evaluate_mesh
from .register import align as align
from .stage import evaluate_files as evaluate_files
from .stage import read_mesh as read_mesh
from .stage import write_report as write_report
