"""Moving faces with a known flow, in the layouts of the real datasets."""
