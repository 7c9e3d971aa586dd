"""The architectures, one file each; a network is chosen by its file name."""
