"""Tasks, recipes and containers on a worker; nothing here plans."""
