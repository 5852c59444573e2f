"""Manifests in the forms that people have them: which clips there are, and what is said of them.

The form is recognised by the file's content, never by its name, and told; what fits none is refused.
docs/data.md shows a small file of each.
"""

from stav2a.data.manifests.captions import Captions
from stav2a.data.manifests.forms import Listed, Manifest, open_manifest

__all__ = ["Captions", "Listed", "Manifest", "open_manifest"]
