"""``mer inspect``: what lies in a dataset's folder, and a page with pictures of every clip."""
