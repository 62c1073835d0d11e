"""Figures, drawn from records alone: nothing here trains, nothing here knows JAX."""
