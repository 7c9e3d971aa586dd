"""Writes what is made of ``docs/``."""

from data_modules.cache import write_text
from experiments.diagrams import made

for path, text in made().items():
    write_text(path, text)
    print(path)
