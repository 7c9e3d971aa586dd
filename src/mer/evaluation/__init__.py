"""How good predictions are: scores of tables, the same scores as torchmetrics, and comparisons of models."""
