"""Parts of `larq_clip.callbacks`."""
