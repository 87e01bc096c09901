"""Pack the kept pairs into WebDataset tars; the same input gives the same bytes."""
