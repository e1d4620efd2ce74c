"""The engines' environments on this machine and in the images: locked, built, replaced."""
