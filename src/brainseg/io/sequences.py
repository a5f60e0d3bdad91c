"""What the channels of a slice are."""

CHANNELS = ["pre-contrast", "FLAIR", "post-contrast"]
FLAIR = CHANNELS.index("FLAIR")
