"""What happens to a loss while it is trained: measurements on a fixed batch of images."""

from adamlab.analysis.flattening import top_hessian_eigenvalue, trace

__all__ = ["top_hessian_eigenvalue", "trace"]
