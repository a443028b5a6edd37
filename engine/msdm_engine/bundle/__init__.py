"""A bundle: its folder, its manifest, its plans, and how it is opened."""
