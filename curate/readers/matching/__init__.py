"""Which picture belongs to which row, where a data set lists its pictures by names, addresses or numbers."""
