"""Frames before flow: faces are found and aligned, the head's motion is taken out, the apex is spotted."""
