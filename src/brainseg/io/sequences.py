"""The MRI sequences in the channels of a slice, in order."""

CHANNELS = ["pre-contrast", "FLAIR", "post-contrast"]
FLAIR = CHANNELS.index("FLAIR")
