"""Inside and outside labels of a closed mesh, what of it was seen, and the files that other programs read."""

from .depth_inliers import DepthInliers as DepthInliers
from .depth_inliers import SensorInliers as SensorInliers
from .depth_inliers import depth_inliers as depth_inliers
from .depth_inliers import read_depth_inliers as read_depth_inliers
from .depth_inliers import write_depth_inliers as write_depth_inliers
from .evidence import surface_evidence as surface_evidence
from .layouts import Truth as Truth
from .layouts import write_deep_sdf as write_deep_sdf
from .layouts import write_if_net as write_if_net
from .layouts import write_occupancy_networks as write_occupancy_networks
from .layouts import write_shape_completion as write_shape_completion
from .observed import Sight as Sight
from .observed import View as View
from .observed import observed_by as observed_by
from .observed import views_of as views_of
from .occupancy import OccupancyLabels as OccupancyLabels
from .occupancy import Sampling as Sampling
from .occupancy import label_occupancy as label_occupancy
from .partial import PartialCloud as PartialCloud
from .partial import partial_cloud as partial_cloud
from .solid import Solid as Solid
from .stage import LabelConfig as LabelConfig
from .stage import LabelSummary as LabelSummary
from .stage import Layout as Layout
from .stage import write_labels as write_labels
