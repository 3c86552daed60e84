"""Models to characterise: architectures and sizes as data, built without weights or network."""
