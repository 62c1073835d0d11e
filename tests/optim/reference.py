"""Float64 NumPy references of the optimizers, written from the papers and sharing no code with the library.

Parameters, gradients and updates are flat dicts of arrays. An inner optimizer is an object called as
inner(gradients, params) -> updates.
"""

import numpy as np


def dot(x, y, axes):
    return np.sum(x * y, axis=tuple(axes), keepdims=True)


class Sgd:
    """SGD with momentum; weight decay is added to the gradient, as in PyTorch."""

    def __init__(self, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.learning_rate, self.momentum, self.nesterov = learning_rate, momentum, nesterov
        self.weight_decay = weight_decay
        self.velocity = None

    def __call__(self, grads, params):
        grads = {k: g + self.weight_decay * params[k] for k, g in grads.items()}
        self.velocity = self.velocity or dict.fromkeys(grads, 0.0)
        self.velocity = {k: self.momentum * self.velocity[k] + g for k, g in grads.items()}
        step = {k: grads[k] + self.momentum * v for k, v in self.velocity.items()} if self.nesterov else self.velocity
        return {k: -self.learning_rate * s for k, s in step.items()}


class Adam:
    """Algorithm 1 of Kingma and Ba, 2017."""

    def __init__(self, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
        self.learning_rate, self.b1, self.b2, self.eps = learning_rate, b1, b2, eps
        self.t, self.m, self.v = 0, None, None

    def direction(self, grads):
        self.t += 1
        self.m, self.v = self.m or dict.fromkeys(grads, 0.0), self.v or dict.fromkeys(grads, 0.0)
        self.m = {k: self.b1 * self.m[k] + (1 - self.b1) * g for k, g in grads.items()}
        self.v = {k: self.b2 * self.v[k] + (1 - self.b2) * g**2 for k, g in grads.items()}
        m_hat = {k: m / (1 - self.b1**self.t) for k, m in self.m.items()}
        v_hat = {k: v / (1 - self.b2**self.t) for k, v in self.v.items()}
        return {k: m_hat[k] / (np.sqrt(v_hat[k]) + self.eps) for k in grads}

    def __call__(self, grads, params):
        return {k: -self.learning_rate * d for k, d in self.direction(grads).items()}


class Lamb(Adam):
    """Algorithm 2 of You et al., 2020, with phi(z) = z: Adam's direction at the length of the weights."""

    def __call__(self, grads, params):
        ratio = {}
        for k, d in (direction := self.direction(grads)).items():
            norm_w, norm_d = np.linalg.norm(params[k]), np.linalg.norm(d)
            ratio[k] = norm_w / norm_d if norm_w > 0 and norm_d > 0 else 1.0
        return {k: -self.learning_rate * ratio[k] * d for k, d in direction.items()}


class AdamP(Adam):
    """Algorithm 2 of Heo et al., 2021, with output units on the last axis."""

    def __init__(self, learning_rate, weight_decay=0.0, delta=0.1, wd_ratio=0.1, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.weight_decay, self.delta, self.wd_ratio = weight_decay, delta, wd_ratio

    def __call__(self, grads, params):
        updates = {}
        for k, d in self.direction(grads).items():
            ratio, w = 1.0, params[k]
            if np.ndim(w) > 1:
                for axes in (range(w.ndim - 1), range(w.ndim)):  # units, then the layer
                    length = np.sqrt(dot(grads[k], grads[k], axes) * dot(w, w, axes))
                    cosine = np.abs(dot(grads[k], w, axes)) / length
                    if cosine.max() < self.delta / np.sqrt(w.size / cosine.size):
                        d, ratio = d - dot(d, w, axes) / dot(w, w, axes) * w, self.wd_ratio
                        break
            updates[k] = -self.learning_rate * (d + self.weight_decay * ratio * w)
        return updates


def lawn(
    inner, params, gradients, *, free_steps, steps, unit_axis=None, project_update=False, at_switch=lambda tangent: None
):
    """Section 2 of the LAWN paper: trains freely, then with the norms of the kernels held. Yields the parameters.

    `at_switch` is called at the switch with the function that projects onto the tangent spaces; it may change `inner`.
    """
    kernels = [name for name, w in params.items() if np.ndim(w) >= 2]
    radius = {}

    def norm(w):
        return np.sqrt(dot(w, w, sphere_axes(w)))

    def sphere_axes(w):
        return [axis for axis in range(w.ndim) if unit_axis is None or axis != unit_axis % w.ndim]

    def tangent(vectors):
        unit = {k: params[k] / norm(params[k]) for k in kernels}
        normal = {k: dot(vectors[k], e, sphere_axes(e)) * e for k, e in unit.items()}
        return {k: v - normal.get(k, 0.0) for k, v in vectors.items()}

    for step in range(steps):
        grads = gradients(params, step)
        if step == free_steps:
            radius = {k: norm(params[k]) for k in kernels}
            at_switch(tangent)
        updates = inner(tangent(grads) if radius else grads, params)
        updates = tangent(updates) if radius and project_update else updates
        params = {k: w + updates[k] for k, w in params.items()}
        params = {k: radius[k] * w / norm(w) if k in radius else w for k, w in params.items()}
        yield params
