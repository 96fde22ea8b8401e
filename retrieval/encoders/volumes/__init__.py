"""Encoders of volumes: a recipe as data, resampling in the patient's axes, patches, and a tower for any 3D network."""
