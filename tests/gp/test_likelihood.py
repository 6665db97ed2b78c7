import gpytorch
import pytest
import torch
from gpytorch.constraints import GreaterThan, Positive
from torch.distributions import LogNormal

from gpbo.gp.hypers import MEAN_VAR, NOISE_FLOOR, prior
from gpbo.gp.likelihood import derivatives, evaluate, make_problem
from gpbo.kernels import NUS

SMOOTHNESS = pytest.mark.parametrize("nu", NUS)
FEW = 24  # observations


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def example(n=FEW, d=3, *, nu=2.5, groups=None, device="cpu", seed=0):
    """A smooth function with a little noise, and hyper-parameters that are not its optimum."""
    groups = torch.arange(d) if groups is None else groups
    phi = draws(n, len(groups), seed=seed)
    y = torch.sin(5 * phi).sum(-1) + 0.1 * torch.special.ndtri(draws(n, seed=seed + 1))
    y = (y - y.mean()) / y.std()
    problem = make_problem(phi.to(device), groups.to(device), y.to(device), d, nu)
    theta = torch.cat([torch.linspace(-0.9, 0.6, d).double(), torch.tensor([-4.0, 0.3]).double()])
    return problem, theta.to(device)


class Oracle(gpytorch.models.ExactGP):
    """The same model in gpytorch, its raw parameters being the logarithms."""

    def __init__(self, phi, y, nu):
        noise = GreaterThan(NOISE_FLOOR, transform=torch.exp, inv_transform=torch.log)
        super().__init__(phi, y, gpytorch.likelihoods.GaussianLikelihood(noise_constraint=noise))
        log = Positive(transform=torch.exp, inv_transform=torch.log)
        matern = gpytorch.kernels.MaternKernel(nu=nu, ard_num_dims=phi.shape[-1], lengthscale_constraint=log)
        self.mean_module = gpytorch.means.ZeroMean()
        self.scaled = gpytorch.kernels.ScaleKernel(matern, outputscale_constraint=log)
        constant = gpytorch.kernels.ConstantKernel()
        self.covar_module = self.scaled + constant
        self.double()
        constant.constant = torch.tensor(MEAN_VAR, dtype=torch.float64)

    def forward(self, phi):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(phi), self.covar_module(phi))


def oracle_value_and_gradient(problem, theta):
    """The negative log posterior by ExactMarginalLogLikelihood, the priors written out on the logarithms."""
    d, F = problem.d, len(problem.groups)
    model = Oracle(problem.phi, problem.y, problem.nu)
    model.scaled.base_kernel.raw_lengthscale.data = theta[problem.groups].reshape(1, F)
    model.likelihood.noise_covar.raw_noise.data = theta[d].reshape(1)
    model.scaled.raw_outputscale.data = theta[d + 1].clone()
    model.train()
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    value = -mll(model(problem.phi), problem.y) * problem.n
    value.backward()
    by_feature = model.scaled.base_kernel.raw_lengthscale.grad.flatten()
    lengthscales = torch.zeros(d, dtype=theta.dtype).index_add_(0, problem.groups, by_feature)
    slope = torch.cat(
        [
            lengthscales,
            model.likelihood.noise_covar.raw_noise.grad,
            model.scaled.raw_outputscale.grad[None],
        ]
    )
    centre, spread = prior(d, theta.device)
    value = value.detach() + 0.5 * ((theta - centre) / spread).square().sum()
    return value, slope + (theta - centre) / spread**2


GROUPS = pytest.mark.parametrize("groups", [[0, 1, 2], [0, 1, 1, 2, 0, 2, 2]], ids=["single", "grouped"])


@SMOOTHNESS
@GROUPS
def test_value_and_gradient_equal_gpytorch(nu, groups):
    problem, theta = example(nu=nu, groups=torch.tensor(groups))
    at = evaluate(problem, theta.unsqueeze(0))
    value, slope = oracle_value_and_gradient(problem, theta)
    # gpytorch's distances of equal points cost it digits at nu = 1/2
    assert at.value.item() == pytest.approx(value.item(), rel=1e-8 if nu == 0.5 else 1e-10)
    tolerance = 1e-6 if nu == 0.5 else 1e-8
    assert torch.allclose(derivatives(problem, at)[0][0], slope, rtol=10 * tolerance, atol=tolerance)


def covariance_by_definition(problem, theta):
    """C from the n x n x d differences, for torch.func to differentiate."""
    d, n = problem.d, problem.n
    Z = problem.phi * torch.exp(-theta[:d])[problem.groups]
    r2 = (Z.unsqueeze(0) - Z.unsqueeze(1)).square().sum(-1)
    apart = r2.detach() > 0
    r = torch.where(apart, torch.where(apart, r2, 1.0).sqrt(), 0.0)
    a = (2 * problem.nu) ** 0.5 * r
    polynomial = {0.5: 1.0, 1.5: 1 + a, 2.5: 1 + a + a * a / 3}[problem.nu]
    eye = torch.eye(n, dtype=theta.dtype)
    return theta[d + 1].exp() * polynomial * torch.exp(-a) + (theta[d].exp() + NOISE_FLOOR) * eye + MEAN_VAR


def by_definition(problem, theta):
    """The negative log posterior, for torch.func to differentiate."""
    C = covariance_by_definition(problem, theta)
    marginal = torch.distributions.MultivariateNormal(torch.zeros_like(problem.y), C)
    centre, spread = prior(problem.d, theta.device)
    return -marginal.log_prob(problem.y) + 0.5 * ((theta - centre) / spread).square().sum()


def average_by_definition(problem, theta):
    """The mean of the Hessian and of its expectation, without the products of two lengthscales' distances."""
    C = covariance_by_definition(problem, theta)
    slopes = torch.func.jacrev(lambda t: covariance_by_definition(problem, t))(theta)
    P = torch.linalg.inv(C)
    products = torch.einsum("ab,bci->aci", P, slopes)
    expected = 0.5 * torch.einsum("abi,baj->ij", products, products)
    precision = torch.diag(prior(problem.d, theta.device)[1] ** -2)
    H = torch.func.hessian(lambda t: by_definition(problem, t))(theta)
    average = 0.5 * (H - precision + expected) + precision
    d, alpha = problem.d, P @ problem.y

    def weighted(t):
        return ((P - alpha.outer(alpha)) * covariance_by_definition(problem, t)).sum()

    own = torch.diag(-2.0 * torch.func.grad(weighted)(theta)[:d])
    average[:d, :d] -= 0.25 * (torch.func.hessian(weighted)(theta)[:d, :d] - own)
    return average


@SMOOTHNESS
@GROUPS
def test_value_gradient_and_curvature_equal_their_definition(nu, groups):
    problem, theta = example(nu=nu, groups=torch.tensor(groups))
    at = evaluate(problem, theta.unsqueeze(0))
    g, A = derivatives(problem, at)
    assert at.value.item() == pytest.approx(by_definition(problem, theta).item(), rel=1e-12)
    slope = torch.func.jacrev(lambda t: by_definition(problem, t))(theta)
    assert torch.allclose(g[0], slope, rtol=1e-9, atol=1e-9)
    assert torch.allclose(A[0], average_by_definition(problem, theta), rtol=1e-8, atol=1e-8)


def test_rows_of_values_are_problems_of_their_own():
    problem, theta = example()
    Y = torch.stack([problem.y, problem.y.roll(1), problem.y.square()])
    several = make_problem(problem.phi, problem.groups, Y, 3, 2.5)
    at = evaluate(several, theta.expand(3, -1))
    g, A = derivatives(several, at)
    for k, y in enumerate(Y):
        alone = make_problem(problem.phi, problem.groups, y, 3, 2.5)
        one = evaluate(alone, theta.unsqueeze(0))
        g_alone, A_alone = derivatives(alone, one)
        assert torch.allclose(at.value[k], one.value[0], rtol=1e-12)
        assert torch.allclose(g[k], g_alone[0], rtol=1e-9, atol=1e-9)
        assert torch.allclose(A[k], A_alone[0], rtol=1e-8, atol=1e-8)
    assert torch.equal(several.take(torch.tensor([2])).y, Y[2:])


def test_two_values_differ_as_the_named_log_normal_priors_do():
    problem, first = example(d=2)
    second = first + torch.tensor([0.5, -0.7, 1.1, 0.2], dtype=torch.float64)
    at = evaluate(problem, torch.stack([first, second]))

    def prior_only(theta):
        lengthscale = LogNormal(2**0.5 + 0.5 * torch.tensor(2.0).double().log(), 3**0.5)
        named = lengthscale.log_prob(theta[:2].exp()).sum()
        named += LogNormal(torch.tensor(-4.0).double(), 1.0).log_prob(theta[2].exp())
        return named + LogNormal(torch.tensor(0.0).double(), 0.5).log_prob(theta[3].exp())

    def likelihood_only(theta):
        centre, spread = prior(2, theta.device)
        value = oracle_value_and_gradient(problem, theta)[0]
        return value - 0.5 * ((theta - centre) / spread).square().sum()

    expected = likelihood_only(second) - prior_only(second)
    expected -= likelihood_only(first) - prior_only(first)
    assert (at.value[1] - at.value[0]).item() == pytest.approx(expected.item(), rel=1e-6)


def differences(function, theta, h=1e-5):
    """Central differences along each element of theta."""
    step = h * torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
    return torch.stack([(function(theta + e) - function(theta - e)) / (2 * h) for e in step])


@SMOOTHNESS
@GROUPS
def test_the_gradient_equals_finite_differences(device, nu, groups):
    problem, theta = example(nu=nu, groups=torch.tensor(groups), device=device)
    found = derivatives(problem, evaluate(problem, theta.unsqueeze(0)))[0][0]
    expected = differences(lambda t: evaluate(problem, t.unsqueeze(0)).value[0], theta)
    assert torch.allclose(found, expected, rtol=1e-7, atol=1e-7)


@SMOOTHNESS
def test_duplicated_points_leave_the_derivatives_right(nu):
    # Rounding puts some equal points 1e-8 apart; at nu = 1/2 the slope there is 1e8.
    _, theta = example(nu=nu)
    phi = draws(12, 3, seed=5).repeat(2, 1)
    y = torch.sin(4 * phi).sum(-1) + 0.1 * draws(24, seed=6)
    problem = make_problem(phi, torch.arange(3), (y - y.mean()) / y.std(), 3, nu)
    g, A = derivatives(problem, evaluate(problem, theta.unsqueeze(0)))
    exact = torch.func.jacrev(lambda t: by_definition(problem, t))(theta)
    assert torch.allclose(g[0], exact, rtol=1e-4, atol=1e-4)
    assert torch.allclose(A[0], average_by_definition(problem, theta), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [FEW, 200])
def test_a_batch_of_starts_equals_one_at_a_time(device, n):
    problem, theta = example(n=n, device=device)
    batch = theta + torch.linspace(-1, 1, 4, dtype=torch.float64, device=device).unsqueeze(-1)
    together = evaluate(problem, batch)
    g, A = derivatives(problem, together)
    for i, row in enumerate(batch):
        alone = evaluate(problem, row.unsqueeze(0))
        g_alone, A_alone = derivatives(problem, alone)
        assert torch.allclose(together.value[i], alone.value[0], rtol=1e-12)
        assert torch.allclose(g[i], g_alone[0], rtol=1e-9, atol=1e-9)
        assert torch.allclose(A[i], A_alone[0], rtol=1e-8, atol=1e-8)


def test_shifted_features_are_the_same_problem():
    groups = torch.arange(3)
    problem, theta = example()
    moved = make_problem(problem.phi + 1000.0, groups, problem.y, 3, 2.5)
    assert evaluate(moved, theta.unsqueeze(0)).value.item() == pytest.approx(
        evaluate(problem, theta.unsqueeze(0)).value.item(), rel=1e-9
    )


def test_a_feature_that_never_varies_leaves_its_lengthscale_to_the_prior():
    phi = draws(FEW, 3, seed=0)
    phi[:, 1] = 0.5
    y = torch.sin(5 * phi[:, 0])
    problem = make_problem(phi, torch.arange(3), (y - y.mean()) / y.std(), 3, 2.5)
    centre, spread = prior(3, torch.device("cpu"))
    theta = centre + 0.3
    g, A = derivatives(problem, evaluate(problem, theta.unsqueeze(0)))
    assert g[0, 1].item() == pytest.approx((0.3 / spread[1] ** 2).item())
    expected = torch.zeros(5, dtype=torch.float64)
    expected[1] = spread[1] ** -2
    assert torch.allclose(A[0, 1], expected, atol=1e-12)


def test_where_the_covariance_has_no_factor_the_value_is_infinite():
    # Equal points at a noise of 1e-300 + floor and an outputscale of e^60: no factor in 64 bits.
    phi = torch.full((5, 1), 0.5, dtype=torch.float64)
    phi[0] = 0.1
    problem = make_problem(phi, torch.zeros(1, dtype=torch.long), torch.arange(5.0).double(), 1, 2.5)
    theta = torch.tensor([[0.0, -4.0, 0.0], [0.0, -700.0, 60.0]], dtype=torch.float64)
    value = evaluate(problem, theta).value
    assert torch.isfinite(value[0])
    assert value[1] == torch.inf
