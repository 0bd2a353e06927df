"""Pages to look at: one of a run, with everything in it, and one of a sweep."""

from .gallery import GalleryItem as GalleryItem
from .gallery import gallery_page as gallery_page
from .run_files import Run as Run
from .stage import write_report as write_report
