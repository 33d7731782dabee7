"""Prompts about annotated photographs, and the data of the photograph model."""
