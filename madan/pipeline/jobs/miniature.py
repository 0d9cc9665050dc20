"""Rule miniature: draw a domain of the miniature world in its native layout."""

import zlib

from madan.miniature import writer
from madan.pipeline.artefacts import Drawn
from madan.pipeline.publishing import Job


def miniature(job: Job[Drawn]) -> None:
    """Draw the images and labels of a domain; domains that share a layout show other scenes."""
    drawn, domain = job.params.world(), job.artefact.domain
    layout = job.params.dataset(domain).layout
    images = {str(split): count for split, count in drawn.images[domain].items()}
    look = drawn.looks.get(domain)
    same = look or domain == layout
    seed = drawn.seed if same else drawn.seed + zlib.crc32(domain.encode())
    with job.publish() as out:
        writer.write(layout, out, images=images, size=drawn.size, seed=seed, look=look)
