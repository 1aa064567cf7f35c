"""The rewrites that lower an imported graph to one of the file; `larq_clip.converter.pipeline` orders them."""
