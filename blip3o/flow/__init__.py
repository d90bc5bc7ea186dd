"""Rectified flow between image features and noise: path, timesteps, losses, samplers."""
