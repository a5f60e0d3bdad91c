"""A network of a few thousand weights."""

from brainseg.config import Network

TINY = Network(
    name="unet",
    context=0,
    scaling="full",
    filters=4,
    depth=2,
    norm="batch",
    dropout=0.1,
    upsampling="transpose",
    stem=0,
)
