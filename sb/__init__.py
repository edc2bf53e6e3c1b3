"""Secrets Bridge: a control plane for access to secrets that live somewhere else."""
