"""What is measured with models: losses on fixed grids, drawn pictures, features."""
