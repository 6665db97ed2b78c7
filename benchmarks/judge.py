"""The float64 judge: what gpytorch and BoTorch make of gpbo's fit, posterior and suggestion.

A time counts only beside a result that is as good. The judge holds the same kernel, priors and values as
gpbo's process, built from gpytorch's own parts, and states three gaps:

    fit_gap            nats by which the fit's objective is above the best that anybody reached
    variance_error     largest relative error of the posterior variance, also right beside the data
    acquisition_gap    acquisition value by which a suggestion is below a search from 4 096 starts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpbo.acquisition import Analytic, log_ei, ucb
from gpbo.acquisition.lbfgs import maximize_rows
from gpbo.acquisition.optimize import perturb
from gpbo.cube import Cube
from gpbo.gp import GP, Hypers
from gpbo.gp.fit import default_starts
from gpbo.gp.hypers import MEAN_VAR, NOISE_FLOOR, from_theta, prior
from gpbo.gp.likelihood import Point, Problem, evaluate, make_problem
from gpbo.gp.model import make_gp
from gpbo.kernels import Embedding, matern_and_slope, squared_distances

LIMITS = {
    "fit_gap": 1e-2,
    "variance_error": 1e-6,
    "acquisition_gap": 1e-3,
    "batch_gap": 2e-2,
    "residual": 1e-6,
}
_NEAR_STARTS = 512  # of the 4 096 starts
_STARTS = 4096
_SIFTING, _SIFTED, _ROUNDS = 10, 256, 100
_NOISY = 1e-2  # noise variance above which gpbo improves on a posterior mean
_DOUBTED_UNTIL = 256  # values; up to here one marked `explore` goes by lengthscales nearer to the prior
_BEST = 5  # rows with the largest values, on whose means such a one also improves
_EXPLORE_BETA = 9.0  # of one with more rows


def make_model(X: Tensor, z: Tensor, hypers: Hypers | None = None) -> Any:
    """BoTorch's `SingleTaskGP` with the kernel and the priors of gpbo, at the priors' modes or `hypers`.

    The constant mean that gpbo integrates out is gpytorch's `ConstantKernel`. A log-normal density of a
    hyper-parameter is a normal one of its logarithm, moved by the variance; so the priors are the same.
    """
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.kernels import ConstantKernel, MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.means import ZeroMean
    from gpytorch.priors import LogNormalPrior

    d = X.shape[1]
    centre, spread = prior(d, torch.device("cpu"))

    def parts(i: int, floor: float) -> tuple[Any, Any]:
        c, s = float(centre[i]), float(spread[i])
        mode = GreaterThan(floor, transform=None, initial_value=math.exp(c))
        return LogNormalPrior(c + s * s, s), mode

    (of_length, length), (of_noise, noise), (of_scale, scale) = (
        parts(0, 1e-4), parts(d, NOISE_FLOOR), parts(d + 1, 1e-4),
    )  # fmt: skip
    base = MaternKernel(nu=2.5, ard_num_dims=d, lengthscale_prior=of_length, lengthscale_constraint=length)
    scaled = ScaleKernel(base, outputscale_prior=of_scale, outputscale_constraint=scale)
    constant = ConstantKernel()
    constant.requires_grad_(False)
    model = SingleTaskGP(
        X,
        z.unsqueeze(-1),
        likelihood=GaussianLikelihood(noise_prior=of_noise, noise_constraint=noise),
        covar_module=scaled + constant,
        mean_module=ZeroMean(),
        outcome_transform=None,
    ).to(X)
    constant.constant = X.new_tensor(MEAN_VAR)  # in double precision, so after the move
    if hypers is not None:
        set_hypers(model, hypers)
    return model


def set_hypers(model: Any, hypers: Hypers) -> None:
    """Put hyper-parameters into a model of `make_model`."""
    scaled = model.covar_module.kernels[0]
    scaled.base_kernel.lengthscale = hypers.lengthscale
    scaled.outputscale = hypers.outputscale
    model.likelihood.noise = hypers.noise_var


def get_hypers(model: Any) -> Hypers:
    """The hyper-parameters of a model of `make_model`."""
    scaled = model.covar_module.kernels[0]
    return Hypers(
        scaled.base_kernel.lengthscale.detach().squeeze(0).clone(),
        model.likelihood.noise.detach().squeeze(0).clone(),
        scaled.outputscale.detach().clone(),
    )


def objective(X: Tensor, z: Tensor, hypers: Hypers) -> float:
    """The negative log posterior of hyper-parameters, in nats, as gpytorch computes it."""
    model = make_model(X, z, hypers).train()
    with torch.no_grad():
        log_likelihood = model.likelihood(model(*model.train_inputs)).log_prob(model.train_targets)
    centre, spread = prior(X.shape[1], X.device)
    return float(0.5 * ((hypers.theta - centre) / spread).square().sum() - log_likelihood)


def scipy_fit(cube: Cube, X: Tensor, z: Tensor, start: Tensor) -> Hypers:
    """The optimum that scipy's L-BFGS-B finds on gpbo's own objective and gradient."""
    from scipy.optimize import minimize

    embedding = Embedding(cube)
    problem = make_problem(embedding(X), embedding.groups.to(X.device), z, cube.d, 2.5)

    def function(theta: Any) -> tuple[float, Any]:
        at = evaluate(problem, torch.as_tensor(theta, dtype=X.dtype, device=X.device).unsqueeze(0))
        if not bool(at.value.isfinite()):
            return 1e25, 0.0 * theta
        return float(at.value), _gradient(problem, at).cpu().numpy()

    found = minimize(function, start.cpu().numpy(), jac=True, method="L-BFGS-B")
    return from_theta(torch.as_tensor(found.x, dtype=X.dtype, device=X.device))


def _gradient(problem: Problem, at: Point) -> Tensor:  # (p,)
    """The gradient alone, without the curvature that gpbo's own fit uses."""
    Z, alpha, d = at.Z[0], at.alpha[0], problem.d
    excess, outputscale = at.theta[0, d].exp(), at.theta[0, d + 1].exp()
    P = at.R[0].mT @ at.R[0]
    W = P - torch.outer(alpha, alpha)
    M = W * matern_and_slope(squared_distances(Z, Z), problem.nu)[1] * outputscale
    by_feature = (Z.square() * M.sum(-1, keepdim=True)).sum(0) - (Z * (M @ Z)).sum(0)
    by_scale = problem.n - (excess + NOISE_FLOOR) * W.trace() - MEAN_VAR * W.sum() - problem.y @ alpha
    slope = torch.zeros_like(problem.centre)
    slope[:d].index_add_(0, problem.groups, by_feature)
    slope[d:] = 0.5 * torch.stack([excess * W.trace(), by_scale])
    return slope + (at.theta[0] - problem.centre) * problem.precision


@dataclass(frozen=True, eq=False)
class Judge:
    """What is known about one process of gpbo, to be checked.

    Attributes:
        cube: The domain.
        X: (n, d) the observed points.
        z: (n,) the warped values that the process was given.
        hypers: The hyper-parameters it was given.
    """

    cube: Cube
    X: Tensor
    z: Tensor
    hypers: Hypers

    def fit_gap(self, others: Mapping[str, Hypers]) -> float:
        """Nats above the best of the others, and of L-BFGS-B from here and from the default start.

        Well above 1 000 points the default start is left out, for its time.
        """
        starts = [self.hypers.theta]
        if len(self.X) < 1100:
            starts.append(default_starts(self.cube.d, self.X.device)[0])
        rivals = [*others.values(), *(scipy_fit(self.cube, self.X, self.z, start) for start in starts)]
        best = min(objective(self.X, self.z, hypers) for hypers in rivals)
        return objective(self.X, self.z, self.hypers) - best

    def variance_error(self, gp: GP | None = None) -> float:
        """The largest relative error of the variance at random points and right beside the data.

        Args:
            gp: A process over the points X; by default one made from the hyper-parameters.
        """
        from gpytorch.settings import fast_pred_var

        gp = gp or make_gp(self.cube, self.X, self.z, self.hypers)
        random = torch.Generator().manual_seed(len(self.X))
        far = torch.rand(64, self.cube.d, dtype=self.X.dtype, generator=random).to(self.X.device)
        nearby = 1e-3 * torch.randn(64, self.cube.d, dtype=self.X.dtype, generator=random)
        points = torch.cat([far, (self.X[-64:] + nearby[: len(self.X)].to(self.X.device)).clamp(0.0, 1.0)])
        model = make_model(self.X, self.z, self.hypers).eval()
        with torch.no_grad(), fast_pred_var(False):
            expected = model(points).variance
        return float(((gp.marginal(points)[1] - expected) / expected).abs().max())

    def acquisition_gap(self, x: Tensor, *, explored: bool) -> float:
        """How far the acquisition value at x (d,) is below the best of 4 096 climbs, as BoTorch sees it."""
        from botorch.acquisition.analytic import LogExpectedImprovement, UpperConfidenceBound

        doubted = explored and len(self.X) <= _DOUBTED_UNTIL
        by_bound = explored and not doubted
        hypers = self.hypers.halfway_to_prior() if doubted else self.hypers
        gp = make_gp(self.cube, self.X, self.z, hypers)
        tops = self.X[self.z.topk(min(_BEST, len(self.z))).indices]
        best_f = self._best_f(make_gp(self.cube, self.X, self.z, self.hypers))
        best_f = max(best_f, float(gp.marginal(tops)[0].max())) if doubted else best_f
        best = self._search(ucb(gp, _EXPLORE_BETA) if by_bound else log_ei(gp, best_f), x)
        model = make_model(self.X, self.z, hypers).eval()
        acquisition = (
            UpperConfidenceBound(model, beta=_EXPLORE_BETA)
            if by_bound
            else LogExpectedImprovement(model, best_f)
        )
        with torch.no_grad():
            here, there = acquisition(torch.stack([x, best]).unsqueeze(1)).tolist()
        return max(0.0, there - here)

    def _best_f(self, gp: GP) -> float:
        if float(self.hypers.noise_var) < _NOISY:
            return float(self.z.max())
        return float(gp.marginal(self.X)[0].max())

    def _search(self, acquisition: Analytic, x: Tensor) -> Tensor:  # (d,)
        """All starts climb a few rounds, the best of them and x go on."""
        top = self.X[self.z.topk(min(5, len(self.z))).indices]
        draws = torch.Generator().manual_seed(0)
        starts = torch.cat(
            [
                self.cube.sobol(_STARTS - _NEAR_STARTS, 0).to(self.X),
                perturb(top, self.cube, _NEAR_STARTS, draws),
            ]
        )
        climb: Callable[..., Any] = maximize_rows
        scale = self.hypers.lengthscale
        sifted = climb(acquisition.value_and_gradient, starts, scale=scale, max_rounds=_SIFTING)
        rows = sifted.value.topk(_SIFTED).indices
        again = torch.cat([sifted.x[rows], x.unsqueeze(0)])
        tops = climb(acquisition.value_and_gradient, again, scale=scale, max_rounds=_ROUNDS)
        found: Tensor = tops.x[tops.value.argmax()]
        return found


def batch_value(X: Tensor, z: Tensor, hypers: Hypers, batch: Tensor) -> float:
    """The joint log expected improvement of a batch (q, d) over the best value, by BoTorch."""
    from botorch.acquisition.logei import qLogExpectedImprovement
    from botorch.sampling.normal import SobolQMCNormalSampler

    model = make_model(X, z, hypers).eval()
    sampler = SobolQMCNormalSampler(torch.Size([4096]), seed=0)
    with torch.no_grad():
        return float(qLogExpectedImprovement(model, best_f=z.max(), sampler=sampler)(batch.unsqueeze(0)))
