"""Trained networks that leave the suite: fitted on all subjects, written as a folder with a card."""
